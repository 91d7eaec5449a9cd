"""Fifteen members, of whom eleven sign: a round trip on one machine, by the parameters of configs/federation-15.toml.

Two of them differ: the network is regtest, and L1 is buried ten blocks deep in place of a hundred, since each of
fifteen processes reads each block. They share one Bitcoin node; members with nodes of their own are in
`feature_hosts_apart`.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import Script
from bridge.l1.regtest import RegtestMiner
from bridge.state import Anchor
from pegnode.bitcoind import RegtestBitcoind, start_regtest
from pegnode.clock import now_ms
from pegnode.config import L1Config
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation
from pegnode.setup.local import create_local_federation
from tests.support.federation import FederationUnderTest, eventually, fresh_address
from tests.support.users import user_of

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "federation-15.toml"
DIFFERENCES = {'network = "main"': 'network = "regtest"', "confirmations = 100 ": "confirmations = 10 "}
MEMBERS, QUORUM = 15, 11
FIRST_BLOCKS = 101
ANCHOR_HEIGHT = 90
DEPOSIT_SATS = 10_000_000
L1_ADDRESS = encode_address(Script(b"\x00\x14" + bytes(19) + b"\x03"), l1_network("regtest"))


def template() -> str:
    """The file, with what differs."""
    text = CONFIG.read_text()
    for of_the_file, here in DIFFERENCES.items():
        assert text.count(f"\n{of_the_file}") == 1
        text = text.replace(f"\n{of_the_file}", f"\n{here}")
    return text


async def mine_first_blocks(node: RegtestBitcoind) -> Anchor:
    """Coins to spend, and a block below which the members need not read."""
    async with node.client() as client:
        await (await RegtestMiner.create(client)).generate(FIRST_BLOCKS)
        block_hash = await client.block_hash(ANCHOR_HEIGHT)
        assert block_hash is not None
        return Anchor(ANCHOR_HEIGHT, block_hash)


@pytest.fixture
def fifteen(tmp_path: Path) -> Iterator[FederationUnderTest]:
    """All of them, connected to each other."""
    with start_regtest(tmp_path / "bitcoind") as node:
        create_local_federation(
            tmp_path / "federation",
            template(),
            l1=L1Config(url=node.url, cookie_file=node.cookie_path),
            anchor=trio.run(mine_first_blocks, node),
            time_ms=now_ms(),
            random_bytes=secrets.token_bytes,
        )
        local = LocalFederation.open(tmp_path)
        try:
            local.up()
            federation = FederationUnderTest(local)
            eventually(lambda: is_mesh(federation), "everybody is connected to everybody")
            yield federation
        finally:
            local.down()


def is_mesh(federation: FederationUnderTest) -> bool:
    """Whether each member sees all as connected."""
    return all(
        sum(peer.connected for peer in federation.status(name).members) == MEMBERS
        for name in federation.local.member_names
    )


def test_value_comes_home_and_transfers_go_on_without_four(fifteen: FederationUnderTest) -> None:
    names, peg = fifteen.local.member_names, Genesis.load(fifteen.local.genesis_path).peg
    with user_of(fifteen, "alice") as alice, user_of(fifteen, "oscar") as oscar:
        fifteen.pay({fifteen.deposit_address(alice.wallet.new_address()): DEPOSIT_SATS})
        fifteen.mine(peg.confirmations)
        alice.await_balance(DEPOSIT_SATS - peg.claim_fee_sats)
        fifteen.await_final(alice.send(oscar.wallet.new_address(), 6_000_000), names)
        oscar.await_balance(6_000_000)
        burn = oscar.withdraw(L1_ADDRESS, 2_000_000)
        fifteen.await_stage(burn, {"waiting"}, "oscar")
        fifteen.mine(peg.batch_max_wait_anchors)
        fifteen.await_stage(burn, {"broadcast"}, "alice")
        fifteen.mine(peg.confirmations)
        assert fifteen.await_stage(burn, {"settled"}, "oscar").paid_sats is not None
        assert fifteen.agreement(names).l1_held_sats == DEPOSIT_SATS - 2_000_000

        left, killed = names[:QUORUM], names[QUORUM:]
        for name in killed:
            fifteen.local.kill_member(name)
        fifteen.await_final(alice.send(fresh_address(), 1_000_000), left)
        assert tuple(fifteen.local.running()) == left
    fifteen.agreement(left)
