"""A full node without keys: it follows the members, serves a wallet, claims by hand, never votes, and ends in order."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.custody import CoinKind, reserve_script
from pegnode.config import NodeConfig
from pegnode.genesis import Genesis
from pegnode.local_federation import client_of
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import ClaimReply, DepositReply, StatusReply
from tests.support.federation import (
    CONFIRMATIONS,
    DEADLINE_S,
    SIDECHAIN,
    FederationUnderTest,
    eventually,
    fresh_address,
    running_federation,
)
from tests.support.users import User, user_of


@dataclass(frozen=True)
class FullNode:
    """A federation, and a full node that ran beside it from the first test on."""

    federation: FederationUnderTest
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def config(self) -> NodeConfig:
        """The example that was written with the federation."""
        return NodeConfig.load(self.federation.local.node_config_path)

    def status(self) -> StatusReply | None:
        """None while it does not answer."""
        try:
            with client_of(self.config) as client:
                return client.ask(StatusReply, "getstatus")
        except RpcClientError:
            return None

    def height(self) -> int:
        """Its final height; -1 while it does not answer."""
        status = self.status()
        return -1 if status is None else status.height

    def block_hash(self, height: int) -> str:
        """The hash of its final block at a height."""
        with client_of(self.config) as client:
            return client.ask(str, "getblockhash", height)

    def members_connected(self) -> set[int]:
        """Which members it is connected to."""
        with client_of(self.config) as client:
            return {peer["member"] for peer in client.call("getpeerinfo")}


def run_node(federation: FederationUnderTest) -> FullNode:
    """Start `peg node run` with the example's configuration."""
    log = federation.local.log_path("node")
    with log.open("ab") as words:
        command = [sys.executable, "-m", "pegnode.cli.main", "node", "run", "--config"]
        process = subprocess.Popen(
            [*command, str(federation.local.node_config_path)], stdin=subprocess.DEVNULL, stdout=words, stderr=words
        )
    return FullNode(federation, process, log)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody with coins, and a chain of some blocks."""
    with (
        running_federation(tmp_path_factory.mktemp("full-node") / "federation") as federation,
        user_of(federation, "alice") as user,
    ):
        user.fund(2_000_000)
        yield user


@pytest.fixture(scope="module")
def node(user: User) -> Iterator[FullNode]:
    running = run_node(user.federation)
    try:
        eventually(lambda: running.status() is not None, "the node answers")
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_node_fetches_the_chain_from_its_beginning_and_follows_every_member(user: User, node: FullNode) -> None:
    federation = user.federation
    height = federation.height()
    eventually(lambda: node.height() >= height, "the node has caught up")
    for number in range(height + 1):
        assert node.block_hash(number) == federation.block_hash(number, "alice")
    eventually(lambda: node.members_connected() == {0, 1, 2, 3}, "the node knows every member")
    # Whichever member it follows best is not needed.
    for name in federation.local.member_names[:1]:
        federation.local.stop_member(name)
    eventually(lambda: federation.height("bob") >= height, "bob has what alice had")
    txid_hex = replace(user, node=federation.local.member_config("bob")).send(fresh_address(), 10_000)
    federation.await_final(txid_hex, ["bob"])
    height = federation.height("bob")
    eventually(lambda: node.height() >= height, "the node goes on without alice")
    federation.local.start_member("alice")
    federation.local.wait_until_answering("alice")


def test_wallet_pays_through_the_node(user: User, node: FullNode) -> None:
    federation, through = user.federation, replace(user, node=node.config)
    through.wallet.sync(through.url)
    txid_hex = through.send(fresh_address(), 20_000)
    federation.await_final(txid_hex, federation.local.member_names)
    before_sats = user.balance_sats()
    eventually(lambda: through.balance_sats() == before_sats, "the node has it too")


def test_unregistered_deposit_is_claimed_by_hand_through_the_node(user: User, node: FullNode) -> None:
    federation = user.federation
    claim_address = fresh_address()
    policy = Genesis.load(federation.local.genesis_path).rules().custody.newest
    script = reserve_script(policy, CoinKind.DEPOSIT, decode_address(claim_address, SIDECHAIN)).script
    txid = federation.pay({encode_address(script, l1_network("regtest")): 300_000})
    height = federation.mine(CONFIRMATIONS)
    eventually(lambda: (status := node.status()) is not None and status.l1.height == height, "the node saw the blocks")
    with client_of(node.config) as client:
        [seen] = client.ask(list[DepositReply], "listdeposits", [claim_address])
        assert seen.status == "unwatched"
        [receipt] = client.ask(list[ClaimReply], "claimdeposit", hash_to_hex(txid), claim_address)
    [claimed] = federation.await_claimed([claim_address], 1, "carol")
    assert (claimed.claim_txid, claimed.value_sats) == (receipt.claim_txid, 300_000)


def test_node_never_votes(user: User, node: FullNode) -> None:
    status = node.status()
    assert status is not None
    assert status.member is None
    for name in user.federation.local.member_names:
        log = user.federation.local.log_path(name)
        eventually(lambda log=log: "role=GUEST" in log.read_text(), f"the node was a guest of {name}")  # type: ignore[misc]
        assert "misplaced-message" not in log.read_text()


def test_node_ends_in_order_when_told_to(node: FullNode) -> None:
    assert node.config.cookie_path.exists()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(DEADLINE_S) == 0
    assert not node.config.cookie_path.exists()
    log = node.log.read_text()
    assert "Traceback" not in log
    # What was under way when it was told may still be logged.
    assert [line.partition("event=")[2] for line in log.splitlines() if "event=stopping" in line] == ["stopping"]


def test_node_goes_on_from_its_disk(user: User, node: FullNode) -> None:
    height = user.federation.height()
    node.process.terminate()
    node.process.wait(DEADLINE_S)
    again = run_node(user.federation)
    try:
        eventually(lambda: again.height() >= height, "the node is back")
        with client_of(again.config) as client:
            client.call("stop")
        assert again.process.wait(DEADLINE_S) == 0
        first, second = [line for line in again.log.read_text().splitlines() if "event=started" in line]
        assert "height=0 " in first
        assert "height=0 " not in second
    finally:
        again.process.kill()
        again.process.wait()
