"""What `peg doctor` says of a machine: software, limits, clock, disk and folders."""

from dataclasses import replace
from pathlib import Path

import pytest

from federation.self_test import SelfTestFailed, SelfTestReason
from pegnode.doctor import machine
from pegnode.doctor.findings import Check, Outcome
from pegnode.doctor.machine import (
    GOOD_FREE_BYTES,
    MIN_FREE_BYTES,
    ClockState,
    DiskState,
    FolderState,
    check_clock,
    check_data_folder,
    check_descriptors,
    check_disk,
    check_software,
    clock_state,
    disk_state,
    existing,
    folder_state,
)

REQUIREMENTS = [
    "py-bitcoinkernel==0.1.0a5",
    "trio>=0.31",
    'atheris==3.1.0; python_version >= "3.12" and extra == "dev"',
]
ENGINE = {"py-bitcoinkernel": "0.1.0a5"}
DATA = Path("/federation/alice/data")
DISK = DiskState(folder=DATA, free_bytes=GOOD_FREE_BYTES, free_files=1_000_000, read_only=False, kind="ext4")
FOLDER = FolderState(folder=DATA, is_folder=True, mode=0o700, owner=1000, user=1000, writable=True)


@pytest.mark.parametrize(
    ("python", "installed", "outcome", "word"),
    [
        ((3, 11), ENGINE, Outcome.OK, "py-bitcoinkernel 0.1.0a5"),
        ((3, 13), ENGINE | {"trio": "0.1", "atheris": "2"}, Outcome.OK, "Python 3.13"),
        ((3, 10), ENGINE, Outcome.PROBLEM, "Python 3.10"),
        ((3, 14), ENGINE, Outcome.PROBLEM, "Python 3.14"),
        ((3, 12), {"py-bitcoinkernel": "0.1.0a6"}, Outcome.PROBLEM, "py-bitcoinkernel is 0.1.0a6, not 0.1.0a5"),
        ((3, 12), {}, Outcome.PROBLEM, "py-bitcoinkernel is absent"),
    ],
)
def test_software_is_what_was_tested(
    python: tuple[int, int], installed: dict[str, str], outcome: Outcome, word: str
) -> None:
    finding = check_software(python, REQUIREMENTS, installed)
    assert (finding.check, finding.outcome) == (Check.SOFTWARE, outcome)
    assert word in finding.what
    assert bool(finding.remedy) is (outcome is not Outcome.OK)


def test_software_of_this_machine_is_what_was_tested() -> None:
    assert machine.software().outcome is Outcome.OK


def test_curve_is_ok_when_both_implementations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.curve().outcome is Outcome.OK

    def disagree() -> None:
        raise SelfTestFailed(SelfTestReason.TWEAK, "vector 1")

    monkeypatch.setattr(machine, "run_self_test", disagree)
    finding = machine.curve()
    assert finding.outcome is Outcome.PROBLEM
    assert "self-test-tweak" in finding.what


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        (255, Outcome.PROBLEM),
        (256, Outcome.WARNING),
        (1023, Outcome.WARNING),
        (1024, Outcome.OK),
        (-1, Outcome.OK),
    ],
)
def test_limit_of_open_files_is_judged(limit: int, outcome: Outcome) -> None:
    assert check_descriptors(limit).outcome is outcome


def test_limit_of_open_files_is_read() -> None:
    assert machine.descriptors().check is Check.LIMITS


@pytest.mark.parametrize(
    ("state", "outcome", "word"),
    [
        (None, Outcome.WARNING, "does not tell"),
        (ClockState(False, 16_000_000), Outcome.WARNING, "nothing that the kernel knows of"),
        (ClockState(True, 1_500_000), Outcome.WARNING, "1500 ms"),
        (ClockState(True, 12_000), Outcome.OK, "12 ms"),
    ],
)
def test_clock_is_judged_by_what_the_kernel_says(state: ClockState | None, outcome: Outcome, word: str) -> None:
    finding = check_clock(state)
    assert (finding.check, finding.outcome) == (Check.CLOCK, outcome)
    assert word in finding.what


def test_clock_is_read_without_rights() -> None:
    state = clock_state()
    assert state is None or state.error_us >= 0


def test_clock_of_a_system_without_the_call_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    assert clock_state() is None


@pytest.mark.parametrize(
    ("disk", "outcome", "word"),
    [
        (DISK, Outcome.OK, "5.0 GiB free"),
        (replace(DISK, beside="the Bitcoin node"), Outcome.OK, "shared with the Bitcoin node"),
        (replace(DISK, free_files=None), Outcome.OK, "free"),
        (replace(DISK, read_only=True), Outcome.PROBLEM, "read-only"),
        (replace(DISK, free_bytes=MIN_FREE_BYTES - 1), Outcome.PROBLEM, "0.2 GiB free"),
        (replace(DISK, free_bytes=MIN_FREE_BYTES), Outcome.WARNING, "0.2 GiB free"),
        (replace(DISK, free_bytes=GOOD_FREE_BYTES - 1), Outcome.WARNING, "5.0 GiB free"),
        (replace(DISK, free_files=999), Outcome.PROBLEM, "999 more files"),
        (replace(DISK, kind="tmpfs"), Outcome.WARNING, "in memory"),
        (replace(DISK, kind="nfs4"), Outcome.WARNING, "another machine"),
    ],
)
def test_disk_is_judged(disk: DiskState, outcome: Outcome, word: str) -> None:
    finding = check_disk(disk)
    assert (finding.check, finding.outcome) == (Check.DISK, outcome)
    assert word in finding.what
    assert bool(finding.remedy) is (outcome is not Outcome.OK)


def test_disk_is_read_where_a_folder_would_be_made(tmp_path: Path) -> None:
    state = disk_state(tmp_path / "a" / "b", tmp_path)
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert state.free_bytes > 0
    assert not state.read_only
    assert state.beside == "the Bitcoin node"
    assert disk_state(tmp_path, None).beside == ""


@pytest.mark.parametrize(
    ("state", "outcome", "word"),
    [
        (FOLDER, Outcome.OK, "this user's alone"),
        (None, Outcome.OK, "will be made"),
        (replace(FOLDER, is_folder=False), Outcome.PROBLEM, "no folder"),
        (replace(FOLDER, owner=0), Outcome.PROBLEM, "belongs to user 0, and this is user 1000"),
        (replace(FOLDER, writable=False), Outcome.PROBLEM, "can't be written"),
        (replace(FOLDER, mode=0o750), Outcome.WARNING, "mode 0750"),
        (replace(FOLDER, mode=0o701), Outcome.WARNING, "mode 0701"),
    ],
)
def test_data_folder_is_judged(state: FolderState | None, outcome: Outcome, word: str) -> None:
    finding = check_data_folder(state, DATA)
    assert (finding.check, finding.outcome) == (Check.DATA_FOLDER, outcome)
    assert word in finding.what


def test_folder_is_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    state = folder_state(tmp_path)
    assert state is not None
    assert (state.is_folder, state.mode, state.owner) == (True, 0o750, state.user)
    assert folder_state(tmp_path / "absent") is None
    (tmp_path / "file").write_text("x")
    file = folder_state(tmp_path / "file")
    assert file is not None
    assert not file.is_folder
