"""The log: a line an event, and no reason to end."""

from pathlib import Path

import pytest
import structlog

from pegnode.config import LogLevel
from pegnode.logs import Unfailing, start_logging


def test_log_that_can_not_be_written_ends_nothing() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    stream = full.open("w", encoding="utf-8", buffering=1)
    with pytest.raises(OSError, match="No space left"):
        stream.write("a line\n")
    log = structlog.PrintLogger(Unfailing(stream))  # type: ignore[arg-type] # it takes anything that writes
    log.info("a line")
    with pytest.raises(OSError, match="No space left"):
        stream.close()


def test_event_is_one_line_of_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogLevel.INFO)
    try:
        structlog.get_logger().info("block final", height=7, words="two words")
        structlog.get_logger().debug("not shown")
    finally:
        structlog.reset_defaults()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("timestamp=")
    assert line.endswith('level=info event="block final" height=7 words="two words"')
