"""The parameters of the peg. They are part of the genesis, so every member and every node has the same."""

from dataclasses import dataclass

from bridge.bitcoin.amounts import MAX_MONEY_SATS, fee_sats
from bridge.bitcoin.script import dust_limit_sats
from bridge.bitcoin.taproot import output_script
from bridge.custody import MAX_KEYS, MAX_RELATIVE_BLOCKS
from bridge.errors import Reason, Rejected
from bridge.evidence import EVIDENCE_FRAME_SIZE, MAX_OPENINGS, MAX_PROOF_SIZE, MAX_TRANSACTION_SIZE, OPENING_SIZE
from bridge.state import MAX_LIST_ITEMS, BatchKind

COINBASE_MATURITY = 100
"""Source: Bitcoin Core, consensus/consensus.h."""
MAX_STANDARD_WEIGHT = 400_000
"""Weight units of a transaction that is relayed. Source: Bitcoin Core, MAX_STANDARD_TX_WEIGHT."""
MAX_FEERATE_SAT_KVB = 10_000_000
"""10,000 sat/vB: twenty times what L1 has ever asked for."""
MAX_ANCHORS = 1_000_000
"""Nineteen years of L1 blocks: no window or age is longer."""

_OUTPUT_WEIGHT = 4 * (8 + 1 + 34)
"""Weight units of the largest output that a batch may have."""
_CHANGE_DUST_SATS = dust_limit_sats(output_script(bytes(32)))
"""Below this L1's nodes relay no output to a reserve script, which is P2TR."""
_BATCH_OVERHEAD_WEIGHT = 4 * (4 + 1 + 3 + 4) + 2
"""Version, counts and lock time, and the two bytes that announce a witness."""


class ParamsReason(Reason):
    """Why parameters can't be a peg's."""

    OUT_OF_RANGE = "params-out-of-range"  # A value is out of its own range.
    EVIDENCE_BYTES = "params-evidence-bytes"  # The largest piece of evidence exceeds `max_evidence_bytes`.
    FEERATES_CROSSED = "params-feerates-crossed"  # The feerate floor is above the ceiling.
    COIN_FLOOR = "params-coin-floor"
    """`coin_floor_sats` would not pay for spending the coin at the highest feerate, or L1's nodes call it dust."""
    CLAIM_FEE = "params-claim-fee"  # `claim_fee_sats` would not pay for spending the coin at the highest feerate.
    MIN_DEPOSIT = "params-min-deposit"  # `min_deposit_sats` is below claim fee and coin floor together.
    MIN_WITHDRAWAL = "params-min-withdrawal"  # What is credited for the least deposit could not be withdrawn.
    WITHDRAWAL_CAPS = "params-withdrawal-caps"
    """Least deposit, one withdrawal, a window's and the peg's caps don't ascend."""
    WITHDRAWAL_EXPIRY = "params-withdrawal-expiry"
    """A withdrawal could expire before its batch is due, or by the one step of the anchor that makes it due."""
    BATCH_PAYEES = "params-batch-payees"  # A batch would be due with more payees than it may have only.
    BATCH_INPUTS = "params-batch-inputs"  # A first version may have more inputs than any version.
    BATCH_WEIGHT = "params-batch-weight"  # The largest payout is over 400,000 weight units.
    MAINTENANCE_INPUTS = "params-maintenance-inputs"
    """Maintenance may have fewer inputs than a payout's first version, or its own first version more than any."""
    MAINTENANCE_WEIGHT = "params-maintenance-weight"  # The largest maintenance is over 400,000 weight units.


