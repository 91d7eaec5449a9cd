"""What `peg db check` says of a sound store of a node that is halted."""

import pytest

from pegnode.cli.db import _print, _reply
from pegnode.halts import remedy
from pegnode.storage.check import ChainReport
from pegnode.storage.data_check import DataReport
from tests.support.halts import latched


def report(halts: int) -> DataReport:
    found = tuple(latched(number, detail=f"coin {number} is gone") for number in range(halts))
    return DataReport(ChainReport(7, bytes(32), bytes(32), 3, 4, 5, found), None)


def test_halts_of_a_sound_store_are_told_with_their_time_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    _print(_reply(report(2), 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "this node is HALTED, and will be when it is started:",
        "    coin-gone, since 2023-11-14 22:13:20 UTC: coin 0 is gone",
        "    coin-gone, since 2023-11-14 22:13:20 UTC: coin 1 is gone",
        f"    what to do: {remedy(latched().finding.kind)}",
        "everything is as the blocks say",
    ]


def test_nothing_is_said_of_halts_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    _print(_reply(report(0), 1.0))
    assert "HALTED" not in capsys.readouterr().out
