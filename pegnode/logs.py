"""Where a process's log goes, and how a line of it looks."""

import logging
import sys

import structlog

from pegnode.config import LogLevel


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
