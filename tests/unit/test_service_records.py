"""Records between nodes: who may bring one, what becomes of a false one, and that none stops a leader."""

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.records import Deficit, LostCoin
from federation.record import SignedRecord
from pegnode.net.messages import Message, RecordMessage, RecordsAnswer, RecordsRequest
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import records as records_module
from pegnode.service.records import ASK_AGAIN_S, MAX_UNANSWERED
from tests.support.chain import L1_START
from tests.support.members import MemoryFederation, Stranger, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.records import ANY_RECORD, NEVER, changed, rebase_of, record_of, resume, signed

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
ALL = (0, 1, 2, 3)


def message(record: SignedRecord) -> RecordMessage:
    return RecordMessage(record.encode())


def rebase_record(federation: MemoryFederation, serial: int, rise: int = 20) -> SignedRecord:
    """A record away from the L1 block that the chain begins from, to one that is `rise` blocks higher."""
    chain = federation.l1.chain
    while chain.height < L1_START + rise:
        federation.l1.mine()
    branch = chain.blocks[L1_START - 1 : L1_START + 1]
    return resume(federation.rules, serial, rebase_of(branch, chain.anchor(L1_START + rise)))


def unknown_coin(federation: MemoryFederation, serial: int = 1) -> SignedRecord:
    """A record that a quorum signed, of a coin that the ledger has not."""
    lost = Deficit.of((LostCoin(OutPoint(Txid(b"\x07" * 32), 0), 1_000),))
    return signed(record_of(federation.rules, lost, serial))


def serials(federation: MemoryFederation) -> set[int]:
    """Of the last record, by every running member."""
    return {member.store.ledger.totals.record_serial for member in federation.members.values()}


async def guest(federation: MemoryFederation, name: str = "a guest") -> Stranger:
    """A peer without keys, connected to every running member."""
    stranger = await federation.join(PeerId(name))
    running = {federation.peer_id(index) for index in federation.members}
    await federation.until(lambda: running <= stranger.transport.connected())
    return stranger


