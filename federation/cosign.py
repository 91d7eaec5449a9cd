"""Collecting the members' L1 signatures of one transaction, and combining a quorum of them.      (sans-IO)

Theory of operation. One session serves one batch version. Each member sends a share: one signature for each input.
A share is checked whole when it comes, against the custody key of the member whose authenticated link brought it; a
wrong one raises FaultySigner, names that member, and leaves the session as it was. Signatures for different inputs of
one session are independent, and shares may come in any order, more than once, and after completion. As soon as every
input has its quorum, `combine` takes for each input exactly the quorum's number of signatures, lowest key first, and
lets the script engine judge the result before anyone sees it.
"""

from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.curve import schnorr_verify
from bridge.bitcoin.identifiers import HASH_SIZE, Txid, hash_to_hex
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import Transaction
from bridge.codec import Encoded, Reader, Writer
from bridge.custody import quorum_witness
from bridge.errors import Reason, Rejected
from federation.errors import FaultySigner, Refused
from federation.membership import Membership
from federation.signing_plan import PlannedInput, SigningPlan

SIGNATURE_SIZE = 64
"""A BIP340 signature with SIGHASH_DEFAULT: no hash type byte follows."""
MAX_SHARE_SIGNATURES = 1000
"""No standard transaction (400,000 weight units) has as many inputs: each weighs over 400."""


class CosignReason(Reason):
    """Why a share, or a session, is refused."""

    UNKNOWN_MEMBER = "cosign-unknown-member"  # The sender is no member.
    NOT_OWN_SHARE = "cosign-not-own-share"  # The share names another member than its sender.
    WRONG_TRANSACTION = "cosign-wrong-transaction"  # It is of another transaction than this session's.
    WRONG_COUNT = "cosign-wrong-count"  # Not one signature for each input.
    NOT_A_KEYHOLDER = "cosign-not-a-keyholder"  # The sender's key is none of an input's policy.
    BAD_SIGNATURE = "cosign-bad-signature"  # A signature that does not verify.
    INCOMPLETE = "cosign-incomplete"  # Combining before each input has a quorum.
    NOT_AS_PLANNED = "cosign-not-as-planned"  # A witness that could not have been combined from shares.


class CosignRefused(Refused):
    """A step that this session can't take; nobody's fault but the caller's. reason: CosignReason."""


@dataclass(frozen=True, slots=True)
class CosignShare(Encoded):
    """One member's signatures of one transaction: for each input in order, 64 bytes.

    txid: of the unsigned transaction, 32 bytes.  member: the signer's index (u16).
    """

    txid: Txid
    member: int
    signatures: tuple[bytes, ...]

    def write(self, writer: Writer) -> None:
        """Append txid, member u16, a list of signatures of 64 bytes, at most MAX_SHARE_SIGNATURES."""
        writer.fixed(self.txid, HASH_SIZE).u16(self.member)
        writer.sequence(self.signatures, lambda to, signature: to.fixed(signature, SIGNATURE_SIZE))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        txid = Txid(reader.take(HASH_SIZE))
        member = reader.u16()
        return cls(txid, member, reader.sequence(MAX_SHARE_SIGNATURES, lambda source: source.take(SIGNATURE_SIZE)))


