"""Follows the active chain of one's own Bitcoin node, and remembers who was paid in its latest blocks.

Theory of operation. The watcher holds a window of consecutive blocks that ends at the node's tip. A poll asks for the
tip; when it moved, blocks that have left the active chain are dropped from the window's top, and the new ones are read,
oldest first. Of each block only payments to P2TR outputs (every reserve script is one) and transaction ids are kept,
so a script or a transaction may also be asked about after its block was read. What the node doesn't answer leaves the
window as it was: an outage is a state with a name, never a finding.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from bridge.bitcoin.block import parse_block
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptType, classify
from bridge.errors import MalformedError
from bridge.l1.errors import L1Error, L1Reason, L1RpcError, L1Unavailable, RpcCode
from bridge.state import Anchor

HEADER_BYTES: Final = 80
WINDOW_BLOCKS: Final = 288
"""How many of the latest blocks the watcher remembers: two days. Each P2TR output takes some 430 bytes: 300 MB with
2,500 of them in a block, 3 GB should somebody fill every block with them."""


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


@dataclass(frozen=True, slots=True)
class _ScannedBlock:
    position: Anchor
    payments: tuple[Payment, ...]
    txids: frozenset[Txid]


class L1Watcher:
    """The window of latest blocks. `first_height`: nothing below it is ever read."""

    def __init__(self, source: L1Source, first_height: int, window_blocks: int = WINDOW_BLOCKS) -> None:
        self._source = source
        self._first_height = first_height
        self._window_blocks = window_blocks
        self._blocks: list[_ScannedBlock] = []
        self._payments: dict[Script, list[Payment]] = {}
        self._outage: L1Error | None = None
        self._on_left: list[Callable[[tuple[Payment, ...]], None]] = []

    def on_left(self, listener: Callable[[tuple[Payment, ...]], None]) -> None:
        """Call `listener` with the payments of each block that has left the active chain."""
        self._on_left.append(listener)

    @property
    def tip(self) -> Anchor | None:
        """The newest block of the window; None until the first complete poll."""
        return self._blocks[-1].position if self._blocks else None

    @property
    def outage(self) -> L1Error | None:
        """Why the last poll failed; None when it did not."""
        return self._outage

    def block_at(self, height: int) -> Anchor | None:
        """The active chain's block at `height`; None outside the window."""
        if not self._blocks:
            return None
        index = height - self._blocks[0].position.height
        return self._blocks[index].position if 0 <= index < len(self._blocks) else None

    def buried(self, confirmations: int) -> Anchor | None:
        """The newest block with at least `confirmations`; None while the window holds none."""
        return None if self.tip is None else self.block_at(self.tip.height - confirmations + 1)

    def confirmations(self, height: int) -> int:
        """How many confirmations a block of the active chain at `height` has; 0 above the tip."""
        return 0 if self.tip is None else max(0, self.tip.height - height + 1)

    def payments_to(self, script: Script) -> tuple[Payment, ...]:
        """Every payment to `script` in the window, oldest first."""
        return tuple(self._payments.get(script, ()))

    def block_of(self, txid: Txid) -> Anchor | None:
        """The block of the window that holds a transaction; None when none does."""
        for block in reversed(self._blocks):
            if txid in block.txids:
                return block.position
        return None

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
            newest = self._blocks[-1].position
            if await self._source.block_hash(newest.height) == newest.hash:
                break
            stale = self._blocks.pop()
            self._forget(stale)
            for listener in self._on_left:
                listener(stale.payments)
            dropped = True
        return dropped

    async def _extend(self, height: int) -> bool:
        extended = False
        while (block_hash := await self._source.block_hash(height)) is not None:
            try:
                scanned, parent_hash = await self._read(Anchor(height, block_hash))
            except L1RpcError as error:
                if self._blocks or error.code != RpcCode.BLOCK_ABSENT:
                    raise
                height += 1  # pruned, or below a snapshot: the window starts above
                continue
            if self._blocks and self._blocks[-1].position.hash != parent_hash:
                break  # the chain changed between two questions: the next poll sorts it out
            self._remember(scanned)
            if len(self._blocks) > self._window_blocks:
                self._forget(self._blocks.pop(0))
            extended = True
            height += 1
        return extended

    async def _read(self, position: Anchor) -> tuple[_ScannedBlock, BlockHash]:
        """A block, and the hash of its parent. Raises L1Unavailable, also for bytes that are another block or none."""
        data = await self._source.block(position.hash)
        try:
            scanned, parent_hash = _scan(data, position)
        except MalformedError as error:
            raise L1Unavailable(L1Reason.BAD_RESPONSE, f"getblock: {error}") from error
        if sha256d(data[:HEADER_BYTES]) != position.hash:
            raise L1Unavailable(L1Reason.BAD_RESPONSE, "getblock: another block than the one asked for")
        return scanned, parent_hash

    def _remember(self, block: _ScannedBlock) -> None:
        self._blocks.append(block)
        for payment in block.payments:
            self._payments.setdefault(payment.script, []).append(payment)

    def _forget_all(self) -> None:
        self._blocks, self._payments = [], {}

    def _forget(self, block: _ScannedBlock) -> None:
        """Drop the payments of a block that has left the window, at either end."""
        for script in {payment.script for payment in block.payments}:
            left = [payment for payment in self._payments.pop(script) if payment.l1_block != block.position]
            if left:
                self._payments[script] = left

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


def _scan(data: bytes, position: Anchor) -> tuple[_ScannedBlock, BlockHash]:
    """What is kept of a block, and the hash of its parent."""
    block = parse_block(data)
    payments = tuple(
        Payment(OutPoint(transaction.txid, vout), output.script, output.value_sats, position, index == 0)
        for index, transaction in enumerate(block.transactions)
        for vout, output in enumerate(transaction.outputs)
        if classify(output.script) is ScriptType.P2TR
    )
    return _ScannedBlock(position, payments, frozenset(tx.txid for tx in block.transactions)), block.parent_hash
