"""The machine: software, limits, the clock, and the disk under the data."""

import ctypes
import importlib.metadata
import os
import re
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from federation.self_test import SelfTestFailed, run_self_test
from pegnode import __version__
from pegnode.doctor.findings import Check, Finding, ok, problem, warning

PYTHONS: Final = ((3, 11), (3, 12), (3, 13))
MIN_DESCRIPTORS: Final = 256
"""Database files, members, guests, RPC clients and the Bitcoin node each take some."""
GOOD_DESCRIPTORS: Final = 1024
MIN_FREE_BYTES: Final = 256 * 1024 * 1024
GOOD_FREE_BYTES: Final = 5 * 1024 * 1024 * 1024
MIN_FREE_FILES: Final = 1_000
MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs", "devtmpfs")
NETWORK_FILE_SYSTEMS: Final = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "afs")
MAX_CLOCK_ERROR_US: Final = 1_000_000
"""Half of what members tolerate of each other, `chain.conditions.MAX_CLOCK_AHEAD_MS`."""

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.]+)$")
_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""


def check_software(python: tuple[int, int], requirements: Sequence[str], installed: Mapping[str, str]) -> Finding:
    """Whether this Python and the exactly pinned packages, such as the script engine, are those that were tested."""
    if python not in PYTHONS:
        versions = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        return problem(Check.SOFTWARE, f"Python {python[0]}.{python[1]}", f"install with Python {versions}: make setup")
    wrong = []
    needed = [name.strip() for name, _, marker in (one.partition(";") for one in requirements) if "extra" not in marker]
    pins = [pin for requirement in needed if (pin := _PIN.fullmatch(requirement))]
    for pin in pins:
        found = installed.get(pin["name"])
        if found != pin["version"]:
            wrong.append(f"{pin['name']} is {found or 'absent'}, not {pin['version']}")
    if wrong:
        return problem(Check.SOFTWARE, "; ".join(wrong), "install what was tested, in the exact versions: make setup")
    names = ", ".join(f"{pin['name']} {pin['version']}" for pin in pins)
    return ok(Check.SOFTWARE, f"pegnode {__version__}, Python {python[0]}.{python[1]}, {names or 'nothing pinned'}")


def software() -> Finding:
    """The same for this process."""
    try:
        requirements = importlib.metadata.requires("pegnode") or []
    except importlib.metadata.PackageNotFoundError:
        return warning(Check.SOFTWARE, "pegnode runs without being installed", "install it with its lock: make setup")
    installed = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}
    return check_software(sys.version_info[:2], requirements, installed)


def curve() -> Finding:
    """Whether two independent implementations of the curve agree on this machine."""
    try:
        run_self_test()
    except SelfTestFailed as error:
        remedy = "sign nothing on this machine: test its memory and processor, and install again with make setup"
        return problem(Check.CURVE, f"the signature library gives wrong answers ({error})", remedy)
    return ok(Check.CURVE, "the signature library passes its self-test")


def check_descriptors(limit: int) -> Finding:
    """Whether a process may open enough files. limit: how many; -1 for any number."""
    remedy = f"raise it to {GOOD_DESCRIPTORS} at least: ulimit -n, or LimitNOFILE= in a systemd unit"
    what = f"a process may open {'any number of' if limit < 0 else limit} files"
    if 0 <= limit < MIN_DESCRIPTORS:
        return problem(Check.LIMITS, what, remedy)
    if 0 <= limit < GOOD_DESCRIPTORS:
        return warning(Check.LIMITS, what, remedy)
    return ok(Check.LIMITS, what)


def descriptors() -> Finding:
    """The same for what is started from here."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return check_descriptors(-1 if limit == resource.RLIM_INFINITY else limit)


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the kernel says of the clock. error_us: the most by which it may be wrong, in microseconds."""

    synchronised: bool
    error_us: int


