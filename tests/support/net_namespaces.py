"""Network namespaces of an unprivileged user, each with nothing but its loopback interface. (Linux)

A process that runs in a user namespace of its own (`unshare --user --map-root-user`) makes them, each in a thread that
stays in it, and keeps them by their descriptors: they are gone when it ends, and need no cleaning up. No cable joins
them. A socket belongs to the namespace in which it was made, wherever it is used, so that one process can hold
sockets in all of them and carry bytes between.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
"""Source: Linux, include/uapi/linux/{sched,sockios,if}.h."""
NEW_USER = ("unshare", "--user", "--map-root-user")
"""What a command is run by, so that it may make namespaces."""
PROBE_DEADLINE_S = 20.0


class Namespace:
    """A new network namespace, whose loopback interface is up. Raises OSError where that is not permitted."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._fd = self._thread.submit(_enter_new_namespace).result()

    @property
    def path(self) -> str:
        """By which another process finds it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def socket(self) -> socket.socket:
        """A TCP socket in it."""
        return self._thread.submit(socket.socket, socket.AF_INET, socket.SOCK_STREAM).result()


def entering(pid: int, namespace: str) -> tuple[str, ...]:
    """What a command is run by, to run in a namespace of the process `pid`."""
    return ("nsenter", f"--user=/proc/{pid}/ns/user", f"--net={namespace}", "--preserve-credentials", "--")


def are_permitted() -> bool:
    """Whether this machine lets this user make namespaces, and run commands in them: tried with one."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    with subprocess.Popen(
        [*NEW_USER, sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as maker:
        assert maker.stdin is not None
        assert maker.stdout is not None
        path = maker.stdout.readline().strip()
        permitted = path != "" and _runs([*entering(maker.pid, path), "true"])
        maker.stdin.close()
        return permitted and maker.wait(PROBE_DEADLINE_S) == 0


def _runs(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=PROBE_DEADLINE_S, check=False).returncode == 0


def _enter_new_namespace() -> int:
    """Move this thread, for good, and return a descriptor of the namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:  # os.unshare came with Python 3.12
        raise OSError(ctypes.get_errno(), "a network namespace is not permitted")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16s", b"lo")
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, name + bytes(24)), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, name + struct.pack("h", flags | IFF_UP) + bytes(22))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


if __name__ == "__main__":
    print(Namespace().path, flush=True)
    sys.stdin.read()
