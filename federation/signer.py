"""The one object with keys. Votes and L1 signatures come from here, and the transport takes its key from here.

It has no opinions of its own: what to vote for, consensus decides, what to sign on L1, `federation.approval`, what to
state in public, `federation.statement_law`, and what to decide with others, `federation.record_law`. It does hold its
ground on three points. It starts only where the curve passed its self-test, and only with the keys that the membership
names. It signs nothing of L1 but an ApprovedBatch, states nothing but an ApprovedStatement, and decides nothing but an
ApprovedRecord. And it checks each signature before it gives it away, because a signature made by failing hardware can
reveal the key.  Source: BIP340, Default Signing.
"""

from typing import final

from bridge.bitcoin.curve import schnorr_sign, schnorr_verify, x_only
from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Reason
from federation.approval import ApprovedBatch
from federation.certificate import Vote, VoteKind, vote_digest
from federation.cosign import CosignShare
from federation.errors import Refused
from federation.keystore import SECRET_SIZE, MemberSecrets, RandomBytes
from federation.membership import Member, Membership
from federation.record import SignedRecord
from federation.record_law import ApprovedRecord
from federation.self_test import run_self_test
from federation.statement import SignedStatement
from federation.statement_law import ApprovedStatement


class SignerReason(Reason):
    """Why there is no signer, or no signature."""

    UNKNOWN_MEMBER = "signer-unknown-member"  # The member's index is none of the membership.
    WRONG_VOTE_KEY = "signer-wrong-vote-key"  # The vote key on disk is not the member's.
    WRONG_CUSTODY_KEY = "signer-wrong-custody-key"  # The custody key on disk is not the member's.
    WRONG_EPOCH = "signer-wrong-epoch"  # A vote, statement or record of another epoch was to be signed.
    WRONG_CHAIN = "signer-wrong-chain"  # A statement or record of another chain was to be signed.
    NOT_APPROVED = "signer-not-approved"
    """Something that none of `approve_batch`, `approve_statement` and `approve_record` approved was to be signed."""
    NOT_A_KEYHOLDER = "signer-not-a-keyholder"  # A coin's policy has no key of this member.
    BAD_SIGNATURE = "signer-bad-signature"  # A fresh signature does not verify: something is wrong with this machine.


class SignerRefused(Refused):
    """This signer can't start, or doesn't sign. reason: SignerReason."""


