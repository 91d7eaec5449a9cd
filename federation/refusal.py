"""Why a member does not sign an L1 transaction: one reason for each of its laws.      (pure)"""

from bridge.errors import Reason
from federation.errors import Refused


class RefusalReason(Reason):
    """Why this member does not sign."""

    HALTED = "refusal-halted"  # This member has latched a halt.
    NODE_BEHIND = "refusal-node-behind"  # Its own Bitcoin node is below the ledger's anchor.
    NOT_RECORDED = "refusal-not-recorded"  # No lineage of the final ledger holds this version.
    LINEAGE_CLOSED = "refusal-lineage-closed"  # The version's lineage is not open.
    UNKNOWN_KIND = "refusal-unknown-kind"  # The lineage is of no kind that is signed.
    MALFORMED_TRANSACTION = "refusal-malformed-transaction"  # The recorded bytes are no stripped transaction.
    WRONG_TXID = "refusal-wrong-txid"  # The recorded bytes have another txid than recorded.
    WRONG_FORM = "refusal-wrong-form"  # Version, scriptSigs, sequences or lock time are not a batch's.
    NO_SUPERSET = "refusal-no-superset"
    """Some version of the lineage does not spend all that the one before it spends: two of them could confirm."""
    REPEATED_INPUT = "refusal-repeated-input"  # An input stands twice.
    INPUT_NOT_IN_LINEAGE = "refusal-input-not-in-lineage"  # An input is none of the lineage's.
    INPUT_NOT_A_COIN = "refusal-input-not-a-coin"  # An input is no coin of the ledger.
    INPUT_NOT_LOCKED = "refusal-input-not-locked"  # An input's coin is free.
    INPUT_LOCKED_ELSEWHERE = "refusal-input-locked-elsewhere"  # Another open lineage locks or names an input's coin.
    NO_RESERVE_SCRIPT = "refusal-no-reserve-script"  # A coin's epoch, or the version's, has no policy.
    WRONG_PAYEE_COUNT = "refusal-wrong-payee-count"
    """A payout without payees, maintenance with some, or fewer outputs than payees."""
    PAYEE_TWICE = "refusal-payee-twice"  # A burn is paid twice.
    PAYEE_CLOSED = "refusal-payee-closed"  # A payee's burn was settled or refunded already.
    PAYEE_NOT_OWED = "refusal-payee-not-owed"  # A payee is no burn that is batched for this lineage.
    PAYEE_ELSEWHERE = "refusal-payee-elsewhere"  # Another open lineage pays a payee's burn too.
    PAYEE_SCRIPT = "refusal-payee-script"  # A payee's output pays another script than its burn says.
    PAYEE_SHARE = "refusal-payee-share"  # A payee bears less than nothing of the fee, or more than its max_fee.
    CHANGE_SCRIPT = "refusal-change-script"
    """A further output pays another script than the change script of the version's epoch."""
    CHANGE_BELOW_FLOOR = "refusal-change-below-floor"  # Change of less than `coin_floor_sats`.
    FEE_NOT_AS_RECORDED = "refusal-fee-not-as-recorded"  # Inputs less outputs are not the recorded fee.
    FEE_TOO_LOW = "refusal-fee-too-low"  # The fee is below what the feerate asks of the signed size.
    SHARES_TOO_HIGH = "refusal-shares-too-high"
    """The payees bear more than what the feerate asks, each share rounded up."""
    FUND_PART_DIFFERS = "refusal-fund-part-differs"
    """What the payees don't bear is not the recorded part of the fund, nor a deficit that maintenance may book."""
    FUND_PART_OVER_CAP = "refusal-fund-part-over-cap"  # The fund's part is above `lineage_fee_cap_sats`.
    FUND_NOT_RESERVED = "refusal-fund-not-reserved"
    """The lineage has not reserved the fund's part, or the open lineages have reserved more than the fund holds."""
    FEERATE_OUT_OF_RANGE = "refusal-feerate-out-of-range"  # The feerate is not within floor and ceiling.
    WITHDRAWAL_OVER_CAP = "refusal-withdrawal-over-cap"  # A payee's burn is above `max_withdrawal_sats`.
    TOO_LARGE = "refusal-too-large"  # More versions, inputs, payees or parts of change than a batch may have.
    NOT_DUE = "refusal-not-due"
    """By the ages of burns and coins, no first version was due when it was recorded, or by those of versions, or by
    their fees, no replacement.
    """
    NOT_AS_REBUILT = "refusal-not-as-rebuilt"
    """Made anew from the lineage's coins and payees and the recorded feerate, the transaction has other bytes."""
    LEDGER_UNEQUAL = "refusal-ledger-unequal"
    """The equality does not hold, or reserves or unsettled are not the sum of the coins, or of the withdrawals."""
    PEG_OVER_CAP = "refusal-peg-over-cap"  # The ledger's coins hold more than `max_peg_sats`.
    WINDOW_OVER_CAP = "refusal-window-over-cap"
    """Added up anew, more was burned within `withdrawal_window_anchors` than `max_window_withdrawals_sats`."""
    ALREADY_CONFIRMED = "refusal-already-confirmed"  # Its own Bitcoin node sees a version of this lineage confirmed.
    COIN_NOT_REPORTED = "refusal-coin-not-reported"  # Its own Bitcoin node was not asked about a coin.
    COIN_MISSING = "refusal-coin-missing"  # Its own Bitcoin node misses a coin that no recorded version spent.
    COIN_DIFFERS = "refusal-coin-differs"  # Its own Bitcoin node has the coin with another value or script.
    COIN_SPENT_IN_MEMPOOL = "refusal-coin-spent-in-mempool"
    """A transaction in its own node's mempool spends a coin, and is no version of the lineage that locks the coin."""


class SigningRefused(Refused):
    """This member does not sign. reason: RefusalReason."""
