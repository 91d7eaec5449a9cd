"""Deposits on real processes: what users see of each, hundreds at once, and claims by hand."""

from collections.abc import Iterator

import pytest

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network
from bridge.bitcoin.identifiers import BlockHash, Txid, hash_from_hex, hash_to_hex
from bridge.custody import CoinKind, reserve_script
from bridge.l1.client import L1Client
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import RegtestMiner
from pegnode.genesis import Genesis
from pegnode.rpc.client import RpcClient, RpcRefused
from pegnode.rpc.results import ClaimReply, DepositReply, RegistrationReply
from tests.support.federation import (
    SIDECHAIN,
    FederationUnderTest,
    eventually,
    fresh_address,
    running_federation,
)

CONFIRMATIONS = 6
CLAIM_FEE_SATS = 1_000
MANY = 300


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationUnderTest]:
    with running_federation(tmp_path_factory.mktemp("deposits") / "federation") as running:
        yield running


def await_status(federation: FederationUnderTest, claim_address: str, *expected: tuple[str, int]) -> list[DepositReply]:
    """Wait until exactly these deposits are listed, by status and confirmations."""

    def listed() -> list[tuple[str, int]]:
        return [(item.status, item.confirmations) for item in federation.deposits([claim_address])]

    eventually(lambda: listed() == list(expected), f"{expected} of {claim_address}")
    return federation.deposits([claim_address])


def test_deposit_is_followed_from_the_mempool_until_it_is_credited(federation: FederationUnderTest) -> None:
    claim_address = fresh_address()
    before = federation.peg()
    federation.pay({federation.deposit_address(claim_address): 1_000_000})
    [waiting] = await_status(federation, claim_address, ("unconfirmed", 0))
    assert (waiting.value_sats, waiting.l1_height, waiting.blocks_left) == (1_000_000, None, CONFIRMATIONS)
    height = federation.mine(CONFIRMATIONS - 1)
    [seen] = await_status(federation, claim_address, ("confirming", CONFIRMATIONS - 1))
    first = height - CONFIRMATIONS + 2
    assert (seen.blocks_left, seen.anchor_height, seen.l1_height) == (1, first, first)
    federation.mine(1)
    [claimed] = federation.await_claimed([claim_address], 1)
    after = federation.peg()
    assert claimed.claim_txid == seen.claim_txid == waiting.claim_txid
    assert claimed.claim_height is not None
    assert claimed.next == f"nothing: it was credited in block {claimed.claim_height} of the sidechain"
    assert after.supply_sats - before.supply_sats == 1_000_000 - CLAIM_FEE_SATS
    assert after.fund_sats - before.fund_sats == CLAIM_FEE_SATS


def test_deposit_that_is_replaced_or_whose_block_is_given_up_is_told(federation: FederationUnderTest) -> None:
    claim_address = fresh_address()
    txid = Txid(federation.pay({federation.deposit_address(claim_address): 1_000_000}))
    await_status(federation, claim_address, ("unconfirmed", 0))

    async def raise_fee(client: L1Client, _: RegtestMiner) -> Txid:
        reply = await client.connection.call(Call("bumpfee", (hash_to_hex(txid),)), path="/wallet/miner")
        assert isinstance(reply, dict)
        return Txid(hash_from_hex(str(reply["txid"])))

    newer = hash_to_hex(federation.on_l1(raise_fee))
    eventually(
        lambda: (
            {item.outpoint.partition(":")[0]: item.status for item in federation.deposits([claim_address])}
            == {hash_to_hex(txid): "vanished", newer: "unconfirmed"}
        ),
        "the one is gone, and the other takes its place",
    )

    async def mine_one(client: L1Client, miner: RegtestMiner) -> BlockHash:
        [block_hash] = await miner.generate(1)
        return block_hash

    def of_newer() -> list[tuple[str, int]]:
        found = federation.deposits([claim_address])
        return [(item.status, item.confirmations) for item in found if item.outpoint.startswith(newer)]

    block_hash = federation.on_l1(mine_one)
    eventually(lambda: of_newer() == [("confirming", 1)], "a block holds it")
    federation.on_l1(lambda _, miner: miner.invalidate_block(block_hash))
    eventually(lambda: of_newer() == [("unconfirmed", 0)], "it is back in the mempool")
    federation.mine(CONFIRMATIONS)
    federation.await_claimed([claim_address], 1)


