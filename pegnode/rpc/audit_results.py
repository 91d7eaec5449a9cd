"""The replies about an audit, as types: what `audit` answers, and what `peg audit --json` prints."""

import msgspec

from pegnode.rpc.results import AnchorReply


class AuditRowReply(msgspec.Struct, frozen=True):
    """One row of audit: a coin of the ledger, or another output at a reserve script.

    status: reserve, in-flight, unclaimed, unexplained or missing.  cause: why; docs/rpc.md has them all.
    coin: whether it is the ledger's.  kind: deposit, change or donation.  confirmations: 0 if L1 does not have it.
    recovery_l1_height: the first block in which the recovery keys could spend it.  spent_by: a txid, if one is known.
    """

    status: str
    cause: str
    outpoint: str
    value_sats: int
    coin: bool
    kind: str
    epoch: int
    l1_height: int
    confirmations: int
    recovery_l1_height: int
    spent_by: str | None


class AgesReply(msgspec.Struct, frozen=True):
    """How long the coins of the ledger that L1 holds have lain still, in confirmations; T is their recovery timelock.

    past_half_sats, past_three_quarters_sats, mature_sats: what coins are worth that are at least T/2, 3T/4 and T old.
    """

    oldest_blocks: int
    earliest_recovery_l1_height: int | None
    past_half_sats: int
    past_three_quarters_sats: int
    mature_sats: int


class ReplayReply(msgspec.Struct, frozen=True):
    """What `peg audit --replay` adds: all blocks up to the audit's were carried out again, from the genesis.

    Blocks, ledger root and the five terms came out the same, and so did the UTXO set's sum, or there is a finding.
    """

    blocks: int
    transactions: int
    certificates: int


class AuditReply(msgspec.Struct, frozen=True):
    """audit. ok: whether there are no findings.

    Everything of the ledger is as it was after the block `block_hash`, everything of L1 as it was at `l1_tip`.
    counted_*: recounted item by item on this node.  l1_held_sats: of the ledger's coins, what the node's own Bitcoin
    node has unspent, exactly as the ledger has it; l1_paid_out_sats: what a recorded batch has spent there and the
    ledger has yet to settle; change_sats: what of this came back.  l1_missing_sats: what is neither there nor paid out.
    unclaimed_sats, unexplained_sats: of rows of that status.  scanned: whether the Bitcoin node went through its whole
    UTXO set for `scripts` reserve scripts.  warnings: what is not wrong and should not be left alone.  replay: null
    but from `peg audit --replay`.
    """

    ok: bool
    findings: list[str]
    warnings: list[str]
    chain_id: str
    height: int
    block_hash: str
    anchor: AnchorReply
    ledger_root: str
    time_ms: int
    reserves_sats: int
    deficit_sats: int
    supply_sats: int
    unsettled_sats: int
    fund_sats: int
    counted_reserves_sats: int
    counted_supply_sats: int
    counted_unsettled_sats: int
    coins: int
    utxos: int
    open_withdrawals: int
    l1_tip: AnchorReply
    scanned: bool
    scripts: int
    l1_held_sats: int
    l1_paid_out_sats: int
    l1_missing_sats: int
    change_sats: int
    unclaimed_sats: int
    unexplained_sats: int
    ages: AgesReply
    rows: list[AuditRowReply]
    replay: ReplayReply | None = None
