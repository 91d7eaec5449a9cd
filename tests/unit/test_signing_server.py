"""A signer behind its socket: who is let in, what is answered, and what ends a connection or the process."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from bridge.bitcoin.identifiers import Txid
from bridge.errors import Reason
from bridge.l1.errors import L1Reason
from federation.certificate import NO_BLOCK, Vote, VoteKind, verify_vote
from federation.journal_errors import JournalReason, JournalRefused
from federation.statement import SignedStatement
from pegnode.rpc.node_api import UnavailableReason
from pegnode.signing import messages as say
from pegnode.signing.frames import FRAME_S, FrameStream
from pegnode.signing.refusals import LinkReason
from pegnode.signing.server import MAX_CONNECTIONS, MAX_OPEN_QUESTIONS, OPEN_S
from tests.support.members import memory_federation
from tests.support.records import resume, signed
from tests.support.signer_rig import ALICE, Functionary, SignerRig


async def stranger(rig: SignerRig) -> Functionary:
    """One that has not said yet who it is."""
    return Functionary(rig, FrameStream(await rig.dial()))


def reason(answer: say.Answer | None) -> str:
    """Of a refusal of the connection."""
    assert isinstance(answer, say.AskRefused)
    assert answer.number == 0
    return answer.reason


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": 2}, LinkReason.WRONG_VERSION),
        ({"chain_id": bytes(32)}, LinkReason.WRONG_CHAIN),
        ({"member": 0}, LinkReason.WRONG_MEMBER),
    ],
)
async def test_other_version_chain_or_member_is_not_let_in(
    change: dict[str, object], expected: LinkReason, autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation() as federation:
        other = await stranger(SignerRig(federation))
        assert reason(await other.tell(other.hello(**change))) == expected
        assert await other.hear() is None


async def test_second_functionary_is_told_to_go_until_the_first_has_gone(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        first, second = await rig.functionary(), await stranger(rig)
        assert reason(await second.tell(second.hello())) == LinkReason.OCCUPIED
        assert isinstance(await first.vote(VoteKind.NULLIFY, 1), Vote)
        await first.frames.aclose()
        await trio.sleep(0.1)
        await rig.functionary()


async def test_whoever_does_not_say_who_it_is_is_let_go(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        silent = [await stranger(rig) for _ in range(MAX_CONNECTIONS)]
        one_more = await stranger(rig)
        assert await one_more.hear() is None
        assert await silent[0].hear() is None
        assert trio.current_time() > OPEN_S
        await rig.functionary()


@pytest.mark.parametrize("payload", [b"\xc1garbage", say.encode(say.OpenLink(1, bytes(32), 3)), b"\x93\x02\x01"])
async def test_garbage_ends_the_connection_and_not_the_signer(payload: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        await functionary.frames.send(payload)
        assert reason(await functionary.hear()) == LinkReason.GARBLED
        assert await functionary.hear() is None
        assert isinstance(await (await rig.functionary()).vote(VoteKind.NULLIFY, 1), Vote)


@pytest.mark.parametrize(
    "question",
    [
        say.AskVote(1, 0, 0, 1, bytes(32), b""),
        say.AskVote(1, VoteKind.NULLIFY, 0, 1, bytes(32), b""),
        say.AskVote(1, VoteKind.NOTARIZE, 0, 1, b"", b""),
        say.AskVote(1, VoteKind.FINALIZE, 0, 1, bytes(31), b""),
    ],
)
async def test_vote_of_no_form_is_garbage(question: say.AskVote, autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        functionary = await SignerRig(federation).functionary()
        assert reason(await functionary.tell(question)) == LinkReason.GARBLED


async def test_first_word_must_say_who_it_is(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        other = await stranger(SignerRig(federation))
        assert reason(await other.tell(say.AskVote(1, VoteKind.NULLIFY, 0, 1, b"", b""))) == LinkReason.GARBLED


async def test_vote_is_genuine_and_on_disk_before_it_is_answered(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        proof = federation.certificate(VoteKind.NULLIFY, 4)
        vote = await (await rig.functionary()).vote(VoteKind.NULLIFY, 5, NO_BLOCK, proof=proof)
        assert isinstance(vote, Vote)
        verify_vote(vote, federation.rules.membership, federation.rules.chain_id)
        await rig.restart()
        assert [kept.view for kept in rig.journal.contents().votes] == [5]


async def test_flood_of_slow_questions_is_refused_beyond_a_few_and_votes_go_on(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        functionary = await SignerRig(federation).functionary()
        for number in range(1, MAX_OPEN_QUESTIONS + 4):
            await functionary.frames.send(say.encode(say.AskCosign(number, bytes(32))))
        refused = [await functionary.hear() for _ in range(3)]
        assert [item.reason for item in refused if isinstance(item, say.AskRefused)] == [LinkReason.BUSY] * 3
        assert isinstance(await functionary.vote(VoteKind.NULLIFY, 1), Vote)
        rest = [await functionary.hear() for _ in range(MAX_OPEN_QUESTIONS)]
        assert {item.number for item in rest if isinstance(item, say.AskRefused)} == set(range(1, 9))


async def test_one_block_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, rig = federation.members[0], SignerRig(federation)
        functionary = await rig.functionary()
        federation.fund_by_hand(member, ALICE)
        block, certificate = member.store.block_at(1), member.store.certificate_at(1)
        assert block is not None
        assert certificate is not None
        for number in (1, 2):  # the Bitcoin node takes its time over the first
            await functionary.frames.send(say.encode(say.ShowBlock(number, block, (), certificate)))
        busy, taken = await functionary.hear(), await functionary.hear()
        assert isinstance(busy, say.AskRefused)
        assert (busy.number, busy.reason) == (2, LinkReason.BUSY)
        assert taken == say.Taken(1, 1)


async def test_whoever_takes_no_answers_is_let_go(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        ours, theirs = trio.testing.lockstep_stream_pair()
        federation.nursery.start_soon(rig._serve, theirs)
        await ours.send_all(_framed(say.encode(Functionary(rig, FrameStream(ours)).hello())))
        await trio.sleep(FRAME_S + 1)
        await rig.functionary()


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


async def test_chain_is_followed_through_blocks_that_only_a_descendant_proves(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, rig = federation.members[0], SignerRig(federation)
        federation.commit(member.store, federation.run_of_blocks(member.store, 5))
        functionary = await rig.functionary()
        await functionary.show_chain(member, up_to=4)
        assert rig.height == 0, "nothing is final before the certified block is applied"
        await rig.restart()
        functionary = await rig.functionary()
        await functionary.show_chain(member)
        assert rig.height == 5
        assert rig.core.store.tip.hash == member.store.tip.hash
        assert rig.journal.floor_view == member.store.tip.header.view


async def test_block_waits_for_the_signers_own_bitcoin_node(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        member = federation.members[0]
        federation.fund_by_hand(member, ALICE)
        rig.node.lag_blocks = 8
        certificate = member.store.certificate_at(1)
        block = member.store.block_at(1)
        assert certificate is not None
        assert block is not None
        assert await functionary.show(block, (), certificate) == LinkReason.BLOCK_WAITS
        rig.node.outage = True
        assert await functionary.show(block, (), certificate) == LinkReason.BLOCK_WAITS
        rig.node.outage, rig.node.lag_blocks = False, 0
        assert await functionary.show(block, (), certificate) == 1


async def test_bytes_that_are_no_block_or_statement_are_refused(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        functionary = await SignerRig(federation).functionary()
        assert await functionary.show(b"no block", (), b"no certificate") == LinkReason.GARBLED
        answer = await functionary.tell(say.AskStatement(9, b"no statement"))
        assert isinstance(answer, say.AskRefused)
        assert answer.reason == LinkReason.GARBLED


async def test_statement_is_signed_after_an_audit_of_the_signers_own(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, rig = federation.members[0], SignerRig(federation)
        functionary = await rig.functionary()
        federation.fund_by_hand(member, ALICE)
        await functionary.show_chain(member)
        answer = await functionary.tell(say.AskStatement(1, b""))
        assert isinstance(answer, say.Signed)
        assert SignedStatement.decode(answer.signed).signers == (rig.index,)
        rig.node.outage = True
        answer = await functionary.tell(say.AskStatement(2, b""))
        assert isinstance(answer, say.AskRefused)
        assert answer.reason == UnavailableReason.L1_UNREACHABLE


async def test_signature_waits_for_the_signers_bitcoin_node(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, rig = federation.members[0], SignerRig(federation)
        functionary = await rig.functionary()
        federation.fund_by_hand(member, ALICE)
        await functionary.show_chain(member)
        rig.node.outage = True
        assert await functionary.cosign(Txid(bytes(32))) == L1Reason.UNREACHABLE


async def test_signer_ends_when_its_keys_were_used_elsewhere() -> None:
    assert await _end(_shown_a_vote_that_it_never_gave) is JournalReason.BEHIND


async def test_signer_ends_when_its_journal_can_not_be_written() -> None:
    # Refused votes alone would leave a member that looks well and never votes again.
    assert await _end(_asked_on_a_full_disk) is JournalReason.NO_SPACE


async def _end(act: Callable[[], Awaitable[None]]) -> Reason:
    with pytest.RaisesGroup(JournalRefused, flatten_subgroups=True) as caught:
        await act()
    [refused] = caught.value.exceptions if len(caught.value.exceptions) == 1 else [caught.value]
    while isinstance(refused, BaseExceptionGroup):
        [refused] = refused.exceptions
    assert isinstance(refused, JournalRefused)
    return refused.reason


async def _asked_on_a_full_disk() -> None:
    def write(changes: object, *, sync: bool) -> None:
        raise JournalRefused(JournalReason.NO_SPACE, "full")

    async with memory_federation() as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(rig.disk.entries, "write", write)
            await functionary.vote(VoteKind.NULLIFY, 1)


async def _shown_a_vote_that_it_never_gave() -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        block = federation.next_block(rig.core.store)
        proof = federation.finalization(block, signers=(0, 1, rig.index))
        await functionary.show(block.data, (), proof)


async def test_record_that_no_quorum_signed_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        alone = signed(resume(federation.rules).record, 0)
        answer = await functionary.tell(say.ShowRecord(1, alone.encode()))
        assert isinstance(answer, say.AskRefused)
        assert answer.reason == LinkReason.RECORD_UNPROVEN
        assert rig.core.records.waiting() == ()


async def test_record_that_a_quorum_signed_is_kept_once(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        decided = resume(federation.rules)
        for number in (1, 2):
            assert await functionary.tell(say.ShowRecord(number, decided.encode())) == say.Taken(number, 0)
        assert rig.core.records.waiting() == (decided,)


async def test_record_is_signed_only_by_the_signers_own_findings(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        rig = SignerRig(federation)
        functionary = await rig.functionary()
        record = resume(federation.rules).record
        for records, index in (((record.encode(),), 1), ((b"no record",), 0)):
            answer = await functionary.tell(say.AskRecord(1, records, index))
            assert isinstance(answer, say.AskRefused)
            assert answer.reason == LinkReason.GARBLED
        rig.node.outage = True
        answer = await functionary.tell(say.AskRecord(2, (record.encode(),), 0))
        assert isinstance(answer, say.AskRefused)
        assert answer.reason == UnavailableReason.L1_UNREACHABLE
