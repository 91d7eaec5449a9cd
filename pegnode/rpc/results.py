"""The replies of this chain's own methods, as types: the server fills them in, clients decode into them.

Amounts are integers of satoshis (`_sats`), feerates satoshis per 1,000 virtual bytes. Hashes are reversed hex,
outpoints `txid:vout`; keys, scripts, roots and the chain id are plain hex. Heights are of L1 where the name says l1 or
anchor.
"""

import msgspec


class AnchorReply(msgspec.Struct, frozen=True):
    """The newest L1 block that the chain refers to."""

    height: int
    hash: str


class L1Reply(msgspec.Struct, frozen=True):
    """The node's own Bitcoin node.

    state: one of the list in docs/operating.md.  since_ms: since when, Unix time in milliseconds; 0 before the first
    answer.  cause, remedy: what the state means, and what the node's operator should do.  detail: what was seen.
    reachable: whether it answers questions.
    """

    state: str
    since_ms: int
    cause: str
    detail: str
    remedy: str
    reachable: bool
    version: str
    height: int | None
    block_hash: str | None
    feerate_sat_kvb: int | None


class MemberReply(msgspec.Struct, frozen=True):
    """What the node sees of a member. Times: Unix time in milliseconds.

    missing_since_ms: while it is not connected, at the earliest this node's start.  round_trip_ms: smoothed.
    last_vote_view, last_vote_kind, last_vote_ms: its vote of the highest view since the start, notarize, nullify or
    finalize, and when it was heard last; null on a node without keys.  software: what it calls itself, or did last.
    final_height: of its newest final block.  l1_buried_height: the highest L1 block that it has at the peg's depth.
    missed_turn: when it last led it proposed nothing, and nothing was heard of it since.
    equivocations: proofs, kept here, that it signed two votes of which no honest member signs both.
    """

    member: int
    name: str
    connected: bool
    missing_since_ms: int | None
    round_trip_ms: float | None
    last_vote_view: int | None
    last_vote_kind: str | None
    last_vote_ms: int | None
    software: str
    final_height: int | None
    l1_buried_height: int | None
    missed_turn: bool
    equivocations: int


class JournalReply(msgspec.Struct, frozen=True):
    """A member's memory of what it signed. state: kept; renewing while it signs nothing because it was
    lost; or behind when it signs nothing more because it lacks a vote of this member that was found elsewhere.

    floor_view: nothing at or below is ever signed again.  newest_vote_view: null before the first vote above it.
    heard_from: of the `needed` other members that have to tell what they know before this one votes.
    waits_for: the members, by index, of whom one more has to answer; none once it votes.
    """

    state: str
    floor_view: int
    newest_vote_view: int | None
    heard_from: int
    needed: int
    waits_for: list[int]


class StallReply(msgspec.Struct, frozen=True):
    """Why no block becomes final although one is due, in one line for people. since_ms: since when, Unix time."""

    since_ms: int
    why: str


class HaltReply(msgspec.Struct, frozen=True):
    """Why a node is halted. kind: anchor-left, coin-gone, second-version or block-refused.

    subject: the block, coin or transaction that it is about.  detail: for people.  since_ms: Unix time.
    remedy: what to do.
    """

    kind: str
    subject: str
    detail: str
    since_ms: int
    remedy: str


class StatusReply(msgspec.Struct, frozen=True):
    """getstatus. member: the node's own index, null for an observer. Times: Unix time in milliseconds.

    final_age_ms: how old the newest final block is.  timeout_ms: how long a view may take once a block is due.
    journal: null without keys.  key_alarm: why this member's own vote key must be taken for stolen, or for running
    twice, else null.  stall: null while the chain goes on.
    """

    version: str
    member: int | None
    started_ms: int
    uptime_ms: int
    height: int
    block_hash: str
    block_time_ms: int
    best_known_height: int
    syncing: bool
    view: int
    leader: int
    anchor: AnchorReply
    l1: L1Reply
    members: list[MemberReply]
    mempool_transactions: int
    mempool_bytes: int
    halted: bool
    halt_findings: list[str]
    halts: list[HaltReply]
    waiting_for: list[str]
    final_age_ms: int
    timeout_ms: int
    journal: JournalReply | None
    key_alarm: str | None
    stall: StallReply | None