@final
class Signer:
    """Signs as member `index` of one epoch."""

    __slots__ = ("_chain_id", "_index", "_membership", "_random_bytes", "_secrets")

    def __init__(
        self, secrets: MemberSecrets, membership: Membership, index: int, chain_id: bytes, random_bytes: RandomBytes
    ) -> None:
        """chain_id: 32 bytes.  random_bytes: fresh for each signature.

        Raises SelfTestFailed; SignerRefused: UNKNOWN_MEMBER, WRONG_VOTE_KEY, WRONG_CUSTODY_KEY.
        """
        run_self_test()
        if not membership.contains(index):
            raise SignerRefused(SignerReason.UNKNOWN_MEMBER, f"{index} of {membership.size} members")
        member = membership.members[index]
        if x_only(secrets.vote) != member.vote_key32:
            raise SignerRefused(SignerReason.WRONG_VOTE_KEY, f"the vote key on disk is not {member.name}'s")
        if x_only(secrets.custody) != member.custody_key32:
            raise SignerRefused(SignerReason.WRONG_CUSTODY_KEY, f"the custody key on disk is not {member.name}'s")
        self._secrets = secrets
        self._membership = membership
        self._index = index
        self._chain_id = chain_id
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return f"Signer({self.member.name})"

    def __reduce__(self) -> str:
        raise TypeError("a signer holds keys and is not to be pickled or copied")

    @property
    def index(self) -> int:
        """This member's index."""
        return self._index

    @property
    def member(self) -> Member:
        """This member, as the membership names it."""
        return self._membership.members[self._index]

    @property
    def transport_secret(self) -> bytes:
        """The transport's secret key, 32 bytes: for the network, which proves this member's peer id with it."""
        return self._secrets.transport

    def sign_vote(self, kind: VoteKind, epoch: int, view: int, block_hash: BlockHash) -> Vote:
        """This member's vote. It must be in the journal before it leaves.

        block_hash: 32 bytes, or `NO_BLOCK` for NULLIFY. Raises SignerRefused: WRONG_EPOCH, BAD_SIGNATURE.
        """
        self._require_epoch(epoch)
        digest = vote_digest(self._chain_id, epoch, kind, view, block_hash)
        signature = self._sign(self._secrets.vote, self.member.vote_key32, digest)
        return Vote(kind, epoch, view, block_hash, self._index, signature)

    def cosign(self, approved: ApprovedBatch) -> CosignShare:
        """This member's signatures for every input of an approved batch.

        Raises SignerRefused: NOT_APPROVED, NOT_A_KEYHOLDER (of some input's epoch), BAD_SIGNATURE.
        """
        if type(approved) is not ApprovedBatch:
            raise SignerRefused(SignerReason.NOT_APPROVED, "only what approve_batch returned is signed")
        key = self.member.custody_key32
        for planned in approved.plan.inputs:
            if key not in planned.reserve.policy.member_keys:
                raise SignerRefused(SignerReason.NOT_A_KEYHOLDER, str(planned.outpoint))
        signatures = tuple(self._sign(self._secrets.custody, key, planned.digest32) for planned in approved.plan.inputs)
        return CosignShare(approved.txid, self._index, signatures)

    def sign_statement(self, approved: ApprovedStatement) -> SignedStatement:
        """An approved statement of solvency with this member's signature alone.

        Raises SignerRefused: NOT_APPROVED, WRONG_CHAIN, WRONG_EPOCH, BAD_SIGNATURE.
        """
        if type(approved) is not ApprovedStatement:
            raise SignerRefused(SignerReason.NOT_APPROVED, "only what approve_statement returned is signed")
        statement = approved.statement
        self._require_own(statement.terms.chain_id, statement.terms.epoch)
        signature = self._sign(self._secrets.vote, self.member.vote_key32, statement.digest32)
        return SignedStatement(statement, ((self._index, signature),))

    def sign_record(self, approved: ApprovedRecord) -> SignedRecord:
        """An approved record with this member's signature alone.

        Raises SignerRefused: NOT_APPROVED, WRONG_CHAIN, WRONG_EPOCH, BAD_SIGNATURE.
        """
        if type(approved) is not ApprovedRecord:
            raise SignerRefused(SignerReason.NOT_APPROVED, "only what approve_record returned is signed")
        record = approved.record
        self._require_own(record.chain_id, record.epoch)
        signature = self._sign(self._secrets.vote, self.member.vote_key32, record.digest32)
        return SignedRecord(record, ((self._index, signature),))

    def _require_own(self, chain_id: bytes, epoch: int) -> None:
        """Raise SignerRefused unless they are this member's."""
        if chain_id != self._chain_id:
            raise SignerRefused(SignerReason.WRONG_CHAIN, chain_id.hex())
        self._require_epoch(epoch)

    def _require_epoch(self, epoch: int) -> None:
        """Raise SignerRefused unless it is this member's."""
        if epoch != self._membership.epoch:
            raise SignerRefused(SignerReason.WRONG_EPOCH, f"{epoch}, not {self._membership.epoch}")

    def _sign(self, secret: bytes, public_key: bytes, digest: bytes) -> bytes:
        signature = schnorr_sign(secret, digest, self._random_bytes(SECRET_SIZE))
        if not schnorr_verify(public_key, digest, signature):
            raise SignerRefused(SignerReason.BAD_SIGNATURE, "a fresh signature does not verify: check this machine")
        return signature
