"""Every signed statement that ever came to light, and whether a member contradicted itself."""

from dataclasses import dataclass, field

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, VoteKind
from federation.journal import JournalContents


class Contradiction(AssertionError):  # noqa: N818 -- a finding of the test
    """A member signed two statements that exclude each other."""


@dataclass(slots=True)
class VoteBook:
    """Statements by member and view. Takes them from journals, and from the certificates that others formed."""

    _said: dict[tuple[int, int], dict[VoteKind, BlockHash]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(kinds) for kinds in self._said.values())

    def add_journal(self, contents: JournalContents) -> None:
        """Note what a member's journal holds. Raises Contradiction."""
        for vote in contents.votes:
            self._add(vote.member, vote.view, vote.kind, vote.block_hash)
        for certificate in contents.certificates:
            self.add_certificate(certificate)

    def add_certificate(self, certificate: Certificate) -> None:
        """Note what each signer of a certificate said. Raises Contradiction."""
        for member, _ in certificate.signatures:
            self._add(member, certificate.view, certificate.kind, certificate.block_hash)

    def _add(self, member: int, view: int, kind: VoteKind, block_hash: BlockHash) -> None:
        said = self._said.setdefault((member, view), {})
        if said.setdefault(kind, block_hash) != block_hash:
            raise Contradiction(f"member {member} signed two {kind.name} in view {view}")
        if VoteKind.FINALIZE in said and VoteKind.NULLIFY in said:
            raise Contradiction(f"member {member} signed FINALIZE and NULLIFY in view {view}")
