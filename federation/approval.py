"""A signer's laws: what must hold before this member signs an L1 transaction.      (pure)

A signature on L1 can't be taken back. So what consensus checked when the batch was recorded is checked once more, from
two sources only: the ledger of the last *final* block, and what this member's own Bitcoin node says. Nothing that a
peer says counts. Anything but an ApprovedBatch is a refusal, and each refusal has its reason.

In this order: this member has not halted, and its node has reached the anchor; the version is recorded in an open
lineage, of which each version spends all that the one before it spends; its bytes are the transaction that its txid
names; each input is a coin of the reserve, locked by this lineage and by no other; the outputs pay this lineage's
payees and return the rest; fee and amounts are within the caps; and the own node holds every coin of the reserve, not
only those about to be spent, unless a recorded version has spent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from bridge.batch_form import BATCH_VERSION, REPLACEABLE_SEQUENCE
from bridge.bitcoin import amounts
from bridge.bitcoin.identifiers import OutPoint, Script, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.errors import Reason, Rejected
from bridge.ledger import LedgerView
from bridge.params import PegParams
from bridge.state import BatchKind, BatchVersion, Coin, Lineage, Withdrawal, WithdrawalStatus
from federation.errors import Refused
from federation.signing_plan import SigningPlan, plan_signing


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
    PAYEE_NOT_OWED = "refusal-payee-not-owed"  # A payee is no burn that is batched for this lineage.
    PAYEE_SCRIPT = "refusal-payee-script"  # A payee's output pays another script than its burn says.
    PAYEE_SHARE = "refusal-payee-share"  # A payee bears less than nothing of the fee, or more than its max_fee.
    CHANGE_SCRIPT = "refusal-change-script"
    """A further output pays another script than the change script of the version's epoch."""
    CHANGE_BELOW_FLOOR = "refusal-change-below-floor"  # Change of less than `coin_floor_sats`.
    FEE_NOT_AS_RECORDED = "refusal-fee-not-as-recorded"  # Inputs less outputs are not the recorded fee.
    FEE_TOO_LOW = "refusal-fee-too-low"  # The fee is below what the feerate asks of the signed size.
    SHARES_TOO_HIGH = "refusal-shares-too-high"
    """The payees bear more than what the feerate asks, each share rounded up."""
    FUND_PART_DIFFERS = "refusal-fund-part-differs"  # What the payees don't bear is not the recorded part of the fund.
    FUND_PART_OVER_CAP = "refusal-fund-part-over-cap"  # The fund's part is above `lineage_fee_cap_sats`.
    FEERATE_OUT_OF_RANGE = "refusal-feerate-out-of-range"  # The feerate is not within floor and ceiling.
    WITHDRAWAL_OVER_CAP = "refusal-withdrawal-over-cap"  # A payee's burn is above `max_withdrawal_sats`.
    ALREADY_CONFIRMED = "refusal-already-confirmed"  # Its own Bitcoin node sees a version of this lineage confirmed.
    COIN_NOT_REPORTED = "refusal-coin-not-reported"  # Its own Bitcoin node was not asked about a coin.
    COIN_MISSING = "refusal-coin-missing"  # Its own Bitcoin node misses a coin that no recorded version spent.
    COIN_DIFFERS = "refusal-coin-differs"  # Its own Bitcoin node has the coin with another value or script.


class SigningRefused(Refused):
    """This member does not sign. reason: RefusalReason."""


@dataclass(frozen=True, slots=True)
class ReserveFacts:
    """What this member knows of its own: its halt, and its Bitcoin node's view of the reserve at one moment.

    l1_height: of the active chain's tip.  halted: whether a halt is latched.
    unspent: every coin of the ledger with its output in the active chain's UTXO set, or None when it is not there.
    (What only waits in the mempool does not count: a recorded version may wait there, and a foreign spend halts.)
    confirmed: the recorded batch versions that the active chain holds.
    """

    l1_height: int
    halted: bool
    unspent: Mapping[OutPoint, TxOut | None]
    confirmed: frozenset[Txid] = frozenset()


