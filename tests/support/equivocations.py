"""Members who sign what no honest one would: genuine votes of any kind, and pairs that convict."""

from dataclasses import replace
from itertools import combinations

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from federation.equivocation import Equivocation
from pegnode.chain.parameters import ChainRules
from tests.support.chain import vote_secrets

NOTARIZE, NULLIFY, FINALIZE = VoteKind
CONFLICTS = ((NOTARIZE, NOTARIZE), (NULLIFY, FINALIZE), (FINALIZE, FINALIZE))


def block_hash(number: int) -> BlockHash:
    """One of many blocks."""
    return BlockHash(sha256(b"block %d" % number))


def signed_vote(
    rules: ChainRules,
    member: int,
    kind: VoteKind = NOTARIZE,
    view: int = 9,
    block: int = 1,
    *,
    chain_id: bytes | None = None,
    epoch: int = 0,
    aux: int = 0,
) -> Vote:
    """A vote that the member of this index signed. aux: another gives another signature of the same."""
    named = block_hash(block) if kind.names_block else NO_BLOCK
    digest = vote_digest(rules.chain_id if chain_id is None else chain_id, epoch, kind, view, named)
    signature64 = schnorr_sign(vote_secrets(member + 1)[member], digest, bytes([aux]) * 32)
    return Vote(kind, epoch, view, named, member, signature64)


def signed_again(rules: ChainRules, vote: Vote, aux: int = 7) -> Vote:
    """The same vote of that member, with another signature."""
    digest = vote_digest(rules.chain_id, vote.epoch, vote.kind, vote.view, vote.block_hash)
    return replace(
        vote, signature64=schnorr_sign(vote_secrets(vote.member + 1)[vote.member], digest, bytes([aux]) * 32)
    )


def equivocation(
    rules: ChainRules,
    member: int,
    view: int = 9,
    kinds: tuple[VoteKind, VoteKind] = (NOTARIZE, NOTARIZE),
    *,
    chain_id: bytes | None = None,
    epoch: int = 0,
    aux: int = 0,
) -> Equivocation:
    """A proof against that member; two votes of one kind are for the blocks 1 and 2."""
    first, second = (
        signed_vote(rules, member, kind, view, block, chain_id=chain_id, epoch=epoch, aux=aux)
        for block, kind in enumerate(kinds, start=1)
    )
    return Equivocation.of(first, second)


def certificate(
    rules: ChainRules, members: tuple[int, ...], kind: VoteKind = NOTARIZE, view: int = 9, block: int = 1
) -> Certificate:
    """A genuine certificate of these members."""
    votes = [signed_vote(rules, member, kind, view, block) for member in members]
    signatures = tuple((vote.member, vote.signature64) for vote in votes)
    return Certificate(kind, votes[0].epoch, view, votes[0].block_hash, signatures)


def all_votes(rules: ChainRules, member: int, view: int = 9) -> list[Vote]:
    """Every vote of one member in a view with two blocks."""
    for_blocks = [signed_vote(rules, member, kind, view, block) for kind in (NOTARIZE, FINALIZE) for block in (1, 2)]
    return [*for_blocks, signed_vote(rules, member, NULLIFY, view)]


def pairs(votes: list[Vote]) -> list[tuple[Vote, Vote]]:
    """Each two of them."""
    return list(combinations(votes, 2))
