"""The audit of a running node: the ledger recounted, the reserve compared with L1, and what a statement needs of it.

Theory of operation. The Bitcoin node's UTXO set is looked at first, at one L1 block: by a scan for every known reserve
script, or coin by coin. Then, at one moment, the ledger's books are taken and the recount of the sidechain's own UTXO
set begins, both after one final block. What is still open is asked: coins that the scan did not show, who spends coins
in the mempool, which batches are confirmed. If L1's active chain no longer holds the L1 block by then, all of it is
done again. What looks wrong is looked at again for some seconds, each time by the ledger of then: a payout may reach L1
before this node hears of the block that recorded it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.deposits import ReserveTerms
from bridge.l1.answers import ScannedOutput, TxOutSetScan
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error, L1RpcError, RpcCode
from bridge.state import Anchor, Totals
from federation.statement import BlockTerms, SolvencyStatement
from federation.statement_law import OwnAudit
from pegnode.audit.report import Audit
from pegnode.audit.reserve import Books, L1Sight, explain
from pegnode.chain.header import Header
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.service.core import NodeCore
from pegnode.service.unfinal import UnfinalBlock
from pegnode.storage.audit import Recount

MISSING_FOR_S: Final = 5.0
"""For how long something has to look wrong before it is told as a fact."""
MISSING_AGAIN_S: Final = 0.5
SCAN_WAIT_S: Final = 60.0
"""How long to wait for somebody else's scan: the Bitcoin node makes one at a time."""
SCAN_AGAIN_S: Final = 0.25
ATTEMPTS: Final = 5
"""How often to begin again because L1 moved."""
BLOCK_WAIT_S: Final = 10.0
"""How long a statement's block, or a later one, may be final elsewhere and not yet here."""
CATCHING_UP_POLL_S: Final = 0.1
REMEMBERED_BLOCKS: Final = 10_000
"""Of so many blocks the terms are remembered, for statements: some 350 bytes each."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of L1 before the books were taken. scan: None when the node was not asked for one."""

    tip: Anchor
    terms: Mapping[Script, ReserveTerms]
    outputs: Mapping[OutPoint, ScannedOutput]
    scan: TxOutSetScan | None


