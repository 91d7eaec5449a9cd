"""Deposits on real processes: several outputs of one transaction, several in one block, and a claim by hand."""

from collections.abc import Iterator

import pytest

from bridge.bitcoin.identifiers import hash_to_hex
from pegnode.rpc.client import RpcRefused
from tests.support.federation import FederationUnderTest, eventually, fresh_address, running_federation

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


def test_deposit_to_an_unregistered_address_is_claimed_by_hand_from_another_node(
    federation: FederationUnderTest,
) -> None:
    claim_address = fresh_address()
    # Asked of bob while carol is the one who claims: nothing but the L1 txid, the index and the claim address is used.
    deposit_address = federation.deposit_address(claim_address, "bob")
    txid_hex = hash_to_hex(federation.pay({deposit_address: 700_000}))
    vouts = range(2)
    with federation.client("carol") as carol:
        with pytest.raises(RpcRefused) as refusal:
            carol.call("claimdeposit", txid_hex, 0, claim_address)
        assert refusal.value.refusal == "claim-transaction-unknown"
        federation.mine(1)
        reasons = {}
        eventually(lambda: federation.status("carol").l1.height == federation.mine(0), "carol has seen the block")
        for vout in vouts:
            with pytest.raises(RpcRefused) as refusal:
                carol.call("claimdeposit", txid_hex, vout, claim_address)
            reasons[refusal.value.refusal] = vout
        assert set(reasons) == {"claim-too-few-confirmations", "claim-wrong-script"}
        vout = reasons["claim-too-few-confirmations"]
        federation.mine(CONFIRMATIONS - 1)
        federation.await_claimed([claim_address], 1, "carol")
        with pytest.raises(RpcRefused) as refusal:
            carol.call("claimdeposit", txid_hex, vout, claim_address)
        assert refusal.value.refusal == "claim-already-entered"


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
