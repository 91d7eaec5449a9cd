"""What happened, in order: a line for each thing, and a fingerprint of all, frames too, by which runs are compared."""

from dataclasses import dataclass, field
from zlib import crc32

import trio

MAX_LINES = 2_000_000
"""More than any run makes that is not in an endless loop."""


def short(data: bytes) -> str:
    """Enough of a hash to recognise it by."""
    return data[:4].hex() if data else "nothing"


@dataclass(slots=True)
class Trace:
    """Kept in memory, and read when a seed has failed or somebody asks. fingerprint: over everything, frames too."""

    entries: list[tuple[float, str, str]] = field(default_factory=list)
    fingerprint: int = 0

    def note(self, who: str, what: str) -> None:
        """One line."""
        now_s = trio.current_time()
        self.fingerprint = crc32(f"{now_s}{who}{what}".encode(), self.fingerprint)
        if len(self.entries) < MAX_LINES:
            self.entries.append((now_s, who, what))

    def frame(self, source: int, destination: int, payload: bytes) -> None:
        """A frame left: no line, but a part of the fingerprint."""
        self.fingerprint = crc32(
            payload, crc32(b"%d %d %f" % (source, destination, trio.current_time()), self.fingerprint)
        )

    def lines(self) -> list[str]:
        """For people: seconds of virtual time, who, what."""
        return [f"{at_s:9.3f}  {who:<9}  {what}" for at_s, who, what in self.entries]
