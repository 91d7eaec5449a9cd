"""Evil that needs no understanding: to withhold, to delay, to repeat, to send garbage."""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from random import Random

import msgspec
import trio

from pegnode.net.messages import (
    AnyMessage,
    BlockAnswer,
    CertificatesMessage,
    FinalBlocksAnswer,
    L1Report,
    ProposalMessage,
    RegistrationsMessage,
    SharesMessage,
    TipMessage,
    TransactionsMessage,
    VotesMessage,
)
from pegnode.net.transport import PeerId
from tests.sim.evil import Evil, Villain

KINDS: tuple[type[AnyMessage], ...] = (
    ProposalMessage,
    VotesMessage,
    CertificatesMessage,
    BlockAnswer,
    FinalBlocksAnswer,
    TipMessage,
    L1Report,
    TransactionsMessage,
    SharesMessage,
    RegistrationsMessage,
)
OLD_FRAMES = 400
PARTS_OF_PATIENCE = (0.3, 0.7, 0.9, 0.95, 0.99, 1.0, 1.1, 3.0)
"""How long a frame is held back. The way to the others takes a part of the time, too."""


class Withhold(Evil):
    """Swallows all messages of some kinds, or everything to some members; what and whom changes from time to time."""

    name = "withhold"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._kinds: tuple[type[AnyMessage], ...] = ()
        self._shunned: list[PeerId] = []
        self.strike()

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, self._kinds) or destination in self._shunned:
            self.villain.done(self.name, type(message).__name__)
            return ()
        return None

    def strike(self) -> None:
        if self.is_eager():
            others = self.villain.others
            self._kinds = tuple(self.rng.sample(KINDS, self.rng.randint(0, 4)))
            self._shunned = self.rng.sample(others, self.rng.randint(0, len(others) // 2))


class ShowToSome(Evil):
    """Sends its blocks, or its votes, to some members only."""

    name = "show to some"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._kind: type[AnyMessage] = rng.choice((ProposalMessage, ProposalMessage, VotesMessage))
        self._chosen: list[PeerId] = []
        self.strike()

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, self._kind) and destination not in self._chosen:
            self.villain.done(self.name, type(message).__name__)
            return ()
        return None

    def strike(self) -> None:
        others = self.villain.others
        self._chosen = self.rng.sample(others, self.rng.randint(1, len(others)))


class Delay(Evil):
    """Holds frames back for a part of what the most impatient honest member would wait, often just short of it."""

    name = "delay"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._held: list[tuple[float, int, PeerId, bytes]] = []
        self._changed = trio.Event()
        self._number = 0

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if not isinstance(message, (ProposalMessage, VotesMessage, CertificatesMessage)) or not self.is_eager():
            return None
        self.hold(destination, payload, self.rng.choice(PARTS_OF_PATIENCE))
        self.villain.done(self.name, type(message).__name__)
        return ()

    def hold(self, destination: PeerId, payload: bytes, part: float) -> None:
        """Send it later."""
        self._number += 1
        due_s = trio.current_time() + part * self.villain.patience_s
        heapq.heappush(self._held, (due_s, self._number, destination, payload))
        self._changed.set()

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(self._held[0][0] if self._held else math.inf):
                await self._changed.wait()
            while self._held and self._held[0][0] <= trio.current_time():
                _, _, destination, payload = heapq.heappop(self._held)
                self.villain.inject(destination, payload)


class Replay(Evil):
    """Says again, to anybody, what anybody ever said: soon, late, and after restarts."""

    name = "replay"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._old: deque[bytes] = deque(maxlen=OLD_FRAMES)

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        self._keep(payload)
        return None

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        self._keep(payload)

    def _keep(self, payload: bytes) -> None:
        if len(self._old) < OLD_FRAMES or self.rng.random() < 0.2:
            self._old.append(payload)

    def strike(self) -> None:
        for _ in range(self.rng.randint(1, 8) if self._old else 0):
            self.villain.inject(self.rng.choice(self.villain.others), self.rng.choice(self._old))
            self.villain.done(self.name)


class Garbage(Evil):
    """Bytes that are no message, messages cut short or with bits flipped, huge lists, fields of the wrong kind."""

    name = "garbage"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if self.rng.random() > 0.03 * self.eagerness:
            return None
        self.villain.done(self.name, type(message).__name__)
        return (self._spoilt(payload),)

    def strike(self) -> None:
        if self.is_eager():
            self.villain.inject(self.rng.choice(self.villain.others), self._made_up())
            self.villain.done(self.name)

    def _spoilt(self, payload: bytes) -> bytes:
        position = self.rng.randrange(len(payload))
        if self.rng.random() < 0.5:
            return payload[:position]
        return payload[:position] + bytes([payload[position] ^ 1 << self.rng.randrange(8)]) + payload[position + 1 :]

    def _made_up(self) -> bytes:
        rng = self.rng
        kind = rng.randint(0, 20)
        return rng.choice(
            (
                b"",
                rng.randbytes(rng.randint(1, 200)),
                b"\xdd\xff\xff\xff\xff" + bytes([kind]),  # a list of four thousand million items
                b"\x91" * 2_000,  # lists in lists
                msgspec.msgpack.encode([kind]),
                msgspec.msgpack.encode([kind, None, -1, "text"]),
                msgspec.msgpack.encode([kind, [b""] * 5_000]),
                msgspec.msgpack.encode([kind, [rng.randbytes(20) for _ in range(1_000)]]),
                msgspec.msgpack.encode([kind, 2**63, rng.randbytes(32)]),
                msgspec.msgpack.encode([kind, rng.randbytes(32), rng.randbytes(300)]),
            )
        )