def test_outputs_of_one_transaction_and_of_one_block_are_each_credited(federation: FederationUnderTest) -> None:
    first, second, third = fresh_address(), fresh_address(), fresh_address()
    addresses = {name: federation.deposit_address(name) for name in (first, second, third)}
    before = federation.peg()
    federation.pay({addresses[first]: 100_000, addresses[second]: 200_000})
    federation.pay({addresses[third]: 300_000})
    federation.pay({addresses[first]: 400_000})
    federation.mine(CONFIRMATIONS)
    claimed = federation.await_claimed([first, second, third], 4)
    assert sorted((item.value_sats, item.claim_address) for item in claimed) == sorted(
        [(100_000, first), (200_000, second), (300_000, third), (400_000, first)]
    )
    assert federation.peg().supply_sats - before.supply_sats == 1_000_000 - 4 * CLAIM_FEE_SATS


def test_deposit_that_nobody_watches_is_claimed_by_hand_from_any_node(federation: FederationUnderTest) -> None:
    claim_address = fresh_address()
    [address] = unregistered_deposit_addresses(federation, [claim_address])
    txid_hex = hash_to_hex(federation.pay({address: 700_000}))
    with federation.client("carol") as carol:
        assert refusal(carol, "11" * 32, claim_address) == "claim-transaction-unknown"
        assert refusal(carol, txid_hex, claim_address) == "claim-too-few-confirmations"
        height = federation.mine(1)
        eventually(lambda: federation.status("carol").l1.height == height, "carol has seen the block")
        assert {refusal(carol, txid_hex, claim_address, vout) for vout in range(2)} == {
            "claim-too-few-confirmations",
            "claim-wrong-script",
        }
        assert refusal(carol, txid_hex, claim_address, 2) == "claim-no-such-output"
        height = federation.mine(CONFIRMATIONS - 1)
        eventually(lambda: federation.status("carol").l1.height == height, "carol has seen the blocks")
        assert [item.status for item in federation.deposits([claim_address], "carol")] == ["unwatched"]
        [claim] = carol.ask(list[ClaimReply], "claimdeposit", txid_hex, claim_address)
        assert claim.credited_sats == 700_000 - CLAIM_FEE_SATS
        [claimed] = federation.await_claimed([claim_address], 1)
        assert (claimed.claim_txid, claimed.outpoint) == (claim.claim_txid, claim.outpoint)
        federation.await_claimed([claim_address], 1, "carol")
        assert refusal(carol, txid_hex, claim_address) == "claim-already-entered"


def test_hundreds_of_deposits_in_one_transaction_are_all_credited(federation: FederationUnderTest) -> None:
    """More than leaders open in one block."""
    claim_addresses = [fresh_address() for _ in range(MANY)]
    addresses = unregistered_deposit_addresses(federation, claim_addresses)
    halves = (claim_addresses[: MANY // 2], claim_addresses[MANY // 2 :])
    with federation.client() as client:
        for part in halves:
            assert client.ask(RegistrationReply, "registerdeposits", part).new == MANY // 2
    before = federation.peg()
    federation.pay(dict.fromkeys(addresses, 3_000))
    federation.mine(CONFIRMATIONS)
    eventually(lambda: federation.peg().coins == before.coins + MANY, "all are entered")
    claimed = [item for part in halves for item in federation.deposits(part)]
    assert {item.status for item in claimed} == {"claimed"}
    assert sorted(item.claim_address or "" for item in claimed) == sorted(claim_addresses)
    assert len({item.outpoint.partition(":")[0] for item in claimed}) == 1
    assert len({item.claim_height for item in claimed}) >= 2
    assert federation.peg().supply_sats - before.supply_sats == MANY * (3_000 - CLAIM_FEE_SATS)


def unregistered_deposit_addresses(federation: FederationUnderTest, claim_addresses: list[str]) -> list[str]:
    """The deposit addresses, worked out without telling any node."""
    policy = Genesis.load(federation.local.genesis_path).rules().custody.newest
    scripts = [
        reserve_script(policy, CoinKind.DEPOSIT, decode_address(claim_address, SIDECHAIN)).script
        for claim_address in claim_addresses
    ]
    return [encode_address(script, l1_network("regtest")) for script in scripts]


def refusal(client: RpcClient, l1_txid: str, claim_address: str, vout: int | None = None) -> str:
    """The reason for which a node refuses a claim by hand."""
    with pytest.raises(RpcRefused) as caught:
        client.call("claimdeposit", l1_txid, claim_address, vout)
    return caught.value.refusal


def test_every_member_has_the_same_chain_and_a_clean_audit(federation: FederationUnderTest) -> None:
    height = federation.height()
    for name in federation.local.member_names:
        eventually(lambda name=name: federation.height(name) >= height, f"{name} has caught up")  # type: ignore[misc]
        federation.audit(name)
    roots = set()
    for name in federation.local.member_names:
        with federation.client(name) as client:
            roots.add(client.call("getblockhash", height))
    assert len(roots) == 1
