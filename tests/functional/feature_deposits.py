"""Deposits on real processes: several outputs of one transaction, several in one block, and a claim by hand."""

from collections.abc import Iterator

import pytest

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.custody import CoinKind, reserve_script
from pegnode.genesis import Genesis
from pegnode.rpc.client import RpcClient, RpcRefused
from pegnode.rpc.results import ClaimReply
from tests.support.federation import (
    SIDECHAIN,
    FederationUnderTest,
    eventually,
    fresh_address,
    running_federation,
)

CONFIRMATIONS = 6
CLAIM_FEE_SATS = 1_000


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationUnderTest]:
    with running_federation(tmp_path_factory.mktemp("deposits") / "federation") as running:
        yield running


def test_deposit_is_claimed_unasked_when_it_is_deep_enough(federation: FederationUnderTest) -> None:
    claim_address = fresh_address()
    before = federation.peg()
    federation.pay({federation.deposit_address(claim_address): 1_000_000})
    federation.mine(CONFIRMATIONS - 1)
    eventually(
        lambda: [item.confirmations for item in federation.deposits([claim_address])] == [CONFIRMATIONS - 1],
        "the deposit is seen",
    )
    [seen] = federation.deposits([claim_address])
    assert (seen.status, seen.value_sats) == ("seen", 1_000_000)
    federation.mine(1)
    [claimed] = federation.await_claimed([claim_address], 1)
    after = federation.peg()
    assert claimed.claim_txid == seen.claim_txid
    assert after.supply_sats - before.supply_sats == 1_000_000 - CLAIM_FEE_SATS
    assert after.fund_sats - before.fund_sats == CLAIM_FEE_SATS


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
    txid_hex = hash_to_hex(federation.pay({unregistered_deposit_address(federation, claim_address): 700_000}))
    with federation.client("carol") as carol:
        assert refusal(carol, txid_hex, 0, claim_address) == "claim-transaction-unknown"
        height = federation.mine(1)
        eventually(lambda: federation.status("carol").l1.height == height, "carol has seen the block")
        reasons = {refusal(carol, txid_hex, vout, claim_address): vout for vout in range(2)}
        assert set(reasons) == {"claim-too-few-confirmations", "claim-wrong-script"}
        assert refusal(carol, txid_hex, 2, claim_address) == "claim-no-such-output"
        vout = reasons["claim-too-few-confirmations"]
        height = federation.mine(CONFIRMATIONS - 1)
        eventually(lambda: federation.status("carol").l1.height == height, "carol has seen the blocks")
        assert [item.status for item in federation.deposits([claim_address], "carol")] == ["claimable"]
        claim = carol.ask(ClaimReply, "claimdeposit", txid_hex, vout, claim_address)
        assert claim.credited_sats == 700_000 - CLAIM_FEE_SATS
        [claimed] = federation.await_claimed([claim_address], 1)
        assert claimed.claim_txid == claim.claim_txid
        eventually(
            lambda: refusal(carol, txid_hex, vout, claim_address) == "claim-already-entered",
            "carol has the final block",
        )


def unregistered_deposit_address(federation: FederationUnderTest, claim_address: str) -> str:
    """The deposit address, worked out without telling any node."""
    policy = Genesis.load(federation.local.genesis_path).rules().custody.newest
    reserve = reserve_script(policy, CoinKind.DEPOSIT, decode_address(claim_address, SIDECHAIN))
    return encode_address(reserve.script, l1_network("regtest"))


def refusal(client: RpcClient, l1_txid: str, vout: int, claim_address: str) -> str:
    """The reason for which a node refuses a claim by hand."""
    with pytest.raises(RpcRefused) as caught:
        client.call("claimdeposit", l1_txid, vout, claim_address)
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