class Auditor:
    """Audits one node. is_current: whether it has caught up."""

    def __init__(self, core: NodeCore, client: L1Client, is_current: Callable[[], bool]) -> None:
        self._core = core
        self._client = client
        self._is_current = is_current
        tip, totals = core.store.tip.header, core.store.ledger.totals
        self._five_terms: dict[int, tuple[int, int, int, int, int]] = {tip.height: _five_terms(totals)}
        self._grown = trio.Event()
        core.on_final(self._remember)

    async def audit(self, scan: bool) -> Audit:
        """Recount everything. scan: have the Bitcoin node go through its whole UTXO set; minutes on the main chain.

        Raises NodeUnavailable: L1_UNREACHABLE, L1_BEHIND, L1_MOVED, SCAN_BUSY, SYNCING.
        """
        try:
            for _ in range(ATTEMPTS):
                audit = await self._attempt(scan)
                if audit is not None:
                    return audit
        except L1Error as outage:
            raise NodeUnavailable(UnavailableReason.L1_UNREACHABLE, str(outage)) from outage
        raise NodeUnavailable(UnavailableReason.L1_MOVED, "L1 grew or was reorganised during each attempt")

    async def examine(self, statement: SolvencyStatement | None) -> tuple[SolvencyStatement, OwnAudit]:
        """A statement, the given one or a new one of the newest block, and what the law asks of this node about it.

        An audit with a scan is made for it now. Raises NodeUnavailable, as `audit`.
        """
        if statement is not None:
            await self._reached(statement.terms.height)
        await self._caught_up()
        audit = await self.audit(scan=True)
        header = audit.recount.tip.header
        if statement is None:
            terms = _block_terms(header, _five_terms(audit.recount.totals))
            statement = SolvencyStatement(terms, audit.l1_tip, audit.time_ms)
        try:
            l1_block = await self._client.block_hash(statement.l1_tip.height)
        except L1Error as outage:
            raise NodeUnavailable(UnavailableReason.L1_UNREACHABLE, str(outage)) from outage
        height = statement.terms.height
        block, above = self._core.store.header_at(height), self._core.store.header_at(height + 1)
        return statement, OwnAudit(
            halted=self._core.halted,
            terms=self._own_terms(height),
            made_ms=block.time_ms if block else None,
            next_made_ms=above.time_ms if above else None,
            audited_height=header.height,
            findings=audit.findings,
            l1_height=audit.l1_tip.height,
            l1_block=l1_block,
            now_ms=self._core.now_ms(),
        )

    async def _reached(self, height: int) -> None:
        """Wait until a block of this height is final here, or for BLOCK_WAIT_S."""
        with trio.move_on_after(BLOCK_WAIT_S):
            while self._core.store.tip.header.height < height:
                await self._grown.wait()

    async def _caught_up(self) -> None:
        """Wait for blocks that are on their way: else old terms would be stated as if they were new.

        Raises NodeUnavailable (SYNCING) when this node has not caught up after BLOCK_WAIT_S.
        """
        deadline_s = trio.current_time() + BLOCK_WAIT_S
        while not self._is_current():
            if trio.current_time() >= deadline_s:
                detail = "a statement is of the newest blocks; ask again when this node has caught up"
                raise NodeUnavailable(UnavailableReason.SYNCING, detail)
            await trio.sleep(CATCHING_UP_POLL_S)

    def _remember(self, unfinal: UnfinalBlock) -> None:
        height = unfinal.block.header.height
        self._five_terms[height] = _five_terms(unfinal.state.ledger.totals)
        self._five_terms.pop(height - REMEMBERED_BLOCKS, None)
        self._grown.set()
        self._grown = trio.Event()

    def _own_terms(self, height: int) -> BlockTerms | None:
        terms, header = self._five_terms.get(height), self._core.store.header_at(height)
        return None if terms is None or header is None else _block_terms(header, terms)

    async def _attempt(self, scan: bool) -> Audit | None:
        """An audit; None if L1 moved meanwhile."""
        look = await self._look(scan)
        deadline_s = trio.current_time() + MISSING_FOR_S
        while True:
            was_current = self._is_current()
            store = self._core.store
            books, recount = Books.take(store.ledger, look.outputs), store.begin_recount()  # of one moment
            sight = await self._sight(look, books)
            anchor = recount.totals.anchor
            if anchor.height > look.tip.height:
                detail = f"it is at {look.tip.height}, the anchor at {anchor.height}"
                raise NodeUnavailable(UnavailableReason.L1_BEHIND, detail)
            anchor_on_chain = await self._client.block_hash(anchor.height) == anchor.hash
            if not await self._is_still(look):
                return None
            rows = explain(books, sight, self._core.rules.custody, self._core.rules.params)
            if not any(row.is_finding for row in rows) and anchor_on_chain:
                break
            if trio.current_time() >= deadline_s:
                self._require_knowledge(was_current, look.tip)
                break
            await trio.sleep(MISSING_AGAIN_S)
        return Audit(
            recount=await trio.to_thread.run_sync(Recount.finish, recount),
            l1_tip=look.tip,
            anchor_on_chain=anchor_on_chain,
            scripts=len(look.terms),
            scanned=look.scan is not None,
            rows=rows,
            time_ms=self._core.now_ms(),
            halt_findings=tuple(self._core.halt_findings),
        )

    def _require_knowledge(self, was_current: bool, l1_tip: Anchor) -> None:
        """Raise NodeUnavailable if what looks wrong may only be what this node has not heard of yet."""
        watched = self._core.watcher.tip
        if not was_current:
            detail = "coins are gone that later blocks may pay out; ask again when this node has caught up"
            raise NodeUnavailable(UnavailableReason.SYNCING, detail)
        if watched is None or watched.height < l1_tip.height:
            raise NodeUnavailable(UnavailableReason.L1_BEHIND, "its newest blocks are not read here yet")

    async def _look(self, scan: bool) -> _Look:
        terms = self._known_scripts()
        if scan:
            found = await self._scan(descriptors(terms, self._core.rules.custody))
            outputs = {output.outpoint: output for output in found.outputs}
            return _Look(Anchor(found.height, found.best_block_hash), terms, outputs, found)
        tip = Anchor(*await self._client.tip())
        payments = [payment for script in terms for payment in self._core.watcher.payments_to(script)]
        unspent = await self._client.txouts([payment.outpoint for payment in payments], include_mempool=False)
        outputs = {
            payment.outpoint: ScannedOutput(
                payment.outpoint, payment.value_sats, payment.script, payment.l1_block.height, output.coinbase
            )
            for payment, output in zip(payments, unspent, strict=True)
            if output is not None
        }
        return _Look(tip, terms, outputs, None)

    def _known_scripts(self) -> Mapping[Script, ReserveTerms]:
        """Every reserve script that this node knows: change and donation of each epoch, addresses, and coins' own."""
        custody = self._core.rules.custody
        terms = dict(self._core.registry.terms)
        kinds = [(policy, kind, b"") for policy in custody.policies for kind in (CoinKind.CHANGE, CoinKind.DONATION)]
        coins = self._core.store.ledger.coins.items()
        kinds += [(custody.policy(coin.epoch), coin.kind, coin.claim_script) for _, coin in coins]
        for policy, kind, claim_script in kinds:
            terms[reserve_script(policy, kind, claim_script).script] = ReserveTerms(kind, policy.epoch, claim_script)
        return terms

    async def _scan(self, wanted: list[str]) -> TxOutSetScan:
        """One scan, after those of others. Raises L1Error, NodeUnavailable(SCAN_BUSY)."""
        deadline_s = trio.current_time() + SCAN_WAIT_S
        while True:
            try:
                return await self._client.scan_txoutset(wanted)
            except L1RpcError as error:
                if error.code != RpcCode.INVALID_PARAMETER:
                    raise
            if trio.current_time() >= deadline_s:
                raise NodeUnavailable(UnavailableReason.SCAN_BUSY, "the Bitcoin node is busy with another scan")
            await trio.sleep(SCAN_AGAIN_S)

    async def _sight(self, look: _Look, books: Books) -> L1Sight:
        """What was seen, completed by what only the books tell to ask for. Raises L1Error.

        What was unspent at the look's block and is asked for later can only have been spent since; what entered a
        block since can't be a coin, for coins lie at or below the anchor.
        """
        outputs = dict(look.outputs)
        coins = {coin.outpoint: coin for coin in books.coins}
        again = [outpoint for outpoint in books.entered if outpoint not in coins]  # settled since the scan?
        unseen = [outpoint for outpoint in coins if outpoint not in outputs]
        found = await self._client.txouts([*again, *unseen], include_mempool=False)
        for outpoint, output in zip([*again, *unseen], found, strict=True):
            if output is None:
                outputs.pop(outpoint, None)
            elif outpoint in coins:
                height = coins[outpoint].l1_height
                outputs[outpoint] = ScannedOutput(outpoint, output.value_sats, output.script, height, output.coinbase)
        held = [outpoint for outpoint in coins if outpoint in outputs]
        spenders = zip(held, await self._client.mempool_spenders(held), strict=True)
        return L1Sight(
            tip=look.tip,
            outputs=outputs,
            spenders={outpoint: spender for outpoint, spender in spenders if spender is not None},
            confirmed=await self._confirmed(books, outputs),
            terms=look.terms,
        )

    async def _confirmed(self, books: Books, outputs: Mapping[OutPoint, ScannedOutput]) -> frozenset[Txid]:
        """The open versions that the active chain holds, of those that may explain a coin that is gone."""
        gone = {coin.outpoint for coin in books.coins if coin.outpoint not in outputs}
        confirmed = {outpoint.txid for outpoint in outputs} & books.open_versions.keys()
        for txid, version in books.open_versions.items():
            if gone & version.inputs and await self._core.questions.block_of(txid) is not None:
                confirmed.add(txid)
        return frozenset(confirmed)

    async def _is_still(self, look: _Look) -> bool:
        """Whether L1 is where it was: after a scan, on top of its block; else exactly there."""
        if look.scan is None:
            return Anchor(*await self._client.tip()) == look.tip
        return await self._client.block_hash(look.tip.height) == look.tip.hash


def descriptors(terms: Mapping[Script, ReserveTerms], custody: Custody) -> list[str]:
    """What to scan for: the published descriptors of change and donations, and the scripts of deposit addresses.

    A deposit address's own descriptor has every member's key in it: a kilobyte, and twenty thousand of them may be.
    """
    return [
        f"raw({script.hex()})"
        if item.kind is CoinKind.DEPOSIT
        else reserve_script(custody.policy(item.epoch), item.kind).descriptor
        for script, item in terms.items()
    ]


def _five_terms(totals: Totals) -> tuple[int, int, int, int, int]:
    return totals.reserves_sats, totals.deficit_sats, totals.supply_sats, totals.unsettled_sats, totals.fund_sats


def _block_terms(header: Header, terms: tuple[int, int, int, int, int]) -> BlockTerms:
    """The terms of a statement about one block."""
    place = (header.chain_id, header.epoch, header.height, header.hash, header.anchor, header.ledger_root)
    return BlockTerms(*place, *terms)
