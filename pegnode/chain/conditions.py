"""Vote conditions: a member's own prudence about a valid block.

They are examined once, before notarize, and by a leader before it proposes: never for finalize, for a notarized parent
or on sync, and their verdict is never kept as if the block were invalid.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bridge.batch import Batch
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.errors import Reason
from bridge.evidence import Evidence
from bridge.ledger import LedgerView
from bridge.lineages import open_lineage
from bridge.records import Deficit
from bridge.replacement import is_least_step
from pegnode.chain.block import Block, Body
from pegnode.chain.facts import needs_l1
from pegnode.chain.header import Header
from pegnode.chain.parameters import ChainRules
from pegnode.errors import Refusal

MAX_CLOCK_AHEAD_MS = 2_000
"""How far a block may run ahead of a member's clock."""
MAX_VIEWS_WITH_CONTENT = 64
"""So many views after that of the last final block, blocks hold refunds alone: each is kept until one is final."""
MAX_FEERATE_FACTOR = 2
"""How far a batch's feerate may lie from a member's estimate, as a factor either way."""


class WithheldReason(Reason):
    """Why a member does not vote for a valid block."""

    TIME_AHEAD = "vote-time-ahead"  # The block's time is too far ahead of this member's clock.
    ANCHOR_SHALLOW = "vote-anchor-shallow"  # The anchor is not `confirmations` deep on its own Bitcoin node.
    HALTED = "vote-halted"  # This member has latched a halt.
    RESERVE_DISAGREES = "vote-reserve-disagrees"  # Its own Bitcoin node misses a coin of the ledger.
    DEPOSIT_UNKNOWN = "vote-deposit-unknown"  # Its own Bitcoin node was not asked about a deposit.
    DEPOSIT_SPENT = "vote-deposit-spent"  # A deposit is spent on L1 already, if only in the mempool.
    FEERATE_UNKNOWN = "vote-feerate-unknown"  # A batch above the floor while its own Bitcoin node has no estimate.
    FEERATE_FAR = "vote-feerate-far"  # A batch's feerate is more than a factor of 2 from its own estimate.
    COIN_NOT_LOST = "vote-coin-not-lost"
    """Its own Bitcoin node holds unspent what a record calls lost, or was not asked about it."""
    FINALITY_FAR = "vote-finality-far"
    """The last final block is many views below, and this one holds more than the refunds that are due."""
    VERSION_CONFIRMED = "vote-version-confirmed"
    """A replacement of a batch that its own Bitcoin node sees confirmed in some version."""


class VoteWithheld(Refusal):
    """A valid block that this member does not vote for now. reason: WithheldReason."""


@dataclass(frozen=True, slots=True)
class VoteFacts:
    """What this member knows besides the chain.

    now_ms: its clock.  anchor_confirmations: of the block's anchor on its own node's active chain; None when unknown.
    unspent: for each outpoint of `claimed_outputs`, whether its own node holds it unspent; for each of `lost_outputs`,
    whether it does if its mempool is counted, or if it is not.
    feerate_estimate_sat_kvb: None when its node has none.  halted: whether it has latched a halt.
    confirmed: the recorded batch versions that its node sees confirmed, of lineages that the block has a version of.
    reserve_agrees: whether its own node holds every reserve coin of the ledger.
    """

    now_ms: int
    anchor_confirmations: int | None = None
    unspent: Mapping[OutPoint, bool] = field(default_factory=dict)
    feerate_estimate_sat_kvb: int | None = None
    halted: bool = False
    reserve_agrees: bool = True
    confirmed: frozenset[Txid] = frozenset()


def claimed_outputs(block: Block) -> tuple[OutPoint, ...]:
    """The L1 outputs that `block` takes into the ledger as new coins: what `VoteFacts.unspent` must speak about."""
    return opened_outputs(block.body.evidence)


def lost_outputs(block: Block) -> tuple[OutPoint, ...]:
    """The coins that the records of `block` call lost: `VoteFacts.unspent` must speak about them too."""
    contents = [signed.record.content for signed in block.body.records]
    return tuple(coin.outpoint for content in contents if isinstance(content, Deficit) for coin in content.lost)


def opened_outputs(evidence: Iterable[Evidence]) -> tuple[OutPoint, ...]:
    """The L1 outputs that are opened."""
    return tuple(
        OutPoint(Txid(sha256d(item.transaction)), opening.vout) for item in evidence for opening in item.openings
    )


