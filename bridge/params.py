"""The parameters of the peg. They are part of the genesis, so every member and every node has the same."""

from dataclasses import dataclass, fields

from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.errors import Reason, Rejected

MAX_RELATIVE_BLOCKS = 0xFFFF
"""The longest relative lock that counts blocks. Source: BIP68."""
COINBASE_MATURITY = 100
"""Source: Bitcoin Core, consensus/consensus.h."""
MAX_STANDARD_VSIZE_VBYTES = 100_000
"""Source: Bitcoin Core, MAX_STANDARD_TX_WEIGHT."""


class ParamsReason(Reason):
    """Why parameters can't be a peg's."""

    OUT_OF_RANGE = "params-out-of-range"
    FEERATES_CROSSED = "params-feerates-crossed"
    BATCH_INPUTS = "params-batch-inputs"
    BATCH_VSIZE = "params-batch-vsize"
    COIN_FLOOR_TOO_LOW = "params-coin-floor-too-low"
    CLAIM_FEE_TOO_LOW = "params-claim-fee-too-low"
    MIN_DEPOSIT_TOO_LOW = "params-min-deposit-too-low"
    CAPS_CROSSED = "params-caps-crossed"
    EXPIRY_TOO_SHORT = "params-expiry-too-short"


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
    change_target_coins: int
    replacement_interval_anchors: int
    feerate_floor_sat_kvb: int
    feerate_ceiling_sat_kvb: int
    lineage_fee_cap_sats: int
    maintenance_deficit_cap_sats: int
    # custody
    recovery_timelock_blocks: int
    recovery_quorum: int
