"""The signer in the process that asks: it takes the facts, applies the laws, and lets the keys sign."""

from collections.abc import Sequence
from dataclasses import replace

from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.records import Record
from federation.approval import approve_batch
from federation.certificate import Certificate, Vote, VoteKind
from federation.cosign import CosignShare
from federation.membership import Member
from federation.record import SignedRecord
from federation.record_law import approve_record
from federation.signer import Signer
from federation.statement import SignedStatement, SolvencyStatement
from federation.statement_law import approve_statement
from pegnode.service.auditor import Auditor
from pegnode.service.core import NodeCore
from pegnode.service.resumption import Resumption


class LocalSigner:
    """A `SignerPort` over the keys themselves. core: whose final ledger and Bitcoin node the laws look at."""

    def __init__(self, signer: Signer, core: NodeCore, auditor: Auditor, resumption: Resumption) -> None:
        self._signer = signer
        self._core = core
        self._auditor = auditor
        self._resumption = resumption

    @property
    def index(self) -> int:
        """The member's index."""
        return self._signer.index

    @property
    def member(self) -> Member:
        """The member, as the membership names it."""
        return self._signer.member

    @property
    def waiting_for(self) -> str | None:
        """Nothing: the keys are here."""
        return None

    async def sign_vote(
        self, kind: VoteKind, epoch: int, view: int, block_hash: BlockHash, proof: Certificate | None = None
    ) -> Vote:
        """The member's vote, at once: nothing else happens in this process meanwhile.

        proof: whoever asks has seen it; a signer in a process of its own asks for it.
        """
        return self._signer.sign_vote(kind, epoch, view, block_hash)

    async def cosign(self, txid: Txid) -> CosignShare:
        """The member's signatures of a recorded batch version, if the laws allow it here and now."""
        core = self._core
        ledger = core.store.ledger
        facts = await core.questions.reserve_facts(ledger, halted=core.halted)
        facts = replace(facts, halted=core.halted)  # which may have come about meanwhile
        return self._signer.cosign(approve_batch(ledger, txid, facts, core.rules.custody, core.rules.params))

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        """A statement with the member's signature, if an audit made here and now, with a scan, allows it."""
        core = self._core
        examined, own = await self._auditor.examine(statement)
        approved = approve_statement(examined, own, core.rules.membership, core.rules.chain_id)
        return self._signer.sign_statement(approved)

    async def sign_record(self, records: Sequence[Record], index: int) -> SignedRecord:
        """One record of a plan with the member's signature, if the own Bitcoin node shows all that it says."""
        rules, (ledger, own) = self._core.rules, await self._resumption.examine(records, index)
        approved = approve_record(
            records[index], records[:index], ledger, own, rules.membership, rules.chain_id, rules.params
        )
        return self._signer.sign_record(approved)
