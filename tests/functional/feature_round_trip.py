"""Value goes in, changes hands, and comes home to every type of L1 address, each payout proven on the Bitcoin node."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid, hash_from_hex
from bridge.bitcoin.script import ScriptType, classify
from bridge.l1.answers import L1TxOut
from bridge.l1.client import L1Client
from bridge.l1.regtest import AddressType, RegtestMiner
from pegnode.rpc.results import WithdrawalReply
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, running_federation
from tests.support.users import User, user_of

DEPOSIT_SATS = 50_000_000
L1 = l1_network("regtest")


@dataclass(frozen=True)
class Trip:
    """Two users who talk to different members."""

    federation: FederationUnderTest
    alice: User
    carol: User


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trip]:
    with (
        running_federation(tmp_path_factory.mktemp("round-trip") / "federation") as federation,
        user_of(federation, "alice") as alice,
        user_of(federation, "carol") as carol,
    ):
        yield Trip(federation, alice, carol)


def l1_addresses(federation: FederationUnderTest) -> list[str]:
    """One fresh address of each type."""

    async def work(_: L1Client, miner: RegtestMiner) -> list[str]:
        return [await miner.new_address(kind) for kind in AddressType]

    nobodys = encode_address(Script(b"\x00\x20" + sha256(b"a script that nobody has")), L1)
    return [*federation.on_l1(work), nobodys]


def l1_output(federation: FederationUnderTest, outpoint: OutPoint) -> L1TxOut:
    """An unspent output, as the Bitcoin node has it."""

    async def work(client: L1Client, _: RegtestMiner) -> L1TxOut | None:
        return await client.txout(outpoint, include_mempool=True)

    output = federation.on_l1(work)
    assert output is not None
    return output


def parse_outpoint(text: str) -> OutPoint:
    txid_hex, _, vout = text.partition(":")
    return OutPoint(Txid(hash_from_hex(txid_hex)), int(vout))


def test_deposit_transfer_and_withdrawals_of_every_type_come_home(trip: Trip) -> None:
    federation, alice, carol = trip.federation, trip.alice, trip.carol
    alice.fund(DEPOSIT_SATS, deposits=2)
    assert federation.peg().reserves_sats == DEPOSIT_SATS

    before_sats = alice.balance_sats()
    txid_hex = alice.send(carol.wallet.new_address(), 20_000_000)
    federation.await_final(txid_hex, federation.local.member_names)
    carol.await_balance(20_000_000)
    fee_sats = before_sats - 20_000_000 - alice.balance_sats()
    assert 0 < fee_sats < 1_000
    peg = federation.peg("bob")
    assert (peg.reserves_sats, peg.unsettled_sats) == (DEPOSIT_SATS, 0)
    assert peg.supply_sats == alice.balance_sats() + carol.balance_sats()

    addresses = l1_addresses(federation)
    assert {classify(decode_address(address, L1)) for address in addresses} == set(ScriptType)
    payers = [alice, carol, alice, carol, alice]
    burns = {
        payer.withdraw(address, 1_000_000 + index): address
        for index, (payer, address) in enumerate(zip(payers, addresses, strict=True))
    }
    batched = [federation.await_stage(burn, ("signed", "broadcast")) for burn in burns]
    assert {reply.lineage for reply in batched} == {0}
    assert federation.agreement().l1_held_sats == DEPOSIT_SATS
    peg = federation.peg("dave")
    assert (peg.reserves_sats, peg.unsettled_sats) == (DEPOSIT_SATS, 5 * 1_000_000 + 10)

    [payout] = {item.txid for reply in batched for item in reply.payouts}
    federation.await_stage(next(iter(burns)), ("broadcast",))
    federation.mine(1)
    paid = [federation.await_stage(burn, ("confirmed",)) for burn in burns]
    assert {item.confirmations for reply in paid for item in reply.payouts} == {1}
    audit = federation.agreement()
    assert audit.l1_paid_out_sats > 0
    assert audit.l1_held_sats + audit.l1_paid_out_sats == DEPOSIT_SATS

    federation.mine(CONFIRMATIONS - 1)
    settled = {burn: federation.await_stage(burn, ("settled",)) for burn in burns}
    assert_paid(federation, burns, settled, payout)
    audit = federation.agreement()
    peg = federation.peg()
    assert (peg.unsettled_sats, peg.open_batches) == (0, 0)
    assert (audit.l1_held_sats, audit.l1_paid_out_sats) == (peg.reserves_sats, 0)
    assert peg.reserves_sats == DEPOSIT_SATS - (5 * 1_000_000 + 10)
    assert audit.supply_sats == alice.balance_sats() + carol.balance_sats()
    assert_settled_everywhere(federation)


def assert_settled_everywhere(federation: FederationUnderTest) -> None:
    """Every member tells the same of the five withdrawals."""
    replies = set()
    for name in federation.local.member_names:
        with federation.client(name) as client:
            listed = client.ask(list[WithdrawalReply], "listwithdrawals")
        assert [reply.status for reply in listed] == ["settled"] * 5
        replies.add(tuple((reply.burn, reply.payout, reply.paid_sats) for reply in listed))
    assert len(replies) == 1


def assert_paid(
    federation: FederationUnderTest,
    burns: dict[OutPoint, str],
    settled: dict[OutPoint, WithdrawalReply],
    payout_txid_hex: str,
) -> None:
    """Each burn is paid by its own output of the payout, to its own script, less an equal share of the fee."""
    shares = set()
    outpoints = set()
    for burn, address in burns.items():
        reply = settled[burn]
        assert reply.payout is not None
        assert reply.paid_sats is not None
        outpoint = parse_outpoint(reply.payout)
        output = l1_output(federation, outpoint)
        assert reply.payout.startswith(payout_txid_hex)
        assert (output.value_sats, output.script) == (reply.paid_sats, decode_address(address, L1))
        assert output.confirmations == CONFIRMATIONS
        assert 0 < reply.value_sats - reply.paid_sats <= reply.max_fee_sats
        shares.add(reply.value_sats - reply.paid_sats)
        outpoints.add(outpoint)
    assert len(shares) == 1
    assert len(outpoints) == len(burns)
