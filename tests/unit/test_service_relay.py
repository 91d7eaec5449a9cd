"""What users hand in, on its way to every member: kept, passed on, refused, or held against its sender."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.l1.answers import L1Header
from pegnode.mempool.pool import PoolReason
from pegnode.net.messages import (
    MAX_ITEMS,
    EvidenceMessage,
    RegistrationsMessage,
    TransactionsMessage,
)
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import relay as relay_module
from pegnode.service.inbox import Inbox
from tests.support.members import MemoryFederation, Stranger, memory_federation
from tests.support.mini_wallet import Coin, MiniWallet

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
GUEST = PeerId("a guest")


async def guest_of(federation: MemoryFederation) -> Stranger:
    stranger = await federation.join(GUEST)
    await trio.sleep(0.5)
    return stranger


def spend_again(payment: Transaction) -> Transaction:
    """A payment of the first output of another."""
    return ALICE.pay((payment.outpoint(0), payment.outputs[0]), ALICE.script())


# Transactions


async def test_transaction_goes_to_every_member_and_to_guests(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        guest = await guest_of(federation)
        payment = ALICE.pay(coin, BOB.script())
        assert federation.members[3].relay.submit_transaction(payment.serialize()) == payment.txid
        assert federation.members[3].relay.submit_transaction(payment.serialize()) == payment.txid, "again is no error"
        await trio.sleep(0.03)
        assert any(payment.serialize() in message.transactions for message in guest.told(TransactionsMessage))
        conflict = ALICE.pay(coin, ALICE.script())
        if len(federation.members[3].core.mempool):
            with pytest.raises(Rejected) as caught:
                federation.members[3].relay.submit_transaction(conflict.serialize())
            assert caught.value.reason is PoolReason.CONFLICT
        await federation.settled(payment)


async def test_orphan_waits_for_its_parents_block(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:  # alone, it makes no blocks
        member = federation.members[0]
        coin = funded_by_hand(federation)
        parent = ALICE.pay(coin, ALICE.script())
        child = spend_again(parent)
        grandchild = spend_again(child)
        guest = await guest_of(federation)
        guest.say_all(TransactionsMessage((grandchild.serialize(), child.serialize())))
        await trio.sleep(0.1)
        assert len(member.core.mempool) == 0
        federation.commit_block(member, parent)
        await trio.sleep(0.1)
        assert child.txid in member.core.mempool
        federation.commit_block(member)
        await trio.sleep(0.1)
        assert [entry.transaction.txid for entry in member.core.mempool.entries()] == [child.txid, grandchild.txid]
        assert guest.left == []


async def test_orphans_are_few_small_and_given_up(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MAX_ORPHANS", 3)
    async with memory_federation(0) as federation:
        member = federation.members[0]
        coin = funded_by_hand(federation)
        missing = ALICE.pay(coin, ALICE.script())
        orphans = [
            ALICE.pay((missing.outpoint(0), missing.outputs[0]), BOB.script(), fee_sats=1_000 + n) for n in range(5)
        ]
        guest = await guest_of(federation)
        guest.say_all(TransactionsMessage(tuple(orphan.serialize() for orphan in orphans)))
        await trio.sleep(0.1)
        assert list(member.relay._orphans) == [orphan.serialize() for orphan in orphans[2:]]
        for _ in range(relay_module.ORPHAN_TRIES):
            assert len(member.relay._orphans) == 3
            federation.commit_block(member)
            await trio.sleep(0.1)
        assert len(member.relay._orphans) == 0
        monkeypatch.setattr(relay_module, "MAX_ORPHAN_BYTES", len(orphans[0].serialize()))
        guest.say_all(TransactionsMessage(tuple(orphan.serialize() for orphan in orphans)))
        await trio.sleep(0.1)
        assert len(member.relay._orphans) <= 1


async def test_transaction_that_is_false_everywhere_drops_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        coin = funded_by_hand(federation)
        payment = ALICE.pay(coin, BOB.script())
        forged = replace(payment, outputs=(replace(payment.outputs[0], script=ALICE.script()),))
        for data in (forged.serialize(), payment.serialize() + b"\x00", b"no transaction"):
            guest = await federation.join(PeerId(f"guest {len(data)}"))
            await trio.sleep(0.5)
            guest.say_all(TransactionsMessage((data, payment.serialize())))
            await trio.sleep(0.1)
            assert [left.reason for left in guest.left] == [DropReason.FALSE_TRANSACTION]
            assert len(federation.members[0].core.mempool) == 0, "what it sent besides is not looked at"


async def test_transaction_refused_for_the_moment_does_not_drop_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        coin = funded_by_hand(federation)
        payment = ALICE.pay(coin, BOB.script())
        cheap = ALICE.pay(coin, BOB.script(), fee_sats=1)
        late = ALICE.spend([coin], [TxOut(1_000_000, BOB.script())], locktime=10_000, sequence=0)
        guest = await guest_of(federation)
        for transaction in (cheap, late, payment, ALICE.pay(coin, ALICE.script())):
            guest.say_all(TransactionsMessage((transaction.serialize(),)))
            await trio.sleep(0.1)
        assert guest.left == []
        assert [entry.transaction for entry in federation.members[0].core.mempool.entries()] == [payment]


async def test_transaction_known_by_its_bytes_is_not_parsed_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        payment = ALICE.pay(funded_by_hand(federation), BOB.script())
        member.relay.submit_transaction(payment.serialize())
        guest = await guest_of(federation)
        monkeypatch.setattr(type(member.core.mempool), "add", Mock(side_effect=AssertionError("judged again")))
        guest.say_all(TransactionsMessage((payment.serialize(),) * 50))
        await trio.sleep(0.1)
        monkeypatch.undo()
        member.core.mempool.drop([payment.txid])
        guest.say_all(TransactionsMessage((payment.serialize(),)))
        await trio.sleep(0.1)
        assert payment.txid in member.core.mempool, "what was dropped may come back"


async def test_peer_that_comes_back_is_told_what_waits(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        payment = ALICE.pay(funded_by_hand(federation), BOB.script())
        member.relay.submit_transaction(payment.serialize())
        member.relay.register(BOB.script())
        other = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        guest = await federation.join(GUEST)
        await trio.sleep(0.5)
        assert other.told(TransactionsMessage)[0].transactions == (payment.serialize(),)
        assert other.told(RegistrationsMessage)[0].claim_scripts == (BOB.script(),)
        assert guest.told(TransactionsMessage)[0].transactions == (payment.serialize(),)
        assert guest.told(RegistrationsMessage) == [], "who asked for an address is the members' business"
        other.heard.clear()
        guest.heard.clear()
        await trio.sleep(2 * relay_module.RELAY_AGAIN_S)
        assert other.told(TransactionsMessage)[0].transactions == (payment.serialize(),)
        assert guest.told(TransactionsMessage) == []


async def test_guest_that_comes_again_and_again_is_told_what_waits_now_and_then(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "GUEST_GREETINGS_PER_S", 0.01)
    monkeypatch.setattr(relay_module, "GUEST_GREETINGS_BURST", 3)
    async with memory_federation(0) as federation:
        here = federation.peer_id(0)
        payment = ALICE.pay(funded_by_hand(federation), BOB.script())
        federation.members[0].relay.submit_transaction(payment.serialize())
        guest = await federation.join(GUEST)
        member = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        await trio.sleep(0.5)

        async def comes_ten_times(visitor: Stranger) -> int:
            """How often it is told of the payment as it arrives."""
            told = 0
            for _ in range(10):
                visitor.transport.drop(here, DropReason.CLOSED)
                visitor.heard.clear()
                await federation.until(lambda: here in visitor.transport.connected())
                await trio.sleep(0.1)
                told += len(visitor.told(TransactionsMessage))
            return told

        assert await comes_ten_times(member) >= 10
        assert await comes_ten_times(guest) == 2
        await trio.sleep(1 / relay_module.GUEST_GREETINGS_PER_S)
        assert await comes_ten_times(guest) == 1
        assert {departure.reason for departure in guest.left} == {DropReason.CLOSED}, "it is no fault"
        other = await federation.join(PeerId("another guest"))
        await trio.sleep(0.5)
        assert other.told(TransactionsMessage)[0].transactions == (payment.serialize(),)


async def test_what_waits_for_long_is_sent_again_ever_more_rarely(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        payment = ALICE.pay(funded_by_hand(federation), BOB.script())
        federation.members[0].relay.submit_transaction(payment.serialize())
        other = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        await trio.sleep(0.5)
        other.heard.clear()
        await trio.sleep(64 * relay_module.RELAY_AGAIN_S)
        assert len(other.told(TransactionsMessage)) in (6, 7)  # after 1, 2, 4 … 64 times as long


def test_what_waits_is_sent_in_parts_that_fit() -> None:
    small = [b"%d" % number for number in range(2 * MAX_ITEMS + 5)]
    parts = list(relay_module._in_messages(small))
    assert [len(part) for part in parts] == [MAX_ITEMS, MAX_ITEMS, 5]
    assert [item for part in parts for item in part] == small
    large = [bytes(200_000)] * 5
    assert [len(part) for part in relay_module._in_messages(large)] == [2]
    assert list(relay_module._in_messages([])) == []


# Evidence


async def test_evidence_goes_to_every_member_and_not_to_guests(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        guest = await guest_of(federation)
        node = await federation.start_full_node()
        await trio.sleep(0.5)
        evidence = deposit_evidence(federation)
        await node.relay.submit_evidence(evidence)
        await federation.until(lambda: all(len(member.core.evidence) == 1 for member in federation.members.values()))
        assert guest.told(EvidenceMessage) == []
        with pytest.raises(Rejected) as caught:
            await node.relay.submit_evidence(replace(evidence, proof=bytes(len(evidence.proof))))
        assert caught.value.reason is EvidenceReason.WRONG_BLOCK


async def test_evidence_that_is_false_everywhere_drops_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        evidence = deposit_evidence(federation)
        wrong_script = (Opening(0, CoinKind.DEPOSIT, 0, BOB.script()),)
        for number, false in enumerate(
            (
                replace(evidence, openings=wrong_script),
                replace(evidence, transaction=evidence.transaction[:-1] + b"\x01"),
                replace(evidence, proof=evidence.proof[:-1] + b"\xff"),
                replace(evidence, openings=(Opening(7, CoinKind.DEPOSIT, 0, ALICE.script()),)),
            )
        ):
            guest = await federation.join(PeerId(f"guest {number}"))
            await trio.sleep(0.5)
            guest.say_all(EvidenceMessage((false.encode(), evidence.encode())))
            await trio.sleep(0.1)
            assert [left.reason for left in guest.left] == [DropReason.FALSE_EVIDENCE], number
            assert len(federation.members[0].core.evidence) == 0
        guest = await guest_of(federation)
        guest.say_all(EvidenceMessage((b"no evidence",)))
        await trio.sleep(0.1)
        assert [left.reason for left in guest.left] == [DropReason.GARBLED_MESSAGE]


async def test_wrong_answer_of_the_own_node_does_not_drop_who_passes_on_true_evidence(
    autojump_clock: trio.abc.Clock,
) -> None:
    lies: list[tuple[EvidenceReason, Callable[[L1Header], L1Header]]] = [
        (EvidenceReason.PROOF_COUNT_MISMATCH, lambda header: replace(header, n_tx=99)),
        (EvidenceReason.WRONG_HEIGHT, lambda header: replace(header, height=header.height + 1)),
    ]
    async with memory_federation(0) as federation:
        evidence, member = deposit_evidence(federation), federation.members[0]
        guest = await guest_of(federation)
        for reason, federation.nodes[0].lie in lies:
            with pytest.raises(Rejected) as caught:
                await member.relay.submit_evidence(evidence)
            assert caught.value.reason is reason
            guest.say_all(EvidenceMessage((evidence.encode(),)))
            await trio.sleep(0.1)
            assert (guest.left, len(member.core.evidence)) == ([], 0)


async def test_evidence_of_an_unknown_block_does_not_drop_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        evidence = deposit_evidence(federation)
        federation.nodes[0].lag_blocks = 8
        guest = await guest_of(federation)
        guest.say_all(EvidenceMessage((evidence.encode(),)))
        await trio.sleep(0.1)
        assert (guest.left, len(federation.members[0].core.evidence)) == ([], 0)
        federation.nodes[0].lag_blocks = 0
        federation.nodes[0].outage = True
        guest.say_all(EvidenceMessage((evidence.encode(),)))
        await trio.sleep(0.1)
        federation.nodes[0].outage = False
        guest.say_all(EvidenceMessage((evidence.encode(),)))
        await trio.sleep(0.1)
        assert (guest.left, len(federation.members[0].core.evidence)) == ([], 1)


async def test_evidence_beyond_the_inbox_is_not_taken_and_takes_nobodys_place(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        evidence = deposit_evidence(federation)
        unknown = replace(evidence, proof=b"\x01" * 80 + evidence.proof[80:])
        flooder = await federation.join(PeerId("a flooder"))
        guest = await guest_of(federation)
        flooder.say_all(EvidenceMessage((unknown.encode(),) * 500))
        guest.say_all(EvidenceMessage((evidence.encode(),)))
        await trio.sleep(0.006)
        assert len(member.relay._evidence) <= relay_module.INBOX_EVIDENCE + 1
        await trio.sleep(0.05)
        assert len(member.core.evidence) == 1, "judged in turn, not after all of the other's"
        await trio.sleep(1)
        assert len(member.relay._evidence) == 0
        assert flooder.left == []


# The inbox


async def test_inbox_takes_from_each_peer_in_turn() -> None:
    inbox: Inbox[int] = Inbox(max_items=3, max_bytes=100)
    one, other = PeerId("one"), PeerId("other")
    assert [inbox.put(one, number, 10) for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert inbox.put(other, 10, 100)
    assert not inbox.put(other, 11, 1), "no byte left"
    assert len(inbox) == 4
    assert [await inbox.take() for _ in range(4)] == [(one, 1), (other, 10), (one, 2), (one, 3)]
    assert inbox.put(one, 5, 101) is False
    assert inbox.put(one, 5, 1)
    assert inbox.put(other, 6, 1)
    inbox.forget(one)
    inbox.forget(one)
    assert await inbox.take() == (other, 6)


async def test_inbox_waits_for_an_item(autojump_clock: trio.abc.Clock) -> None:
    inbox: Inbox[str] = Inbox(max_items=3, max_bytes=100)
    taken: list[tuple[PeerId, str]] = []

    async def take() -> None:
        taken.append(await inbox.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert taken == []
        inbox.put(GUEST, "an item", 1)
    assert taken == [(GUEST, "an item")]


def deposit_evidence(federation: MemoryFederation) -> Evidence:
    """Evidence of a deposit of Alice's, deep enough."""
    federation.pay_deposit(ALICE.script(), 1_000_000)
    [payment] = federation.l1.chain.blocks[-1].transactions[1:]
    evidence = federation.l1.chain.evidence(payment, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    federation.bury()
    return evidence


def funded_by_hand(federation: MemoryFederation) -> Coin:
    """A coin of Alice's in member 0's chain, to which nobody else has agreed."""
    return federation.fund_by_hand(federation.members[0], ALICE)
