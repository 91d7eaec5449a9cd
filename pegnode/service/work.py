"""Whether there is anything that a block could include: what makes members expect a block before the heartbeat."""

import structlog
import trio

from bridge.bitcoin.identifiers import Txid
from bridge.l1.errors import L1Error
from bridge.state import Anchor
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.core import NodeCore
from pegnode.service.proposer import Proposer
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()


class WorkWatch:
    """Tells the driver when work appears and when it is done.

    A transaction that a block without any transactions has passed over can't enter for now: it counts as work again
    when another transaction enters or the anchor moves, for nothing else can change the reason.
    """

    def __init__(self, core: NodeCore, proposer: Proposer, driver: ConsensusDriver) -> None:
        self._core = core
        self._proposer = proposer
        self._driver = driver
        self._passed_over: frozenset[Txid] = frozenset()
        self._anchor: Anchor = core.store.tip.header.anchor
        self._poked = trio.Event()
        core.on_work(self._poke)
        core.on_final(self._after_final)

    def _poke(self) -> None:
        self._poked.set()

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        moved, self._anchor = unfinal.block.header.anchor != self._anchor, unfinal.block.header.anchor
        if unfinal.block.body.transactions or moved:
            self._passed_over = frozenset()
        else:
            self._passed_over = self._waiting()

    def _waiting(self) -> frozenset[Txid]:
        return frozenset(entry.transaction.txid for entry in self._core.mempool.entries())

    async def run(self) -> None:
        """Look after each change, for ever."""
        while True:
            await self._poked.wait()
            self._poked = trio.Event()
            self._driver.work_known(await self._is_known())

    async def _is_known(self) -> bool:
        if self._waiting() - self._passed_over:
            return True
        try:
            return await self._proposer.has_l1_work()
        except L1Error as outage:
            log.debug("L1 can't be asked for work", detail=str(outage))
            return False
