"""The way back from a halt: a plan of records, drawn up and judged by what this node itself finds on L1.

Theory of operation. A look at L1 is taken at one tip, and anew if L1 or the chain moved meanwhile: is the chain's
anchor on the active chain, and if not, which blocks were abandoned; which coins of the ledger are gone, and what is in
their way. A plan comes of it when nothing is left to wait for: the losses as `deficit` records, then one `resume` that
ends what this member found and, where L1 left the anchor, moves the chain to the other branch. What others drew up is
judged by a look of the same kind, and signed only as `federation.record_law` allows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.errors import Reason
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error
from bridge.ledger import LedgerView
from bridge.lineages import open_versions
from bridge.records import (
    MAX_FINDINGS,
    MAX_LOST_COINS,
    Deficit,
    Finding,
    FindingKind,
    LostCoin,
    Rebase,
    Record,
    Resume,
)
from bridge.state import Anchor, Coin
from federation.errors import Refused
from federation.record_law import OwnFindings, approve_record
from pegnode.errors import Refusal
from pegnode.resume.document import MAX_RECORDS
from pegnode.resume.outlook import CoinSight, coin_outlook, deficit_view, resume_view
from pegnode.resume.words import count_text
from pegnode.rpc.node_api import NodeUnavailable, RecordView, ResumePlan, UnavailableReason
from pegnode.service.abandoned_branch import AbandonedBranch
from pegnode.service.core import NodeCore
from pegnode.service.l1_branches import known_branch, trace_coins

RECORD_LIFE_ANCHORS: Final = 1_008
"""A plan may take a week of L1 blocks to be signed."""
ATTEMPTS: Final = 5
"""How often to begin again because L1 or the chain moved."""
SETTLING_S: Final = 10.0
"""How long to wait for blocks that are on their way to this node."""
SETTLING_POLL_S: Final = 0.1


class ResumptionReason(Reason):
    """Why there is nothing to plan here."""

    NOT_HALTED = "resume-not-halted"  # This node found nothing that a record could end.
    BLOCK_REFUSED = "resume-block-refused"
    """It found that a quorum made a block final which breaks a rule here: no record ends that."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen at one tip of L1, by the ledger of one moment.

    anchor, serial: of the chain, its anchor and its last record.  branch: None while the anchor is on the active chain.
    coins: those of the ledger that were looked for.  versions: those of open batches that L1 has, its mempool included.
    """

    anchor: Anchor
    serial: int
    coins: dict[OutPoint, Coin]
    sight: CoinSight
    branch: AbandonedBranch | None
    versions: frozenset[Txid]


class Resumption:
    """Plans and judges records on one node. is_current: whether it has caught up with the chain."""

    def __init__(self, core: NodeCore, client: L1Client, is_current: Callable[[], bool]) -> None:
        self._core = core
        self._client = client
        self._is_current = is_current

    async def plan(self, others: Sequence[Finding] = ()) -> ResumePlan:
        """The records that end what this node found, and what others found, or what to wait for first.

        Raises Refusal (ResumptionReason, BranchReason); NodeUnavailable: L1_UNREACHABLE, L1_BEHIND, L1_MOVED, SYNCING.
        """
        with _l1_answers():
            return await self._plan(self._findings(others))

    async def _plan(self, findings: Sequence[Finding]) -> ResumePlan:
        look = await self._look(())
        outlooks = [coin_outlook(coin, look.sight, self._confirmations) for coin in look.coins.values()]
        waits = [outlook.text for outlook in outlooks if not outlook.lost]
        waits += [
            f"{coin}: {hash_to_hex(spender)} in the mempool spends it: wait until a block holds that, or it is gone"
            for coin, spender in look.sight.taken.items()
        ]
        waits += [
            f"{coin}: a block holds it again, {depth} deep: wait until it is {self._confirmations} deep"
            for coin, depth in look.sight.young.items()
        ]
        rebase, blocks_missing = await self._rebase(look)
        if blocks_missing:
            blocks = count_text(blocks_missing, "more block")
            waits.append(f"L1 needs {blocks}: a block above {look.anchor.height} has to be {self._confirmations} deep")
        if waits:
            return ResumePlan(tuple(waits), ())
        contents: list[Deficit | Resume] = list(_deficits(look.coins.values()))
        booked = [finding for finding in findings if self._is_booked(finding, look)]
        named = [finding for finding in findings if finding not in booked] + booked
        contents = contents[:MAX_RECORDS]
        if len(contents) < MAX_RECORDS:  # else what is lost is too much for one plan: another one ends the halt
            contents.append(Resume.of(named[:MAX_FINDINGS], rebase))
        records = [self._record(look, rebase, number, content) for number, content in enumerate(contents, 1)]
        return ResumePlan((), await self._views(look, records))

    async def judge(self, records: Sequence[Record]) -> tuple[RecordView, ...]:
        """What this node sees of what these records say, and whether it would sign each of them.

        Raises Refusal (BranchReason), NodeUnavailable, as `plan`.
        """
        with _l1_answers():
            return await self._views(await self._look(_lost_coins(records)), records)

    async def examine(self, records: Sequence[Record], index: int) -> tuple[LedgerView, OwnFindings]:
        """The ledger, and what the law asks of this node about one of these records.

        Raises Refusal (BranchReason), NodeUnavailable, as `plan`.
        """
        with _l1_answers():
            look = await self._look(_lost_coins(records))
            return self._core.store.ledger, await self._own_findings(look, records[index])

    @property
    def _confirmations(self) -> int:
        return self._core.rules.params.confirmations

    def _findings(self, others: Sequence[Finding]) -> tuple[Finding, ...]:
        """What a plan has to end. Raises Refusal (ResumptionReason)."""
        found = self._core.active_findings()
        for item in found:
            if item.finding.kind is FindingKind.BLOCK_REFUSED:
                raise Refusal(ResumptionReason.BLOCK_REFUSED, item.detail)
        if not found and not others:
            suspected = "".join(f"; it may have to: {text}" for text in self._core.suspicions())
            raise Refusal(ResumptionReason.NOT_HALTED, f"this node has not halted{suspected}")
        # What this node only suspects yet it would find, and halt again, soon after the others' findings are ended.
        return (*(item.finding for item in found), *self._core.suspected(), *others)

    async def _look(self, coins: Sequence[OutPoint]) -> _Look:
        """Look at L1, and at these coins besides those that are gone. Raises Refusal, NodeUnavailable, L1Error."""
        for _ in range(ATTEMPTS):
            tip = await self._settled_tip()
            look = await self._attempt(tip, coins)
            if Anchor(*await self._client.tip()) == tip and self._is_still(look):
                return look
        raise NodeUnavailable(UnavailableReason.L1_MOVED, "L1 or the chain moved during each attempt")

    async def _settled_tip(self) -> Anchor:
        """L1's tip, when nothing is on its way to this node. Raises NodeUnavailable, L1Error."""
        deadline_s = trio.current_time() + SETTLING_S
        while True:
            chain = await self._client.chain_info()
            tip = Anchor(chain.blocks, chain.best_block_hash)
            has_all = not chain.is_downloading and chain.blocks >= chain.headers
            if has_all and self._core.watcher.tip == tip and self._is_current():
                return tip
            if trio.current_time() >= deadline_s:
                break
            await trio.sleep(SETTLING_POLL_S)
        if not self._is_current():
            raise NodeUnavailable(UnavailableReason.SYNCING, "ask again when this node has caught up")
        detail = f"{chain.blocks} of {chain.headers} blocks are there, and those not all read here"
        raise NodeUnavailable(UnavailableReason.L1_BEHIND, detail)

    def _is_still(self, look: _Look) -> bool:
        """Whether the ledger is the one that was looked at, as far as it matters."""
        ledger = self._core.store.ledger
        known = all(ledger.coins.get(outpoint) == coin for outpoint, coin in look.coins.items())
        return known and (ledger.totals.anchor, ledger.totals.record_serial) == (look.anchor, look.serial)

    async def _attempt(self, tip: Anchor, others: Sequence[OutPoint]) -> _Look:
        ledger, client = self._core.store.ledger, self._client
        anchor, serial = ledger.totals.anchor, ledger.totals.record_serial
        branch = await known_branch(client, anchor)
        taken = await self._taken(ledger)
        young = await self._young(ledger, branch)
        gone = (await self._core.questions.reserve(ledger)).missing
        coins = {outpoint: coin for outpoint in {*gone, *others} if (coin := ledger.coins.get(outpoint))}
        first_active = max(0, tip.height - self._confirmations + 2)
        if branch is not None:
            first_active = min(branch.fork.height + 1, first_active)
        traces = await trace_coins(client, tuple(coins), branch, first_active, tip.height)
        sight = CoinSight(
            tip=tip,
            new_blocks=0 if branch is None else tip.height - branch.fork.height,
            gone=gone,
            young=young,
            taken=taken,
            waiting=frozenset([coin for coin in coins if await client.mempool_contains(coin.txid)]),
            abandoned=frozenset(coin for coin in coins if traces.is_abandoned(coin)),
            fates=traces.fates(),
        )
        return _Look(anchor, serial, coins, sight, branch, await self._seen(ledger))

    async def _taken(self, ledger: LedgerView) -> dict[OutPoint, Txid]:
        """The ledger's coins that something in the mempool spends, which is no version of an open batch."""
        coins = [outpoint for outpoint, _ in ledger.coins.items()]
        recorded = frozenset(open_versions(ledger))
        spenders = await self._client.mempool_spenders(coins) if coins else []
        return {
            coin: spender
            for coin, spender in zip(coins, spenders, strict=True)
            if spender is not None and spender not in recorded
        }

    async def _young(self, ledger: LedgerView, branch: AbandonedBranch | None) -> dict[OutPoint, int]:
        """After a deep reorg, the coins that the active chain holds again, but not deep enough yet to be relied on.

        Every coin was at the peg's depth when it entered. One that is not any more a lesser reorg would take away.
        """
        if branch is None:
            return {}
        coins = [outpoint for outpoint, _ in ledger.coins.items()]
        outputs = await self._client.txouts(coins, include_mempool=False)
        return {
            coin: output.confirmations
            for coin, output in zip(coins, outputs, strict=True)
            if output is not None and output.confirmations < self._confirmations
        }

    async def _seen(self, ledger: LedgerView) -> frozenset[Txid]:
        """The versions of open batches that are on the active chain, or in the mempool."""
        confirmed = await self._core.questions.confirmed_versions(ledger)
        waiting = [txid for txid in open_versions(ledger) if await self._client.mempool_contains(txid)]
        return confirmed | frozenset(waiting)

    def _is_booked(self, finding: Finding, look: _Look) -> bool:
        """Whether a plan's deficit records end a finding already."""
        return finding.kind is FindingKind.COIN_GONE and finding.outpoint in look.coins

    async def _rebase(self, look: _Look) -> tuple[Rebase | None, int]:
        """Where the anchor moves, if L1 left it, and how many more L1 blocks that takes.

        Raises NodeUnavailable (L1_MOVED), L1Error.
        """
        if look.branch is None:
            return None, 0
        deepest = look.sight.tip.height - self._confirmations + 1
        # A step of more anchors than a plan lives would be above the height to which members sign.
        step = min(self._core.rules.params.max_anchor_step, RECORD_LIFE_ANCHORS)
        height = min(deepest, look.anchor.height + step)
        if height <= look.anchor.height:
            return None, look.anchor.height + 1 - height
        block_hash = await self._client.block_hash(height)
        if block_hash is None:
            raise NodeUnavailable(UnavailableReason.L1_MOVED, "L1 was reorganised meanwhile")
        return Rebase(look.branch.fork, look.branch.blocks, Anchor(height, block_hash)), 0

    def _record(self, look: _Look, rebase: Rebase | None, number: int, content: Resume | Deficit) -> Record:
        rules = self._core.rules
        last = (look.anchor if rebase is None else rebase.new_anchor).height + RECORD_LIFE_ANCHORS
        return Record(rules.chain_id, rules.membership.epoch, look.serial + number, last, content)

    async def _views(self, look: _Look, records: Sequence[Record]) -> tuple[RecordView, ...]:
        views = []
        for index, record in enumerate(records):
            own_view = await self._own_view(look, record, records[:index])
            views.append(RecordView(record, tuple(own_view), await self._refusal(look, records, index)))
        return tuple(views)

    async def _refusal(self, look: _Look, records: Sequence[Record], index: int) -> str | None:
        """Why a member with this node's view would not sign one of the records, if so."""
        core, ledger = self._core, self._core.store.ledger
        own, rules = await self._own_findings(look, records[index]), core.rules
        try:
            approve_record(records[index], records[:index], ledger, own, rules.membership, rules.chain_id, rules.params)
        except Refused as refused:
            return str(refused)
        return None

    async def _own_findings(self, look: _Look, record: Record) -> OwnFindings:
        """What the law asks of this node about a record. Raises L1Error."""
        sight, depth = look.sight, 0
        outlooks = {outpoint: coin_outlook(coin, sight, self._confirmations) for outpoint, coin in look.coins.items()}
        if record.rebase is not None:
            new_anchor = record.rebase.new_anchor
            if await self._client.block_hash(new_anchor.height) == new_anchor.hash:
                depth = sight.depth(new_anchor)
        return OwnFindings(
            findings=tuple(item.finding for item in self._core.active_findings()),
            missing=frozenset({*sight.gone, *sight.young, *sight.taken}),
            lost=frozenset(coin for coin in sight.gone if outlooks[coin].lost),
            versions_seen=look.versions,
            fork=None if look.branch is None else look.branch.fork,
            abandoned=() if look.branch is None else look.branch.blocks,
            new_anchor_depth=depth,
        )

    async def _own_view(self, look: _Look, record: Record, earlier: Sequence[Record]) -> list[str]:
        content, ledger = record.content, self._core.store.ledger
        if isinstance(content, Deficit):
            before = [item.content for item in earlier if isinstance(item.content, Deficit)]
            return deficit_view(content, before, ledger, look.sight, self._confirmations)
        found = [(item.finding, item.detail) for item in self._core.active_findings()]
        height = None if content.rebase is None else content.rebase.new_anchor.height
        block_hash = None if height is None else await self._client.block_hash(height)
        place = None if height is None or block_hash is None else Anchor(height, block_hash)
        return resume_view(content, found, place, look.sight)


@contextmanager
def _l1_answers() -> Iterator[None]:
    """Turn an outage of the Bitcoin node into NodeUnavailable."""
    try:
        yield
    except L1Error as outage:
        raise NodeUnavailable(UnavailableReason.L1_UNREACHABLE, str(outage)) from outage


def _deficits(coins: Iterable[Coin]) -> Iterator[Deficit]:
    """The records that name these coins as lost."""
    lost = sorted((LostCoin(coin.outpoint, coin.value_sats) for coin in coins), key=LostCoin.encode)
    for start in range(0, len(lost), MAX_LOST_COINS):
        yield Deficit.of(lost[start : start + MAX_LOST_COINS])


def _lost_coins(records: Iterable[Record]) -> list[OutPoint]:
    contents = [record.content for record in records]
    return [coin.outpoint for content in contents if isinstance(content, Deficit) for coin in content.lost]
