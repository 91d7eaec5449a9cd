"""A leader's block: what waits, put together on a parent, and judged by the leader's own prudence before it leaves."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
import trio

from bridge.batch import any_batch_due, propose_batches
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Rejected
from bridge.evidence import Evidence
from bridge.l1.errors import L1Error, L1Reason, L1Unavailable
from bridge.ledger import Ledger, LedgerView, advance_anchor
from bridge.records import Deficit
from bridge.refunds import due_refunds
from bridge.state import Anchor
from federation.record import SignedRecord
from pegnode.chain.block import Body
from pegnode.chain.builder import BuiltBlock, Candidates, Slot, build_in_steps
from pegnode.chain.conditions import VoteWithheld, check_vote_conditions, claimed_outputs, must_be_empty
from pegnode.chain.facts import NO_FACTS, AnchorStatus, L1Facts
from pegnode.chain.state import ChainView
from pegnode.service.anchors import choose_anchor
from pegnode.service.core import NodeCore
from pegnode.service.opening_budget import OpeningBudget
from pegnode.service.slices import in_slices
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()

ANCHORS_BEHIND: Final = 2
"""By so many anchors the chain has fallen behind: what is about L1 did not enter for a while.

Batches may be the reason, for members may not agree on a feerate. So such a block has none, and brings anchor, deposits
and settlements up to date; the next one has the batch again.
"""
_ON_CHAIN: Final = L1Facts(AnchorStatus.ON_CHAIN)
REFUND_WORK: Final = b"refund"
"""Stands for refunds that the next anchor makes due."""


class Proposer:
    """Builds blocks.

    reports: by member, the L1 block that it reports buried; kept up to date by their receiver.
    patience_s: how long the Bitcoin node may take before a block is built, and again before it is proposed.
    """

    def __init__(self, core: NodeCore, reports: Mapping[int, Anchor], patience_s: float) -> None:
        self._core = core
        self._reports = reports
        self._patience_s = patience_s
        self._budget = OpeningBudget(core.rules.params.max_openings)

    async def build(self, view: int, parent_hash: BlockHash, *, include_l1: bool) -> UnfinalBlock | None:
        """The block for `view` on `parent_hash`, kept among the unfinal ones; None when the parent's state is gone.

        What this member would not vote for itself is left out, and so is L1 while its Bitcoin node can't be asked.
        """
        core = self._core
        built = None
        if include_l1 and not must_be_empty(view, core.store.tip.header):
            try:
                built = await self._build_with_records(parent_hash, view)
                if built is None and not core.halted:
                    built = await self._build_with_l1(parent_hash, view)
            except (L1Error, VoteWithheld) as obstacle:
                log.info("proposing without L1", view=view, detail=str(obstacle))
            except trio.TooSlowError:
                self._budget.shrink()
                log.info("proposing without L1", view=view, detail="the Bitcoin node is too slow")
        if built is None:
            built = await self._build_without_l1(parent_hash, view)
        # The chain may have moved on meanwhile, and left the parent, or the block's state, behind.
        parent = core.unfinal.view(parent_hash)
        if built is None or parent is None:
            return None
        if parent is core.store:
            self._drop_rejected(built)
        unfinal = UnfinalBlock(built.block, built.block.encode(), built.state)
        core.unfinal.add(unfinal)
        return unfinal

    async def best_anchor(self, parent: Anchor) -> Anchor:
        """The anchor that a block on a parent with anchor `parent` could have now. Raises L1Unavailable."""
        rules = self._core.rules
        step = rules.params.max_anchor_step
        return await choose_anchor(
            parent, self._reports, rules.membership.quorum, step, self._core.questions.active_block
        )

    async def l1_work(self) -> frozenset[bytes]:
        """What a block on the final tip might hold because of L1. Raises L1Error.

        Evidence by its L1 txid, a batch by its kind and the version it replaces, and REFUND_WORK.
        """
        core, params = self._core, self._core.rules.params
        if not core.l1.state.answers:
            raise L1Unavailable(L1Reason.UNREACHABLE, f"{core.l1.state}: {core.l1.detail}")
        anchor = await self.best_anchor(core.store.tip.header.anchor)
        evidence = core.evidence.select(core.store.ledger, anchor.height, params)
        work = {sha256d(item.transaction) for item in evidence}
        if any_batch_due(self._next_ledger(anchor), params):
            feerate = await core.questions.feerate_sat_kvb() or params.feerate_floor_sat_kvb
            confirmed = await core.questions.confirmed_versions(core.store.ledger)
            ledger = self._next_ledger(anchor)  # anew: the chain may have moved on meanwhile
            with suppress(Rejected):  # who builds a block says so
                batches = propose_batches(ledger, feerate, confirmed, core.rules.custody, params)
                work |= {bytes([planned.kind]) + (planned.replaces or b"") for planned in batches}
        if due_refunds(self._next_ledger(anchor), params):
            work.add(REFUND_WORK)
        return frozenset(work)

    def _next_ledger(self, anchor: Anchor) -> Ledger:
        """The final ledger as the next block would find it at this anchor: ages count in anchors."""
        ledger = Ledger(self._core.store.ledger)
        if anchor.height > ledger.totals.anchor.height:
            advance_anchor(ledger, anchor, self._core.rules.params)
        return ledger

    async def _build_with_records(self, parent_hash: BlockHash, view: int) -> BuiltBlock | None:
        """The block with what a quorum decided; None when nothing of that can enter, or the parent's state is gone.

        One who is halted builds it too: nothing else ends a halt. Raises as `_build_with_l1`.
        """
        core = self._core
        parent = core.unfinal.view(parent_hash)
        if parent is None or not core.records.waiting():
            return None
        header = parent.tip.header
        with trio.fail_after(self._patience_s):
            records = await self._records_after(parent.ledger.totals.record_serial)
        rebase = Body(records=records).rebase
        anchor, facts = (header.anchor, NO_FACTS) if rebase is None else (rebase.new_anchor, _ON_CHAIN)
        if not records:
            return None
        slot = Slot(view, core.now_ms(), anchor, None, include_l1=rebase is not None)
        built = await self._put_together(parent_hash, slot, facts, records=records)
        if built is None:
            return None
        if built.rejected_record is not None and core.unfinal.view(parent_hash) is core.store:
            signed, rejected = built.rejected_record
            log.warning("record dropped", serial=signed.record.serial, reason=rejected.reason, detail=rejected.detail)
            core.records.drop(signed)
        if not built.block.body.records:
            return None
        with trio.fail_after(self._patience_s):
            prudence = await core.questions.vote_facts(
                header, built.block, parent.ledger, now_ms=core.now_ms(), halted=core.halted
            )
        check_vote_conditions(built.block, header, built.state.ledger, prudence, core.rules)
        return built

    async def _records_after(self, serial: int) -> tuple[SignedRecord, ...]:
        """The records that may enter one after the other, with the serials after `serial`. Raises L1Unavailable.

        Of several with one serial it is one for which this member would vote: if no quorum would, there is a leader who
        would not either, and takes another. None after a rebase: a block leads from one anchor to one other.
        """
        chosen: list[SignedRecord] = []
        while not chosen or chosen[-1].record.rebase is None:
            serial += 1
            votable = [signed for signed in self._core.records.with_serial(serial) if await self._is_votable(signed)]
            if not votable:
                break
            chosen.append(votable[0])
        return tuple(chosen)

    async def _is_votable(self, signed: SignedRecord) -> bool:
        questions, content = self._core.questions, signed.record.content
        if isinstance(content, Deficit):
            lost = [coin.outpoint for coin in content.lost]
            return not await questions.returned(lost, self._core.store.ledger)
        if content.rebase is None:
            return True
        return (await questions.confirmations(content.rebase.new_anchor) or 0) >= self._core.rules.params.confirmations

    async def _build_with_l1(self, parent_hash: BlockHash, view: int) -> BuiltBlock | None:
        """The block with all that can enter; None when nothing of L1 can, or the parent's state is gone.

        Raises L1Error, VoteWithheld, or trio.TooSlowError.
        """
        core, params = self._core, self._core.rules.params
        parent = core.unfinal.view(parent_hash)
        if parent is None:
            return None
        header = parent.tip.header
        with trio.fail_after(self._patience_s):
            anchor = await self.best_anchor(header.anchor)
            parent = core.unfinal.view(parent_hash)
            evidence = self._select(parent.ledger, anchor) if parent else []
            if parent is None or (
                anchor == header.anchor and not evidence and not any_batch_due(parent.ledger, params)
            ):
                return None  # L1 has no news: the Bitcoin node need not be asked anything
            facts = await core.questions.facts_for_evidence(header.anchor, anchor, evidence)
            self._drop_left_behind(evidence, facts)
            feerate = await core.questions.feerate_sat_kvb() or params.feerate_floor_sat_kvb
            confirmed = await core.questions.confirmed_versions(core.store.ledger)
        behind = anchor.height - header.anchor.height >= ANCHORS_BEHIND
        slot = Slot(view, core.now_ms(), anchor, None if behind else feerate, include_l1=True, confirmed=confirmed)
        built = await self._put_together(parent_hash, slot, facts, evidence=evidence)
        parent = core.unfinal.view(parent_hash)
        if built is None or parent is None:
            return None
        with trio.fail_after(self._patience_s):
            prudence = await core.questions.vote_facts(
                header, built.block, parent.ledger, now_ms=core.now_ms(), halted=core.halted
            )
        if built.batch_obstacle is not None:
            log.error("no batch can be worked out", detail=str(built.batch_obstacle))
        self._drop_spent(prudence.unspent)
        check_vote_conditions(built.block, header, built.state.ledger, prudence, core.rules)
        if claimed_outputs(built.block):
            self._budget.proposed(built.block.hash)
        return built

    def _select(self, ledger: LedgerView, anchor: Anchor) -> list[Evidence]:
        self._budget.judge(self._core.store)
        params = replace(self._core.rules.params, max_openings=self._budget.openings)
        return self._core.evidence.select(ledger, anchor.height, params)

    def _drop_spent(self, unspent: Mapping[OutPoint, bool]) -> None:
        """Forget what L1 has spent: nobody votes for a block that opens it, and the next would hold it again."""
        spent = {outpoint for outpoint, is_unspent in unspent.items() if not is_unspent}
        if spent:
            log.warning("evidence dropped of outputs that are spent on L1", outpoints=[str(item) for item in spent])
            self._core.evidence.refuse_openings(spent, self._core.now_ms())

    def _drop_left_behind(self, evidence: Iterable[Evidence], facts: L1Facts) -> None:
        """Forget evidence about blocks that L1 gave up; it is made anew if another block holds the transaction."""
        if facts.anchor is AnchorStatus.ON_CHAIN:
            left = (item for item in evidence if facts.blocks.get(item.l1_block_hash) is None)
            self._core.evidence.drop(Txid(sha256d(item.transaction)) for item in left)

    async def _build_without_l1(self, parent_hash: BlockHash, view: int) -> BuiltBlock | None:
        core = self._core
        parent = core.unfinal.view(parent_hash)
        if parent is None:
            return None
        slot = Slot(view, core.now_ms(), parent.tip.header.anchor, None, include_l1=False)
        return await self._put_together(parent_hash, slot, NO_FACTS)

    async def _put_together(
        self,
        parent_hash: BlockHash,
        slot: Slot,
        facts: L1Facts,
        evidence: Sequence[Evidence] = (),
        records: Sequence[SignedRecord] = (),
    ) -> BuiltBlock | None:
        """The block of these and of what transactions wait, built in slices; None when the parent's state is gone."""
        core = self._core
        while (parent := core.unfinal.view(parent_hash)) is not None:
            candidates = Candidates(evidence, self._transactions(parent, slot.view), records)
            steps = build_in_steps(parent, slot, candidates, facts, core.rules)
            built = await in_slices(steps, partial(self._is_state_after, parent_hash, parent))
            if built is not None:
                return built
        return None

    def _is_state_after(self, block_hash: BlockHash, state: ChainView) -> bool:
        """Whether this is the state after a block still: not if what it lies over became final."""
        return self._core.unfinal.view(block_hash) is state

    def _transactions(self, parent: ChainView, view: int) -> list[Transaction]:
        core = self._core
        if must_be_empty(view, core.store.tip.header):
            return []
        return core.mempool.select(parent, core.rules.chain.max_body_bytes)

    def _drop_rejected(self, built: BuiltBlock) -> None:
        """Forget what no block on the final tip could hold."""
        for evidence, rejected in built.rejected_evidence:
            txid = Txid(sha256d(evidence.transaction))
            log.warning("evidence dropped", l1_txid=hash_to_hex(txid), reason=rejected.reason)
            self._core.evidence.drop([txid])
        for txid, rejected in built.rejected_transactions:
            log.info("transaction dropped", txid=hash_to_hex(txid), reason=rejected.reason)
        self._core.mempool.drop(txid for txid, _ in built.rejected_transactions)