class PegInfoReply(msgspec.Struct, frozen=True):
    """getpeginfo. equality: whether reserves + deficit == supply + unsettled + fund, every term ≥ 0.

    free_fund_sats: the fund less what open batches may still take.  l1_height: of the node's own Bitcoin node.
    """

    chain_id: str
    l1_network: str
    l1_genesis_hash: str
    height: int
    block_hash: str
    anchor: AnchorReply
    l1_reachable: bool
    l1_height: int | None
    reserves_sats: int
    deficit_sats: int
    supply_sats: int
    unsettled_sats: int
    fund_sats: int
    free_fund_sats: int
    equality: bool
    coins: int
    pending_withdrawals: int
    batched_withdrawals: int
    open_batches: int
    confirmations: int
    min_deposit_sats: int
    claim_fee_sats: int
    min_withdrawal_sats: int
    max_withdrawal_sats: int
    window_burned_sats: int
    window_left_sats: int
    halted: bool


class FederationMemberReply(msgspec.Struct, frozen=True):
    """One member. Keys: x-only, hex."""

    index: int
    name: str
    vote_key: str
    custody_key: str
    peer_id: str
    connected: bool
    last_vote_view: int | None


class ReserveReply(msgspec.Struct, frozen=True):
    """A reserve script that any Bitcoin node can watch. descriptor: with its checksum."""

    kind: str
    address: str
    script_hex: str
    descriptor: str


class FederationReply(msgspec.Struct, frozen=True):
    """getfederationinfo. parameters: the peg's genesis parameters by name."""

    chain_id: str
    epoch: int
    size: int
    quorum: int
    fault_tolerance: int
    members: list[FederationMemberReply]
    recovery_keys: list[str]
    recovery_quorum: int
    recovery_timelock_blocks: int
    change: ReserveReply
    donation: ReserveReply
    parameters: dict[str, int]


class DepositAddressReply(msgspec.Struct, frozen=True):
    """getdepositaddress. address: on L1; what it receives, less the claim fee, is credited to claim_address."""

    address: str
    descriptor: str
    claim_address: str
    claim_script_hex: str
    epoch: int
    confirmations: int
    min_deposit_sats: int
    claim_fee_sats: int


class RegistrationReply(msgspec.Struct, frozen=True):
    """registerdeposits. new: how many of the addresses the node did not look for yet."""

    registered: int
    new: int


class DepositReply(msgspec.Struct, frozen=True):
    """One of listdeposits. status: one of the list in docs/rpc.md; meaning, next: the same in words.

    blocks_left: L1 blocks, at least, until it is deep enough; 0 when it is, null when none are awaited.
    anchor_height: the L1 block to which the sidechain has to refer first.  openings_before: outputs that are proven and
    come before it, null unless it waits itself.  claim_height: the sidechain's block that credited it.
    """

    outpoint: str
    claim_address: str | None
    value_sats: int
    l1_height: int | None
    confirmations: int
    confirmations_needed: int
    status: str
    meaning: str
    next: str
    blocks_left: int | None
    anchor_height: int | None
    openings_before: int | None
    claim_txid: str | None
    claim_height: int | None


class ClaimReply(msgspec.Struct, frozen=True):
    """One of claimdeposit. claim_txid: the sidechain transaction that will credit it."""

    outpoint: str
    claim_txid: str
    credited_sats: int


class PayoutReply(msgspec.Struct, frozen=True):
    """An L1 transaction that may settle a batch. The last four fields are what this node has seen, for display."""

    txid: str
    feerate_sat_kvb: int
    fee_sats: int
    fund_part_sats: int
    anchor_height: int
    signatures: int
    signed: bool
    broadcast: bool
    confirmations: int


