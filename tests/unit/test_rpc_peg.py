"""Methods about the peg: its terms, its guards, deposits, and the recount."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.bitcoin.addresses import decode_address, encode_address
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Rejected
from bridge.evidence import EvidenceReason
from bridge.state import LedgerReason, Totals
from pegnode.rpc.deposit_states import DepositInfo, DepositStatus
from pegnode.rpc.descriptors import with_checksum
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.rpc.results import (
    DepositAddressReply,
    DepositReply,
    FederationReply,
    PegInfoReply,
)
from tests.support.peg import outpoint, p2tr
from tests.support.rpc_node import FakeNode

ALICE, BOB = p2tr("alice"), p2tr("bob")
DEPOSIT_SATS = 10_000_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    fake.fund(ALICE, value_sats=DEPOSIT_SATS)
    yield fake
    fake.close()


async def test_getpeginfo_shows_the_five_terms(node: FakeNode) -> None:
    info = msgspec.convert((await node.ask("getpeginfo")).result, PegInfoReply)
    fee_sats = node.rules.params.claim_fee_sats
    assert (info.reserves_sats, info.deficit_sats) == (DEPOSIT_SATS, 0)
    assert (info.supply_sats, info.unsettled_sats, info.fund_sats) == (DEPOSIT_SATS - fee_sats, 0, fee_sats)
    assert info.equality
    assert (info.free_fund_sats, info.coins, info.open_batches) == (fee_sats, 1, 0)
    assert info.anchor.height == node.store.tip.header.anchor.height
    assert (info.l1_height, info.l1_network) == (120, "regtest")
    assert info.l1_genesis_hash == hash_to_hex(node.rules.l1_genesis_hash)
    assert info.window_left_sats == node.rules.params.max_window_withdrawals_sats


async def test_getpeginfo_tells_a_broken_equality(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_totals: Totals) -> None:
        raise Rejected(LedgerReason.EQUALITY)

    monkeypatch.setattr(Totals, "require_equality", refuse)
    assert (await node.ask("getpeginfo")).result["equality"] is False


async def test_getfederationinfo_names_members_and_descriptors(node: FakeNode) -> None:
    info = msgspec.convert((await node.ask("getfederationinfo")).result, FederationReply)
    assert (info.size, info.quorum, info.fault_tolerance, info.epoch) == (4, 3, 1, 0)
    assert [member.name for member in info.members] == [f"member-{index}" for index in range(4)]
    assert [member.connected for member in info.members] == [True, False, False, False]
    assert info.members[0].last_vote_view == 11
    assert (len(info.recovery_keys), info.recovery_quorum, info.recovery_timelock_blocks) == (3, 2, 4_032)
    change = reserve_script(node.rules.custody.newest, CoinKind.CHANGE)
    assert info.change.script_hex == change.script.hex()
    assert info.change.descriptor == with_checksum(change.descriptor)
    assert decode_address(info.donation.address, node.l1_network).hex() == info.donation.script_hex
    assert info.donation.script_hex != info.change.script_hex
    assert info.parameters["claim_fee_sats"] == node.rules.params.claim_fee_sats


async def test_getdepositaddress_binds_and_registers_the_claim_script(node: FakeNode) -> None:
    claim_address = encode_address(BOB, node.network)
    reply = msgspec.convert((await node.ask("getdepositaddress", claim_address)).result, DepositAddressReply)
    expected = reserve_script(node.rules.custody.newest, CoinKind.DEPOSIT, BOB)
    assert decode_address(reply.address, node.l1_network) == expected.script
    assert reply.address.startswith("bcrt1p")
    assert (reply.claim_address, reply.claim_script_hex) == (claim_address, BOB.hex())
    assert reply.descriptor.startswith(expected.descriptor + "#")
    assert list(node.store.deposit_scripts()) == [BOB]
    again = (await node.ask("getdepositaddress", claim_address=claim_address)).result
    assert again["address"] == reply.address


async def test_getdepositaddress_refuses_an_l1_address_by_name(node: FakeNode) -> None:
    answer = await node.ask("getdepositaddress", encode_address(BOB, node.l1_network))
    assert (answer.code, answer.reason) == (-5, "address-wrong-network")
    assert "Bitcoin regtest" in answer.message
    assert node.store.deposit_scripts() == {}
    assert (await node.ask("getdepositaddress", "nonsense")).code == -5


async def test_getdepositaddress_gives_none_that_nobody_watches(node: FakeNode) -> None:
    node.failure = NodeUnavailable(UnavailableReason.SYNCING)
    answer = await node.ask("getdepositaddress", encode_address(BOB, node.network))
    assert (answer.code, answer.reason) == (-10, "syncing")


async def test_listdeposits_shows_each_state(node: FakeNode) -> None:
    node.found_deposits = tuple(
        DepositInfo(
            outpoint=outpoint(index),
            claim_script=BOB,
            value_sats=1_000 * (index + 1),
            l1_height=None if index == 0 else 100 + index,
            confirmations=index,
            confirmations_needed=6,
            status=status,
            claim_txid=None if status is DepositStatus.BELOW_MINIMUM else outpoint(index + 50).txid,
            claim_height=7,
            anchor_height=105,
            blocks_left=4,
            openings_before=500,
            openings_per_block=300,
            detail="a reason",
        )
        for index, status in enumerate(DepositStatus)
    )
    address = encode_address(BOB, node.network)
    replies = msgspec.convert((await node.ask("listdeposits", [address])).result, list[DepositReply])
    assert node.asked_scripts == (BOB,)
    assert [reply.status for reply in replies] == list(DepositStatus)
    assert [reply.outpoint for reply in replies] == [str(outpoint(index)) for index in range(len(DepositStatus))]
    assert (replies[0].l1_height, replies[0].confirmations, replies[0].confirmations_needed) == (None, 0, 6)
    assert replies[1].claim_txid == hash_to_hex(outpoint(51).txid)
    by_status = {reply.status: reply for reply in replies}
    assert by_status["below-minimum"].claim_txid is None
    assert {reply.claim_address for reply in replies} == {address}
    assert {(reply.claim_height, reply.anchor_height, reply.blocks_left) for reply in replies} == {(7, 105, 4)}
    assert {reply.openings_before for reply in replies} == {500}
    assert by_status["claimed"].next == "nothing: it was credited in block 7 of the sidechain"
    assert by_status["confirming"].next == "with anchor 105, 4 blocks from now, it can be credited"
    assert by_status["unprovable"].meaning == "no proof of it was taken here: a reason"
    assert "500 outputs come first" in by_status["queued"].meaning
    assert "at most 300 outputs each" in by_status["queued"].next
    assert not any("{" in reply.meaning + reply.next for reply in replies)


async def test_listdeposits_without_addresses_asks_for_all_registered(node: FakeNode) -> None:
    node.store.keep_deposit_scripts([BOB, ALICE], 1)
    assert (await node.ask("listdeposits")).result == []
    assert set(node.asked_scripts) == {ALICE, BOB}
    assert (await node.ask("listdeposits", [])).result == []
    assert node.asked_scripts == ()


async def test_listdepositscripts_tells_all_that_are_looked_for(node: FakeNode) -> None:
    assert (await node.ask("listdepositscripts")).result == []
    node.store.keep_deposit_scripts([BOB, ALICE], 1)
    assert sorted((await node.ask("listdepositscripts")).result) == sorted([ALICE.hex(), BOB.hex()])


async def test_listdeposits_refuses_bad_and_too_many_addresses(node: FakeNode) -> None:
    address = encode_address(BOB, node.network)
    assert (await node.ask("listdeposits", [address, "x"])).code == -5
    assert (await node.ask("listdeposits", [address] * 1_001)).code == -8
    node.failure = NodeUnavailable(UnavailableReason.L1_UNREACHABLE, "refused")
    assert (await node.ask("listdeposits", [address])).code == -9


async def test_registerdeposits_tells_how_many_are_new(node: FakeNode) -> None:
    addresses = [encode_address(script, node.network) for script in (ALICE, BOB)]
    assert (await node.ask("registerdeposits", addresses[:1])).result == {"registered": 1, "new": 1}
    assert (await node.ask("registerdeposits", addresses)).result == {"registered": 2, "new": 1}
    assert set(node.store.deposit_scripts()) == {ALICE, BOB}
    assert (await node.ask("registerdeposits", [addresses[0], "x"])).code == -5
    assert (await node.ask("registerdeposits", addresses * 501)).code == -8


async def test_claimdeposit_hands_over_what_is_known(node: FakeNode) -> None:
    address, deposit = encode_address(BOB, node.network), outpoint(5)
    txid_hex = hash_to_hex(deposit.txid)
    reply = (await node.ask("claimdeposit", txid_hex, address)).result
    assert reply == [{"outpoint": f"{txid_hex}:0", "claim_txid": txid_hex, "credited_sats": 1_000}]
    await node.ask("claimdeposit", txid_hex, address, 7, "22" * 32)
    assert node.claimed == [(deposit.txid, BOB, None, None), (deposit.txid, BOB, 7, bytes([0x22] * 32))]


async def test_claimdeposit_refuses_bad_arguments(node: FakeNode) -> None:
    address, txid_hex = encode_address(BOB, node.network), "11" * 32
    assert (await node.ask("claimdeposit", "11", address)).code == -8
    assert (await node.ask("claimdeposit", txid_hex, address, -1)).code == -8
    assert (await node.ask("claimdeposit", txid_hex, address, 0, "22")).code == -8
    assert (await node.ask("claimdeposit", txid_hex, encode_address(BOB, node.l1_network))).code == -5
    node.failure = Rejected(EvidenceReason.ALREADY_ENTERED, "long ago")
    answer = await node.ask("claimdeposit", txid_hex, address)
    assert (answer.code, answer.reason) == (-26, EvidenceReason.ALREADY_ENTERED.value)
    assert node.claimed == []


@pytest.mark.parametrize(
    ("descriptor", "checksum"),
    [
        ("raw(deadbeef)", "89f8spxm"),  # Source: BIP380, test vectors
        ("pkh(02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5)", "8fhd9pwu"),  # Bitcoin Core's docs
    ],
)
def test_descriptor_checksum(descriptor: str, checksum: str) -> None:
    assert with_checksum(descriptor) == f"{descriptor}#{checksum}"


def test_descriptor_checksum_refuses_a_character_that_no_descriptor_has() -> None:
    with pytest.raises(ValueError, match="substring"):
        with_checksum("raw(é)")
