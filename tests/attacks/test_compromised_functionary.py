"""A functionary in a thief's hands drives its signer's socket itself: it gets no signature that the laws refuse.

The signer has a chain, a journal and a Bitcoin node of its own. The thief can withhold, lie and ask;
each of these is tried here.  Ronin (2022) lost its bridge to processes whose keys signed what they were handed.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from federation.certificate import NO_BLOCK, Vote, VoteKind
from federation.cosign import CosignShare
from federation.journal_errors import JournalReason
from federation.refusal import RefusalReason
from pegnode.chain.block import Block
from pegnode.rpc.node_api import UnavailableReason
from pegnode.service.unfinal import UnfinalBlock
from pegnode.signing import messages as say
from pegnode.signing.follower import STALE_MS
from pegnode.signing.refusals import LinkReason
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.peg import p2tr
from tests.support.signer_rig import Functionary, SignerRig, unfinished_payout

ONE_IS_ENOUGH = {"batch_min_payouts": 1}
BLOCK, OTHER = BlockHash(b"\x01" * 32), BlockHash(b"\x02" * 32)


class Thief:
    """Member 3's functionary, its signer, and a payout whose block is about to become final."""

    def __init__(self, federation: MemoryFederation, member: Member, rig: SignerRig, socket: Functionary) -> None:
        self.federation, self.member, self.rig, self.socket = federation, member, rig, socket
        self.block, self.txid = unfinished_payout(federation, member)


@asynccontextmanager
async def thief() -> AsyncIterator[Thief]:
    async with memory_federation(0, peg=ONE_IS_ENOUGH) as federation:
        rig = SignerRig(federation)
        made = Thief(federation, federation.members[0], rig, await rig.functionary())
        await made.socket.show_chain(made.member)
        yield made