@dataclass(frozen=True, slots=True)
class PegParams:
    """All are integers; heights, ages and windows count L1 anchors (blocks of L1)."""

    # evidence of L1
    confirmations: int
    coinbase_confirmations: int
    max_anchor_step: int
    max_evidence_bytes: int
    max_openings: int
    max_evidence_transaction_bytes: int
    # deposits
    claim_fee_sats: int
    coin_floor_sats: int
    min_deposit_sats: int
    # withdrawals
    min_withdrawal_sats: int
    max_withdrawal_sats: int
    withdrawal_window_anchors: int
    max_window_withdrawals_sats: int
    withdrawal_expiry_anchors: int
    refund_fee_sats: int
    max_refunds_per_block: int
    max_peg_sats: int
    # batches
    batch_min_payouts: int
    batch_max_wait_anchors: int
    batch_max_payees: int
    batch_max_first_inputs: int
    batch_max_inputs: int
    maintenance_max_first_inputs: int
    maintenance_max_inputs: int
    change_target_coins: int
    replacement_interval_anchors: int
    feerate_floor_sat_kvb: int
    feerate_ceiling_sat_kvb: int
    lineage_fee_cap_sats: int
    maintenance_deficit_cap_sats: int
    # custody
    recovery_timelock_blocks: int
    recovery_quorum: int

    def max_first_inputs(self, kind: BatchKind) -> int:
        """How many coins the first version of such a batch may spend."""
        return self.batch_max_first_inputs if kind is BatchKind.PAYOUT else self.maintenance_max_first_inputs

    def max_inputs(self, kind: BatchKind) -> int:
        """How many coins any version of such a batch may spend."""
        return self.batch_max_inputs if kind is BatchKind.PAYOUT else self.maintenance_max_inputs

    @property
    def last_refresh_age(self) -> int:
        """The age of a coin, in anchors, at which one open batch and then its own just have time to settle."""
        return self.recovery_timelock_blocks - 2 * (self.confirmations + self.replacement_interval_anchors)

    def validate(self, input_weight: int) -> None:
        """Raise Rejected(ParamsReason) unless a peg with these parameters can keep its promises.

        input_weight: weight units of one signed reserve input, `custody.quorum_input_weight`. Whatever enters the
        reserve must be worth spending at the highest feerate, and the largest batch must still be relayed.
        """
        for name, (least, most) in _RANGES.items():
            value: int = getattr(self, name)
            if not least <= value <= most:
                raise Rejected(ParamsReason.OUT_OF_RANGE, f"{name} is {value}, not {least} to {most}")
        self._validate_deposits(fee_sats(-(-input_weight // 4), self.feerate_ceiling_sat_kvb))
        self._validate_withdrawals()
        self._validate_batches(input_weight)

    def _validate_deposits(self, spend_fee_sats: int) -> None:
        largest_bytes = self.max_evidence_transaction_bytes + MAX_PROOF_SIZE + self.max_openings * OPENING_SIZE
        if self.max_evidence_bytes < largest_bytes + EVIDENCE_FRAME_SIZE:
            raise Rejected(ParamsReason.EVIDENCE_BYTES, "the largest piece of evidence does not fit a block's share")
        if self.coin_floor_sats < _CHANGE_DUST_SATS:
            raise Rejected(ParamsReason.COIN_FLOOR, f"below {_CHANGE_DUST_SATS} sats, change would not be relayed")
        if self.coin_floor_sats < spend_fee_sats:
            raise Rejected(ParamsReason.COIN_FLOOR, f"spending a coin may cost {spend_fee_sats} sats")
        if self.claim_fee_sats < spend_fee_sats:
            raise Rejected(ParamsReason.CLAIM_FEE, f"spending a coin may cost {spend_fee_sats} sats")
        if self.min_deposit_sats < self.claim_fee_sats + self.coin_floor_sats:
            raise Rejected(ParamsReason.MIN_DEPOSIT, "below claim_fee_sats and coin_floor_sats together")

    def _validate_withdrawals(self) -> None:
        caps = (self.min_deposit_sats, self.max_withdrawal_sats, self.max_window_withdrawals_sats, self.max_peg_sats)
        if list(caps) != sorted(caps):
            raise Rejected(
                ParamsReason.WITHDRAWAL_CAPS, "not in the order least deposit, one withdrawal, a window's, the peg's"
            )
        if self.min_withdrawal_sats > self.min_deposit_sats - self.claim_fee_sats:
            raise Rejected(ParamsReason.MIN_WITHDRAWAL, "above what is credited for the least deposit")
        if self.withdrawal_expiry_anchors <= self.batch_max_wait_anchors + self.max_anchor_step:
            # A step of the anchor that long would make it due and expired at once, and refunds come before batches.
            raise Rejected(
                ParamsReason.WITHDRAWAL_EXPIRY, "a withdrawal could expire in the step of the anchor that makes it due"
            )

    def _validate_batches(self, input_weight: int) -> None:
        if self.feerate_floor_sat_kvb > self.feerate_ceiling_sat_kvb:
            raise Rejected(ParamsReason.FEERATES_CROSSED, "the floor is above the ceiling")
        if self.batch_min_payouts > self.batch_max_payees:
            raise Rejected(ParamsReason.BATCH_PAYEES, "due only with more payees than a batch may have")
        if self.batch_max_first_inputs > self.batch_max_inputs:
            raise Rejected(ParamsReason.BATCH_INPUTS, "a first version may have more inputs than any")
        if not self.batch_max_first_inputs <= self.maintenance_max_first_inputs <= self.maintenance_max_inputs:
            what = "not in the order first version of a payout, first version of maintenance, any version of it"
            raise Rejected(ParamsReason.MAINTENANCE_INPUTS, what)
        for kind, payees, reason in (
            (BatchKind.PAYOUT, self.batch_max_payees, ParamsReason.BATCH_WEIGHT),
            (BatchKind.MAINTENANCE, 0, ParamsReason.MAINTENANCE_WEIGHT),
        ):
            outputs = payees + self.change_target_coins
            weight = _BATCH_OVERHEAD_WEIGHT + self.max_inputs(kind) * input_weight + outputs * _OUTPUT_WEIGHT
            if weight > MAX_STANDARD_WEIGHT:
                raise Rejected(reason, f"the largest one has {weight} weight units")


_MONEY = (0, MAX_MONEY_SATS)
_SOME_MONEY = (1, MAX_MONEY_SATS)
_ANCHORS = (1, MAX_ANCHORS)
_LISTED = (1, MAX_LIST_ITEMS)  # as the ledger's lists: a longer one could be written and never read again
_FEERATE = (1, MAX_FEERATE_SAT_KVB)
_RANGES = {
    "confirmations": _ANCHORS,
    "coinbase_confirmations": (COINBASE_MATURITY, MAX_ANCHORS),
    "max_anchor_step": _ANCHORS,
    "max_evidence_bytes": (1, 32_000_000),
    "max_openings": (1, MAX_OPENINGS),
    "max_evidence_transaction_bytes": (1, MAX_TRANSACTION_SIZE),
    "claim_fee_sats": _SOME_MONEY,
    "coin_floor_sats": _SOME_MONEY,
    "min_deposit_sats": _SOME_MONEY,
    "min_withdrawal_sats": _SOME_MONEY,
    "max_withdrawal_sats": _SOME_MONEY,
    "withdrawal_window_anchors": _LISTED,
    "max_window_withdrawals_sats": _SOME_MONEY,
    "withdrawal_expiry_anchors": _ANCHORS,
    "refund_fee_sats": _MONEY,
    "max_refunds_per_block": (1, 10_000),
    "max_peg_sats": _SOME_MONEY,
    "batch_min_payouts": (1, 10_000),
    "batch_max_wait_anchors": _ANCHORS,
    "batch_max_payees": _LISTED,
    "batch_max_first_inputs": _LISTED,
    "batch_max_inputs": _LISTED,
    "maintenance_max_first_inputs": _LISTED,
    "maintenance_max_inputs": _LISTED,
    "change_target_coins": (1, 10_000),
    "replacement_interval_anchors": _ANCHORS,
    "feerate_floor_sat_kvb": _FEERATE,
    "feerate_ceiling_sat_kvb": _FEERATE,
    "lineage_fee_cap_sats": _MONEY,
    "maintenance_deficit_cap_sats": _MONEY,
    "recovery_timelock_blocks": (1, MAX_RELATIVE_BLOCKS),
    "recovery_quorum": (1, MAX_KEYS),
}
