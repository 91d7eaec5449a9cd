"""What peers hand in and nobody has judged yet: bounded for each peer, and taken from all of them in turn."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

import trio

from pegnode.net.transport import PeerId

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items by sender. max_items, max_bytes: what may wait of one peer; more of it is not taken.

    So a peer that hands in much makes the others wait for one item of its, never for all, and takes nobody's place.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: OrderedDict[PeerId, deque[tuple[T, int]]] = OrderedDict()
        self._changed = trio.Event()

    def put(self, peer: PeerId, item: T, size_bytes: int) -> bool:
        """Let an item wait; False, and nothing changed, when its sender has no room left."""
        items = self._waiting.get(peer, deque())
        if len(items) >= self._max_items or size_bytes + sum(size for _, size in items) > self._max_bytes:
            return False
        items.append((item, size_bytes))
        self._waiting[peer] = items
        self._changed.set()
        return True

    async def take(self) -> tuple[PeerId, T]:
        """The oldest item of the peer whose turn it is; waits for one."""
        while not self._waiting:
            self._changed = trio.Event()
            await self._changed.wait()
        peer, items = self._waiting.popitem(last=False)
        item, _ = items.popleft()
        if items:
            self._waiting[peer] = items
        return peer, item

    def forget(self, peer: PeerId) -> None:
        """Drop what waits of a peer."""
        self._waiting.pop(peer, None)

    def __len__(self) -> int:
        return sum(len(items) for items in self._waiting.values())