async def test_record_that_a_guest_hands_in_is_passed_on_and_carried_out(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        stranger = await guest(federation)
        stranger.say(federation.peer_id(3), message(resume(federation.rules)))
        await federation.until(lambda: serials(federation) == {1}, seconds=5)
        assert stranger.left == []
        assert all(member.core.records.waiting() == () for member in federation.members.values())


async def test_record_that_is_submitted_is_told_to_who_comes_later_and_again(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        record, member = resume(federation.rules), federation.members[0]
        early = await guest(federation, "early")
        for _ in range(2):
            member.records.submit(record)
        await federation.until(lambda: len(early.told(RecordMessage)) == 2)
        assert member.core.records.waiting() == (record,)
        late = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        await federation.until(lambda: late.told(RecordMessage) == [message(record)])
        await trio.sleep(records_module.TELL_AGAIN_S)
        assert len(late.told(RecordMessage)) == 2, "members are told again"
        assert len(early.told(RecordMessage)) == 2


@pytest.mark.parametrize("role", [PeerRole.GUEST, PeerRole.MEMBER])
async def test_peer_with_a_record_that_no_quorum_signed_is_dropped(
    role: PeerRole, autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation(0) as federation:
        peer = federation.peer_id(1) if role is PeerRole.MEMBER else PeerId("a guest")
        stranger = await federation.join(peer, role)
        await trio.sleep(0.5)
        true = rebase_record(federation, 1)
        stranger.say(federation.peer_id(0), message(signed(true.record, 0, 1)))
        await federation.until(lambda: stranger.left)
        assert [left.reason for left in stranger.left] == [DropReason.FALSE_SIGNATURE]
        assert federation.members[0].core.records.waiting() == ()
        assert not federation.members[0].core.records.branches.knows(federation.l1.chain.anchor(L1_START))


async def test_record_with_a_used_serial_or_known_already_is_nobodys_fault(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        record = resume(federation.rules)
        stranger = await guest(federation)
        for _ in range(3):
            stranger.say_all(message(record))
        await federation.until(lambda: serials(federation) == {1})
        stranger.say_all(message(record))
        stranger.say_all(message(changed(record, expires_at_anchor=NEVER - 1)))
        await trio.sleep(1)
        assert stranger.left == []
        assert serials(federation) == {1}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (RecordMessage(b"no record"), DropReason.GARBLED_MESSAGE),
        (RecordMessage(ANY_RECORD.encode() + b"\x00"), DropReason.GARBLED_MESSAGE),
        (RecordsAnswer(1, ()), DropReason.MISPLACED_MESSAGE),
    ],
)
async def test_message_of_no_record_or_that_nobody_asked_for_drops_its_sender(
    said: Message, reason: DropReason, autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation(0) as federation:
        stranger = await guest(federation)
        stranger.say_all(said)
        await federation.until(lambda: stranger.left)
        assert [left.reason for left in stranger.left] == [reason]


async def test_who_asks_for_records_is_told_of_branches_alone_and_within_limits(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0) as federation:
        member, stranger = federation.members[0], await guest(federation)
        leading = [rebase_record(federation, serial) for serial in (2, 4, 5)]
        for record in (resume(federation.rules, 1), *leading, resume(federation.rules, 3)):
            member.records.submit(record)
        asked = 0

        async def answer(first_serial: int) -> list[bytes]:
            nonlocal asked
            stranger.say_all(RecordsRequest(first_serial))
            asked += 1
            await federation.until(lambda: len(stranger.told(RecordsAnswer)) == asked)
            given = stranger.told(RecordsAnswer)[-1]
            assert given.first_serial == first_serial
            return list(given.records)

        encoded = [record.encode() for record in leading]
        assert await answer(0) == encoded
        assert await answer(3) == encoded[1:]
        assert await answer(6) == []
        monkeypatch.setattr(records_module, "MAX_RECORDS_PER_ANSWER", 2)
        assert await answer(1) == encoded[:2]
        monkeypatch.setattr(records_module, "MAX_ANSWER_BYTES", 1)
        assert await answer(1) == encoded[:1], "one at least"


async def test_who_asks_for_records_costs_no_look_at_the_disk(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest may ask some hundred times a second, and a long record takes 20 ms to decode."""
    async with memory_federation(*ALL) as federation:
        stranger = await guest(federation)
        federation.members[0].records.submit(resume(federation.rules))
        await federation.until(lambda: serials(federation) == {1})
        for member in federation.members.values():
            monkeypatch.setattr(member.store, "records", lambda *_: pytest.fail("read from disk"))
        stranger.say_all(RecordsRequest(1))
        await federation.until(lambda: stranger.told(RecordsAnswer) == [RecordsAnswer(1, ())] * len(ALL))


async def test_peer_is_asked_for_records_once_and_what_it_answers_is_checked(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, stranger = federation.members[0], await guest(federation)
        peer = PeerId("a guest")
        for _ in range(5):
            member.records.ask(peer)
        await federation.until(lambda: stranger.told(RecordsRequest))
        await trio.sleep(1)
        assert stranger.told(RecordsRequest) == [RecordsRequest(1)]
        record = rebase_record(federation, 7)
        stranger.say_all(RecordsAnswer(1, (record.encode(),)))
        await federation.until(lambda: member.core.records.branches.knows(federation.l1.chain.anchor(L1_START)))
        await trio.sleep(ASK_AGAIN_S)
        member.records.ask(peer)
        await federation.until(lambda: len(stranger.told(RecordsRequest)) == 2)
        false = signed(rebase_record(federation, 8).record, 0)
        stranger.say_all(RecordsAnswer(1, (false.encode(),)))
        await federation.until(lambda: stranger.left)
        assert [left.reason for left in stranger.left] == [DropReason.FALSE_SIGNATURE]
        member.records.ask(peer)  # it is gone


async def test_peer_that_does_not_answer_is_asked_no_more(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, stranger = federation.members[0], await guest(federation)
        for _ in range(3 * MAX_UNANSWERED):
            member.records.ask(PeerId("a guest"))
            await trio.sleep(ASK_AGAIN_S)
        assert len(stranger.told(RecordsRequest)) == MAX_UNANSWERED
        stranger.say_all(RecordsAnswer(1, ()))
        await trio.sleep(1)
        assert stranger.left == []
        member.records.ask(PeerId("a guest"))
        await federation.until(lambda: len(stranger.told(RecordsRequest)) == MAX_UNANSWERED + 1)


async def test_record_that_gets_no_quorum_leaves_its_serial_to_another(autojump_clock: trio.abc.Clock) -> None:
    """Some members still see the coin that the first one calls lost, so it gets no quorum; the second one does."""
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        [(outpoint, reserve)] = federation.members[0].store.ledger.coins.items()
        gone = signed(record_of(federation.rules, Deficit.of((LostCoin(outpoint, reserve.value_sats),))))
        for index in (0, 1):
            federation.nodes[index].hidden.add(outpoint)
        other = changed(resume(federation.rules), expires_at_anchor=NEVER - 1)
        for record in (gone, other):
            federation.members[0].records.submit(record)
        await federation.until(lambda: serials(federation) == {1})
        assert [item.encode() for item in federation.members[2].store.records()] == [other.encode()]


async def test_record_that_fails_is_dropped_and_the_one_beside_it_enters(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        failing = unknown_coin(federation)
        good = changed(resume(federation.rules), expires_at_anchor=NEVER - 1)
        for record in (failing, good):
            federation.members[0].records.submit(record)
        await federation.until(lambda: serials(federation) == {1})
        assert [item.encode() for item in federation.members[2].store.records()] == [good.encode()]


async def test_record_that_can_not_enter_stops_no_transfer(autojump_clock: trio.abc.Clock) -> None:
    """The one fails, the other leads to an L1 block that is not deep enough; and the coin of a third still exists."""
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        [(outpoint, reserve)] = federation.members[0].store.ledger.coins.items()
        kept = Deficit.of((LostCoin(outpoint, reserve.value_sats),))
        shallow = rebase_record(federation, 1, federation.l1.chain.height - L1_START)
        for record in (unknown_coin(federation), shallow, signed(record_of(federation.rules, kept))):
            federation.members[0].records.submit(record)
        height = federation.height
        await trio.sleep(20)
        assert federation.height - height < 10, "nor are blocks made for it without a pause"
        payment = ALICE.pay(coin, BOB.script())
        await federation.members[0].live.submit_transaction(payment.serialize())
        await federation.settled(payment)
        assert serials(federation) == {0}
        assert outpoint in federation.members[0].store.ledger.coins
        assert unknown_coin(federation) not in federation.members[0].core.records.waiting()
        await federation.fund(BOB)
