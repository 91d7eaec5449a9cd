"""Follows the mempool of one's own Bitcoin node, for what pays watched scripts and is in no block.

Theory of operation. A poll asks which transactions wait there. Those that were not read before are read, some at a
time, and their payments to watched scripts remembered; so are those in blocks that leave the active chain. A remembered
payment is *waiting* while the mempool holds it. When the mempool holds it no longer, the node is asked for the output:
if it has it, a block holds the payment, and the block watcher will tell of it; otherwise it is *gone*: replaced,
evicted, or spent twice. It is remembered as such for a while, and is waiting again should the mempool have it again.
Nothing that concerns money follows from any of this; it is shown to whom it concerns.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from itertools import islice
from typing import Final, Protocol

import trio

from bridge.bitcoin.block import parse_block_transaction
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.errors import MalformedError
from bridge.l1.answers import L1TxOut
from bridge.l1.errors import L1Error
from bridge.l1.watcher import WINDOW_BLOCKS, L1Watcher, Payment
from bridge.state import Anchor

POLL_S: Final = 2.0
REST_FACTOR: Final = 19
"""A poll that takes long is followed by a rest of so many times its length: a large mempool costs a twentieth."""
READ_AT_ONCE: Final = 20
"""Transactions asked for in one request. One that is relayed has 800,000 hexadecimal digits at most."""
READ_EACH_POLL: Final = 400
MAX_REMEMBERED: Final = 20_000
"""Payments, about 400 bytes each. Of whichever script has the most, the oldest are forgotten first: whoever pays an
address a great many times hides no payment to another. It is as many as addresses are watched, so that each has one."""


class MempoolSource(Protocol):
    """What is asked of a Bitcoin node."""

    async def mempool_txids(self) -> frozenset[Txid]:
        """Every transaction in the mempool."""
        ...

    async def raw_transactions(self, txids: Sequence[Txid]) -> list[bytes | None]:
        """Transactions of the mempool; None for one that has left it."""
        ...

    async def txouts(self, outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        """Unspent outputs; None for what is spent or unknown."""
        ...


@dataclass(frozen=True, slots=True)
class LoosePayment:
    """An output that pays a watched script, and that is in no block.

    is_gone: whether the mempool has lost it too.  seen_at: L1's height when it was last seen, or found gone.
    """

    outpoint: OutPoint
    script: Script
    value_sats: int
    is_gone: bool
    seen_at: int


class MempoolWatcher:
    """What the mempool holds for the scripts of which `is_watched` is true when it is read."""

    def __init__(self, source: MempoolSource, blocks: L1Watcher, is_watched: Callable[[Script], bool]) -> None:
        self._source = source
        self._blocks = blocks
        self._is_watched = is_watched
        self._read: set[Txid] = set()
        self._loose: dict[OutPoint, LoosePayment] = {}
        self._tip: Anchor | None = None
        blocks.on_left(self._note_left)

    def payments_to(self, scripts: Collection[Script]) -> list[LoosePayment]:
        """The payments to these scripts, oldest first."""
        return [payment for payment in self._loose.values() if payment.script in scripts]

    async def poll(self) -> None:
        """Look once. Raises L1Error, with what is remembered consistent."""
        present = await self._source.mempool_txids()
        self._read &= present
        unread = islice((txid for txid in present if txid not in self._read), READ_EACH_POLL)
        wanted = list(unread)
        for first in range(0, len(wanted), READ_AT_ONCE):
            await self._read_some(wanted[first : first + READ_AT_ONCE])
        await self._look_for_the_absent(present)
        self._forget_the_old()

    async def run(self) -> None:
        """Poll for ever. While the node can't be asked, nothing is learnt."""
        while True:
            started_s = trio.current_time()
            with suppress(L1Error):  # the block watcher names the outage
                await self.poll()
            await trio.sleep(max(POLL_S, REST_FACTOR * (trio.current_time() - started_s)))

    async def _read_some(self, txids: Sequence[Txid]) -> None:
        for txid, data in zip(txids, await self._source.raw_transactions(txids), strict=True):
            self._read.add(txid)
            try:
                outputs = () if data is None else parse_block_transaction(data).outputs
            except MalformedError:
                continue  # such as a version of transactions to come
            for vout, output in enumerate(outputs):
                if self._is_watched(output.script):
                    self._remember(OutPoint(txid, vout), output.script, output.value_sats)
        self._make_room()

    def _note_left(self, payments: Iterable[Payment]) -> None:
        """Remember what was in a block that left the active chain; the next poll finds out what became of it."""
        for payment in payments:
            if self._is_watched(payment.script):
                self._remember(payment.outpoint, payment.script, payment.value_sats)
        self._make_room()

    def _remember(self, outpoint: OutPoint, script: Script, value_sats: int) -> None:
        self._loose.pop(outpoint, None)
        self._loose[outpoint] = LoosePayment(outpoint, script, value_sats, False, self._height)

    def _make_room(self) -> None:
        """Forget what is too many, one by one: the oldest to the script that is paid most often."""
        surplus = len(self._loose) - MAX_REMEMBERED
        if surplus <= 0:
            return
        by_script: defaultdict[Script, deque[OutPoint]] = defaultdict(deque)
        for payment in self._loose.values():
            by_script[payment.script].append(payment.outpoint)
        most_first = [(-len(outpoints), order, outpoints) for order, outpoints in enumerate(by_script.values())]
        heapify(most_first)
        for _ in range(surplus):
            count, order, outpoints = most_first[0]
            del self._loose[outpoints.popleft()]
            heapreplace(most_first, (count + 1, order, outpoints))

    async def _look_for_the_absent(self, present: Collection[Txid]) -> None:
        absent = [item for item in self._loose.values() if not item.is_gone and item.outpoint.txid not in present]
        outpoints = [item.outpoint for item in absent]
        outputs = await self._source.txouts(outpoints, include_mempool=True) if absent else []
        for payment, output in zip(absent, outputs, strict=True):
            if self._loose.get(payment.outpoint) != payment:
                continue  # it left a block meanwhile
            if output is None:
                self._loose[payment.outpoint] = replace(payment, is_gone=True, seen_at=self._height)
            elif self._blocks.block_of(payment.outpoint.txid) is not None:
                del self._loose[payment.outpoint]

    def _forget_the_old(self) -> None:
        """Forget what a block holds after all, and what was lost longer ago than blocks are remembered."""
        if self._tip == self._blocks.tip:
            return
        self._tip = self._blocks.tip
        for payment in [item for item in self._loose.values() if item.is_gone]:
            is_old = self._height >= payment.seen_at + WINDOW_BLOCKS
            if is_old or self._blocks.block_of(payment.outpoint.txid) is not None:
                del self._loose[payment.outpoint]

    @property
    def _height(self) -> int:
        return self._blocks.tip.height if self._blocks.tip else 0
