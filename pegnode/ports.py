"""TCP ports for processes on one machine."""

import random
import socket
from typing import Final

LOOPBACK = "127.0.0.1"
FIRST_PORT: Final = 10_000
LAST_PORT: Final = 32_000
"""Below the range from which systems take the near ends of outgoing connections: none of those is in the way when a
process comes to use its port, or comes back to it. Source: Linux, net.ipv4.ip_local_port_range."""
ATTEMPTS: Final = 1_000


def free_ports(count: int) -> tuple[int, ...]:
    """That many different ports of 127.0.0.1 which nobody uses at this moment. Raises OSError when there are none."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            sockets.append(_bound_socket())
        return tuple(int(one.getsockname()[1]) for one in sockets)
    finally:
        for one in sockets:
            one.close()


def _bound_socket() -> socket.socket:
    for _ in range(ATTEMPTS):
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            one.bind((LOOPBACK, random.randint(FIRST_PORT, LAST_PORT)))
        except OSError:
            one.close()
            continue
        return one
    raise OSError(f"no free port from {FIRST_PORT} to {LAST_PORT}")
