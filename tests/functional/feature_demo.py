"""`peg demo` as a user runs it: everything holds, and nothing is left, however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from bridge.bitcoin.amounts import parse_btc

DEADLINE_S = 300
"""Of a run that takes half a minute on an idle machine."""

AMOUNT = r"(\d+\.\d{8})"
EQUALITY = re.compile(rf" ok  reserves {AMOUNT} = supply {AMOUNT} \+ unsettled {AMOUNT} \+ fund {AMOUNT}  \(")
PAYOUT = re.compile(
    rf" ok  (ann|ben|cho)'s (\w+) address got {AMOUNT} BTC = {AMOUNT} - (\d+) sats at output (\d), 6 confirmations"
)


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """A directory for temporary files; whatever a test leaves running in it is ended, and fails the test."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    yield directory
    left = processes_in(directory)
    for process in left:
        process.kill()
    assert left == []


def processes_in(directory: Path) -> list[psutil.Process]:
    """Every living process that was told of something in a directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(directory) in text for text in arguments):
            found.append(process)
    return found


def start_demo(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """Start it with plain output."""
    return subprocess.Popen(
        [sys.executable, "-m", "pegnode.cli.main", "demo", *options],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(demo: subprocess.Popen[str], text: str) -> None:
    """Read what it prints until `text` is there."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if text in line:
            return
    pytest.fail(f"it ended without: {text}")


def test_round_trip_holds_with_a_member_killed_half_way(temporary: Path, tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    began_s = time.monotonic()
    demo = start_demo(temporary, "--record", str(picture))
    output, errors = demo.communicate(timeout=DEADLINE_S)
    print(output, f"took {time.monotonic() - began_s:.1f} s")
    assert (demo.returncode, errors) == (0, "")
    assert [f"{count} of 6 confirmations" in output for count in range(1, 7)] == [True] * 6
    assert "dave is killed (SIGKILL)" in output
    assert "all five withdrawals are settled" in output
    assert " ok  dave has caught up: all four members have this block" in output
    assert " ok  no findings in the audits of alice, bob, carol, dave" in output
    assert "Everything held" in output
    assert list(temporary.iterdir()) == []
    assert_equalities_hold(output)
    assert_payouts_are_proven(output)
    assert_is_a_picture_of_its_own(picture)


def assert_equalities_hold(output: str) -> None:
    """Each line of the equality adds up, and there is one for every step."""
    found = [[parse_btc(amount) for amount in match.groups()] for match in EQUALITY.finditer(output)]
    assert len(found) == output.count(" ok  reserves ") >= 8
    assert [reserves for reserves, *_ in found] == [sum(terms) for _, *terms in found]
    assert max(unsettled for _, _, unsettled, _ in found) == 150_000_000
    assert found[-1][2] == 0


def assert_payouts_are_proven(output: str) -> None:
    """Five payouts to five kinds of address, each of the burn less its share of the fee that was printed."""
    found = PAYOUT.findall(output)
    assert [kind for _, kind, *_ in found] == ["p2pkh", "p2sh", "p2wpkh", "p2wsh", "p2tr"]
    assert [parse_btc(got) for _, _, got, *_ in found] == [
        parse_btc(burned) - int(share) for _, _, _, burned, share, _ in found
    ]
    batch = re.search(r"(\d+) vbytes, fee (\d+) sats, five payees", output)
    assert batch is not None
    assert sum(int(share) for *_, share, _ in found) == int(batch[2]) >= int(batch[1])
    assert " ok  five payouts proven" in output


def assert_is_a_picture_of_its_own(picture: Path) -> None:
    """It is well-formed SVG that tells the end of the story, and loads nothing."""
    text = picture.read_text(encoding="utf-8")
    words = "".join(ElementTree.fromstring(text).itertext()).replace("\xa0", " ")
    assert "Everything held" in words
    assert "everything held" in words
    assert re.findall(r"url\((?!#)|href", text) == []


@pytest.mark.parametrize(
    ("moment", "signals", "status"),
    [
        ("2 of 6 confirmations", [signal.SIGINT], 130),
        ("4 members that start", [signal.SIGINT, signal.SIGINT, signal.SIGINT], 130),
        ("4 members that start", [signal.SIGTERM], 143),
    ],
)
def test_signal_ends_everything_that_was_started(
    temporary: Path, moment: str, signals: list[signal.Signals], status: int
) -> None:
    demo = start_demo(temporary)
    read_until(demo, moment)
    assert processes_in(temporary) != []
    for number in signals:
        demo.send_signal(number)
        time.sleep(0.05)  # one signal pending twice is one
    output, errors = demo.communicate(timeout=DEADLINE_S)
    assert (demo.returncode, errors) == (status, "")
    assert "interrupted" in output
    assert processes_in(temporary) == []
    assert list(temporary.iterdir()) == []


def test_signals_that_never_stop_leave_the_first_ones_status(temporary: Path) -> None:
    demo = start_demo(temporary)
    read_until(demo, "4 members that start")
    while demo.poll() is None:
        demo.send_signal(signal.SIGINT)
        time.sleep(0.01)  # some of them come after everything has ended
    output, errors = demo.communicate(timeout=DEADLINE_S)
    assert (demo.returncode, errors) == (130, "")
    assert "interrupted" in output
    assert list(temporary.iterdir()) == []


def test_failure_is_told_in_one_line_with_the_logs(temporary: Path) -> None:
    demo = start_demo(temporary)
    read_until(demo, "1 of 6 confirmations")
    [bitcoind] = [
        process for process in processes_in(temporary) if any("-datadir=" in text for text in process.cmdline())
    ]
    bitcoind.kill()
    _, errors = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 1
    assert errors.count("\n") == 1
    # Whoever notices first: the watch over the processes, or the next question to the node.
    assert errors.startswith(("error: demo-ended: the Bitcoin node ended unasked; ", "error: l1-unreachable"))
    [logs] = temporary.iterdir()
    assert f"logs: {logs}" in errors
    assert {log.name for log in logs.iterdir()} >= {"alice.log", "bob.log", "carol.log", "dave.log", "debug.log"}
    assert processes_in(temporary) == []
