"""Whether there is anything that a block could include: what makes members expect a block before the heartbeat."""

from typing import Final

import structlog
import trio

from bridge.l1.errors import L1Error
from bridge.refunds import due_refunds
from bridge.state import Anchor
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.core import NodeCore
from pegnode.service.proposer import Proposer
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()

PATIENCE_MS: Final = 2_000
"""How long after a piece of work came up here every leader should have it too."""


class WorkWatch:
    """Tells the driver when work appears and when it is done.

    What f+1 leaders in a row passed over with empty blocks, one of them honest, can't enter for now. It counts as work
    again when a block holds anything or moves the anchor, for little else can change the reason; and every heartbeat's
    leader tries. Otherwise a single such piece would make members build empty blocks without a pause.
    """

    def __init__(self, core: NodeCore, proposer: Proposer, driver: ConsensusDriver) -> None:
        self._core = core
        self._proposer = proposer
        self._driver = driver
        self._l1_since_ms: dict[bytes, int] = {}
        self._records_since_ms: dict[bytes, int] = {}
        self._passes: dict[bytes, int] = {}
        self._told: bool | None = None
        self._anchor: Anchor = core.store.tip.header.anchor
        self._poked = trio.Event()
        core.on_work(self._poke)
        core.on_final(self._after_final)

    def _poke(self) -> None:
        if not self._told and self._waits():
            self._tell(known=True)  # whatever the Bitcoin node, which may be slow, has to say
        self._poked.set()

    def _tell(self, *, known: bool) -> None:
        if known != self._told:
            self._told = known
            self._driver.work_known(known)

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        header, body = unfinal.block.header, unfinal.block.body
        moved, self._anchor = header.anchor != self._anchor, header.anchor
        if moved or any((body.records, body.evidence, body.refunds, body.transactions, body.batches)):
            self._passes = {}
            return
        since_ms = {**self._transactions(), **self._records(), **self._l1_since_ms}
        latest_ms = header.time_ms - PATIENCE_MS
        self._passes = {
            key: self._passes.get(key, 0) + 1 for key, known_ms in since_ms.items() if known_ms <= latest_ms
        }

    def _transactions(self) -> dict[bytes, int]:
        """Since when each transaction waits."""
        return {entry.transaction.txid: entry.arrived_ms for entry in self._core.mempool.entries()}

    def _records(self) -> dict[bytes, int]:
        """Since when each record waits that may be carried out next."""
        pool, now_ms = self._core.records, self._core.now_ms()
        digests = [
            signed.record.digest32 for signed in pool.with_serial(self._core.store.ledger.totals.record_serial + 1)
        ]
        self._records_since_ms = {digest: self._records_since_ms.get(digest, now_ms) for digest in digests}
        return self._records_since_ms

    async def run(self) -> None:
        """Look after each change, for ever."""
        while True:
            await self._poked.wait()
            self._poked = trio.Event()
            known = await self._is_known()
            self._tell(known=known or self._waits())

    def _waits(self) -> bool:
        """Whether the next block may hold something, L1 asked or not: transactions, records, or refunds left over."""
        ledger, params = self._core.store.ledger, self._core.rules.params
        waiting = {**self._transactions(), **self._records()}
        return any(map(self._may_enter, waiting)) or bool(due_refunds(ledger, params))

    async def _is_known(self) -> bool:
        if self._waits():
            return True
        try:
            l1_work = await self._proposer.l1_work()
        except L1Error as outage:
            log.debug("L1 can't be asked for work", detail=str(outage))
            return False
        now_ms = self._core.now_ms()
        self._l1_since_ms = {key: self._l1_since_ms.get(key, now_ms) for key in l1_work}
        return any(map(self._may_enter, l1_work))

    def _may_enter(self, key: bytes) -> bool:
        return self._passes.get(key, 0) <= self._core.rules.membership.fault_tolerance
