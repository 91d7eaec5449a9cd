"""How a signer follows the final chain that a functionary shows it, believing nothing.

Theory of operation. A block is shown with what proves it: a certificate of a quorum for it, or for a descendant and the
headers in between. Only then is it applied, by all rules, against the signer's own Bitcoin node; what a quorum made
final and is invalid here halts the signer. A block counts, and is on disk, when the certified one at the end of its
proof is applied. Votes at or below its view are never signed again.

A vote is asked for with the certificate that it rests on: one to finalize with the notarization of its block, any other
with one of the view before, or of a later one, unless a final block shows that its view was reached. So nobody who has
the functionary gets votes in advance, and keeps them.

Two certificates that can't both be while at most f members are faulty, or a final block beside the chain that is final
here, halt the signer for good: both are kept in its journal, and it signs nothing more, whatever it is shown.

A certificate with this member's own signature that the journal knows nothing of means that the keys were used elsewhere
or that the journal is an older copy: nothing more is signed then, the process ends, and the journal is given up.

A journal that has forgotten signs again, two views above, once a block is final that was made after this start. A
quorum without this member notarized it, so one honest member did that had voted for what this member's highest vote
rested on. That it was made after this start, its time says, by RENEWAL_MS: honest members vote for no time ahead of
their clocks, and neither theirs nor this machine's is off by so much. So nobody's word is needed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import BlockHash, Txid, hash_to_hex
from bridge.errors import Rejected
from bridge.l1.errors import L1Error
from bridge.records import Finding
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from federation.errors import Refused
from federation.journal import Journal
from federation.journal_header import JournalState
from federation.record import SignedRecord
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from pegnode.service.core import NodeCore
from pegnode.service.own_memory import VIEWS_UNSEEN
from pegnode.service.validation import validate_final
from pegnode.signing.refusals import LinkReason, LinkRefused
from pegnode.storage.journal_check import require_certificate

log = structlog.get_logger()

REACHED_S: Final = 2.0
"""How long a question about a batch waits for the block that holds it, which may be on its way."""
RENEWAL_MS: Final = 60_000
"""How much later than this start, by this machine's clock, a block's time must be for it to be newer."""
STALE_MS: Final = 600_000
"""Ten minutes. An idle chain has an empty block at every heartbeat, which is a minute at most in the templates."""


class Follower:
    """A signer's own copy of the final chain. journal: what it signed, pruned as the chain grows."""

    def __init__(self, core: NodeCore, journal: Journal) -> None:
        self._core = core
        self._journal = journal
        self._proven: BlockHash | None = None
        self._proof: Certificate | None = None
        self._grown = trio.Event()
        self._started_ms = core.now_ms()

    @property
    def height(self) -> int:
        """Of the newest block that is final here."""
        return self._core.store.tip.header.height

    @property
    def is_current(self) -> bool:
        """Whether the newest final block is of late: if not, what it says may be settled or undone long since.

        One from as far ahead shows that the clock here is wrong, and with it nothing is known of later ones.
        """
        return abs(self._age_ms) <= STALE_MS

    @property
    def newest(self) -> str:
        """How old the newest final block is, for people."""
        age_s = self._age_ms // 1000
        when = f"{age_s} s old" if age_s >= 0 else f"{-age_s} s ahead of this machine's clock"
        return f"the newest block shown, of height {self.height}, is {when}"

    @property
    def _age_ms(self) -> int:
        return self._core.now_ms() - self._core.store.tip.header.time_ms

    async def reached(self, txid: Txid) -> None:
        """Return when a batch version is in the final ledger here, or after REACHED_S: its block may be on its way."""
        with trio.move_on_after(REACHED_S):
            while txid not in self._core.store.ledger.versions:
                await self._grown.wait()

    async def take(self, data: bytes, headers: Sequence[bytes], proof: bytes) -> None:
        """Apply the encoded block that follows the newest one known; one that is final already changes nothing.

        headers: encoded, from its child up to the block that `proof`, an encoded certificate, makes final.
        Raises MalformedError; LinkRefused: BLOCK_UNPROVEN, BLOCK_NOT_NEXT, BLOCK_WAITS, BLOCK_BREAKS_RULE,
        CONTRADICTED; JournalRefused (BEHIND) and StorageError, after which nothing may be signed.
        """
        block, certificate = Block.decode_whole(data), Certificate.decode(proof)
        chain = [block.header, *map(Header.decode, headers)]
        self._require_proof(chain, certificate)
        self._require_same_chain(chain, certificate)
        if self._core.store.height_of(block.header.hash) is not None:
            return
        if block.header.parent != self._newest():
            raise LinkRefused(LinkReason.BLOCK_NOT_NEXT, f"height {block.header.height}; here it is {self.height}")
        require_certificate(self._journal, certificate)
        await self._apply(block, data)
        self._proven, self._proof = block.header.hash, certificate
        if not headers:
            self._core.finalize(block.header.hash, proof)
            self._journal.prune(certificate.view)
            self._renew(block.header)
            self._grown.set()
            self._grown = trio.Event()

    def _renew(self, header: Header) -> None:
        """Let a journal that has forgotten sign again, if this final block was made after this start."""
        newer = header.time_ms >= self._started_ms + RENEWAL_MS
        if newer and self._journal.state is JournalState.FORGOTTEN:
            self._journal.raise_floor(header.view + VIEWS_UNSEEN)
            log.info("the journal is renewed", floor_view=self._journal.floor_view)

    def require_reached(self, kind: VoteKind, view: int, block_hash: BlockHash, proof: bytes) -> None:
        """See that a vote is no vote in advance. proof: an encoded certificate, or nothing.

        Raises MalformedError, LinkRefused: VOTE_UNPROVEN, CONTRADICTED.
        """
        certificate = self._checked(Certificate.decode(proof)) if proof else None
        if kind is VoteKind.FINALIZE:
            stated = certificate and (certificate.kind, certificate.view, certificate.block_hash)
            if stated != (VoteKind.NOTARIZE, view, block_hash):
                raise LinkRefused(LinkReason.VOTE_UNPROVEN, f"view {view}: no notarization of that block")
            return
        shown = 0 if certificate is None else certificate.view
        reached = 1 + max(self._core.store.tip.header.view, shown)
        if view > reached:
            raise LinkRefused(LinkReason.VOTE_UNPROVEN, f"view {view}, and what was shown reaches view {reached}")

    def require_no_contradiction(self) -> None:
        """Raise LinkRefused (CONTRADICTED) if certificates were shown that can't both be, in this life or another."""
        noted = self._journal.contradiction
        if noted is not None:
            raise self._contradicted(*noted)

    def take_record(self, signed: SignedRecord) -> None:
        """Keep a record until a block carries it out, if it is news here. Raises LinkRefused (RECORD_UNPROVEN)."""
        try:
            self._core.records.add(signed, self._core.store, self._core.rules)
        except Rejected:
            return  # carried out already, or waiting
        except Refused as refused:
            raise LinkRefused(LinkReason.RECORD_UNPROVEN, str(refused)) from refused

    def _newest(self) -> BlockHash:
        """The newest block that is proven to be final and was applied."""
        if self._proven is None or not self._core.unfinal.reaches_tip(self._proven):
            self._proven = None
        return self._core.store.tip.hash if self._proven is None else self._proven

    def _checked(self, certificate: Certificate) -> Certificate:
        """A certificate that a quorum signed, and that fits what is final here. Raises LinkRefused."""
        rules, tip = self._core.rules, self._core.store.tip.header
        try:
            verify_certificate(certificate, rules.membership, rules.chain_id)
        except VoteRejected as rejected:
            raise LinkRefused(LinkReason.VOTE_UNPROVEN, str(rejected)) from rejected
        final = self._final_certificate
        if final is not None and certificate.view == tip.view and certificate.block_hash != final.block_hash:
            raise self._halted(final, certificate)
        return certificate

    @property
    def _final_certificate(self) -> Certificate | None:
        """The finalization of the newest final block; None at genesis."""
        store = self._core.store
        data = store.certificate_at(store.tip.header.height)
        return None if data is None else Certificate.decode(data)

    def _require_proof(self, headers: Sequence[Header], certificate: Certificate) -> None:
        rules = self._core.rules
        try:
            verify_certificate(certificate, rules.membership, rules.chain_id)
        except VoteRejected as rejected:
            raise LinkRefused(LinkReason.BLOCK_UNPROVEN, str(rejected)) from rejected
        if certificate.kind is not VoteKind.FINALIZE or certificate.block_hash != headers[-1].hash:
            raise LinkRefused(LinkReason.BLOCK_UNPROVEN, "the certificate does not finalize the last block")
        if any(child.parent != parent.hash for parent, child in pairwise(headers)):
            raise LinkRefused(LinkReason.BLOCK_UNPROVEN, "the headers are no chain")

    def _require_same_chain(self, headers: Sequence[Header], certificate: Certificate) -> None:
        """Halt if blocks that are proven to be final lie beside the chain here. Raises LinkRefused (CONTRADICTED).

        The views of final blocks rise with their heights: one of a view no higher than the tip's must be known here.
        """
        store, proven = self._core.store, self._proven_heights()
        height = store.tip.header.height + len(proven)
        newest = proven.get(height, store.tip.hash)
        beside = certificate.view <= store.tip.header.view and store.height_of(certificate.block_hash) is None
        for header in headers:
            known = proven.get(header.height) == header.hash or store.height_of(header.hash) is not None
            beside |= not known and header.height <= height
            beside |= header.height == height + 1 and header.parent != newest
        against = self._proof if proven else self._final_certificate
        if beside and against is not None:
            raise self._halted(against, certificate)

    def _proven_heights(self) -> dict[int, BlockHash]:
        """The blocks that were applied, and whose descendant's finalization is known while it is not applied yet."""
        heights: dict[int, BlockHash] = {}
        self._newest()  # forgets what became of no use
        at = self._proven
        while at is not None and (unfinal := self._core.unfinal.get(at)) is not None:
            heights[unfinal.block.header.height] = at
            at = unfinal.block.header.parent
        return heights

    def _halted(self, first: Certificate, second: Certificate) -> LinkRefused:
        """Halt for good: it is on disk when this returns. What to say of it. Raises JournalRefused."""
        self._journal.note_contradiction(first, second)
        log.error("two certificates contradict each other: nothing is signed any more", views=[first.view, second.view])
        return self._contradicted(first, second)

    def _contradicted(self, first: Certificate, second: Certificate) -> LinkRefused:
        what = f"{first.kind.name} of view {first.view} and {second.kind.name} of view {second.view} can't both be"
        return LinkRefused(LinkReason.CONTRADICTED, f"{what}: more than f members are faulty; it signs nothing more")

    async def _apply(self, block: Block, data: bytes) -> None:
        """Apply a block that is proven to be final. What only this Bitcoin node speaks against is waited out."""
        core, height = self._core, block.header.height
        finding = Finding.anchor_left(block.header.anchor)
        try:
            if not await validate_final(core, block, data):
                raise LinkRefused(LinkReason.BLOCK_NOT_NEXT, f"height {height}; another was shown meanwhile")
        except BlockRejected as rejected:
            what = f"block {hash_to_hex(block.header.hash)}, final at height {height}, breaks a rule here: {rejected}"
            core.halt(Finding.block_refused(block.header.hash), what)
            raise LinkRefused(LinkReason.BLOCK_BREAKS_RULE, what) from rejected
        except L1Contradicted as contradiction:
            core.suspect(finding, f"final block {height}: {contradiction}")
            raise LinkRefused(LinkReason.BLOCK_WAITS, f"height {height}: {contradiction}") from contradiction
        except (L1Waiting, L1Error) as waiting:
            raise LinkRefused(LinkReason.BLOCK_WAITS, f"height {height}: {waiting}") from waiting
        core.unsuspect(finding)
