"""A member, and a node without keys, that are far behind a federation that goes on making blocks.

All run in one process over the network in memory, on real disks, in real time: whoever catches up takes its time from
the members too, so what it costs them is the worst case. Who does not catch up, or has then another chain or ledger
than the others, ends the bench with an error.
"""

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
import trio

from bench.report import milliseconds, print_table
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction
from bridge.ledger import ledger_root
from tests.support.members import Member, MemoryFederation
from tests.support.memory_disk import Disk
from tests.support.mini_wallet import Coin, MiniWallet, coins_of

TRANSFERS: Final = 2
"""In each block of the history: P2TR, one input and one output."""
BEHIND: Final = 3
SUBMIT_S: Final = 0.25
MAX_WAITING: Final = 8
"""The pool takes no long chains of transactions that wait for each other."""
USUAL_BLOCKS: Final = 20
SAMPLE_S: Final = 0.1
STANDSTILL_S: Final = 60.0
"""Who has not one block more after so long is not slow."""
MEBIBYTE: Final = 1 << 20


def write_history(federation: MemoryFederation, index: int, blocks: int) -> tuple[int, MiniWallet, list[Coin]]:
    """A chain of transfers on a member's disk, each block final by itself; its size in bytes, and what is left."""
    maker = Member(federation, None, federation.disks[index], federation.nodes[index])  # no journal that would object
    wallet, script = MiniWallet("bench"), MiniWallet("bench").script(ScriptType.P2TR)
    parts = wallet.pay(federation.fund_by_hand(maker, wallet, 100_000_000), *[script] * TRANSFERS)
    federation.commit_block(maker, parts)
    coins, size_bytes = coins_of(parts), 0
    for _ in range(blocks):
        transfers = [wallet.pay(coin, script, fee_sats=200) for coin in coins]
        federation.commit_block(maker, *transfers)
        coins = [coins_of(transfer)[0] for transfer in transfers]
        size_bytes += len(maker.store.block_at(maker.height) or b"")
    maker.store.close()
    return size_bytes, wallet, coins


class FailedCatchUpError(Exception):
    """Somebody did not catch up, or with something else than the others have."""


class Progress:
    """Of nodes that must go on: each height, and since when it is that."""

    def __init__(self, **nodes: Member) -> None:
        self._nodes = nodes
        self._since = {name: (node.height, trio.current_time()) for name, node in nodes.items()}

    def check(self) -> None:
        """Look at them again. Raises FailedCatchUpError."""
        for name, node in self._nodes.items():
            height, since_s = self._since[name]
            if node.height > height:
                self._since[name] = (node.height, trio.current_time())
            elif trio.current_time() - since_s > STANDSTILL_S:
                raise FailedCatchUpError(f"{name} is at height {height}, and has been for {STANDSTILL_S:.0f} s")


async def agree(front: Member, behind: Member) -> None:
    """Compare the tip and the ledger of who has caught up with those of a member. Raises FailedCatchUpError."""
    tip, root = behind.store.tip.header, ledger_root(behind.store.ledger)
    progress = Progress(**{"the front": front})
    while front.height < tip.height:
        await trio.sleep(SAMPLE_S)
        progress.check()
    theirs = front.store.header_at(tip.height)
    if theirs is None or theirs.hash != tip.hash:
        raise FailedCatchUpError(f"who has caught up has another block {tip.height} than the others")
    if root != theirs.ledger_root:
        raise FailedCatchUpError(f"who has caught up has another ledger after block {tip.height} than the others")


@dataclass
class Watched:
    """What was seen of a node while it caught up. Times in seconds, memory in bytes above that of the start."""

    seconds: float = 0.0
    blocks: int = 0
    grown_bytes: int = 0
    most_kept: int = 0
    gaps_s: list[float] = field(default_factory=list)


