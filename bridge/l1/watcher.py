"""Follows the active chain of one's own Bitcoin node, and remembers who was paid in its latest blocks.

Theory of operation. The watcher holds a window of consecutive blocks that ends at the node's tip. A poll asks for the
tip; when it moved, blocks that have left the active chain are dropped from the window's top, and the new ones are read,
oldest first. Of each block only payments to P2TR outputs (every reserve script is one) and transaction ids are kept,
packed, so a script or a transaction may also be asked about after its block was read. What the node doesn't answer
leaves the window as it was: an outage is a state with a name, never a finding.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from bridge.bitcoin.block import L1Block, parse_block
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptType, classify
from bridge.errors import MalformedError
from bridge.l1.errors import L1Error, L1Reason, L1RpcError, L1Unavailable, RpcCode
from bridge.l1.packed_rows import PackedRows
from bridge.state import Anchor

HEADER_BYTES: Final = 80
WINDOW_BLOCKS: Final = 288
"""How many of the latest blocks the watcher remembers: two days. A P2TR output takes some 100 bytes, a transaction 50:
110 MB with 2,500 of each in a block, 700 MB should somebody fill every block with outputs."""
MAX_FOUND: Final = 100_000
"""Scripts of which the payments are remembered unpacked until the next block, for all are asked about again and again.
Some 100 bytes each, and as much as its payments."""
_P2TR: Final = b"\x51\x20"
"""OP_1 and a push, before the output key. Source: BIP341."""


class L1Source(Protocol):
    """What the watcher asks of a Bitcoin node."""

    async def tip(self) -> tuple[int, BlockHash]:
        """Height and hash of the active chain's tip."""
        ...

    async def block_hash(self, height: int) -> BlockHash | None:
        """The active chain's block at `height`; None above the tip."""
        ...

    async def block(self, block_hash: BlockHash) -> bytes:
        """The serialized block."""
        ...


@dataclass(frozen=True, slots=True)
class Payment:
    """An output on the active chain that pays a P2TR script. is_coinbase: whether it is the miner's own payment."""

    outpoint: OutPoint
    script: Script
    value_sats: int
    l1_block: Anchor
    is_coinbase: bool