def must_be_empty(view: int, final: Header) -> bool:
    """Whether a block of `view` should hold no more than it must. final: the newest final block that is stored here."""
    return view - final.view > MAX_VIEWS_WITH_CONTENT


def check_finality_near(block: Block, final: Header) -> None:
    """Raise VoteWithheld unless this member can keep `block` until something is final. final: as `must_be_empty`.

    Refunds that are due no block may leave out. Each is due once, and all that may ever be are in the ledger already.
    """
    if must_be_empty(block.header.view, final) and block.body != Body(refunds=block.body.refunds):
        raise VoteWithheld(WithheldReason.FINALITY_FAR, f"{block.header.view - final.view} views below")


def check_vote_conditions(block: Block, parent: Header, after: LedgerView, facts: VoteFacts, rules: ChainRules) -> None:
    """Raise VoteWithheld when this member should not vote for `block`, a valid child of `parent`.

    after: the ledger after the block.

    A block that keeps its parent's anchor and holds no record, evidence or batch depends on the clock alone, so that
    transfers go on whatever L1 says. Who is halted votes for records: nothing else ends a halt. A coin that is not lost
    any more is none to pay for twice, so there the members look once more, after they signed.
    """
    latest_ms = max(facts.now_ms + MAX_CLOCK_AHEAD_MS, parent.time_ms + 1)
    if block.header.time_ms > latest_ms:
        raise VoteWithheld(WithheldReason.TIME_AHEAD, f"by {block.header.time_ms - facts.now_ms} ms")
    moves_value = bool(block.body.evidence or block.body.batches)
    if needs_l1(parent, block) or moves_value:
        confirmations = facts.anchor_confirmations or 0
        if confirmations < rules.params.confirmations:
            raise VoteWithheld(WithheldReason.ANCHOR_SHALLOW, f"{confirmations} of {rules.params.confirmations}")
    for outpoint in lost_outputs(block):
        if facts.unspent.get(outpoint, True):
            raise VoteWithheld(WithheldReason.COIN_NOT_LOST, str(outpoint))
    if moves_value:
        _check_reserve(facts)
        _check_deposits(block, facts)
        for batch in block.body.batches:
            _check_unconfirmed(batch, after, facts)
            if batch.replaces is None or not is_least_step(after, batch.kind, rules.custody):
                _check_feerate(batch, facts, rules)


def _check_reserve(facts: VoteFacts) -> None:
    if facts.halted:
        raise VoteWithheld(WithheldReason.HALTED)
    if not facts.reserve_agrees:
        raise VoteWithheld(WithheldReason.RESERVE_DISAGREES, "one's own Bitcoin node misses a coin of the ledger")


def _check_deposits(block: Block, facts: VoteFacts) -> None:
    for outpoint in claimed_outputs(block):
        if outpoint not in facts.unspent:
            raise VoteWithheld(WithheldReason.DEPOSIT_UNKNOWN, str(outpoint))
        if not facts.unspent[outpoint]:
            raise VoteWithheld(WithheldReason.DEPOSIT_SPENT, str(outpoint))


def _check_unconfirmed(batch: Batch, after: LedgerView, facts: VoteFacts) -> None:
    lineage = open_lineage(after, batch.kind)
    if lineage is not None and any(version.txid in facts.confirmed for version in lineage.versions):
        raise VoteWithheld(WithheldReason.VERSION_CONFIRMED, f"lineage {lineage.number}")


def _check_feerate(batch: Batch, facts: VoteFacts, rules: ChainRules) -> None:
    """Within a factor of the estimate; at the floor, below which no batch exists, also without one.

    The least step above a version that has waited its time is votable whatever the estimate, which may be wrong.
    Not at the floor whatever the estimate: a batch that never confirms holds up all that come after it.
    """
    feerate, estimate = batch.feerate_sat_kvb, facts.feerate_estimate_sat_kvb
    floor = rules.params.feerate_floor_sat_kvb
    if feerate == floor and (estimate is None or estimate <= floor * MAX_FEERATE_FACTOR):
        return
    if estimate is None:
        raise VoteWithheld(WithheldReason.FEERATE_UNKNOWN, f"{feerate} sat/kvB, and no estimate")
    if not estimate <= feerate * MAX_FEERATE_FACTOR or not feerate <= estimate * MAX_FEERATE_FACTOR:
        raise VoteWithheld(WithheldReason.FEERATE_FAR, f"{feerate} sat/kvB against an estimate of {estimate}")
