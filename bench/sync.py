"""`python -m bench.sync`: how fast nodes without blocks fetch, check and keep a long chain.

First one from a member over a real socket: both run in this process, so the time is that of the asking node and of what
it costs the answering one. Then a member and a node that follow a federation which goes on meanwhile (bench/behind.py).
The exit status is 1 if one of them does not catch up, or has another chain or ledger then.
"""

import argparse
import random
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import structlog
import trio

from bench import behind
from bench.behind import TRANSFERS, Progress, agree, ending_in_words, write_history
from bench.report import print_machine, print_table
from pegnode.net.address import peer_id_from_secret
from pegnode.net.libp2p_host import HostSettings, Libp2pHost
from pegnode.net.transport import PeerAddress, PeerId, PeerRole
from tests.support.chain import secret
from tests.support.members import Member, MemoryFederation
from tests.support.memory_disk import Disk
from tests.support.mini_wallet import GROUP_ORDER

BLOCKS = 1_000
SERVER = 1
LOOK_S = 1.0


class Sockets:
    """In place of the network in memory: real hosts, of which the guests dial the member."""

    def __init__(self, federation: MemoryFederation) -> None:
        self._federation = federation
        self._listening: tuple[PeerAddress, ...] = ()
        self._member: Libp2pHost | None = None

    def transport(self, _: PeerId, role: PeerRole) -> Libp2pHost:
        """A host of its own."""
        is_member = role is PeerRole.MEMBER
        settings = HostSettings(
            chain_id=self._federation.rules.chain_id,
            software="bench",
            members=frozenset(PeerId(member.peer_id) for member in self._federation.rules.membership.members),
            dial=() if is_member or self._member is None else self._member.listen_addresses,
            listen=("/ip4/127.0.0.1/tcp/0",) if is_member else (),
            max_guests=4 if is_member else 0,
        )
        key = _transport_secret(self._federation) if is_member else secrets.token_bytes(32)
        host = Libp2pHost(key, settings, random.Random())
        if is_member:
            self._member = host
        return host


def run(blocks: int = BLOCKS) -> None:
    """Measure and print. Raises SystemExit if the node does not catch up."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="pegnode-bench-") as directory, ending_in_words():
        seconds, size_bytes = trio.run(_sync, Path(directory), blocks)
    rows = [
        ("blocks a second", f"{blocks / seconds:,.0f}"),
        ("transfers a second", f"{blocks * TRANSFERS / seconds:,.0f}"),
        ("kB a second", f"{size_bytes / seconds / 1000:,.0f}"),
    ]
    print_table(f"A late joiner: {blocks:,} blocks of {TRANSFERS} transfers in {seconds:.1f} s", ("", ""), rows)


async def _sync(directory: Path, blocks: int) -> tuple[float, int]:
    """Seconds, and the blocks' size in bytes."""
    async with trio.open_nursery() as nursery:
        federation = MemoryFederation(nursery)
        federation.network = cast(Any, Sockets(federation))
        federation.disks[SERVER] = Disk(directory / "server")
        size_bytes, _, _ = write_history(federation, SERVER, blocks)
        await federation.start(SERVER)
        node = Member(federation, None, Disk(directory / "joiner"), federation.nodes[0])
        height, done = federation.members[SERVER].height, trio.Event()
        node.core.on_final(lambda _: done.set() if node.height >= height else None)
        began = time.perf_counter()
        await nursery.start(node.run)
        progress = Progress(**{"the late joiner": node})
        while not done.is_set():
            with trio.move_on_after(LOOK_S):
                await done.wait()
            progress.check()
        seconds = time.perf_counter() - began
        await agree(federation.members[SERVER], node)
        nursery.cancel_scope.cancel()
    return seconds, size_bytes


def _transport_secret(federation: MemoryFederation) -> bytes:
    """The server's; the genesis of tests names each key by its even point."""
    key = secret("transport", SERVER)
    if peer_id_from_secret(key) == federation.peer_id(SERVER):
        return key
    return (GROUP_ORDER - int.from_bytes(key, "big")).to_bytes(32, "big")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.sync", description=__doc__)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="how many blocks behind (%(default)s)")
    chosen = parser.parse_args()
    print_machine()
    run(chosen.blocks)
    behind.run(chosen.blocks)
