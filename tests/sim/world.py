"""A federation of whole members under virtual time: a bad time of all that the plan holds, then a time to recover.

Theory of operation. Every member is the real program from its consensus to its payouts, over a network, a disk, a clock
and a Bitcoin node that fail as the plan says. A member that ends, by a trap at a write, by a failure of power or by an
error that the product itself raises for a full disk, is a process that was killed: from that moment on it sends and
writes nothing; after a while it starts anew on what its disk holds. A member that ends by anything else is a violation,
as is all that `Watch` and the oracle look for.

When the bad time is over, everything heals at once, and what is due then is `Recovery`'s to see.
"""

import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import Context
from functools import partial
from itertools import permutations, product
from random import Random
from typing import Final

import trio

from bridge.bitcoin.identifiers import Script
from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from federation.keystore import MemberSecrets
from federation.signer import Signer
from pegnode.net.transport import DropReason, PeerId
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.journal_check import require_memory
from tests.sim.disk import DOWN_S, Crashed, SimDisk
from tests.sim.faults import Faults
from tests.sim.network import FAIR, SimNetwork
from tests.sim.plan import Plan
from tests.sim.recovery import Recovery
from tests.sim.seams import L1Views, Outside, Violation
from tests.sim.stalls import Stalls
from tests.sim.trace import Trace
from tests.sim.watch import Watch
from tests.sim.workload import PEG
from tests.support.chain import L1_START, START_MS, custody_secrets, local_genesis, secret, vote_secrets
from tests.support.fake_l1_client import L1World
from tests.support.memory_member import Member

HEALED_DELAY_S: Final = (0.001, 0.02)
FAR_DELAY_S: Final = (0.2, 0.5)
"""Two of these are more than any view gets at first, and less than it may get: see CONSENSUS."""
CONSENSUS: Final = {
    "block_interval_ms": 100,
    "view_timeout_ms": 300,
    "min_view_timeout_ms": 100,
    "max_view_timeout_ms": 2_400,
    "heartbeat_ms": 1_000,
    "resend_ms": 200,
}
"""A fast chain, so that a short time has many views; a slow network then has many that are nullified."""
LARGER_COINS: Final = {"claim_fee_sats": 2_000, "coin_floor_sats": 2_000, "min_deposit_sats": 4_000}
"""Of federations whose inputs have more signatures than the local template counts on."""


