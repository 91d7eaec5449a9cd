"""Members that are killed and started again: the chain goes on with a quorum, and without one it loses nothing."""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pytest

from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import find_bitcoind, start_regtest
from pegnode.clock import now_ms
from tests.support.federation import FederationUnderTest, eventually, fresh_address, running_federation
from tests.support.users import User, user_of

QUIET_S = 6.0
"""Three times the view timeout: long enough for a block, if there could be one."""
BATCH_MAX_WAIT_ANCHORS = 3


@dataclass(frozen=True)
class Members:
    """A federation of four, and a user who talks to alice unless told otherwise."""

    federation: FederationUnderTest
    user: User

    @property
    def names(self) -> tuple[str, ...]:
        """Of all members, by index."""
        return self.federation.local.member_names

    def but(self, *absent: str) -> list[str]:
        """Everybody else."""
        return [name for name in self.names if name not in absent]

    def pay(self, name: str = "alice") -> str:
        """Pay somebody through a member; the txid."""
        user = replace(self.user, node=self.federation.local.member_config(name))
        user.wallet.sync(user.url)
        return user.send(fresh_address(), 10_000)

    def pay_until_final(self, name: str, names: Iterable[str]) -> None:
        """Pay somebody through a member until a payment is final at all of these.

        One that spends the same coin may have become final meanwhile, of which this member has yet to hear.
        """

        def is_paid() -> bool:
            txid_hex = self.pay(name)
            until = time.monotonic() + QUIET_S
            while not all(self.federation.is_final(txid_hex, member) for member in names):
                if time.monotonic() > until:
                    return False
                time.sleep(0.1)
            return True

        eventually(is_paid, f"a payment through {name} is final")

    def await_standstill(self, *names: str) -> None:
        """Wait until these have made no block for QUIET_S. What others voted for before they went may become final."""
        heights, since = set[int](), time.monotonic()

        def stands_still() -> bool:
            nonlocal heights, since
            seen = {self.federation.height(name) for name in names}
            if len(seen) > 1 or seen != heights:
                heights, since = seen, time.monotonic()
            return time.monotonic() > since + QUIET_S

        eventually(stands_still, f"{', '.join(names)} make no block")

    def await_nothing_missing(self, *names: str) -> None:
        """Wait until these members wait for nothing."""
        for name in names:
            eventually(lambda name=name: self._lacks_nothing(name), f"{name} lacks nothing")  # type: ignore[misc]

    def _lacks_nothing(self, name: str) -> bool:
        status = self.federation.status(name)
        return status.waiting_for == [] and status.stall is None

    def start(self, *names: str) -> None:
        """Start members, and wait until they answer."""
        for name in names:
            self.federation.local.start_member(name)
        for name in names:
            self.federation.local.wait_until_answering(name)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with (
        running_federation(tmp_path_factory.mktemp("members") / "federation") as federation,
        user_of(federation, "alice") as user,
    ):
        user.fund(40_000_000, deposits=4)
        yield Members(federation, user)


def test_three_of_four_deposit_transfer_and_pay_out(members: Members) -> None:
    federation, user = members.federation, members.user
    federation.local.kill_member("dave")
    present = members.but("dave")
    user.fund(1_000_000)
    federation.await_final(members.pay(), present)

    async def l1_address(_: L1Client, miner: RegtestMiner) -> str:
        return await miner.new_address()

    burn = user.withdraw(federation.on_l1(l1_address), 500_000)
    federation.await_stage(burn, ("waiting",))
    federation.mine(BATCH_MAX_WAIT_ANCHORS)
    [payout] = federation.await_stage(burn, ("broadcast",)).payouts
    assert payout.signatures == 3
    federation.mine(6)
    for name in present:
        assert federation.await_stage(burn, ("settled",), name).payout == f"{payout.txid}:0"
    federation.agreement(present)

    seen = federation.status("alice").members[members.names.index("dave")].last_vote_view or 0
    members.start("dave")
    federation.agreement()
    federation.await_stage(burn, ("settled",), "dave")

    def votes_again() -> bool:
        federation.await_final(members.pay())
        return (federation.status("alice").members[3].last_vote_view or 0) > seen

    eventually(votes_again, "dave votes again")


def test_two_of_four_make_no_block_and_say_why(members: Members) -> None:
    federation = members.federation
    federation.local.stop_member("carol")
    federation.local.kill_member("dave")
    before_ms = now_ms()
    for name in ("alice", "bob"):
        eventually(lambda name=name: federation.status(name).stall is not None, f"{name} says why")  # type: ignore[misc]
        status = federation.status(name)
        assert status.stall is not None
        assert re.match(r"3 of 4 needed, 2 reachable; carol and dave both missing since \d", status.stall.why), (
            status.stall
        )
        away = {member.name: member.missing_since_ms for member in status.members if not member.connected}
        assert set(away) == {"carol", "dave"}
        assert all(before_ms - 60_000 <= (since_ms or 0) <= now_ms() for since_ms in away.values()), away
    txid_hex = members.pay()
    eventually(lambda: federation.status("bob").mempool_transactions == 1, "the work is known")
    members.await_standstill("alice", "bob")
    assert not federation.is_final(txid_hex)

    members.start("carol")
    federation.await_final(txid_hex, members.but("dave"))
    members.await_nothing_missing("alice")
    members.start("dave")
    federation.await_final(txid_hex, ["dave"])
    federation.agreement()


def test_another_leads_when_the_leader_is_killed_in_its_turn(members: Members) -> None:
    federation = members.federation
    federation.await_final(members.pay(), members.names)  # so that no heartbeat is due while the leader is killed
    turn = federation.status("alice")
    leader = members.names[turn.leader]
    federation.local.kill_member(leader)
    present = members.but(leader)
    federation.await_final(members.pay(present[0]), present)
    after = federation.status(present[0])
    assert after.view > turn.view + 1
    members.start(leader)
    federation.agreement()


def test_nothing_final_is_lost_when_all_are_killed_at_once(members: Members) -> None:
    federation = members.federation
    final_txid_hex = members.pay()
    federation.await_final(final_txid_hex, members.names)
    members.pay()  # in whatever state the end finds it
    processes = [federation.local.process(name) for name in members.names]
    before = {name: federation.status(name) for name in members.names}
    for process in processes:
        assert process is not None
        process.kill()
    for name in members.names:
        federation.local.kill_member(name)
    assert list(federation.local.running()) == []

    members.start(*members.names)
    for name, status in before.items():
        assert federation.height(name) >= status.height
        assert federation.block_hash(status.height, name) == status.block_hash
        assert federation.is_final(final_txid_hex, name)
    members.pay_until_final("bob", members.names)
    federation.agreement()


def test_transfers_go_on_while_the_bitcoin_node_is_away(members: Members) -> None:
    federation, user = members.federation, members.user
    federation.local.bitcoind.stop()
    for name in members.names:
        eventually(
            lambda name=name: any("the Bitcoin node" in item for item in federation.status(name).waiting_for),  # type: ignore[misc]
            f"{name} misses its Bitcoin node",
        )
    assert not federation.status("alice").l1.reachable
    federation.await_final(members.pay(), members.names)

    start_regtest(federation.local.bitcoind.datadir, find_bitcoind(), detached=True)
    members.await_nothing_missing(*members.names)
    user.fund(1_000_000)
    assert not any(federation.status(name).halted for name in members.names)
    federation.agreement()
