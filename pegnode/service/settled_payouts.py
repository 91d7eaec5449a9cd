"""Offers L1 again what settled here, should L1 abandon the block that held it.

Theory of operation. A settled payout is final in the ledger, and its change is the reserve's. When L1 abandons its
block, Bitcoin nodes put it back among what waits, but not all of them, and not for ever. So every node that has it with
its signatures offers it again until a block holds it, whether it is halted or not: nothing is decided or signed.
Lineages are offered oldest first, for one may spend the change of another.
"""

from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import Txid, hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error, L1RpcError
from pegnode.service.closed_lineages import ClosedLineages
from pegnode.service.core import NodeCore

log = structlog.get_logger()

RETRY_S: Final = 30.0


class SettledPayouts:
    """What of the settled payouts L1 lacks."""

    def __init__(self, core: NodeCore, client: L1Client, closed: ClosedLineages) -> None:
        self._core = core
        self._client = client
        self._closed = closed
        self._offered: dict[Txid, str] = {}

    async def run(self) -> None:
        """Look from time to time, for ever."""
        while True:
            await self.offer()
            await trio.sleep(RETRY_S)

    async def offer(self) -> None:
        """Offer what is abandoned, oldest first. An outage of the Bitcoin node ends the attempt."""
        abandoned = [txid for txid in self._settled_in_window() if self._core.watcher.block_of(txid) is None]
        self._offered = {txid: said for txid, said in self._offered.items() if txid in abandoned}
        for txid in abandoned:
            signed = self._core.store.signed_payout(txid)
            if signed is None:
                continue  # a node that came later has none; others do
            try:
                await self._offer(txid, signed)
            except L1Error as outage:
                log.info("settled payout waits for L1", txid=hash_to_hex(txid), detail=str(outage))
                return

    def _settled_in_window(self) -> list[Txid]:
        """What settled at a height of which the watcher knows the block."""
        watcher = self._core.watcher
        return [
            closed.settled_by
            for closed in self._closed
            if closed.settled_by is not None and watcher.block_at(closed.ended_l1_height) is not None
        ]

    async def _offer(self, txid: Txid, signed: bytes) -> None:
        if await self._client.mempool_contains(txid):
            said = "waits again in the mempool"
        else:
            try:
                await self._client.send_raw_transaction(signed)
                said = "offered again"
            except L1RpcError as error:
                said = f"not taken: {error}"
        if self._offered.get(txid) != said:
            self._offered[txid] = said
            log.warning("L1 abandoned a settled payout", txid=hash_to_hex(txid), now=said)