class SimWorld:
    """One run. `run` ends by itself; `violation` says what was found, if anything."""

    def __init__(self, plan: Plan, outside: Outside) -> None:
        self.plan = plan
        self.seed = plan.seed
        self.trace = Trace()
        self.violation: Violation | None = None
        self.byzantine = frozenset(plan.byzantine)
        self.is_healed = False
        self.has_quorum = True
        self.incurable = frozenset(plan.incurable)
        self.l1 = L1World()
        self.l1.mine(L1_START + 1)
        peg = {**PEG, **(LARGER_COINS if plan.size > 7 else {})}
        self.genesis = local_genesis(self.l1.chain.anchor(L1_START), members=plan.size, peg=peg, consensus=CONSENSUS)
        self.rules = self.genesis.rules()
        self.members: dict[int, Member] = {}
        self.network = SimNetwork(self.random("network"), plan.delay_s, self._frame_leaves)
        self.disks = {
            index: SimDisk(
                self.random(f"disk {index}"), partial(self._process_is_gone, index), partial(self._write_is_slow, index)
            )
            for index in range(plan.size)
        }
        journals = {index: disk.journal_entries for index, disk in self.disks.items()}
        self.watch = Watch(self.trace, self.byzantine, journals, self.rules.chain_id)
        self._indexes = {self.peer_id(index): index for index in self.disks}
        self._scope = trio.CancelScope()
        self._back_at_s = dict.fromkeys(self.disks, 0.0)
        self.slow_disks: dict[int, list[tuple[float, float]]] = {index: [] for index in self.disks}
        self._stalls = Stalls()
        self._still_until_s: dict[int, float] = {}
        self._slowness = self.random("slow disks")
        self.is_powerless: set[int] = set()
        self.to_renew: set[int] = set()
        self.ends = 0
        self.killed_standing = 0
        self._outside = outside

    # what the outside sees

    @property
    def honest(self) -> Sequence[Member]:
        """The honest members that run now, by rising index; after the healing only those that are to go on."""
        left_out = self.byzantine | (self.incurable if self.is_healed else frozenset())
        return [member for index, member in sorted(self.members.items()) if index not in left_out]

    @property
    def bad_time_s(self) -> float:
        """How long the bad time lasts."""
        return self.plan.bad_time_s

    def peer_id(self, index: int) -> PeerId:
        """A member's."""
        return PeerId(self.rules.membership.members[index].peer_id)

    def vote_secret(self, index: int) -> bytes:
        """A member's vote key, 32 bytes."""
        return vote_secrets(self.plan.size)[index]

    def custody_secret(self, index: int) -> bytes:
        """A member's custody key, 32 bytes."""
        return custody_secrets(self.plan.size)[index]

    def signer(self, index: int) -> Signer:
        """A member's keys."""
        keys = MemberSecrets(self.vote_secret(index), self.custody_secret(index), secret("transport", index))
        return Signer(keys, self.rules.membership, index, self.rules.chain_id, bytes)

    def random(self, purpose: str) -> Random:
        """A source of its own for each purpose, from the seed."""
        return Random(f"{self.seed} {purpose}")

    def note(self, who: str, what: str) -> None:
        """A line of the trace."""
        self.trace.note(who, what)

    # the run

    async def run(self) -> None:
        """A bad time, a recovery, and an end."""
        try:
            with self._stalls.held(), self._scope:
                await self._run()
        except BaseException as error:  # noqa: BLE001 -- what ends a run is what it was looking for
            self._blame("the simulator's outside", error)

    async def _run(self) -> None:
        outside, size = self._outside, self.plan.size
        self.note("the plan", str(self.plan))
        self.watch.oracle = outside.oracle_of(self)
        views = outside.l1_views_of(self, self.random("bitcoin"))
        workload = outside.workload_of(self, self.random("users"))
        faults = Faults(self)
        for index in self.plan.byzantine:
            adversary = outside.adversary_of(self, index, self.random(f"adversary {index}"))
            self.network.adversaries[self.peer_id(index)] = adversary
        async with trio.open_nursery() as self._nursery:
            nursery = self._nursery
            nursery.start_soon(self.network.run)
            for index in range(size):
                nursery.start_soon(self._lead_lives, index, views)
            nursery.start_soon(views.run)
            nursery.start_soon(workload.run)
            for adversary in self.network.adversaries.values():
                nursery.start_soon(adversary.run)
            with trio.move_on_after(self.plan.bad_time_s):
                await faults.run()
            self._heal(views)
            await Recovery(self, workload).run()
            nursery.cancel_scope.cancel()

    def violated(self, violation: Violation) -> None:
        """Something must not have happened: the run ends."""
        if self.violation is None:
            self.violation = violation
            self.note("VIOLATION", str(violation))
        self._scope.cancel()

    def _blame(self, who: str, error: BaseException) -> None:
        """Somebody ended by an error that nobody planned."""
        found = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled)]
        if not found:
            raise error
        for leaf in found:
            if isinstance(leaf, Violation):
                self.violated(leaf)
                return
        self.violated(Violation(f"{who} died of {type(found[0]).__name__}: {found[0]}"))
        self.note("VIOLATION", "".join(traceback.format_exception(found[0])))

    def _frame_leaves(self, source: PeerId, destination: PeerId, payload: bytes) -> None:
        index = self._indexes[source]
        self.trace.frame(index, self._indexes[destination], payload)
        try:
            self.watch.frame_leaves(index, payload)
        except Violation as violation:
            self.violated(violation)

    # lives

    async def _lead_lives(self, index: int, views: L1Views) -> None:
        self._stalls.join(index)
        while True:
            await self._live(index, views)
            await trio.sleep_until(self._back_at_s[index])

    async def _live(self, index: int, views: L1Views) -> None:
        """From a start to whatever ends it."""
        disk, peer = self.disks[index], self.peer_id(index)
        disk.turn_on()
        self.network.gone.discard(peer)
        if index in self.is_powerless:
            self.is_powerless.discard(index)
            self.network.unblock(self.lanes_from({index}))
        try:
            self._renew_lost_journal(index)
            member = Member(self, index, disk, views.client(index), partial(self._wall_clock_ms, index))
            self._begin(index, member)
            await member.run()
        except BaseException as error:  # noqa: BLE001 -- what ends a process is sorted here
            self._bury(index, error)
        finally:
            self.members.pop(index, None)
            self.network.gone.add(peer)

    def _renew_lost_journal(self, index: int) -> None:
        """What its operator does, once: an end just after the write has renewed it too."""
        entries = self.disks[index].journal_entries
        if index in self.to_renew and not entries.copied():
            identity = JournalIdentity(self.rules.chain_id, self.rules.membership.epoch, index)
            Journal.create(entries, identity, forgotten=True).close()
        self.to_renew.discard(index)

    def _begin(self, index: int, member: Member) -> None:
        if index not in self.byzantine:
            require_memory(member.journal, member.store)
            self.watch.check_tip(index, member)
        self.watch.attach(member, self.violated)
        self._watch_drops(index, member)
        _answer_users(member)
        self.members[index] = member
        self.note(f"member {index}", f"starts at height {member.height}, floor {member.journal.floor_view}")

    def _bury(self, index: int, error: BaseException) -> None:
        """A process has ended: as planned, by a full disk, or by a fault of the product."""
        found = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled)]
        if not found and not self.disks[index].is_off:
            raise error
        for leaf in found:
            if isinstance(leaf, StorageError | JournalRefused) and leaf.reason in _NO_SPACE:
                self._process_is_gone(index, "ends: the disk is full")
            elif (
                isinstance(leaf, JournalRefused) and leaf.reason is JournalReason.BEHIND and index in self.watch.excused
            ):
                self._process_is_gone(index, "ends: its journal is behind; it is renewed")
                self.lose_journal(index, {})
            elif not isinstance(leaf, Crashed):
                self._blame(f"member {index}", leaf)

    def _process_is_gone(self, index: int, why: str) -> None:
        """At this very moment."""
        self.ends += 1
        self.network.gone.add(self.peer_id(index))
        disk = self.disks[index]
        disk.is_off = True
        self._go_on(index)
        self.note(f"member {index}", why)
        self._back_at_s[index], disk.down_s = trio.current_time() + disk.down_s, DOWN_S

    def kill(self, index: int, why: str, *, power: bool, down_s: float = DOWN_S) -> bool:
        """End a process that stands anywhere but in a write. Returns whether there is one."""
        member, disk = self.members.get(index), self.disks[index]
        if member is None or disk.is_off:
            return False
        disk.turn_off(power=power)
        disk.down_s = down_s
        self._process_is_gone(index, why)
        member.scope.cancel()
        return True

    def _write_is_slow(self, index: int) -> None:
        """On a slow disk: the process stands still until the write is done."""
        seconds = sum(self._slowness.uniform(*sync_s) for sync_s in self.slow_disks[index])
        if seconds and not self.is_healed:
            self._still_until_s[index] = max(trio.current_time(), self._still_until_s.get(index, 0.0)) + seconds
            if index not in self._stalls:
                self.note(f"member {index}", "waits for its disk")
                self._stalls.begin(index)
                self.network.hold(self.peer_id(index))
                Context().run(self._nursery.start_soon, self._wake, index)

    async def _wake(self, index: int) -> None:
        """End a wait for a disk, also when the run ends."""
        try:
            while (until_s := self._still_until_s.get(index, 0.0)) > trio.current_time():
                await trio.sleep_until(until_s)
        finally:
            self._go_on(index)

    def _go_on(self, index: int) -> None:
        """The writes are done, or the process is gone."""
        self._still_until_s.pop(index, None)
        self._stalls.end(index)
        self.network.release(self.peer_id(index))

    def _wall_clock_ms(self, index: int) -> int:
        """What a member's clock says; set right when everything heals."""
        now_s = trio.current_time()
        right_ms = START_MS + 1_000 + int(now_s * 1000)
        if self.is_healed:
            return right_ms
        clock = self.plan.clocks[index]
        return right_ms + clock.ahead_ms + int(clock.drift_ms_per_s * now_s)

    def _watch_drops(self, index: int, member: Member) -> None:
        drop = member.transport.drop

        def watched(peer: PeerId, reason: DropReason) -> None:
            other = self._indexes.get(peer)
            self.note(f"member {index}", f"drops member {other}: {reason.value}")
            if index not in self.byzantine:
                try:
                    self.watch.check_drop(index, other, reason)
                except Violation as violation:
                    self.violated(violation)
            drop(peer, reason)

        member.transport.drop = watched  # type: ignore[method-assign]

    def crashes(self) -> Counter[str]:
        """The planned crashes that happened: how, and at which write."""
        found = Counter(f"{trap.end} {kind}" for disk in self.disks.values() for trap, kind in disk.sprung)
        return found + Counter({"killed where it stands": self.killed_standing})

    def lose_journal(self, index: int, copy: Mapping[bytes, bytes]) -> None:
        """A journal is gone; its operator renews it unless there is an older copy to be put in its place."""
        self.disks[index].journal_entries.put_back(copy)
        if not copy:
            self.to_renew.add(index)

    def lanes_from(self, struck: set[int]) -> set[tuple[PeerId, PeerId]]:
        """From these to all others."""
        others = self.disks.keys() - struck
        return {(self.peer_id(one), self.peer_id(other)) for one, other in product(struck, others)}

    def lanes_to(self, struck: set[int]) -> set[tuple[PeerId, PeerId]]:
        """From all others to these."""
        return {(other, one) for one, other in self.lanes_from(struck)}

    # the end of the bad time

    def _heal(self, views: L1Views) -> None:
        """Everything works from now on: links, clocks, disks, Bitcoin nodes; who is down comes back."""
        self.note("the world", f"heals; the highest view is {self.watch.highest_view}")
        self.is_healed = True
        self.network.weather = FAIR
        for one, other in permutations(range(self.plan.size), 2):
            is_far = self.plan.is_far and self.byzantine.isdisjoint((one, other))
            delay_s = FAR_DELAY_S if is_far else HEALED_DELAY_S
            self.network.set_delay(self.peer_id(one), self.peer_id(other), delay_s)
        for index, disk in self.disks.items():
            disk.heal()
            self._go_on(index)
            self._back_at_s[index] = min(self._back_at_s[index], trio.current_time() + 0.1)
        views.heal()


def _answer_users(member: Member) -> None:
    """What a user asks of a member that ends meanwhile, or has no room, stays without an answer."""
    register = member.relay.register

    def answered(*claim_scripts: Script) -> list[Script]:
        try:
            return register(*claim_scripts)
        except Crashed:
            member.scope.cancel()
        except StorageError as error:
            if error.reason not in _NO_SPACE:
                raise
        return []

    member.relay.register = answered  # type: ignore[method-assign]


_NO_SPACE: Final = (JournalReason.NO_SPACE, StorageReason.NO_SPACE)


def _leaves(error: BaseException) -> list[BaseException]:
    """The single errors in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
