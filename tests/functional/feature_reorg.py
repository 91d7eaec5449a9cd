"""L1 reorganises, by blocks of another Bitcoin node: shallow, which nobody notices, and deep, with the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trio
from typer.testing import CliRunner

from bridge.l1.jsonrpc import Call, JsonValue
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import RegtestBitcoind, start_regtest
from pegnode.rpc.results import StatusReply
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, fresh_address, running_federation
from tests.support.users import User, user_of

RUN = CliRunner()
EVERYBODY = ("alice", "bob", "carol", "dave")
DEPOSIT_SATS = 2_000_000
HALT_WITHIN_S = 120.0
"""A minute of suspicion, on a busy machine."""


@dataclass
class Branches:
    """A federation on one Bitcoin node, and another node that can mine a branch of its own. survived: reorgs so far."""

    federation: FederationUnderTest
    user: User
    miner: RegtestBitcoind
    survived: list[int] = field(default_factory=list)

    @property
    def own(self) -> RegtestBitcoind:
        """The federation's node."""
        return self.federation.local.bitcoind

    def tip_height(self, node: RegtestBitcoind) -> int:
        """How far a node has come."""
        height = ask(node, "getblockcount")
        assert isinstance(height, int)
        return height

    def join(self) -> None:
        """Connect the two, and wait until they have one tip."""
        ask(self.miner, "setnetworkactive", True)

        def have_one_tip() -> bool:
            if ask(self.miner, "getconnectioncount") == 0:  # one try may come before the last connection's end
                ask(self.own, "addnode", f"127.0.0.1:{self.miner.p2p_port}", "onetry")
            return ask(self.own, "getbestblockhash") == ask(self.miner, "getbestblockhash")

        eventually(have_one_tip, "the nodes have one tip")

    @contextmanager
    def parted(self, *first_block: str) -> Iterator[None]:
        """Part the two; when what the federation's node mines meanwhile is done, a longer branch takes its place.

        first_block: transactions in hex of the other branch's first block; its blocks hold nothing else.
        """
        fork = self.tip_height(self.own)
        ask(self.miner, "setnetworkactive", False)
        eventually(lambda: ask(self.own, "getconnectioncount") == 0, "the nodes are parted")
        yield
        depth = self.tip_height(self.own) - fork
        self.mine_elsewhere(list(first_block))
        for _ in range(depth):
            self.mine_elsewhere([])
        self.join()
        assert self.tip_height(self.own) == fork + depth + 1
        self.survived.append(depth)

    def mine_elsewhere(self, transactions: list[str]) -> None:
        """One block of the other node."""
        address = self.federation.on_l1(_mining_address)
        ask(self.miner, "generateblock", address, transactions)

    def await_read(self, *names: str) -> None:
        """Wait until these members have read L1's newest block."""
        height = self.tip_height(self.own)
        for name in names:
            eventually(lambda name=name: self.status(name).l1.height == height, f"{name} has read L1")  # type: ignore[misc]

    def status(self, name: str) -> StatusReply:
        """A member's."""
        return self.federation.status(name)

    def pay(self, *names: str) -> None:
        """A transfer that becomes final at these members."""
        eventually(lambda: self.user.pending_sats() == 0, "nothing of the wallet's waits")
        self.federation.await_final(self.user.send(fresh_address(), 10_000), names)

    def await_anchor(self, *names: str) -> None:
        """Transfers until these members' chain refers to the newest L1 block that may be."""
        deepest = self.tip_height(self.own) - CONFIRMATIONS + 1

        def is_there() -> bool:
            self.pay(*names)
            return {self.status(name).anchor.height for name in names} == {deepest}

        eventually(is_there, "the anchor is as high as it can be")

    def await_clean(self, *names: str) -> None:
        """Wait until these members lack nothing, have not halted, and agree."""
        for name in names:
            eventually(
                lambda name=name: (status := self.status(name)).waiting_for == [] and not status.halted,  # type: ignore[misc]
                f"{name} lacks nothing",
            )
        self.federation.agreement(names)


async def _mining_address(_: object, miner: RegtestMiner) -> str:
    return miner.mining_address


def ask(node: RegtestBitcoind, method: str, *parameters: object, path: str = "/") -> JsonValue:
    """One call to a Bitcoin node."""

    async def call() -> JsonValue:
        async with node.client() as client:
            return await client.connection.call(Call(method, parameters), path=path)

    return trio.run(call)


@contextmanager
def _ended(node: RegtestBitcoind) -> Iterator[RegtestBitcoind]:
    try:
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branches]:
    directory = tmp_path_factory.mktemp("reorg")
    with (
        _ended(start_regtest(directory / "miner", listen=True)) as miner,
        running_federation(directory / "federation", parameters={"batch_min_payouts": 1}) as federation,
        user_of(federation, "alice") as user,
    ):
        found = Branches(federation, user, miner)
        found.join()
        user.fund(40_000_000, deposits=4)
        yield found


def test_shallow_reorganisation_delays_and_halts_nobody(branches: Branches) -> None:
    federation = branches.federation
    branches.await_anchor(*EVERYBODY)
    claim_address = fresh_address()
    deposit_address = federation.deposit_address(claim_address)
    l1_address = ask(branches.own, "getnewaddress", path="/wallet/miner")
    assert isinstance(l1_address, str)
    burn = branches.user.withdraw(l1_address, 3_000_000)
    federation.await_stage(burn, {"broadcast"})
    anchor = branches.status("alice").anchor
    with branches.parted():
        federation.pay({deposit_address: DEPOSIT_SATS})
        federation.mine(CONFIRMATIONS - 1)
        federation.await_stage(burn, {"confirmed"})
        branches.await_read(*EVERYBODY)
    branches.await_read(*EVERYBODY)
    [deposit] = federation.deposits([claim_address])
    assert (deposit.status, deposit.confirmations) == ("unconfirmed", 0)
    withdrawal = federation.withdrawal(burn)
    assert withdrawal is not None
    assert withdrawal.stage == "broadcast"
    federation.mine(CONFIRMATIONS)
    federation.await_claimed([claim_address], 1)
    federation.await_stage(burn, {"settled"})
    assert branches.status("alice").anchor.height > anchor.height
    branches.await_clean(*EVERYBODY)