@final
class ApprovedBatch:
    """A recorded batch version that this member may sign. Only `approve_batch` makes one."""

    __slots__ = ("_plan",)

    def __init__(self, plan: SigningPlan, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("approve_batch alone approves")
        self._plan = plan

    @property
    def plan(self) -> SigningPlan:
        """What to sign."""
        return self._plan

    @property
    def txid(self) -> Txid:
        """Of the transaction, 32 bytes."""
        return self._plan.txid


_SEAL = object()


def approve_batch(
    view: LedgerView, txid: Txid, facts: ReserveFacts, custody: Custody, params: PegParams
) -> ApprovedBatch:
    """The batch version `txid`, approved. view: the ledger of the last *final* block.

    Raises SigningRefused with the first law that does not hold, in the order above.
    """
    if facts.halted:
        raise SigningRefused(RefusalReason.HALTED)
    if facts.l1_height < view.totals.anchor.height:
        raise SigningRefused(
            RefusalReason.NODE_BEHIND, f"own node at {facts.l1_height}, anchor at {view.totals.anchor.height}"
        )
    lineage, version = recorded_version(view, txid)
    _require_supersets(lineage)
    plan = plan_version(view, lineage, version, custody)
    _check_outputs(view, lineage, version, plan, custody, params)
    _check_reserve(view, lineage, facts, custody)
    return ApprovedBatch(plan, _SEAL)


def recorded_version(view: LedgerView, txid: Txid) -> tuple[Lineage, BatchVersion]:
    """The open lineage that holds version `txid`, and the version.

    Raises SigningRefused: NOT_RECORDED, LINEAGE_CLOSED, UNKNOWN_KIND.
    """
    number = view.versions.get(txid)
    if number is None:
        raise SigningRefused(RefusalReason.NOT_RECORDED, hash_to_hex(txid))
    lineage = view.open_lineages.get(number)
    if lineage is None or lineage.settled_by is not None:
        raise SigningRefused(RefusalReason.LINEAGE_CLOSED, f"lineage {number}")
    if lineage.kind not in (BatchKind.PAYOUT, BatchKind.MAINTENANCE):
        raise SigningRefused(RefusalReason.UNKNOWN_KIND, f"lineage {number}")
    for version in lineage.versions:
        if version.txid == txid:
            return lineage, version
    raise SigningRefused(RefusalReason.NOT_RECORDED, f"{hash_to_hex(txid)} in lineage {number}")


def _require_supersets(lineage: Lineage) -> None:
    """Any two versions conflict on L1. Sharing some input is not enough: {a, b}, {a, c} and {c, d} pay twice."""
    spent: set[OutPoint] = set()
    for version in lineage.versions:
        inputs = {txin.outpoint for txin in _parse(version).inputs}
        if not spent <= inputs:
            raise SigningRefused(RefusalReason.NO_SUPERSET, f"{hash_to_hex(version.txid)} of lineage {lineage.number}")
        spent = inputs


def plan_version(view: LedgerView, lineage: Lineage, version: BatchVersion, custody: Custody) -> SigningPlan:
    """What there is to sign of a recorded version; a member that refuses to sign may still collect for others.

    Raises SigningRefused: MALFORMED_TRANSACTION, WRONG_TXID, WRONG_FORM, REPEATED_INPUT, INPUT_*, NO_RESERVE_SCRIPT.
    """
    transaction = _parse(version)
    if transaction.txid != version.txid:
        raise SigningRefused(
            RefusalReason.WRONG_TXID, f"{hash_to_hex(transaction.txid)}, recorded as {hash_to_hex(version.txid)}"
        )
    if _unsigned(transaction).serialize() != version.transaction:
        raise SigningRefused(RefusalReason.WRONG_FORM, "not of the one form that batches have")
    coins = _locked_coins(view, lineage, transaction)
    try:
        return plan_signing(transaction, coins, custody)
    except Rejected as error:
        raise SigningRefused(RefusalReason.NO_RESERVE_SCRIPT, str(error)) from error


def _parse(version: BatchVersion) -> Transaction:
    try:
        return Transaction.parse_stripped(version.transaction)
    except Rejected as error:
        raise SigningRefused(RefusalReason.MALFORMED_TRANSACTION, str(error)) from error


def _unsigned(transaction: Transaction) -> Transaction:
    """A batch with the inputs' outpoints and the outputs of `transaction`: nothing else of it is free."""
    inputs = tuple(TxIn(txin.outpoint, b"", REPLACEABLE_SEQUENCE) for txin in transaction.inputs)
    return Transaction(BATCH_VERSION, inputs, transaction.outputs, 0)


def _reserve_script(custody: Custody, epoch: int, kind: CoinKind, claim_script: bytes = b"") -> Script:
    try:
        return reserve_script(custody.policy(epoch), kind, claim_script).script
    except Rejected as error:
        raise SigningRefused(RefusalReason.NO_RESERVE_SCRIPT, str(error)) from error


def _locked_coins(view: LedgerView, lineage: Lineage, transaction: Transaction) -> list[Coin]:
    """The coins that `transaction` spends, in its order, each locked by `lineage` and no other."""
    outpoints = [txin.outpoint for txin in transaction.inputs]
    if len(set(outpoints)) != len(outpoints):
        raise SigningRefused(RefusalReason.REPEATED_INPUT)
    elsewhere = {
        outpoint: number
        for number, other in view.open_lineages.items()
        if number != lineage.number
        for outpoint in other.inputs
    }
    coins = []
    for outpoint in outpoints:
        if outpoint not in lineage.inputs:
            raise SigningRefused(RefusalReason.INPUT_NOT_IN_LINEAGE, str(outpoint))
        coin = view.coins.get(outpoint)
        if coin is None:
            raise SigningRefused(RefusalReason.INPUT_NOT_A_COIN, str(outpoint))
        if coin.lineage is None:
            raise SigningRefused(RefusalReason.INPUT_NOT_LOCKED, str(outpoint))
        other = coin.lineage if coin.lineage != lineage.number else elsewhere.get(outpoint)
        if other is not None:
            raise SigningRefused(RefusalReason.INPUT_LOCKED_ELSEWHERE, f"{outpoint} by lineage {other}")
        coins.append(coin)
    return coins


def _check_outputs(
    view: LedgerView, lineage: Lineage, version: BatchVersion, plan: SigningPlan, custody: Custody, params: PegParams
) -> None:
    """The payees' outputs in order, then change to the reserve alone, and the rest is the fee, as recorded."""
    outputs = plan.transaction.outputs
    payees = _payees(view, lineage)
    if len(outputs) < len(payees):
        raise SigningRefused(RefusalReason.WRONG_PAYEE_COUNT, f"{len(outputs)} outputs for {len(payees)} payees")
    shares_sats = 0
    for payee, output in zip(payees, outputs, strict=False):
        share_sats = payee.value_sats - output.value_sats
        if output.script != payee.l1_script:
            raise SigningRefused(RefusalReason.PAYEE_SCRIPT, f"{output.script.hex()} for burn {payee.burn}")
        if not 0 <= share_sats <= payee.max_fee_sats:
            raise SigningRefused(RefusalReason.PAYEE_SHARE, f"{share_sats} sats of burn {payee.burn}")
        if payee.value_sats > params.max_withdrawal_sats:
            raise SigningRefused(RefusalReason.WITHDRAWAL_OVER_CAP, f"burn {payee.burn} of {payee.value_sats} sats")
        shares_sats += share_sats
    change_script = _reserve_script(custody, version.epoch, CoinKind.CHANGE)
    for output in outputs[len(payees) :]:
        if output.script != change_script:
            raise SigningRefused(RefusalReason.CHANGE_SCRIPT, f"{output.value_sats} sats to {output.script.hex()}")
        if output.value_sats < params.coin_floor_sats:
            raise SigningRefused(RefusalReason.CHANGE_BELOW_FLOOR, f"{output.value_sats} sats")
    _check_fee(lineage, version, plan, shares_sats, params)


def _check_fee(lineage: Lineage, version: BatchVersion, plan: SigningPlan, shares_sats: int, params: PegParams) -> None:
    """The fee is what the version says, at a feerate and a cost to the fund within the caps.

    shares_sats: what the payees bear of it. They bear at most what the feerate asks, each share rounded up; the fund
    bears the rest, and in maintenance, up to a cap, the deficit may.
    """
    if not params.feerate_floor_sat_kvb <= version.feerate_sat_kvb <= params.feerate_ceiling_sat_kvb:
        raise SigningRefused(RefusalReason.FEERATE_OUT_OF_RANGE, f"{version.feerate_sat_kvb} sat/kvB")
    if version.fund_part_sats > params.lineage_fee_cap_sats:
        raise SigningRefused(RefusalReason.FUND_PART_OVER_CAP, f"{version.fund_part_sats} sats of the fund")
    outputs = plan.transaction.outputs
    fee_sats = sum(prevout.value_sats for prevout in plan.prevouts) - sum(output.value_sats for output in outputs)
    asked_sats = amounts.fee_sats(plan.signed_vsize_vbytes, version.feerate_sat_kvb)
    short_sats = fee_sats - shares_sats - version.fund_part_sats
    may_be_short_sats = params.maintenance_deficit_cap_sats if lineage.kind is BatchKind.MAINTENANCE else 0
    if fee_sats != version.fee_sats:
        raise SigningRefused(RefusalReason.FEE_NOT_AS_RECORDED, f"{fee_sats} sats, {version.fee_sats} recorded")
    if fee_sats < asked_sats:
        raise SigningRefused(RefusalReason.FEE_TOO_LOW, f"{fee_sats} sats, {asked_sats} asked by the feerate")
    if shares_sats >= asked_sats + len(lineage.payees):
        raise SigningRefused(RefusalReason.SHARES_TOO_HIGH, f"{shares_sats} sats, {asked_sats} asked by the feerate")
    if not 0 <= short_sats <= may_be_short_sats:
        raise SigningRefused(
            RefusalReason.FUND_PART_DIFFERS,
            f"{version.fund_part_sats} sats; the fee is {fee_sats}, the payees' part {shares_sats}",
        )


def _payees(view: LedgerView, lineage: Lineage) -> list[Withdrawal]:
    """The withdrawals that `lineage` pays, in order, each promised to it alone. Maintenance pays nobody."""
    if bool(lineage.payees) != (lineage.kind is BatchKind.PAYOUT):
        raise SigningRefused(RefusalReason.WRONG_PAYEE_COUNT, f"{len(lineage.payees)} for a {lineage.kind.name}")
    if len(set(lineage.payees)) != len(lineage.payees):
        raise SigningRefused(RefusalReason.PAYEE_TWICE)
    payees = []
    for burn in lineage.payees:
        withdrawal = view.open_withdrawals.get(burn)
        if (
            withdrawal is None
            or withdrawal.status is not WithdrawalStatus.BATCHED
            or withdrawal.lineage != lineage.number
        ):
            raise SigningRefused(RefusalReason.PAYEE_NOT_OWED, f"burn {burn} by lineage {lineage.number}")
        payees.append(withdrawal)
    return payees


def _check_reserve(view: LedgerView, lineage: Lineage, facts: ReserveFacts, custody: Custody) -> None:
    """Own node holds every coin of the reserve as the ledger has it, unless a recorded version spent it."""
    confirmed = next((version.txid for version in lineage.versions if version.txid in facts.confirmed), None)
    if confirmed is not None:
        raise SigningRefused(RefusalReason.ALREADY_CONFIRMED, hash_to_hex(confirmed))
    spent = {
        txin.outpoint
        for _, other in view.open_lineages.items()
        for version in other.versions
        if version.txid in facts.confirmed
        for txin in _parse(version).inputs
    }
    for outpoint, coin in view.coins.items():
        if outpoint not in facts.unspent:
            raise SigningRefused(RefusalReason.COIN_NOT_REPORTED, str(outpoint))
        found = facts.unspent[outpoint]
        if found is None:
            if outpoint not in spent:
                raise SigningRefused(RefusalReason.COIN_MISSING, str(outpoint))
        elif found != TxOut(coin.value_sats, _reserve_script(custody, coin.epoch, coin.kind, coin.claim_script)):
            raise SigningRefused(RefusalReason.COIN_DIFFERS, str(outpoint))
