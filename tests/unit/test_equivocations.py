"""Guilt, found and told: between whole members and full nodes in memory, with forgers and floods among them."""

from collections.abc import Callable

import pytest
import trio

from federation.certificate import Vote, VoteKind
from federation.equivocation import Equivocation, verify_equivocation
from federation.vote_memory import VIEWS_REMEMBERED
from pegnode.net.messages import CertificatesMessage, EquivocationsMessage, Message, VotesMessage
from pegnode.net.transport import DropReason, PeerRole
from pegnode.service import equivocations as equivocations_module
from pegnode.service.equivocations import MAX_OF_MEMBER
from tests.support.equivocations import (
    CONFLICTS,
    FINALIZE,
    NOTARIZE,
    NULLIFY,
    certificate,
    equivocation,
    signed_again,
    signed_vote,
)
from tests.support.guilt import FAULTY, HONEST, accused, alarm, faulty, guest, known, nodes, proof, votes
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")


# From end to end


async def test_member_that_equivocates_is_known_to_all_for_good(autojump_clock: trio.abc.Clock) -> None:
    """One member hears both votes. The others, a full node, and one that was down learn of it, and forget it never."""
    async with memory_federation(*HONEST) as federation:
        node = await federation.start_full_node()
        await federation.stop(2)
        evil = await faulty(federation)
        view = federation.members[0].machine.view
        for block in (1, 2):
            evil.say(federation.peer_id(0), votes(signed_vote(federation.rules, FAULTY, NOTARIZE, view, block)))
        expected = equivocation(federation.rules, FAULTY, view)
        await federation.until(lambda: all(known(each) == (expected,) for each in nodes(federation, node)), 5)
        await federation.start(2)
        await federation.until(lambda: known(federation.members[2]) == (expected,), 5)
        for index in HONEST:
            await federation.stop(index)
        await federation.start(*HONEST)
        assert all(known(each) == (expected,) for each in nodes(federation))
        await federation.fund(ALICE)  # nothing follows from guilt: the chain goes on, and so may the guilty
        assert all(member.dropped == [] for member in federation.members.values())
        assert not any(alarm(member) for member in federation.members.values())


# What is found


