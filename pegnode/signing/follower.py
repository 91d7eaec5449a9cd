"""How a signer follows the final chain that a functionary shows it, believing nothing.

Theory of operation. A block is shown with what proves it: a certificate of a quorum for it, or for a descendant and the
headers in between. Only then is it applied, by all rules, against the signer's own Bitcoin node; what a quorum made
final and is invalid here halts the signer. A block counts, and is on disk, when the certified one at the end of its
proof is applied. Votes at or below its view are never signed again.

A certificate with this member's own signature that the journal knows nothing of means that the keys were used elsewhere
or that the journal is an older copy: nothing more is signed then, and the process ends.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import trio

from bridge.bitcoin.identifiers import BlockHash, Txid, hash_to_hex
from bridge.errors import Rejected
from bridge.l1.errors import L1Error
from bridge.records import Finding
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from federation.errors import Refused
from federation.journal import Journal
from federation.record import SignedRecord
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from pegnode.service.core import NodeCore
from pegnode.service.validation import validate_final
from pegnode.signing.refusals import LinkReason, LinkRefused

REACHED_S: Final = 2.0
STALE_MS: Final = 600_000
"""Ten minutes. An idle chain has an empty block at every heartbeat, which is a minute at most in the templates."""
VIEWS_AHEAD: Final = 4_096
VIEW_MS: Final = 100
"""How many views may pass without a final block, and one more in each so many milliseconds since the newest one."""


class Follower:
    """A signer's own copy of the final chain. journal: what it signed, pruned as the chain grows."""

    def __init__(self, core: NodeCore, journal: Journal) -> None:
        self._core = core
        self._journal = journal
        self._proven: BlockHash | None = None
        self._grown = trio.Event()

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
    def highest_view(self) -> int:
        """The highest view that the chain may have come to by now: votes for later ones would be kept for misuse."""
        return self._journal.floor_view + VIEWS_AHEAD + max(0, self._age_ms) // VIEW_MS

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
        Raises MalformedError; LinkRefused: BLOCK_UNPROVEN, BLOCK_NOT_NEXT, BLOCK_WAITS, BLOCK_BREAKS_RULE;
        JournalRefused (BEHIND) and StorageError, after which nothing may be signed.
        """
        block, certificate = Block.decode_whole(data), Certificate.decode(proof)
        self._require_proof([block.header, *map(Header.decode, headers)], certificate)
        if self._core.store.height_of(block.header.hash) is not None:
            return
        if block.header.parent != self._newest():
            raise LinkRefused(LinkReason.BLOCK_NOT_NEXT, f"height {block.header.height}; here it is {self.height}")
        self._journal.require_memory_of(certificate)
        await self._apply(block, data)
        self._proven = block.header.hash
        if not headers:
            self._core.finalize(block.header.hash, proof)
            self._journal.prune(certificate.view)
            self._grown.set()
            self._grown = trio.Event()

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
