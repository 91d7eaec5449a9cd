"""What peers hand in and nobody has judged yet: bounded for each peer, and taken from all of them in turn."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from pegnode.net.transport import PeerId

T = TypeVar("T")


@dataclass(slots=True)
class _Heap(Generic[T]):
    """What waits of one peer, and its size."""

    items: deque[tuple[T, int]] = field(default_factory=deque)
    size_bytes: int = 0


class Inbox(Generic[T]):
    """Items by sender. max_items, max_bytes: what may wait of one peer; more of it is not taken.

    So a peer that hands in much makes the others wait for one item of its, never for all, and takes nobody's place.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: OrderedDict[PeerId, _Heap[T]] = OrderedDict()
        self._changed = trio.Event()

    def put(self, peer: PeerId, item: T, size_bytes: int) -> bool:
        """Let an item wait; False, and nothing changed, when its sender has no room left."""
        heap = self._waiting.get(peer) or _Heap()
        if len(heap.items) >= self._max_items or heap.size_bytes + size_bytes > self._max_bytes:
            return False
        heap.items.append((item, size_bytes))
        heap.size_bytes += size_bytes
        self._waiting[peer] = heap
        self._changed.set()
        return True

    async def take(self) -> tuple[PeerId, T]:
        """The oldest item of the peer whose turn it is; waits for one."""
        while not self._waiting:
            self._changed = trio.Event()
            await self._changed.wait()
        peer, heap = self._waiting.popitem(last=False)
        item, size_bytes = heap.items.popleft()
        heap.size_bytes -= size_bytes
        if heap.items:
            self._waiting[peer] = heap
        return peer, item

    def forget(self, peer: PeerId) -> None:
        """Drop what waits of a peer."""
        self._waiting.pop(peer, None)

    def __len__(self) -> int:
        return sum(len(heap.items) for heap in self._waiting.values())