@pytest.mark.parametrize("kinds", CONFLICTS)
async def test_conflicting_votes_are_found_in_whatever_order(
    kinds: tuple[VoteKind, VoteKind], autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation(0) as federation:
        evil = await faulty(federation)
        item = equivocation(federation.rules, FAULTY, 1, kinds)
        evil.say_all(votes(item.second, item.first))
        await federation.until(lambda: known(federation.members[0]) == (item,), 5)


async def test_vote_of_a_view_that_is_over_still_convicts(autojump_clock: trio.abc.Clock) -> None:
    """The consensus machine forgets the votes of a final view; who contradicts itself later is found all the same."""
    async with memory_federation(*HONEST) as federation:
        evil = await faulty(federation)
        member = federation.members[0]
        early = signed_vote(federation.rules, FAULTY, NULLIFY, member.machine.view)
        evil.say_all(votes(early))
        await federation.fund(ALICE)
        await federation.until(lambda: member.machine.final_view > early.view)
        evil.say_all(votes(signed_vote(federation.rules, FAULTY, FINALIZE, early.view)))
        await federation.until(lambda: all(accused(each) == {FAULTY} for each in nodes(federation)), 5)


@pytest.mark.parametrize("vote_first", [True, False])
async def test_vote_inside_a_certificate_convicts(vote_first: bool, autojump_clock: trio.abc.Clock) -> None:
    """A vote that was told to others comes inside what they made of it, before or after one that was told here."""
    async with memory_federation(0) as federation:
        colleague = await faulty(federation, 1)
        vote = votes(signed_vote(federation.rules, FAULTY, FINALIZE, 1))
        others = CertificatesMessage((certificate(federation.rules, (1, 2, 3), NULLIFY, 1).encode(),))
        for message in (vote, others) if vote_first else (others, vote):
            colleague.say_all(message)
        await federation.until(lambda: accused(federation.members[0]) == {FAULTY}, 5)
        assert federation.members[0].dropped == []


async def test_certificate_that_tells_nothing_new_convicts_by_who_signed_it(autojump_clock: trio.abc.Clock) -> None:
    """A known certificate's signatures are not checked again, but for one that contradicts its member's vote."""
    async with memory_federation(0) as federation:
        evil, colleague = await faulty(federation), await faulty(federation, 1)
        rules, member = federation.rules, federation.members[0]
        colleague.say_all(CertificatesMessage((certificate(rules, (0, 1, 2), NULLIFY, 1).encode(),)))
        await federation.until(lambda: member.machine.view == 2)
        evil.say_all(votes(signed_vote(rules, FAULTY, FINALIZE, 1)))
        await trio.sleep(1)
        assert known(member) == ()
        colleague.say_all(CertificatesMessage((certificate(rules, (1, 2, 3), NULLIFY, 1).encode(),)))
        await federation.until(lambda: accused(member) == {FAULTY}, 5)
        assert member.dropped == []


async def test_forged_vote_inside_a_known_certificate_condemns_who_brought_it(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        honest, liar = await faulty(federation, 2), await faulty(federation)
        rules, member = federation.rules, federation.members[0]
        liar.say_all(CertificatesMessage((certificate(rules, (0, 1, 3), NULLIFY, 1).encode(),)))
        await federation.until(lambda: member.machine.view == 2)
        honest.say_all(votes(signed_vote(rules, 2, FINALIZE, 1)))
        await trio.sleep(1)
        forged = certificate(rules, (0, 1, 3), NULLIFY, 1)
        blamed = tuple((2 if index == 3 else index, signature64) for index, signature64 in forged.signatures)
        liar.say_all(CertificatesMessage((type(forged)(NULLIFY, 0, 1, forged.block_hash, blamed).encode(),)))
        await federation.until(lambda: member.dropped == [(federation.peer_id(FAULTY), DropReason.FALSE_SIGNATURE)], 5)
        assert known(member) == ()


@pytest.mark.parametrize("kinds", CONFLICTS)
async def test_conflicting_certificates_convict_whoever_signed_both(
    kinds: tuple[VoteKind, VoteKind], autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation(0) as federation:
        evil = await faulty(federation)
        first, second = (
            certificate(federation.rules, members, kind, 1, block)
            for block, (members, kind) in enumerate(zip(((0, 1, 3), (1, 2, 3)), kinds, strict=True), start=1)
        )
        evil.say_all(CertificatesMessage((first.encode(), second.encode())))
        member = federation.members[0]
        await federation.until(lambda: accused(member) == {1, FAULTY}, 5)


async def test_votes_from_before_a_restart_still_convict(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*HONEST) as federation:
        evil = await faulty(federation)
        view = federation.members[0].machine.view
        evil.say_all(votes(signed_vote(federation.rules, FAULTY, NULLIFY, view)))
        await federation.fund(ALICE)  # the journal writes with its own votes what it saw of others
        for index in HONEST:
            await federation.stop(index)
        await federation.until(lambda: len(evil.left) == len(HONEST))
        await federation.start(*HONEST)
        await federation.until(lambda: {federation.peer_id(index) for index in HONEST} <= evil.transport.connected())
        evil.say_all(votes(signed_vote(federation.rules, FAULTY, FINALIZE, view)))
        await federation.until(lambda: all(accused(each) == {FAULTY} for each in nodes(federation)), 5)


async def test_certificate_that_catching_up_brought_is_remembered_also_after_a_restart(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Blocks that became final while a member was away hold the word of who signed them."""
    async with memory_federation(0) as federation:
        core, unfinal = federation.members[0].core, federation.next_block(federation.members[0].store)
        core.unfinal.add(unfinal)
        core.finalize(unfinal.block.hash, federation.finalization(unfinal, (1, 2, 3)))
        final_view = unfinal.block.header.view
        evil, colleague = await faulty(federation, 2), await faulty(federation, 1)
        evil.say_all(votes(signed_vote(federation.rules, 2, NULLIFY, final_view)))
        await federation.until(lambda: accused(federation.members[0]) == {2}, 5)
        await federation.stop(0)
        await federation.until(lambda: colleague.left)
        await federation.start(0)
        await federation.until(lambda: federation.peer_id(0) in colleague.transport.connected())
        colleague.say_all(votes(signed_vote(federation.rules, 1, NULLIFY, final_view)))
        await federation.until(lambda: accused(federation.members[0]) == {1, 2}, 5)


async def test_certificates_say_which_views_are_the_newest_when_votes_are_recalled(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0) as federation:
        rules, equivocations = federation.rules, federation.members[0].equivocations
        nullified = certificate(rules, (0, 1, 2), NULLIFY, 999)
        equivocations.recall([signed_vote(rules, FAULTY, NULLIFY, 1_000)], [nullified])
        equivocations.hear(signed_vote(rules, FAULTY, FINALIZE, 1_000))
        assert accused(federation.members[0]) == {FAULTY}


async def test_certificates_that_the_machine_reports_convict_though_the_memory_is_shorter(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0) as federation:
        member, rules = federation.members[0], federation.rules
        colleague = await faulty(federation, 1)
        colleague.say_all(CertificatesMessage((certificate(rules, (1, 2, 3), NULLIFY, 1).encode(),)))
        await federation.until(lambda: member.machine.is_started and member.machine.view == 2)
        newest = certificate(rules, (0, 1, 2), NULLIFY, 2 + VIEWS_REMEMBERED)
        colleague.say_all(CertificatesMessage((newest.encode(),)))
        await federation.until(lambda: member.machine.view == newest.view + 1)
        colleague.say_all(CertificatesMessage((certificate(rules, (1, 2, 3), FINALIZE, 1).encode(),)))
        await federation.until(lambda: accused(member) == {1, 2, 3}, 5)
        assert member.machine.stopped


# Who is not accused


async def test_honest_members_are_never_accused_whatever_is_replayed(autojump_clock: trio.abc.Clock) -> None:
    """All that was said comes again, in another order, and each vote with another signature of the same."""
    async with memory_federation(*HONEST) as federation:
        spy = await faulty(federation)
        await federation.fund(ALICE)
        said = [Vote.decode(data) for message in spy.told(VotesMessage) for data in message.votes]
        assert {vote.kind for vote in said} >= {NOTARIZE, FINALIZE}
        certificates = [data for message in spy.told(CertificatesMessage) for data in message.certificates]
        for vote in reversed(said):
            again = signed_again(federation.rules, vote)
            assert again.signature64 != vote.signature64
            spy.say_all(votes(again, vote))
        for data in reversed(certificates):
            spy.say_all(CertificatesMessage((data,)))
        await trio.sleep(5)
        assert all(known(each) == () for each in nodes(federation))
        assert all(member.dropped == [] for member in federation.members.values())


Forgery = Callable[[MemoryFederation], Message]
FORGERIES: dict[str, Forgery] = {
    "one statement twice": lambda federation: proof(
        Equivocation(signed_vote(federation.rules, 1), signed_vote(federation.rules, 1, aux=1))
    ),
    "compatible votes": lambda federation: proof(
        Equivocation(signed_vote(federation.rules, 1), signed_vote(federation.rules, 1, NULLIFY))
    ),
    "two members": lambda federation: proof(
        Equivocation(signed_vote(federation.rules, 1), signed_vote(federation.rules, 2, block=2))
    ),
    "another chain": lambda federation: proof(equivocation(federation.rules, 1, chain_id=bytes(32))),
    "another epoch": lambda federation: proof(equivocation(federation.rules, 1, epoch=1)),
    "out of order": lambda federation: proof(
        Equivocation(equivocation(federation.rules, 1).second, equivocation(federation.rules, 1).first)
    ),
    "a member that is none": lambda federation: proof(equivocation(federation.rules, 4)),
}


@pytest.mark.parametrize("role", [PeerRole.MEMBER, PeerRole.GUEST])
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_peer_that_sends_what_proves_nothing_is_dropped(
    forge: Forgery, role: PeerRole, autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation(0) as federation:
        liar = await (faulty(federation) if role is PeerRole.MEMBER else guest(federation))
        witness = await guest(federation, "a witness")
        liar.say(federation.peer_id(0), forge(federation))
        member = federation.members[0]
        await federation.until(lambda: [reason for _, reason in member.dropped] == [DropReason.FALSE_SIGNATURE], 5)
        assert known(member) == ()
        assert witness.told(EquivocationsMessage) == []


async def test_garbled_proof_condemns_its_sender_alone(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        liar = await guest(federation)
        liar.say_all(EquivocationsMessage((equivocation(federation.rules, 1).encode()[:-1],)))
        member = federation.members[0]
        await federation.until(lambda: [reason for _, reason in member.dropped] == [DropReason.GARBLED_MESSAGE], 5)
        assert known(member) == ()


# Floods


async def test_flood_of_genuine_proofs_costs_eight_of_each_member(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guilty member signs hundreds of pairs, and each pair many times; a few are checked, kept and passed on."""
    checked: list[Equivocation] = []

    def counted(item: Equivocation, *arguments: object) -> None:
        checked.append(item)
        verify_equivocation(item, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(equivocations_module, "verify_equivocation", counted)
    async with memory_federation(0) as federation:
        rules, member = federation.rules, federation.members[0]
        evil, witness = await faulty(federation), await guest(federation, "a witness")
        views = [equivocation(rules, FAULTY, view) for view in range(1, 121)]
        again = [equivocation(rules, FAULTY, 1, aux=aux) for aux in range(1, 9)]
        for _ in range(3):
            evil.say(federation.peer_id(0), proof(*again, *views))
        await federation.until(lambda: len(known(member)) == MAX_OF_MEMBER, 5)
        await trio.sleep(1)
        assert len(checked) == MAX_OF_MEMBER
        assert [len(message.equivocations) for message in witness.told(EquivocationsMessage)] == [1] * MAX_OF_MEMBER
        assert known(member)[0] == again[0], "the first that came; it is never replaced"
        for item in views:
            evil.say(federation.peer_id(0), votes(item.first, item.second))
        await trio.sleep(1)
        assert len(checked) == len(known(member)) == MAX_OF_MEMBER
        assert evil.left == []
        evil.say(federation.peer_id(0), proof(equivocation(rules, 2)))
        await federation.until(lambda: accused(member) == {2, FAULTY}, 5)


async def test_new_peer_is_told_of_all_that_is_known(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        first = await guest(federation)
        items = [equivocation(federation.rules, index, view) for index in (1, 2) for view in (1, 2, 3)]
        first.say_all(proof(*items))
        await federation.until(lambda: len(known(federation.members[0])) == len(items), 5)
        assert first.told(EquivocationsMessage) == [], "who told needs not be told"
        second = await guest(federation, "a second guest")
        await federation.until(lambda: second.told(EquivocationsMessage) == [proof(*items)], 5)
