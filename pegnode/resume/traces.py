"""What became of reserve coins that the active chain of L1 does not have unspent.      (pure)

Theory of operation. A coin's transaction may have stood in a block that L1 abandoned. Then it is gone for good only if
something on the active chain is in its way: a block's own coinbase in the place of the abandoned one's, or another
transaction that spends what it spent, or what a transaction spent that it came from. So the abandoned blocks are read
first, newest first, which finds the coins' transactions and all that these came from there; then the blocks of the
active chain, for whatever spends the same. A coin whose own transaction L1 still has was spent itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.state import Anchor

BlockSpends = Sequence[tuple[Txid, Sequence[OutPoint]]]
"""A block's transactions in order, each with what it spends; the first, the coinbase, with nothing."""


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a coin can't come back, unless L1 is reorganised once more.

    block: of the active chain, the one in its way.  outpoint: what was spent there, the coin itself or what it came
    from, and spender: by which transaction; both None where an abandoned coinbase's place is taken.
    """

    block: Anchor
    outpoint: OutPoint | None
    spender: Txid | None


@dataclass(frozen=True, slots=True)
class _Abandoned:
    """A transaction of an abandoned block. spends: empty for a coinbase."""

    txid: Txid
    height: int
    spends: tuple[OutPoint, ...]


class Traces:
    """What blocks show of some coins: `read_abandoned`, then `read_active`, then ask."""

    def __init__(self, coins: Iterable[OutPoint]) -> None:
        self._coins = frozenset(coins)
        self._wanted = {coin.txid for coin in self._coins}
        self._sought: set[OutPoint] = set(self._coins)
        self._abandoned: dict[Txid, _Abandoned] = {}
        self._spends: dict[OutPoint, Fate] = {}
        self._active: dict[int, Anchor] = {}

    def read_abandoned(self, height: int, spends: BlockSpends) -> None:
        """Take in an abandoned block. Newest first: a block is searched for what the blocks above it came from."""
        for index in range(len(spends) - 1, -1, -1):
            txid, spent = spends[index]
            if txid in self._wanted:
                self._abandoned[txid] = _Abandoned(txid, height, tuple(spent))
                self._wanted.update(outpoint.txid for outpoint in spent)
                self._sought.update(spent)

    def read_active(self, block: Anchor, spends: BlockSpends) -> None:
        """Take in a block of the active chain, in any order, when all abandoned ones are read."""
        self._active[block.height] = block
        for txid, spent in spends:
            for outpoint in spent:
                if outpoint in self._sought and txid not in self._abandoned:
                    self._spends[outpoint] = Fate(block, outpoint, txid)

    def is_abandoned(self, coin: OutPoint) -> bool:
        """Whether an abandoned block held the coin's transaction."""
        return coin.txid in self._abandoned

    def fates(self) -> dict[OutPoint, Fate]:
        """The coins in whose way something is, each with the deepest block that is."""
        stopped: dict[Txid, Fate] = {}
        for item in reversed(self._abandoned.values()):  # what came first, first
            found = self._ways(item, stopped)
            if found:
                stopped[item.txid] = min(found, key=lambda fate: fate.block.height)
        fates = {coin: self._spends.get(coin) or stopped.get(coin.txid) for coin in self._coins}
        return {coin: fate for coin, fate in fates.items() if fate is not None}

    def _ways(self, item: _Abandoned, stopped: dict[Txid, Fate]) -> list[Fate]:
        """All that keeps an abandoned transaction from the active chain."""
        if not item.spends:
            taken = self._active.get(item.height)
            return [] if taken is None else [Fate(taken, None, None)]
        found = [self._spends.get(outpoint) or stopped.get(outpoint.txid) for outpoint in item.spends]
        return [fate for fate in found if fate is not None]
