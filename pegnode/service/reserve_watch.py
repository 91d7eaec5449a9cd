"""Watches the reserve on L1: whether anything spends its coins that the ledger did not decide.

Theory of operation. A look takes the ledger's coins, asks the Bitcoin node which of them are unspent (once for each new
tip and each new coin) and what in its mempool spends one (each time), and judges the answers by the ledger as it is
after them. A coin may be spent by the versions of the open lineage that locks it, and by nothing else: not even by a
version of a closed one. A payout may reach L1 before this node hears of the block that recorded it, and a lie or a
reorganisation may pass, so what a look finds is a suspicion, and only one that every look repeats for a minute halts.

Nothing is judged while this node has not caught up, while its watcher has not read the Bitcoin node's tip, or if the
tip moved during the look; nor are coins while that node's active chain does not hold the anchor of the final chain.
Every coin entered by a block at or below the anchor, so under an anchor that is on the chain every coin was there, and
one that is gone was spent. An abandoned anchor is a finding of its own (see `l1_monitor`).

The versions of closed lineages that did not settle them share coins with the one that did. So none can be confirmed
unless L1 abandoned the settlement; one at the peg's depth, or at any once the anchor's loss is certain, is a finding.
One that a final record named is known, and stays on L1 for ever. One of a lineage that lost its coins may be recorded
anew, byte for byte, once they return: then it is the later lineage's.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final

import trio

from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.block import parse_block_spends
from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.errors import MalformedError
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error
from bridge.ledger import LedgerView
from bridge.records import Finding, FindingKind, Resume
from bridge.state import Anchor, BatchVersion, Coin
from pegnode.service.closed_lineages import ClosedLineage, ClosedLineages
from pegnode.service.core import NodeCore

LOOK_EVERY_S: Final = 5.0
"""Several looks within `core.SUSPICION_GAP_MS`."""
REST_FACTOR: Final = 9.0
"""A look that takes long is followed by so many times as long a rest, up to MAX_REST_S."""
MAX_REST_S: Final = 10.0
SEARCHED_BLOCKS: Final = 12
"""In so many of the newest blocks the spender of a coin is looked for, to name it."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look saw of the reserve's coins.

    gone: those that are spent on the active chain, and by what, if that was found; without those that a version of
    their open lineage spent, or may have spent.  waiting: by coin, what spends it in the mempool.
    """

    gone: Mapping[OutPoint, Txid | None]
    waiting: Mapping[OutPoint, Txid]


def coin_findings(ledger: LedgerView, sight: Sight) -> dict[Finding, str]:
    """What of it is at odds with the ledger, with words for people. What is no coin any more is none of ours."""
    versions = _open_versions(ledger)
    found: dict[Finding, str] = {}
    for outpoint, spender in sight.gone.items():
        coin = ledger.coins.get(outpoint)
        if coin is not None:
            found[Finding.coin_gone(outpoint)] = f"{_name(coin)} {_spent_by(spender)}"
    for outpoint, spender in sight.waiting.items():
        coin = ledger.coins.get(outpoint)
        if coin is not None and spender not in {version.txid for version in _versions_of(coin, versions)}:
            words = "which waits in the mempool, and is no payout of the ledger"
            found[Finding.coin_gone(outpoint)] = (
                f"{_name(coin)} is being spent on L1 by {hash_to_hex(spender)}, {words}"
            )
    return found


class ReserveWatch:
    """One node's. is_current: whether it has caught up."""

    def __init__(
        self, core: NodeCore, client: L1Client, closed: ClosedLineages, is_current: Callable[[], bool]
    ) -> None:
        self._core = core
        self._client = client
        self._closed = closed
        self._is_current = is_current
        self._at: Anchor | None = None
        self._unspent: frozenset[OutPoint] = frozenset()
        self._spenders: dict[OutPoint, Txid | None] = {}
        self._suspected: set[Finding] = set()

    async def run(self) -> None:
        """Look for ever. While the Bitcoin node can't be asked, nothing is learnt."""
        while True:
            began_s = trio.current_time()
            with suppress(L1Error):
                await self.look()
            rest_s = REST_FACTOR * (trio.current_time() - began_s)
            await trio.sleep(min(max(LOOK_EVERY_S, rest_s), MAX_REST_S))

    async def look(self) -> None:
        """Look once. Raises L1Error, and has concluded nothing."""
        at = await self._tip()
        if at is None:
            return
        anchor = self._core.store.tip.header.anchor
        if await self._client.block_hash(anchor.height) == anchor.hash:
            sight = await self._see(at)
            if await self._tip() == at:
                await self._judge(sight)
            else:
                self._at = None
        elif any(item.finding.kind is FindingKind.ANCHOR_LEFT for item in self._core.active_findings()):
            await self._suspect(self._second_versions(1))

    async def _tip(self) -> Anchor | None:
        """The Bitcoin node's tip, if it may be judged now: this node has caught up, and its watcher has read it."""
        if not self._is_current():
            return None
        tip = Anchor(*await self._client.tip())
        return tip if tip == self._core.watcher.tip else None

    async def _see(self, at: Anchor) -> Sight:
        """What the Bitcoin node says of every coin. Raises L1Error."""
        coins = dict(self._core.store.ledger.coins.items())
        versions = _open_versions(self._core.store.ledger)
        known = self._unspent if at == self._at else frozenset()
        asked = [outpoint for outpoint in coins if outpoint not in known]
        outputs = await self._client.txouts(asked, include_mempool=False)
        absent = [outpoint for outpoint, output in zip(asked, outputs, strict=True) if output is None]
        self._at, self._unspent = at, frozenset(coins).difference(absent)
        spenders = zip(coins, await self._client.mempool_spenders(list(coins)), strict=True)
        waiting = {outpoint: spender for outpoint, spender in spenders if spender is not None}
        unconfirmed = await self._client.txouts(absent, include_mempool=True)
        gone = [
            coins[outpoint]
            for outpoint, output in zip(absent, unconfirmed, strict=True)
            if output is None and outpoint not in waiting
        ]
        unexplained = await self._unexplained({coin: _versions_of(coin, versions) for coin in gone})
        await self._find_spenders(unexplained, at)
        return Sight(dict(self._spenders), waiting)

    async def _unexplained(self, gone: Mapping[Coin, tuple[BatchVersion, ...]]) -> frozenset[OutPoint]:
        """Those of the coins that no version of their lineage spent. Raises L1Error.

        Each version is read once, and others have their turn after each: a lineage may have 32 of them, and hundreds of
        coins.
        """
        unexplained = {coin.outpoint for coin in gone}
        for version in dict.fromkeys(chain.from_iterable(gone.values())):  # coins of one batch share its versions
            transaction = Transaction.parse_stripped(version.transaction)
            await trio.lowlevel.checkpoint()
            explained = unexplained.intersection(txin.outpoint for txin in transaction.inputs)
            if explained and await self._may_be_confirmed(version, transaction):
                unexplained -= explained
        return frozenset(unexplained)

    async def _may_be_confirmed(self, version: BatchVersion, transaction: Transaction) -> bool:
        """Whether the active chain holds a version, or might without this node's knowing it. Raises L1Error.

        A Bitcoin node without an index knows it by its unspent outputs, and by the latest blocks. It can only be in a
        block above the anchor at which it was recorded.
        """
        if await self._core.questions.block_of(version.txid) is not None:
            return True
        own = [transaction.outpoint(vout) for vout in range(len(transaction.outputs))]
        if any(output is not None for output in await self._client.txouts(own, include_mempool=False)):
            return True
        if self._core.watcher.block_at(version.anchor_height) is not None:
            return False
        return not await self._client.has_transaction_index()

    async def _find_spenders(self, gone: frozenset[OutPoint], at: Anchor) -> None:
        """Look through the newest blocks for what spent these coins; once for each of them. Raises L1Error."""
        self._spenders = {outpoint: spender for outpoint, spender in self._spenders.items() if outpoint in gone}
        wanted = gone - self._spenders.keys()
        if not wanted:
            return
        found: dict[OutPoint, Txid | None] = dict.fromkeys(wanted)
        for height in range(at.height, max(-1, at.height - SEARCHED_BLOCKS), -1):
            block = self._core.watcher.block_at(height)
            if block is None:
                break
            data = await self._client.block(block.hash)
            with suppress(MalformedError):
                for txid, spent in await trio.to_thread.run_sync(parse_block_spends, data):
                    found |= dict.fromkeys(wanted.intersection(spent), txid)
        self._spenders |= found

    def _second_versions(self, depth: int) -> dict[Finding, str]:
        """The versions of closed lineages that L1 holds, `depth` deep, without having settled them."""
        watcher, recorded = self._core.watcher, self._core.store.ledger.versions
        found: dict[Finding, str] = {}
        for closed in self._closed:
            for txid in closed.others:
                if recorded.get(txid) != closed.number:
                    continue
                block = watcher.block_of(txid)
                finding = Finding.second_version(txid)
                if block is None or watcher.confirmations(block.height) < depth or self._is_named(finding):
                    continue
                found[finding] = f"{hash_to_hex(txid)} is confirmed in L1 block {block.height}: {_closed_as(closed)}"
        return found

    async def _judge(self, sight: Sight) -> None:
        """Suspect what the ledger, as it is now, does not explain, and take back what it explains by now."""
        found = coin_findings(self._core.store.ledger, sight)
        found |= self._second_versions(self._core.rules.params.confirmations)
        for finding in self._suspected - found.keys():
            self._core.unsuspect(finding)
        await self._suspect(found)

    async def _suspect(self, found: Mapping[Finding, str]) -> None:
        """Others have their turn in between: what becomes a halt is written to disk, one by one."""
        self._suspected = set(found)
        for finding, detail in found.items():
            self._core.suspect(finding, detail)
            await trio.lowlevel.checkpoint()

    def _is_named(self, finding: Finding) -> bool:
        """Whether a final record ended it, here or elsewhere."""
        contents = [signed.record.content for signed in self._core.records.final()]
        return any(isinstance(content, Resume) and finding in content.findings for content in contents)


def _open_versions(ledger: LedgerView) -> dict[int, tuple[BatchVersion, ...]]:
    return {number: lineage.versions for number, lineage in ledger.open_lineages.items()}


def _versions_of(coin: Coin, versions: Mapping[int, tuple[BatchVersion, ...]]) -> tuple[BatchVersion, ...]:
    """The versions of the open lineage that locks a coin. versions: by lineage."""
    return () if coin.lineage is None else versions.get(coin.lineage, ())


def _name(coin: Coin) -> str:
    return f"the reserve coin {coin.outpoint} of {format_btc(coin.value_sats)} BTC"


def _closed_as(closed: ClosedLineage) -> str:
    if closed.settled_by is None:
        return f"a version of batch {closed.number}, which was given up because its coins were lost"
    return f"a version of batch {closed.number}, which {hash_to_hex(closed.settled_by)} had settled"


def _spent_by(spender: Txid | None) -> str:
    if spender is None:
        return "is gone from L1, and no payout of the ledger spent it"
    return f"was spent on L1 by {hash_to_hex(spender)}, which is no payout of the ledger"