class WaitingReply(msgspec.Struct, frozen=True):
    """Why a withdrawal is pending. reason: withdrawal-max-fee, withdrawal-not-due and others, see docs/rpc.md.

    share_sats: what each payee bears at present, if max_fee_sats is below that.
    burns_missing, anchors_left: the payout that includes it is due after so many more burns, or anchors.
    """

    reason: str
    share_sats: int | None
    burns_missing: int | None
    anchors_left: int | None


class WithdrawalReply(msgspec.Struct, frozen=True):
    """A withdrawal. status: pending, batched, settled or refunded.

    stage: the same in more steps, for display: waiting, batched, signed, broadcast, confirmed, settled, refunded.
    expires_in_anchors, waiting: null unless it is pending.
    paid_sats: what the payout's output holds, or, before settlement, what the newest version's would.
    payouts: every version of its batch, the newest last; payout: the output of the one that confirmed.
    """

    burn: str
    number: int
    status: str
    stage: str
    value_sats: int
    max_fee_sats: int
    paid_sats: int | None
    l1_address: str | None
    l1_script_hex: str
    refund_address: str | None
    burned_at_anchor: int
    expires_at_anchor: int
    expires_in_anchors: int | None
    waiting: WaitingReply | None
    lineage: int | None
    payout: str | None
    payouts: list[PayoutReply]
    refund_txid: str | None


class CoinReply(msgspec.Struct, frozen=True):
    """One of listreservecoins. kind: deposit, change or donation.  lineage: the batch that locks it, or null.

    recovery_l1_height: the height of the first block in which the recovery keys could spend it.
    """

    outpoint: str
    value_sats: int
    kind: str
    epoch: int
    address: str
    claim_address: str | None
    l1_height: int
    age_anchors: int
    recovery_l1_height: int
    lineage: int | None


class BatchReply(msgspec.Struct, frozen=True):
    """One of listbatches. kind: payout or maintenance.  settled_by: the txid of the version that L1 confirmed.

    Neither open nor settled: a record booked coins as lost that every version spends.
    """

    number: int
    kind: str
    open: bool
    inputs: list[str]
    payees: list[str]
    versions: list[PayoutReply]
    reserved_fund_sats: int
    settled_by: str | None
    settled_l1_height: int | None


class WithdrawalEstimateReply(msgspec.Struct, frozen=True):
    """estimatewithdrawal. suggested_max_fee_sats: what a payout of this burn alone would cost at twice the estimate.

    least_max_fee_sats: no batch that the rules allow costs a payee less; a burn with a lower bound is never paid.
    received_sats: at least this reaches the address if max_fee_sats is the bound.  min_withdrawal_sats: no less may be
    burned.  burn_script_hex: the output script that burns, null without a refund address.
    """

    amount_sats: int
    feerate_sat_kvb: int
    suggested_max_fee_sats: int
    least_max_fee_sats: int
    max_fee_sats: int
    received_sats: int
    dust_limit_sats: int
    min_withdrawal_sats: int
    burn_script_hex: str | None


class RecordViewReply(msgspec.Struct, frozen=True):
    """One record of planresume or judgerecords. says: what it says, by itself.  own_view: what this node sees of it.

    refusal: why this node's member would not sign it now, null if it would.  record: its bytes in hex.
    """

    serial: int
    says: list[str]
    own_view: list[str]
    refusal: str | None
    record: str


class ResumePlanReply(msgspec.Struct, frozen=True):
    """planresume. waits: what has to be waited for before there can be a plan."""

    waits: list[str]
    records: list[RecordViewReply]


class ListedRecordReply(msgspec.Struct, frozen=True):
    """One of listrecords. final: whether a final block carried it out.  signers: members.  record: with signatures."""

    serial: int
    final: bool
    says: list[str]
    signers: list[int]
    record: str