class L1Watcher:
    """The window of latest blocks. `first_height`: nothing below it is ever read."""

    def __init__(self, source: L1Source, first_height: int, window_blocks: int = WINDOW_BLOCKS) -> None:
        self._source = source
        self._first_height = first_height
        self._window_blocks = window_blocks
        self._blocks: list[Anchor] = []
        self._payments = PackedRows("32sIQ?")  # by output key: txid, index, value, whether of a coinbase
        self._transactions = PackedRows()  # by txid
        self._found: dict[Script, tuple[Payment, ...]] = {}
        self._outage: L1Error | None = None
        self._on_left: list[Callable[[tuple[Payment, ...]], None]] = []

    def on_left(self, listener: Callable[[tuple[Payment, ...]], None]) -> None:
        """Call `listener` with the payments of each block that has left the active chain."""
        self._on_left.append(listener)

    @property
    def tip(self) -> Anchor | None:
        """The newest block of the window; None until the first complete poll."""
        return self._blocks[-1] if self._blocks else None

    @property
    def outage(self) -> L1Error | None:
        """Why the last poll failed; None when it did not."""
        return self._outage

    def block_at(self, height: int) -> Anchor | None:
        """The active chain's block at `height`; None outside the window."""
        if not self._blocks:
            return None
        index = height - self._blocks[0].height
        return self._blocks[index] if 0 <= index < len(self._blocks) else None

    def buried(self, confirmations: int) -> Anchor | None:
        """The newest block with at least `confirmations`; None while the window holds none."""
        return None if self.tip is None else self.block_at(self.tip.height - confirmations + 1)

    def confirmations(self, height: int) -> int:
        """How many confirmations a block of the active chain at `height` has; 0 above the tip."""
        return 0 if self.tip is None else max(0, self.tip.height - height + 1)

    def payments_to(self, script: Script) -> tuple[Payment, ...]:
        """Every payment to `script` in the window, oldest first."""
        if script not in self._found:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[script] = tuple(self._find(script))
        return self._found[script]

    def _find(self, script: Script) -> Iterator[Payment]:
        if classify(script) is ScriptType.P2TR:
            for height, *row in self._payments.find(script[len(_P2TR) :]):
                yield _payment(script, self._blocks[height - self._blocks[0].height], *row)

    def block_of(self, txid: Txid) -> Anchor | None:
        """The block of the window that holds a transaction; None when none does."""
        return next((self.block_at(height) for (height,) in self._transactions.find(txid)), None)

    async def poll(self) -> bool:
        """Bring the window to the node's tip; whether it moved. Raises L1Unavailable, with a consistent window."""
        tip_height, tip_hash = await self._source.tip()
        if self.tip is not None and self.tip.hash == tip_hash:
            return False
        dropped = await self._drop_stale()
        if self.tip is not None and tip_height - self.tip.height >= self._window_blocks:
            self._forget_all()  # the new blocks fill the window, and the node may have pruned those before
        height = self.tip.height + 1 if self.tip else max(self._first_height, tip_height - self._window_blocks + 1)
        return await self._extend(height) or dropped

    async def _drop_stale(self) -> bool:
        dropped = False
        while self._blocks:
            newest = self._blocks[-1]
            if await self._source.block_hash(newest.height) == newest.hash:
                break
            payments = self._forget_newest()
            for listener in self._on_left:
                listener(payments)
            dropped = True
        return dropped

    async def _extend(self, height: int) -> bool:
        extended = False
        while (block_hash := await self._source.block_hash(height)) is not None:
            try:
                block = await self._read(block_hash)
            except L1RpcError as error:
                if self._blocks or error.code != RpcCode.BLOCK_ABSENT:
                    raise
                height += 1  # pruned, or below a snapshot: the window starts above
                continue
            if self._blocks and self._blocks[-1].hash != block.parent_hash:
                break  # the chain changed between two questions: the next poll sorts it out
            self._remember(Anchor(height, block_hash), block)
            if len(self._blocks) > self._window_blocks:
                self._forget_oldest()
            extended = True
            height += 1
        return extended

    async def _read(self, block_hash: BlockHash) -> L1Block:
        """A block. Raises L1Unavailable, also for bytes that are another block or none."""
        data = await self._source.block(block_hash)
        try:
            block = parse_block(data)
        except MalformedError as error:
            raise L1Unavailable(L1Reason.BAD_RESPONSE, f"getblock: {error}") from error
        if sha256d(data[:HEADER_BYTES]) != block_hash:
            raise L1Unavailable(L1Reason.BAD_RESPONSE, "getblock: another block than the one asked for")
        return block

    def _remember(self, position: Anchor, block: L1Block) -> None:
        self._blocks.append(position)
        self._found.clear()
        for index, transaction in enumerate(block.transactions):
            txid = transaction.txid
            self._transactions.add(txid, position.height)
            for vout, output in enumerate(transaction.outputs):
                if classify(output.script) is ScriptType.P2TR:
                    key = output.script[len(_P2TR) :]
                    self._payments.add(key, position.height, txid, vout, output.value_sats, index == 0)

    def _forget_newest(self) -> tuple[Payment, ...]:
        """Drop the newest block of the window; whom it paid."""
        newest = self._blocks.pop()
        self._found.clear()
        self._transactions.pop_top(newest.height)
        rows = self._payments.pop_top(newest.height)
        if not self._blocks:
            self._forget_all()  # what comes next may be lower than anything before
        return tuple(_payment(Script(_P2TR + key), newest, *row) for key, row in rows)

    def _forget_oldest(self) -> None:
        del self._blocks[0]
        self._payments.forget_below(self._blocks[0].height)
        self._transactions.forget_below(self._blocks[0].height)

    def _forget_all(self) -> None:
        self._blocks.clear()
        self._found.clear()
        self._payments.clear()
        self._transactions.clear()

    async def run(self, interval_s: float, on_change: Callable[[], Awaitable[None]]) -> None:
        """Poll for ever; `on_change` is awaited after each poll that moved the window."""
        while True:
            moved = False
            try:
                moved = await self.poll()
                self._outage = None
            except L1Error as error:
                self._outage = error
            if moved:
                await on_change()
            await trio.sleep(interval_s)


def _payment(script: Script, block: Anchor, txid: Txid, vout: int, value_sats: int, is_coinbase: bool) -> Payment:
    """What a row of payments stands for."""
    return Payment(OutPoint(txid, vout), script, value_sats, block, is_coinbase)
