"""An accusation as a file: two votes of one member that exclude each other, and whose key signed them.

JSON that people can read, in one form but for white space. The signed bytes are in `vote`, twice. All else is told of
them: a file that tells anything else than its votes is refused, as is one with a field more, twice, in another order or
written in another way. What the votes themselves can't tell, whose key it is, the genesis says.
"""

from dataclasses import dataclass
from typing import Self

import msgspec

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.errors import MalformedError, Reason
from federation.certificate import Vote, VoteKind
from federation.equivocation import Equivocation, verify_with_key
from pegnode.chain.parameters import ChainRules
from pegnode.errors import ReasonedError
from pegnode.genesis import MemberName
from pegnode.json_document import parse_json, render_json, require_form

MAX_DOCUMENT_BYTES = 10_000
"""Several times the longest, with room for white space."""


class GuiltReason(Reason):
    """Why a file accuses nobody, or not the member that it names."""

    MALFORMED = "guilt-malformed"
    """No JSON, not these fields, not in the one form, or it says something else than its votes do."""
    WRONG_CHAIN = "guilt-wrong-chain"  # It is about another chain than the genesis.
    WRONG_EPOCH = "guilt-wrong-epoch"  # It is about another epoch than the genesis' members are of.
    UNKNOWN_MEMBER = "guilt-unknown-member"  # The genesis has no member of this index.
    OTHER_KEY = "guilt-other-key"  # The vote key is not the one that the member has in the genesis.
    OTHER_NAME = "guilt-other-name"  # The member has another name in the genesis.


class GuiltRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """A file that does not prove what it says. reason: GuiltReason."""


@dataclass(frozen=True, slots=True)
class Accusation:
    """An equivocation with what it takes to judge it alone. chain_id, vote_key32: 32 bytes each."""

    equivocation: Equivocation
    chain_id: bytes
    name: str
    vote_key32: bytes

    @classmethod
    def of(cls, equivocation: Equivocation, rules: ChainRules) -> Self:
        """What the chain's genesis adds to a genuine equivocation."""
        member = rules.membership.members[equivocation.member]
        return cls(equivocation, rules.chain_id, member.name, member.vote_key32)

    def verify(self) -> None:
        """Raise Refused unless the holder of the vote key signed both votes, and they exclude each other."""
        verify_with_key(self.equivocation, self.vote_key32, self.chain_id)

    def require_member(self, rules: ChainRules) -> None:
        """Raise GuiltRefused unless the vote key is the named member's, by the genesis of this chain."""
        membership, index = rules.membership, self.equivocation.member
        if self.chain_id != rules.chain_id:
            raise GuiltRefused(GuiltReason.WRONG_CHAIN, f"{self.chain_id.hex()}; the genesis is {rules.chain_id.hex()}")
        if self.equivocation.epoch != membership.epoch:
            raise GuiltRefused(GuiltReason.WRONG_EPOCH, f"{self.equivocation.epoch}, not {membership.epoch}")
        if not membership.contains(index):
            raise GuiltRefused(GuiltReason.UNKNOWN_MEMBER, f"{index}; there are {membership.size}, from 0 on")
        member = membership.members[index]
        if self.vote_key32 != member.vote_key32:
            detail = f"{self.vote_key32.hex()}; member {index} has {member.vote_key32.hex()}"
            raise GuiltRefused(GuiltReason.OTHER_KEY, detail)
        if self.name != member.name:
            raise GuiltRefused(GuiltReason.OTHER_NAME, f"{self.name}; member {index} is {member.name}")


class VoteEntry(msgspec.Struct, frozen=True):
    """One vote. says: what it says, in words.  vote: its bytes in hex."""

    says: str
    vote: str

    @classmethod
    def of(cls, vote: Vote) -> "VoteEntry":
        """A vote on paper."""
        return cls(describe_vote(vote), vote.encode().hex())


class AccusationDocument(msgspec.Struct, frozen=True):
    """An accusation. chain_id, vote_key: hex.  member: the index in the genesis, whose name it has there."""

    says: list[str]
    chain_id: str
    epoch: int
    member: int
    name: MemberName
    vote_key: str
    votes: list[VoteEntry]

    @classmethod
    def of(cls, accusation: Accusation) -> "AccusationDocument":
        """The accusation on paper."""
        equivocation = accusation.equivocation
        return cls(
            says=list(describe(accusation)),
            chain_id=accusation.chain_id.hex(),
            epoch=equivocation.epoch,
            member=equivocation.member,
            name=accusation.name,
            vote_key=accusation.vote_key32.hex(),
            votes=[VoteEntry.of(equivocation.first), VoteEntry.of(equivocation.second)],
        )

    def accusation(self) -> Accusation:
        """What it says, none of which is checked. Raises MalformedError."""
        try:
            first, second = (Vote.decode(bytes.fromhex(entry.vote)) for entry in self.votes)
            keys = bytes.fromhex(self.chain_id), bytes.fromhex(self.vote_key)
        except ValueError as error:
            raise MalformedError(str(error)) from error
        if any(len(key) != 32 for key in keys):
            raise MalformedError("a chain id and a vote key have 32 bytes")
        return Accusation(Equivocation(first, second), keys[0], self.name, keys[1])


def render_accusation(accusation: Accusation) -> bytes:
    """The file of an accusation."""
    return render_json(AccusationDocument.of(accusation))


def parse_accusation(data: bytes) -> Accusation:
    """The accusation in a file; its signatures are not checked. Raises GuiltRefused (MALFORMED)."""
    try:
        accusation = parse_json(data, AccusationDocument).accusation()
        require_form(data, AccusationDocument.of(accusation))
    except MalformedError as error:
        raise GuiltRefused(GuiltReason.MALFORMED, f"no proof of a fault: {error}") from error
    return accusation


def describe(accusation: Accusation) -> tuple[str, ...]:
    """What is proved and what is not, in lines for people."""
    view, who = accusation.equivocation.view, f"member {accusation.equivocation.member}, {accusation.name}"
    return (
        f"{who}, signed two votes in view {view} that no honest member signs both",
        "it proves that this vote key was used against the rules: its holder cheats, or it runs twice, or was stolen",
        "it does not prove which of these, nor when, nor that anything final is wrong or that anybody lost anything",
    )


def describe_vote(vote: Vote) -> str:
    """One vote in words."""
    if vote.kind is VoteKind.NULLIFY:
        return f"nullify view {vote.view}"
    return f"{vote.kind.name.lower()} block {hash_to_hex(vote.block_hash)} in view {vote.view}"
