"""Members with Bitcoin nodes of their own, joined by Bitcoin's network and parted: some lag, and the chain goes on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.l1.jsonrpc import Call, JsonValue
from bridge.l1.regtest import RegtestMiner
from bridge.l1.states import L1State
from pegnode.bitcoind import RegtestBitcoind, start_regtest
from pegnode.rpc.results import StatusReply
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, fresh_address, running_federation
from tests.support.l1_proxy import L1Proxy, l1_proxy, lead_through
from tests.support.users import User, user_of

OTHER_CHAIN_BLOCKS = 144
MORE_BLOCKS = 10
AT_ONCE = 6
"""Blocks that one call mines: it has to answer in time on a busy machine too."""


def ask(node: RegtestBitcoind, method: str, *parameters: object) -> JsonValue:
    """One call to a Bitcoin node."""

    async def call() -> JsonValue:
        async with node.client() as client:
            return await client.connection.call(Call(method, parameters))

    return trio.run(call)


def mine_alone(node: RegtestBitcoind, blocks: int) -> None:
    """Blocks of a node's own, a multiple of AT_ONCE."""

    async def mine() -> None:
        async with node.client() as client:
            miner = await RegtestMiner.create(client)
            for _ in range(blocks // AT_ONCE):
                await miner.generate(AT_ONCE)

    trio.run(mine)


@dataclass(frozen=True)
class Nodes:
    """A federation on one Bitcoin node, and a second one, which carol and dave have as long as `parted` says so."""

    federation: FederationUnderTest
    user: User
    second: RegtestBitcoind
    proxies: dict[str, L1Proxy]

    @property
    def first(self) -> RegtestBitcoind:
        """Everybody else's."""
        return self.federation.local.bitcoind

    def join(self) -> None:
        """Connect the two, and wait until they have one tip."""
        ask(self.second, "setnetworkactive", True)

        def have_one_tip() -> bool:
            if ask(self.second, "getconnectioncount") == 0:  # one try may come before the last connection's end
                ask(self.first, "addnode", f"127.0.0.1:{self.second.p2p_port}", "onetry")
            return ask(self.first, "getbestblockhash") == ask(self.second, "getbestblockhash")

        eventually(have_one_tip, "the nodes have one tip")

    @contextmanager
    def parted(self, *names: str) -> Iterator[None]:
        """Cut the second node off; these members have it as long as this lasts."""
        with ExitStack() as led:
            for name in names:
                led.enter_context(self.proxies[name].leading_to(self.second))
            ask(self.second, "setnetworkactive", False)
            yield
            self.join()

    def status(self, name: str) -> StatusReply:
        """A member's."""
        return self.federation.status(name)

    def pay(self, *names: str) -> None:
        """A transfer that becomes final at these members."""
        self.user.wallet.sync(self.user.url)
        self.federation.await_final(self.user.send(fresh_address(), 10_000), names)

    def settle(self) -> None:
        """Transfers until every member has read all of L1, and the anchor is as high as it can be."""
        federation, names = self.federation, self.federation.local.member_names

        def is_settled() -> bool:
            self.pay(*names)
            statuses = [self.status(name) for name in names]
            height = federation.on_l1(lambda client, _: client.tip())[0]
            return {(item.l1.height, item.anchor.height) for item in statuses} == {(height, height - CONFIRMATIONS + 1)}

        eventually(is_settled, "the anchor is as high as it can be")

    def await_state(self, state: L1State, *names: str, detail: str = "") -> None:
        """Wait until these members name a state, with this among the details."""
        for name in names:

            def is_named(name: str = name) -> bool:
                l1 = self.status(name).l1
                return l1.state == state and detail in l1.detail

            eventually(is_named, f"{name} says {state}")

    def await_nothing_missing(self, *names: str) -> None:
        """Wait until these members wait for nothing."""
        for name in names:
            eventually(lambda name=name: self.status(name).waiting_for == [], f"{name} lacks nothing")  # type: ignore[misc]

    def first_height_above(self, l1_height: int) -> int:
        """The height of the first final block at alice that refers to a block of L1 above this one."""
        with self.federation.client() as client:
            for height in range(1, self.federation.height() + 1):
                header = client.call("getblockheader", self.federation.block_hash(height, "alice"))
                if header["anchor"]["height"] > l1_height:
                    return height
        raise LookupError(l1_height)


@contextmanager
def _ended(node: RegtestBitcoind) -> Iterator[RegtestBitcoind]:
    """End whatever runs in the node's directory, which a test may have started again."""
    try:
        yield node
    finally:
        RegtestBitcoind.attach(node.datadir).stop()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    directory = tmp_path_factory.mktemp("l1-members")
    with (
        _ended(start_regtest(directory / "second", listen=True)) as second,
        running_federation(directory / "federation") as federation,
        user_of(federation, "alice") as user,
        l1_proxy(federation.local.bitcoind) as for_carol,
        l1_proxy(federation.local.bitcoind) as for_dave,
    ):
        nodes = Nodes(federation, user, second, {"carol": for_carol, "dave": for_dave})
        nodes.join()
        for name, proxy in nodes.proxies.items():
            federation.local.stop_member(name)
            lead_through(proxy, federation.local.member_config_path(name))
            federation.local.start_member(name)
        for name in nodes.proxies:
            federation.local.wait_until_answering(name)
        user.fund(40_000_000, deposits=8)
        nodes.settle()
        yield nodes


def test_member_waits_at_an_anchor_it_can_not_see_and_catches_up(nodes: Nodes) -> None:
    federation, others = nodes.federation, ("alice", "bob", "carol")
    with nodes.parted("dave"):
        before = nodes.status("dave")
        federation.mine(2 * CONFIRMATIONS)

        def anchor_moved() -> bool:
            nodes.pay(*others)
            return nodes.status("alice").anchor.height > (before.l1.height or 0)

        eventually(anchor_moved, "three members move the anchor to a block that dave's node has not seen")
        height = nodes.first_height_above(before.l1.height or 0)
        eventually(
            lambda: any(item.startswith("L1 for block ") for item in nodes.status("dave").waiting_for),
            "dave says at which block he waits",
        )
        for _ in range(MORE_BLOCKS):
            nodes.pay(*others)
        nodes.await_state(L1State.BEHIND, "dave")
        assert nodes.status("dave").height < height
        assert nodes.status("dave").anchor.height <= (before.l1.height or 0)
        assert nodes.status("alice").height >= height + MORE_BLOCKS
    federation.agreement()
    nodes.await_state(L1State.OK, "dave")
    nodes.await_nothing_missing("dave")
    nodes.pay(*federation.local.member_names)


def test_two_members_with_stale_nodes_delay_the_anchor_and_never_the_chain(nodes: Nodes) -> None:
    everybody = nodes.federation.local.member_names
    nodes.settle()
    with nodes.parted("carol", "dave"):
        before = nodes.status("alice").anchor
        nodes.federation.mine(3)
        nodes.await_state(L1State.BEHIND, "carol", "dave")
        for _ in range(MORE_BLOCKS):
            nodes.pay(*everybody)
        assert {nodes.status(name).anchor.height for name in everybody} == {before.height}
    nodes.settle()
    assert nodes.status("dave").anchor.height == before.height + 3
    nodes.await_state(L1State.OK, *everybody)


@contextmanager
def _node(nodes: Nodes, directory: Path, prepare: Callable[[RegtestBitcoind], None]) -> Iterator[None]:
    """dave has a third Bitcoin node, prepared so, for as long as this lasts."""
    with start_regtest(directory / "third") as third:
        prepare(third)
        with nodes.proxies["dave"].leading_to(third):
            yield


def test_node_with_headers_and_no_blocks_is_downloading(nodes: Nodes, tmp_path: Path) -> None:
    def give_headers(third: RegtestBitcoind) -> None:
        async def copy() -> None:
            async with nodes.first.client() as source, third.client() as target:
                for height in range(1, 20):
                    block_hash = await source.block_hash(height)
                    assert block_hash is not None
                    call = Call("getblockheader", (hash_to_hex(block_hash), False))
                    header = await source.connection.call(call)
                    await target.connection.call(Call("submitheader", (header,)))

        trio.run(copy)

    with _node(nodes, tmp_path, give_headers):
        nodes.await_state(L1State.INITIAL_DOWNLOAD, "dave", detail="0 of 19 blocks")
        nodes.pay("alice", "dave")
    nodes.await_state(L1State.OK, "dave")


def test_node_of_another_chain_proves_nothing(nodes: Nodes, tmp_path: Path) -> None:
    with _node(nodes, tmp_path, lambda third: mine_alone(third, OTHER_CHAIN_BLOCKS)):
        nodes.await_state(L1State.FORKED, "dave")
        nodes.pay("alice", "dave")
        assert nodes.status("dave").halt_findings == []
    nodes.await_state(L1State.OK, "dave")
    nodes.federation.agreement()


def test_bitcoin_node_that_restarts_is_followed_again(nodes: Nodes) -> None:
    with nodes.parted("dave"):
        nodes.second.stop()
        nodes.await_state(L1State.DOWN, "dave")
        nodes.pay("alice", "dave")
        start_regtest(nodes.second.datadir)
        nodes.await_state(L1State.OK, "dave")


def test_reorganisation_deeper_than_the_anchor_is_suspected_by_its_member_alone(nodes: Nodes) -> None:
    nodes.settle()
    anchor = nodes.status("dave").anchor
    ask(nodes.second, "setnetworkactive", False)  # for good: nobody else follows it
    ask(nodes.second, "invalidateblock", anchor.hash)
    mine_alone(nodes.second, 2 * CONFIRMATIONS)
    with nodes.proxies["dave"].leading_to(nodes.second):
        nodes.await_state(L1State.FORKED, "dave")
        suspicion = f"left the L1 block {anchor.height} {anchor.hash}"
        eventually(lambda: any(suspicion in item for item in nodes.status("dave").waiting_for), "dave suspects")
        nodes.pay("alice", "dave")
    nodes.await_state(L1State.OK, "dave")
    nodes.await_nothing_missing(*nodes.federation.local.member_names)