async def test_honest_functionary_gets_what_is_recorded(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        assert await made.socket.show_block(made.block) == made.block.block.header.height
        share = await made.socket.cosign(made.txid)
        assert isinstance(share, bytes)
        assert CosignShare.decode(share).member == made.rig.index


async def test_batch_in_no_final_block_is_not_signed(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        assert await made.socket.cosign(made.txid) == RefusalReason.NOT_RECORDED
        assert await made.socket.cosign(Txid(bytes(32))) == RefusalReason.NOT_RECORDED


async def test_block_without_a_true_certificate_counts_for_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        federation, header = made.federation, made.block.block.header
        notarization = federation.certificate(VoteKind.NOTARIZE, header.view, header.hash)
        of_another = federation.certificate(VoteKind.FINALIZE, header.view, OTHER)
        too_few = federation.certificate(VoteKind.FINALIZE, header.view, header.hash, signers=(0, 1))
        own = federation.certificate(VoteKind.FINALIZE, header.view, header.hash)
        forged = replace(own, signatures=tuple((member, bytes(64)) for member, _ in own.signatures))
        for certificate in (notarization, of_another, too_few, forged):
            shown = await made.socket.show(made.block.data, (), certificate.encode())
            assert shown == LinkReason.BLOCK_UNPROVEN
        assert await made.socket.cosign(made.txid) == RefusalReason.NOT_RECORDED


async def test_true_certificate_proves_no_other_block(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        proof = made.federation.finalization(made.block)
        block = made.block.block
        changed = Block(replace(block.header, time_ms=block.header.time_ms + 1), block.body)
        assert await made.socket.show(changed.encode(), (), proof) == LinkReason.BLOCK_UNPROVEN
        assert await made.socket.show(changed.encode(), (block.header.encode(),), proof) == LinkReason.BLOCK_UNPROVEN
        assert await made.socket.cosign(made.txid) == RefusalReason.NOT_RECORDED


async def test_final_block_with_a_false_ledger_root_halts_the_signer(autojump_clock: trio.abc.Clock) -> None:
    # Only a corrupt quorum can do this. The signer does not follow it.
    async with thief() as made:
        header = replace(made.block.block.header, ledger_root=bytes(32))
        false = replace(made.block, block=Block(header, made.block.block.body))
        false = replace(false, data=false.block.encode())
        assert await made.socket.show_block(false) == LinkReason.BLOCK_BREAKS_RULE
        assert made.rig.core.halted
        assert await made.socket.show_block(made.block) == made.block.block.header.height
        assert await made.socket.cosign(made.txid) == RefusalReason.HALTED


async def test_blocks_out_of_order_or_of_another_chain_count_for_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        later = made.federation.next_block(made.block.state)
        assert await made.socket.show_block(later) == LinkReason.BLOCK_NOT_NEXT
        elsewhere = MemoryFederation(made.federation.nursery, peg={"batch_min_payouts": 2})
        foreign = elsewhere.next_block(elsewhere.disks[0].open_store(elsewhere.rules))
        shown = await made.socket.show(foreign.data, (), elsewhere.finalization(foreign))
        assert shown == LinkReason.BLOCK_UNPROVEN
        assert made.rig.height == made.member.height


async def test_withheld_blocks_leave_a_signer_that_signs_nothing_on_l1(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        await made.socket.show_block(made.block)
        await trio.sleep(STALE_MS / 1000 + 60)
        assert await made.socket.cosign(made.txid) == LinkReason.STALE


async def test_withheld_blocks_get_no_statement_of_old_terms_as_if_they_were_new(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with thief() as made:
        assert isinstance(await made.socket.tell(say.AskStatement(1, b"")), say.Signed)
        await trio.sleep(STALE_MS / 1000 + 60)
        answer = await made.socket.tell(say.AskStatement(2, b""))
        assert isinstance(answer, say.AskRefused)
        assert answer.reason == UnavailableReason.SYNCING


async def test_signer_whose_clock_is_behind_its_newest_block_signs_nothing_on_l1(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else an old block would be taken for a new one by whoever can set the clock back.
    async with thief() as made:
        await made.socket.show_block(made.block)
        block_ms = made.block.block.header.time_ms
        monkeypatch.setattr(made.rig.core, "now_ms", lambda: block_ms - STALE_MS - 1)
        assert await made.socket.cosign(made.txid) == LinkReason.STALE
        monkeypatch.setattr(made.rig.core, "now_ms", lambda: block_ms - STALE_MS)
        assert isinstance(await made.socket.cosign(made.txid), bytes)


async def test_missing_coin_on_the_signers_own_node_stops_it_whatever_the_functionary_sees(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with thief() as made:
        await made.socket.show_block(made.block)
        [planned] = Transaction.parse_stripped(_recorded(made)).inputs
        theft = Transaction(2, (TxIn(planned.outpoint, b"", 0),), (TxOut(1_000, p2tr("thief")),), 0)
        made.federation.l1.chain.mine(theft)
        await trio.sleep(2)
        made.federation.nodes[3].lag_blocks = 1  # the functionary's own node shows no theft
        assert await made.socket.cosign(made.txid) == RefusalReason.COIN_MISSING


def _recorded(made: Thief) -> bytes:
    [(_, lineage)] = made.block.state.ledger.open_lineages.items()
    return lineage.versions[-1].transaction


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((VoteKind.NOTARIZE, BLOCK), (VoteKind.NOTARIZE, OTHER)),
        ((VoteKind.FINALIZE, BLOCK), (VoteKind.FINALIZE, OTHER)),
        ((VoteKind.FINALIZE, BLOCK), (VoteKind.NULLIFY, NO_BLOCK)),
        ((VoteKind.NULLIFY, NO_BLOCK), (VoteKind.FINALIZE, BLOCK)),
        ((VoteKind.NULLIFY, NO_BLOCK), (VoteKind.NOTARIZE, BLOCK)),
    ],
)
async def test_second_word_in_one_view_is_refused_even_after_a_power_failure(
    first: tuple[VoteKind, BlockHash], second: tuple[VoteKind, BlockHash], autojump_clock: trio.abc.Clock
) -> None:
    async with thief() as made:
        view = made.block.block.header.view
        notarized = {hash_: made.federation.certificate(VoteKind.NOTARIZE, view, hash_) for hash_ in (BLOCK, OTHER)}

        def ask(functionary: Functionary, kind: VoteKind, block_hash: BlockHash) -> Awaitable[Vote | str]:
            proof = notarized[block_hash] if kind is VoteKind.FINALIZE else None
            return functionary.vote(kind, view, block_hash, proof=proof)

        assert isinstance(await ask(made.socket, *first), Vote)
        assert await ask(made.socket, *second) == JournalReason.CONFLICT
        await made.rig.restart()
        again = await made.rig.functionary()
        assert await ask(again, *second) == JournalReason.CONFLICT
        assert isinstance(await ask(again, *first), Vote), "the same word is no second one"


async def test_vote_at_or_below_what_is_final_or_of_another_epoch_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        final_view = made.member.store.tip.header.view
        assert await made.socket.vote(VoteKind.NULLIFY, final_view) == JournalReason.PASSED
        assert await made.socket.vote(VoteKind.NULLIFY, final_view + 1, epoch=1) == "signer-wrong-epoch"


async def test_votes_are_not_to_be_had_in_advance(autojump_clock: trio.abc.Clock) -> None:
    # They would silence or misuse the member long after the thief has been driven out.
    async with thief() as made:
        federation, view = made.federation, made.member.store.tip.header.view + 2
        ended = federation.certificate(VoteKind.NULLIFY, view - 1)
        too_few = federation.certificate(VoteKind.NULLIFY, view - 1, signers=(0, 1))
        forged = replace(ended, signatures=tuple((member, bytes(64)) for member, _ in ended.signatures))
        elsewhere = replace(ended, epoch=1)
        for kind, block_hash in ((VoteKind.NOTARIZE, BLOCK), (VoteKind.NULLIFY, NO_BLOCK)):
            for proof in (None, too_few, forged, elsewhere):
                assert await made.socket.vote(kind, view, block_hash, proof=proof) == LinkReason.VOTE_UNPROVEN
        assert isinstance(await made.socket.vote(VoteKind.NOTARIZE, view, BLOCK, proof=ended), Vote)
        assert await made.socket.vote(VoteKind.NULLIFY, view + 1, proof=ended) == LinkReason.VOTE_UNPROVEN
        later = federation.certificate(VoteKind.NOTARIZE, view + 7, OTHER)
        assert isinstance(await made.socket.vote(VoteKind.NULLIFY, view + 3, proof=later), Vote)


async def test_vote_to_finalize_needs_the_notarization_of_that_very_block(autojump_clock: trio.abc.Clock) -> None:
    # With it, a quorum stands for the block already; without, the thief could help to make a private one final.
    async with thief() as made:
        federation, view = made.federation, made.member.store.tip.header.view + 1
        of_another = federation.certificate(VoteKind.NOTARIZE, view, OTHER)
        of_another_view = federation.certificate(VoteKind.NOTARIZE, view + 1, BLOCK)
        final = federation.certificate(VoteKind.FINALIZE, view, BLOCK)
        for proof in (None, of_another, of_another_view, final):
            assert await made.socket.vote(VoteKind.FINALIZE, view, BLOCK, proof=proof) == LinkReason.VOTE_UNPROVEN
        proof = federation.certificate(VoteKind.NOTARIZE, view, BLOCK)
        assert isinstance(await made.socket.vote(VoteKind.FINALIZE, view, BLOCK, proof=proof), Vote)


# more faulty members than consensus bears: nobody can be right about them, so nothing is signed any more


def _with_header(unfinal: UnfinalBlock, **changes: object) -> UnfinalBlock:
    block = Block(replace(unfinal.block.header, **changes), unfinal.block.body)  # type: ignore[arg-type]
    return replace(unfinal, block=block, data=block.encode())


async def _is_halted_for_good(made: Thief, functionary: Functionary) -> None:
    """Nothing more is signed, before and after a restart, with whatever proof."""
    for _ in range(2):
        view = made.rig.core.store.tip.header.view + 1
        assert await functionary.vote(VoteKind.NULLIFY, view) == JournalReason.CONTRADICTED
        assert await functionary.cosign(made.txid) == LinkReason.CONTRADICTED
        for question in (say.AskStatement(90, b""), say.ShowBlock(91, b"a block", (), b"a certificate")):
            answer = await functionary.tell(question)
            assert isinstance(answer, say.AskRefused)
            assert answer.reason == LinkReason.CONTRADICTED
        await made.rig.restart()
        functionary = await made.rig.functionary()


async def test_second_final_block_at_a_height_halts_the_signer_for_good(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        rival = made.federation.next_block(made.member.store)
        fork = _with_header(rival, view=made.block.block.header.view + 1)
        assert await made.socket.show_block(made.block) == made.block.block.header.height
        assert await made.socket.show_block(fork) == LinkReason.CONTRADICTED
        assert made.rig.journal.contradiction is not None
        await _is_halted_for_good(made, made.socket)


async def test_final_block_on_another_parent_halts_the_signer_for_good(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        assert await made.socket.show_block(made.block) == made.block.block.header.height
        child = made.federation.next_block(made.block.state)
        assert await made.socket.show_block(_with_header(child, parent=BLOCK)) == LinkReason.CONTRADICTED
        await _is_halted_for_good(made, made.socket)


async def test_two_final_blocks_of_one_view_halt_the_signer_for_good(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        assert await made.socket.show_block(made.block) == made.block.block.header.height
        higher = made.federation.next_block(made.block.state, view=made.block.block.header.view, height=99)
        assert await made.socket.show_block(higher) == LinkReason.CONTRADICTED
        await _is_halted_for_good(made, made.socket)


async def test_rival_of_blocks_that_only_a_descendant_proves_halts_the_signer(autojump_clock: trio.abc.Clock) -> None:
    async with thief() as made:
        blocks = made.federation.run_of_blocks(made.member.store, 3)
        proof = made.federation.finalization(blocks[-1])
        headers = tuple(unfinal.block.header.encode() for unfinal in blocks[1:])
        height = made.rig.height
        assert await made.socket.show(blocks[0].data, headers, proof) == height, "applied, and not final yet"
        again = await made.socket.show(blocks[0].data, headers, proof)
        assert again == LinkReason.BLOCK_NOT_NEXT, "the same again is no rival"
        rival = made.federation.next_block(made.member.store, time_ms=blocks[0].block.header.time_ms + 1)
        assert await made.socket.show_block(rival) == LinkReason.CONTRADICTED


@pytest.mark.parametrize("kind", [VoteKind.NULLIFY, VoteKind.NOTARIZE])
async def test_certificate_against_the_final_block_of_its_view_halts_the_signer(
    kind: VoteKind, autojump_clock: trio.abc.Clock
) -> None:
    async with thief() as made:
        view = made.member.store.tip.header.view
        against = made.federation.certificate(kind, view, OTHER if kind.names_block else NO_BLOCK)
        assert await made.socket.vote(VoteKind.NULLIFY, view + 1, proof=against) == JournalReason.CONTRADICTED
        await _is_halted_for_good(made, made.socket)
