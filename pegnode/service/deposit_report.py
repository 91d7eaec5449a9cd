"""Where the deposits to some claim scripts stand, from the mempool of L1 to the sidechain's final blocks."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from trio import sleep as rest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.deposits import CLAIM_FLAG, claim_transaction, is_too_old
from bridge.l1.errors import L1Error
from bridge.l1.mempool_watcher import LoosePayment, MempoolWatcher
from bridge.l1.watcher import Payment
from pegnode.chain.conditions import opened_outputs
from pegnode.rpc.deposit_states import DepositInfo, DepositStatus
from pegnode.service.core import NodeCore

SCRIPTS_AT_ONCE: Final = 200
"""Claim scripts that are looked up without a rest, in some 5 ms."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What is the same for all deposits of one report.

    spent: outputs that L1 has spent.  positions: of outputs that are proven and wait.  next_outputs: those among them
    that the next block would take.
    """

    spent: Collection[OutPoint]
    positions: Mapping[OutPoint, int]
    next_outputs: Collection[OutPoint]


class DepositReport:
    """Reports where deposits stand. failure: why no evidence could be made of an L1 transaction, if any was tried."""

    def __init__(self, core: NodeCore, l1_mempool: MempoolWatcher, failure: Callable[[Txid], str | None]) -> None:
        self._core = core
        self._l1_mempool = l1_mempool
        self._failure = failure

    async def list(self, claim_scripts: tuple[Script, ...]) -> tuple[DepositInfo, ...]:
        """The deposits of `claim_scripts`, oldest first, unconfirmed ones last.

        The credited ones are from the chain, the others from L1's latest blocks and its mempool. Many scripts are
        looked up some at a time, with rests as long as the work in between.
        """
        found: list[DepositInfo] = []
        scripts = tuple(dict.fromkeys(claim_scripts))
        for first in range(0, len(scripts), SCRIPTS_AT_ONCE):
            started_s = time.perf_counter()
            found += await self._list_some(scripts[first : first + SCRIPTS_AT_ONCE])
            if first + SCRIPTS_AT_ONCE < len(scripts):
                await rest(time.perf_counter() - started_s)
        return tuple(sorted(found, key=_age))

    async def _list_some(self, claim_scripts: Sequence[Script]) -> Collection[DepositInfo]:
        """The deposits of these, as of one state."""
        by_script = {
            script: claim_script
            for claim_script in claim_scripts
            for script in self._core.registry.scripts_of(claim_script)
        }
        spent = await self._spent(by_script)
        moment = self._moment(spent)  # nothing is awaited from here on
        found: dict[OutPoint, DepositInfo] = {}
        for info in self._all(by_script, moment):
            found.setdefault(info.outpoint, info)
        return found.values()

    async def _spent(self, by_script: Mapping[Script, Script]) -> Collection[OutPoint]:
        """Of what is deep enough and has not entered, what L1 has spent; nothing while the Bitcoin node is away."""
        core, needed = self._core, self._core.rules.params.confirmations
        waiting = [
            payment.outpoint
            for script in by_script
            for payment in core.watcher.payments_to(script)
            if core.watcher.confirmations(payment.l1_block.height) >= needed
            and payment.outpoint not in core.store.ledger.entered
        ]
        try:
            return await core.questions.spent(waiting)
        except L1Error:
            return ()

    def _moment(self, spent: Collection[OutPoint]) -> _Moment:
        core = self._core
        anchor_height = core.store.tip.header.anchor.height
        selected = core.evidence.select(core.store.ledger, anchor_height, core.rules.params)
        return _Moment(spent, core.evidence.positions(), frozenset(opened_outputs(selected)))

    def _all(self, by_script: Mapping[Script, Script], moment: _Moment) -> Iterator[DepositInfo]:
        """Everything that is known, the surest first."""
        for claim_script in dict.fromkeys(by_script.values()):
            yield from self._claimed(claim_script)
        for script, claim_script in by_script.items():
            for payment in self._core.watcher.payments_to(script):
                yield self._in_block(payment, claim_script, moment)
        for loose in self._l1_mempool.payments_to(by_script.keys()):
            yield self._loose(loose, by_script[loose.script])

    def _claimed(self, claim_script: Script) -> Iterator[DepositInfo]:
        """Deposits whose claims are in final blocks, also those whose coins have long been paid out."""
        core, params = self._core, self._core.rules.params
        for txid in core.store.index.claims(sha256(claim_script)):
            final = core.store.index.transaction(txid)
            if final is None:
                continue
            claim = Transaction.parse(final.data)
            flagged = claim.inputs[0].outpoint
            outpoint = OutPoint(flagged.txid, flagged.vout ^ CLAIM_FLAG)
            coin = core.store.ledger.coins.get(outpoint)
            l1_height = coin.l1_height if coin else None
            confirmations = core.watcher.confirmations(l1_height) if l1_height is not None else 0
            yield DepositInfo(
                outpoint=outpoint,
                claim_script=claim_script,
                value_sats=claim.outputs[0].value_sats + params.claim_fee_sats,
                l1_height=l1_height,
                confirmations=max(confirmations, params.confirmations),
                confirmations_needed=params.confirmations,
                status=DepositStatus.CLAIMED,
                claim_txid=claim.txid,
                claim_height=final.place.height,
            )

    def _in_block(self, payment: Payment, claim_script: Script, moment: _Moment) -> DepositInfo:
        """A payment in L1's latest blocks that is not credited."""
        core, params = self._core, self._core.rules.params
        needed = params.coinbase_confirmations if payment.is_coinbase else params.confirmations
        confirmations = core.watcher.confirmations(payment.l1_block.height)
        status = self._status(payment, claim_script, needed, moment)
        return DepositInfo(
            outpoint=payment.outpoint,
            claim_script=claim_script,
            value_sats=payment.value_sats,
            l1_height=payment.l1_block.height,
            confirmations=confirmations,
            confirmations_needed=needed,
            status=status,
            claim_txid=self._claim_txid(payment.outpoint, payment.value_sats, claim_script, status),
            anchor_height=None if status.is_final else payment.l1_block.height + needed - params.confirmations,
            blocks_left=None if status.is_final else max(0, needed - confirmations),
            openings_before=None if status.is_final else moment.positions.get(payment.outpoint),
            openings_per_block=params.max_openings,
            detail=self._failure(payment.outpoint.txid) or "",
        )

    def _status(self, payment: Payment, claim_script: Script, needed: int, moment: _Moment) -> DepositStatus:
        """The first state that applies, in the order in which they are defined."""
        core, params, ledger = self._core, self._core.rules.params, self._core.store.ledger
        outpoint, value_sats, l1_height = payment.outpoint, payment.value_sats, payment.l1_block.height
        is_shallow = core.watcher.confirmations(payment.l1_block.height) < needed
        first_anchor = payment.l1_block.height + needed - params.confirmations
        states = (
            (DepositStatus.BELOW_FLOOR, value_sats < params.coin_floor_sats),
            (DepositStatus.DONATED, outpoint in ledger.entered),
            (DepositStatus.SPENT, outpoint in moment.spent),
            (DepositStatus.TOO_OLD, is_too_old(l1_height, ledger.totals.anchor.height, params)),
            (DepositStatus.BELOW_MINIMUM, value_sats < params.min_deposit_sats),
            (DepositStatus.IMMATURE, is_shallow and payment.is_coinbase),
            (DepositStatus.CONFIRMING, is_shallow),
            (DepositStatus.UNPROVABLE, self._failure(outpoint.txid) is not None),
            (DepositStatus.OVER_CAP, ledger.totals.reserves_sats + value_sats > params.max_peg_sats),
            (DepositStatus.UNWATCHED, claim_script not in core.registry and outpoint not in moment.positions),
            (DepositStatus.AWAITING_ANCHOR, first_anchor > core.store.tip.header.anchor.height),
            (DepositStatus.QUEUED, outpoint in moment.positions and outpoint not in moment.next_outputs),
        )
        return next((status for status, applies in states if applies), DepositStatus.CLAIMABLE)

    def _loose(self, payment: LoosePayment, claim_script: Script) -> DepositInfo:
        """A payment that no block holds."""
        params = self._core.rules.params
        status = DepositStatus.UNCONFIRMED
        if payment.is_gone:
            status = DepositStatus.VANISHED
        elif payment.value_sats < params.coin_floor_sats:
            status = DepositStatus.BELOW_FLOOR
        elif payment.value_sats < params.min_deposit_sats:
            status = DepositStatus.BELOW_MINIMUM
        return DepositInfo(
            outpoint=payment.outpoint,
            claim_script=claim_script,
            value_sats=payment.value_sats,
            l1_height=None,
            confirmations=0,
            confirmations_needed=params.confirmations,
            status=status,
            claim_txid=self._claim_txid(payment.outpoint, payment.value_sats, claim_script, status),
            blocks_left=None if status.is_final else params.confirmations,
        )

    def _claim_txid(
        self, outpoint: OutPoint, value_sats: int, claim_script: Script, status: DepositStatus
    ) -> Txid | None:
        params = self._core.rules.params
        if status.is_final or value_sats < params.min_deposit_sats:
            return None
        return claim_transaction(outpoint, value_sats, claim_script, params).txid


def _age(info: DepositInfo) -> tuple[bool, int, OutPoint]:
    return info.l1_height is None and info.claim_height is None, info.l1_height or 0, info.outpoint