def run(blocks: int) -> None:
    """Measure and print. Raises SystemExit if somebody did not catch up."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="pegnode-bench-") as directory, ending_in_words():
        rows = trio.run(_measure, Path(directory), blocks)
    columns = ("", "seconds", "blocks a second", "blocks kept", "memory", "longest between blocks of the others")
    print_table(f"{blocks:,} blocks of {TRANSFERS} transfers behind three members that go on", columns, rows)


@contextmanager
def ending_in_words() -> Iterator[None]:
    """Let what failed within be the last line, and the exit status 1."""
    try:
        yield
    except* FailedCatchUpError as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise SystemExit(f"FAILED: {first}") from None


async def _measure(folder: Path, blocks: int) -> list[tuple[str, ...]]:
    async with trio.open_nursery() as nursery:
        federation = MemoryFederation(nursery)
        nursery.start_soon(federation.network.run)
        federation.disks = {index: Disk(folder / str(index)) for index in federation.disks}
        _, wallet, coins = write_history(federation, 0, blocks)
        for index in (1, 2):
            shutil.copytree(folder / "0", folder / str(index))
        await federation.start(0, 1, 2)
        nursery.start_soon(_transfer_for_ever, federation, wallet, coins)
        front = federation.members[0]
        start = front.height
        await _watch(front, front, lambda: front.height >= start + USUAL_BLOCKS)
        usual = await _watch(front, front, lambda: front.height >= start + 2 * USUAL_BLOCKS)
        rows = [_row("before", usual)]
        node = Member(federation, None, Disk(folder / "node"), federation._bitcoin_node())
        await nursery.start(node.run)
        rows.append(_row("a node without keys", await _watch(front, node, lambda: node.height >= front.height)))
        await agree(front, node)
        await federation.start(BEHIND)
        late = federation.members[BEHIND]
        rows.append(_row("a member", await _watch(front, late, lambda: late.height >= front.height)))
        await agree(front, late)
        height = front.height
        led = await _watch(front, late, lambda: _led_by(front, height) == BEHIND)
        rows.append(_row("until a block of its own is final", led))
        await agree(late, node)
        nursery.cancel_scope.cancel()
    return rows


def _led_by(member: Member, height: int) -> int | None:
    header = member.store.tip.header
    return header.leader if header.height > height else None


async def _transfer_for_ever(federation: MemoryFederation, wallet: MiniWallet, coins: Sequence[Coin]) -> None:
    """Each transfer spends what the one before it made, unless too many wait already."""
    script, [coin, *_] = wallet.script(ScriptType.P2TR), coins
    front = federation.members[0]
    while True:
        if len(front.core.mempool) >= MAX_WAITING:
            await trio.sleep(SAMPLE_S)
            continue
        transfer: Transaction = wallet.pay(coin, script, fee_sats=200)
        front.relay.submit_transaction(transfer.serialize())
        [coin] = coins_of(transfer)
        await trio.sleep(SUBMIT_S)


async def _watch(front: Member, behind: Member, done: Callable[[], bool]) -> Watched:
    """Watch `behind` until it is done, and how the blocks of `front` go on. Raises FailedCatchUpError."""
    progress = Progress(**{"who is behind": behind, "the front": front})
    seen, began_s, before_bytes = Watched(), trio.current_time(), _resident_bytes()
    start, height, since_s = behind.height, front.height, trio.current_time()
    while not done():
        await trio.sleep(SAMPLE_S)
        progress.check()
        seen.grown_bytes = max(seen.grown_bytes, _resident_bytes() - before_bytes)
        bodies = 0 if behind.driver is None else len(behind.driver._bodies)
        seen.most_kept = max(seen.most_kept, bodies + len(behind.core.unfinal))
        if front.height > height:
            seen.gaps_s.append((trio.current_time() - since_s) / (front.height - height))
            height, since_s = front.height, trio.current_time()
    seen.seconds, seen.blocks = trio.current_time() - began_s, behind.height - start
    return seen


def _row(name: str, seen: Watched) -> tuple[str, ...]:
    gaps = seen.gaps_s or [0.0]
    return (
        name,
        f"{seen.seconds:.1f}",
        f"{seen.blocks / seen.seconds:,.0f}" if seen.seconds else "",
        f"{seen.most_kept}",
        f"{seen.grown_bytes / MEBIBYTE:+.0f} MiB",
        f"{milliseconds(max(gaps))}, median {milliseconds(statistics.median(gaps))}",
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096
