"""What a node asks of whoever holds its keys.

Theory of operation. A node never hands over what to sign: it names a vote, a recorded version of a batch, a statement,
and gets a signature or a typed refusal. The signer knows by itself what is final, asks a Bitcoin node of its own, and
applies the laws of `federation`. So the port stays the same whether the keys lie in this process, in another one behind
a socket, or in a device, and what this side claims never matters.
"""

from collections.abc import Sequence
from typing import Protocol

from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.records import Record
from federation.certificate import Certificate, Vote, VoteKind
from federation.cosign import CosignShare
from federation.errors import Refused
from federation.membership import Member
from federation.record import SignedRecord
from federation.statement import SignedStatement, SolvencyStatement
from pegnode.errors import PegnodeError


class SignerAway(PegnodeError):  # noqa: N818 -- a state of the machine
    """The signer does not answer. Nothing was signed that this process knows of."""


class VoteRefused(Refused):
    """A vote that the signer's own memory stands against, or lacks proof for. reason: JournalReason, or LinkReason."""


class SignerPort(Protocol):
    """The keys of one member. Each method may take as long as its laws need to look at L1."""

    @property
    def index(self) -> int:
        """The member's index."""

    @property
    def member(self) -> Member:
        """The member, as the membership names it."""

    @property
    def waiting_for(self) -> str | None:
        """What is missing before it can sign, for people; None when nothing is."""

    async def sign_vote(
        self, kind: VoteKind, epoch: int, view: int, block_hash: BlockHash, proof: Certificate | None = None
    ) -> Vote:
        """The member's vote. It must be in this process's journal before it leaves.

        block_hash: 32 bytes, or `NO_BLOCK` for NULLIFY.  proof: what the vote rests on, see `CastVote`.
        Raises SignerRefused; VoteRefused from a signer with a memory of its own, which the vote stands against, or
        which the proof does not convince; SignerAway.
        """

    async def cosign(self, txid: Txid) -> CosignShare:
        """The member's signatures of a recorded batch version, for every input.

        Raises SigningRefused, SignerRefused, L1Error, SignerAway.
        """

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        """A statement of solvency, the given one or a new one of the newest block, with the member's signature.

        Raises StatementRefused, SignerRefused, NodeUnavailable, SignerAway.
        """

    async def sign_record(self, records: Sequence[Record], index: int) -> SignedRecord:
        """One of the records of a plan, whose serials are one after the other, with the member's signature.

        Those before it count as carried out. Raises RecordRefused, SignerRefused, Refusal, NodeUnavailable, SignerAway.
        """