def check_clock(state: ClockState | None) -> Finding:
    """Whether the clock is kept right. None: this system does not tell."""
    remedy = "run chrony, ntpd or systemd-timesyncd: members refuse blocks from more than two seconds ahead"
    if state is None:
        return warning(Check.CLOCK, "this system does not tell whether its clock is kept right", remedy)
    if not state.synchronised:
        return warning(Check.CLOCK, "nothing that the kernel knows of keeps the clock right", remedy)
    what = f"kept right by the network, to {state.error_us / 1000:.0f} ms"
    if state.error_us > MAX_CLOCK_ERROR_US:
        return warning(Check.CLOCK, what, remedy)
    return ok(Check.CLOCK, what)


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`, with room for the rest. Source: adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def clock_state() -> ClockState | None:
    """What the kernel says; reading it needs no rights and sets nothing. None where there is no such call."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError):
        return None
    timex = _Timex()
    state = int(ask(ctypes.byref(timex)))
    return None if state < 0 else ClockState(state != _TIME_ERROR, int(timex.maxerror))


@dataclass(frozen=True, slots=True)
class DiskState:
    """The disk of a folder. free_files: None where files aren't counted.  kind: of the file system, such as ext4.

    beside: what else needs room on the same disk, for people; may be empty.
    """

    folder: Path
    free_bytes: int
    free_files: int | None
    read_only: bool
    kind: str
    beside: str = ""


def check_disk(disk: DiskState) -> Finding:
    """Whether there is room, on a disk that keeps what is written."""
    free = f"{disk.free_bytes / 2**30:.1f} GiB free"
    beside = f", shared with {disk.beside}" if disk.beside else ""
    if disk.read_only:
        remedy = "mount it for writing; a disk that turned read-only may be failing, see dmesg"
        return problem(Check.DISK, f"the disk of {disk.folder} is mounted read-only", remedy)
    if disk.free_bytes < MIN_FREE_BYTES:
        return problem(Check.DISK, f"{free} for {disk.folder}{beside}", "make room: nothing is lost while it is full")
    if disk.free_files is not None and disk.free_files < MIN_FREE_FILES:
        what = f"only {disk.free_files} more files can be made on the disk of {disk.folder}"
        return problem(Check.DISK, what, "remove files, or make a file system with more inodes")
    if disk.kind in MEMORY_FILE_SYSTEMS:
        what = f"{disk.folder} is in memory ({disk.kind}): all of it is gone when the machine stops"
        return warning(Check.DISK, what, "move data_dir to a disk: a member that loses its journal is out")
    if disk.kind in NETWORK_FILE_SYSTEMS:
        what = f"{disk.folder} is on another machine ({disk.kind})"
        return warning(
            Check.DISK, what, "move data_dir to a local disk: locks and syncs over a network can fail unseen"
        )
    if disk.free_bytes < GOOD_FREE_BYTES:
        return warning(Check.DISK, f"{free} for {disk.folder}{beside}", "make room before it is needed: 5 GiB or more")
    return ok(Check.DISK, f"{free} for {disk.folder}{beside}")


def disk_state(folder: Path, bitcoin_file: Path | None) -> DiskState:
    """The disk on which `folder` is or would be made. bitcoin_file: one of the Bitcoin node's. Raises OSError."""
    place = existing(folder)
    status = os.statvfs(place)
    shared = bitcoin_file is not None and bitcoin_file.exists() and bitcoin_file.stat().st_dev == place.stat().st_dev
    return DiskState(
        folder=folder,
        free_bytes=shutil.disk_usage(place).free,
        free_files=status.f_favail if status.f_files else None,
        read_only=bool(status.f_flag & os.ST_RDONLY),
        kind=_file_system(place),
        beside="the Bitcoin node" if shared else "",
    )


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _file_system(place: Path) -> str:
    """The kind of the file system; empty where the system does not tell."""
    resolved = place.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if resolved.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


@dataclass(frozen=True, slots=True)
class FolderState:
    """A folder, or what is in its place. mode: its permission bits.  owner, user: numbers of users."""

    folder: Path
    is_folder: bool
    mode: int
    owner: int
    user: int
    writable: bool


def check_data_folder(state: FolderState | None, folder: Path) -> Finding:
    """Whether the data folder is this user's alone. state: None when it does not exist."""
    if state is None:
        return ok(Check.DATA_FOLDER, f"{folder} will be made")
    if not state.is_folder:
        return problem(Check.DATA_FOLDER, f"{folder} is no folder", "move it away, or correct data_dir")
    if state.owner != state.user:
        what = f"{folder} belongs to user {state.owner}, and this is user {state.user}"
        return problem(Check.DATA_FOLDER, what, "run as its owner: files of two users lock each other out")
    if not state.writable:
        return problem(Check.DATA_FOLDER, f"{folder} can't be written", f"run: chmod u+rwx {folder}")
    if state.mode & 0o077:
        what = f"others may look into {folder} (mode {state.mode:04o})"
        return warning(Check.DATA_FOLDER, what, f"run: chmod 700 {folder}")
    return ok(Check.DATA_FOLDER, f"{folder} is this user's alone")


def folder_state(folder: Path) -> FolderState | None:
    """What is at the path; None for nothing. Raises OSError."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return FolderState(
        folder=folder,
        is_folder=folder.is_dir(),
        mode=status.st_mode & 0o7777,
        owner=status.st_uid,
        user=os.geteuid(),
        writable=os.access(folder, os.W_OK | os.X_OK),
    )
