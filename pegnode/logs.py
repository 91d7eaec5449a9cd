"""Where a process's log goes, and how a line of it looks."""

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

from pegnode.config import LogLevel


class Unfailing:
    """A stream that loses what it can't write: a log on a full disk, or that nobody reads any more, ends no process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """The number of characters, written or not."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As far as that is possible."""
        with suppress(OSError):
            self._stream.flush()


def start_logging(level: LogLevel) -> None:
    """Log to standard error from now on, one line an event: time, level, what happened, and its values as key=value."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.ExceptionRenderer(),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.value.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