class CosignSession:
    """Collects shares of one plan's transaction and combines them."""

    def __init__(self, plan: SigningPlan, membership: Membership) -> None:
        self._plan = plan
        self._membership = membership
        self._shares: dict[int, tuple[bytes, ...]] = {}

    @property
    def plan(self) -> SigningPlan:
        """What is being signed."""
        return self._plan

    @property
    def members(self) -> tuple[int, ...]:
        """The members whose shares were accepted, in index order."""
        return tuple(sorted(self._shares))

    def add_share(self, share: CosignShare, sender: int) -> bool:
        """Take `share`, which the authenticated link of member `sender` brought; whether it was new.

        A second share of the same member changes nothing. Raises FaultySigner(sender): UNKNOWN_MEMBER, NOT_OWN_SHARE,
        WRONG_COUNT, NOT_A_KEYHOLDER, BAD_SIGNATURE; CosignRefused: WRONG_TRANSACTION, when the caller chose the wrong
        session. The session stays as it was when this raises.
        """
        if not self._membership.contains(sender):
            raise FaultySigner(sender, CosignReason.UNKNOWN_MEMBER)
        if share.member != sender:
            raise FaultySigner(sender, CosignReason.NOT_OWN_SHARE, f"the share names member {share.member}")
        if share.txid != self._plan.txid:
            raise CosignRefused(
                CosignReason.WRONG_TRANSACTION, f"{hash_to_hex(share.txid)}, not {hash_to_hex(self._plan.txid)}"
            )
        if sender in self._shares:
            return False
        self._check_signatures(share, sender)
        self._shares[sender] = share.signatures
        return True

    def is_complete(self) -> bool:
        """Whether every input has its quorum."""
        return all(
            len(self._signatures_by_key(index)) >= planned.reserve.policy.quorum
            for index, planned in enumerate(self._plan.inputs)
        )

    def combine(self) -> Transaction:
        """The signed transaction, approved by the script engine.

        Raises CosignRefused: INCOMPLETE; bridge's Rejected, should the engine refuse what every check here accepted.
        """
        if not self.is_complete():
            raise CosignRefused(CosignReason.INCOMPLETE, f"{len(self._shares)} shares")
        signed = self._plan.transaction.with_witnesses(
            [self._witness(index, planned) for index, planned in enumerate(self._plan.inputs)]
        )
        verify_scripts(signed, self._plan.prevouts)
        return signed

    def check_signed(self, signed: Transaction) -> None:
        """Raise unless `signed`, which somebody else combined, is what `combine` could have made.

        The script engine alone would also take signatures that carry a hash type byte, one more than was planned for:
        at the floor feerate no node might relay the result. Raises CosignRefused: WRONG_TRANSACTION, NOT_AS_PLANNED;
        bridge's Rejected, should the engine refuse it.
        """
        if signed.serialize_stripped() != self._plan.transaction.serialize():
            raise CosignRefused(CosignReason.WRONG_TRANSACTION, hash_to_hex(signed.txid))
        for index, (planned, txin) in enumerate(zip(self._plan.inputs, signed.inputs, strict=True)):
            keys = len(planned.reserve.policy.member_keys)
            signatures = [item or None for item in reversed(txin.witness[:keys])]
            try:
                expected = quorum_witness(planned.reserve, signatures)
            except Rejected as error:
                raise CosignRefused(CosignReason.NOT_AS_PLANNED, f"input {index}: {error}") from error
            if txin.witness != expected:
                raise CosignRefused(CosignReason.NOT_AS_PLANNED, f"input {index}")
        verify_scripts(signed, self._plan.prevouts)

    def _check_signatures(self, share: CosignShare, sender: int) -> None:
        if len(share.signatures) != len(self._plan.inputs):
            raise FaultySigner(
                sender,
                CosignReason.WRONG_COUNT,
                f"{len(share.signatures)} signatures of {len(self._plan.inputs)} inputs",
            )
        key = self._membership.members[sender].custody_key32
        for index, (planned, signature) in enumerate(zip(self._plan.inputs, share.signatures, strict=True)):
            if key not in planned.reserve.policy.member_keys:
                raise FaultySigner(sender, CosignReason.NOT_A_KEYHOLDER, f"input {index}")
            if not schnorr_verify(key, planned.digest32, signature):
                raise FaultySigner(sender, CosignReason.BAD_SIGNATURE, f"input {index}")

    def _signatures_by_key(self, index: int) -> dict[bytes, bytes]:
        """The accepted signatures of input `index` by custody key."""
        members = self._membership.members
        return {members[member].custody_key32: signatures[index] for member, signatures in self._shares.items()}

    def _witness(self, index: int, planned: PlannedInput) -> tuple[bytes, ...]:
        """Exactly a quorum of signatures, at the lowest positions in key order: `multi_a` refuses one too many."""
        by_key = self._signatures_by_key(index)
        chosen: list[bytes | None] = []
        left = planned.reserve.policy.quorum
        for key in planned.reserve.policy.member_keys:
            signature = by_key.get(key) if left else None
            left -= signature is not None
            chosen.append(signature)
        return quorum_witness(planned.reserve, chosen)
