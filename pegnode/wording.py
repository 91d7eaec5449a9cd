"""Times and lists as people read them. (pure)"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta


def time_text(time_ms: int) -> str:
    """A time for people, in UTC; the number itself where the calendar ends."""
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms after 1970"


def moment(time_ms: int, now_ms: int) -> str:
    """A moment for people: UTC, with its day if that is another than today, and how long ago."""
    when = time_text(time_ms).removeprefix(time_text(now_ms)[: len("2026-01-01 ")])
    return f"{when} ({age(now_ms - time_ms)})"


def age(duration_ms: int) -> str:
    """A duration for people: h:mm:ss, with days in front of it if there are any."""
    return str(timedelta(seconds=max(0, duration_ms) // 1000))


def listed(names: Sequence[str]) -> str:
    """Names as people list them."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
