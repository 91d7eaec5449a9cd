"""Looks after one's own Bitcoin node: which state it is in, and since when.

Theory of operation. A look is a question for the chain's tip, and from time to time, whenever the tip has moved or the
node was away, also for what tells which node it is. What the look shows becomes one state of `L1State`, in which the
node stays until another look shows another one. Nothing here decides about blocks or money; those who ask the node
for that learn of an outage by themselves. A state is logged when it begins, not while it lasts.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.l1.answers import ChainInfo, NetworkInfo
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error, L1Reason, L1Unavailable
from bridge.l1.states import L1Health, L1State, state_of_failure
from bridge.l1.watcher import WINDOW_BLOCKS
from bridge.records import Finding
from bridge.state import Anchor
from pegnode.chain.facts import AnchorStatus
from pegnode.errors import PegnodeError
from pegnode.service.abandoned_branch import abandoned_branch, describe_left
from pegnode.service.core import NodeCore
from pegnode.service.l1_diagnosis import SLOW_S, L1Look, diagnose

log = structlog.get_logger()

LOOK_EVERY_S: Final = 0.5
REFUSED_AGAIN_S: Final = 2.0
"""After refused credentials: bitcoind logs each attempt."""
SILENT_S: Final = 5.0
"""How long a look waits for an answer."""
IDENTIFY_EVERY_S: Final = 10.0
"""How often the node is asked who it is although nothing has changed."""


class WrongL1Chain(PegnodeError):  # noqa: N818 -- a state of the machine's configuration
    """The configured Bitcoin node follows another chain than the genesis names."""


class L1Monitor:
    """Keeps `core.l1`. anchor: the L1 block that the genesis refers to."""

    def __init__(self, core: NodeCore, client: L1Client, anchor: Anchor) -> None:
        self._core = core
        self._client = client
        self._anchor = anchor
        self._network: NetworkInfo | None = None
        self._feerate_sat_kvb: int | None = None
        self._feerate_asked_s: float | None = None
        self._chain_fault: str | None = None
        self._identified_s: float | None = None
        self._tip: BlockHash | None = None
        self._tip_since_s = 0.0
        self._lagging_since_s: float | None = None
        self._left_at: tuple[Anchor, BlockHash] | None = None
        self._left = ""

    @property
    def version(self) -> str:
        """What the node calls itself; empty until it said so."""
        return self._network.subversion if self._network else ""

    @property
    def feerate_sat_kvb(self) -> int | None:
        """Its estimate when it was last asked, within the peg's floor and ceiling."""
        return self._feerate_sat_kvb

    async def run(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Look for ever; `on_change` is awaited whenever the state changed.

        Raises WrongL1Chain, if the first complete look of a node that has no block yet shows another chain. A node
        with blocks was on the right one before: it waits, and its transfers go on.
        """
        while True:
            was_identified = self._network is not None
            state, detail = await self._state()
            if state is L1State.WRONG_CHAIN and not was_identified and not self._core.store.tip.header.height:
                raise WrongL1Chain(f"the Bitcoin node {detail}; {state.remedy}")
            if self._note(state, detail):
                await on_change()
            if state is L1State.OK:
                await self._refresh_feerate()
            await trio.sleep(REFUSED_AGAIN_S if state is L1State.CREDENTIALS_REFUSED else LOOK_EVERY_S)

    async def _refresh_feerate(self) -> None:
        """Ask for what `status` shows, after each new block and from time to time."""
        if self._feerate_asked_s != self._identified_s:
            self._feerate_asked_s = self._identified_s
            with suppress(L1Error):
                self._feerate_sat_kvb = await self._core.questions.feerate_sat_kvb()

    async def _state(self) -> tuple[L1State, str]:
        try:
            look = await self._look()
        except L1Error as error:
            self._identified_s = None  # whatever answers next may be another node
            return state_of_failure(error)
        state, detail = diagnose(look)
        outage = self._core.watcher.outage
        # Simple questions are answered and blocks are not: the node's disk may be damaged.
        return (state, detail) if outage is None or state.waits else state_of_failure(outage)

    async def _look(self) -> L1Look:
        asked_s = trio.current_time()
        try:
            with trio.fail_after(SILENT_S):
                chain = await self._client.chain_info()
        except trio.TooSlowError as error:
            raise L1Unavailable(L1Reason.TIMEOUT, f"no answer within {SILENT_S:.0f} s") from error
        answered_s = trio.current_time()
        network = await self._identify(chain, is_slow=answered_s - asked_s >= SLOW_S)
        left_anchor = self._chain_fault is None and await self._left_anchor(chain)
        known_height = self._known_height()
        if max(known_height, chain.headers) <= chain.blocks:
            self._lagging_since_s = None
        elif self._lagging_since_s is None:
            self._lagging_since_s = answered_s
        return L1Look(
            chain=chain,
            network=network,
            answer_s=answered_s - asked_s,
            chain_fault=self._chain_fault,
            left_anchor=left_anchor,
            known_height=known_height,
            lagging_s=0.0 if self._lagging_since_s is None else answered_s - self._lagging_since_s,
            still_s=answered_s - self._tip_since_s,
            needed_height=self._needed_height(chain),
        )

    async def _identify(self, chain: ChainInfo, *, is_slow: bool) -> NetworkInfo:
        """Find out which node this is, if it may be another one than at the last look. A slow one is spared that."""
        now_s, since_s = trio.current_time(), self._identified_s
        if chain.best_block_hash != self._tip:
            self._tip, self._tip_since_s, since_s = chain.best_block_hash, now_s, None
        if self._network and since_s is not None and (is_slow or now_s < since_s + IDENTIFY_EVERY_S):
            return self._network
        network = await self._client.network_info()
        self._chain_fault = await self._find_chain_fault(chain)
        self._network, self._identified_s = network, now_s
        return network

    async def _find_chain_fault(self, chain: ChainInfo) -> str | None:
        """Why the node is on another chain. One that has yet to come as far as the genesis's anchor is on the right."""
        if await self._client.block_hash(0) != self._core.rules.l1_genesis_hash:
            return "is not on the chain of the genesis: its first block differs"
        if await self._core.questions.has_another_block(self._anchor, chain):
            anchor = f"{hash_to_hex(self._anchor.hash)} at height {self._anchor.height}"
            return f"does not hold the block that the genesis refers to, {anchor}"
        return None

    async def _left_anchor(self, chain: ChainInfo) -> bool:
        """Whether the active chain has left the newest final block's anchor; a proven contradiction may halt."""
        anchor = self._core.store.tip.header.anchor
        if self._left_at is not None and self._left_at[0] != anchor:  # a record led away from there
            self._core.unsuspect(Finding.anchor_left(self._left_at[0]))
        finding = Finding.anchor_left(anchor)
        if not await self._core.questions.has_another_block(anchor, chain):
            self._core.unsuspect(finding)
            return False
        if await self._core.questions.anchor_status(anchor) is AnchorStatus.CONTRADICTED:
            self._core.suspect(finding, await self._what_was_left(anchor, chain))
        return True

    async def _what_was_left(self, anchor: Anchor, chain: ChainInfo) -> str:
        """For people; the Bitcoin node is asked once for each of its tips."""
        if self._left_at != (anchor, chain.best_block_hash):
            branch = await abandoned_branch(self._client, anchor)
            coins = [coin for _, coin in self._core.store.ledger.coins.items()]
            self._left_at, self._left = (anchor, chain.best_block_hash), describe_left(anchor, branch, coins)
        return self._left

    def _known_height(self) -> int:
        """The tip that an honest member's node has, by the reports and the final chain; 0 while nothing is known.

        More than `fault_tolerance` members report at least so much, so one of them is honest.
        """
        rules, anchor = self._core.rules, self._core.store.tip.header.anchor
        reported = sorted((report.height for report in self._core.l1_reports.values()), reverse=True)
        faulty = rules.membership.fault_tolerance
        buried = max(reported[faulty] if len(reported) > faulty else 0, anchor.height)
        # The genesis's own anchor may be any block, one without any others above it included.
        return buried + rules.params.confirmations - 1 if buried > self._anchor.height else self._anchor.height

    def _needed_height(self, chain: ChainInfo) -> int:
        """The watcher's window, and the blocks of which the next anchors' evidence will be."""
        above_anchor = self._core.store.tip.header.anchor.height + 1
        return max(self._anchor.height, min(chain.blocks - WINDOW_BLOCKS + 1, above_anchor))

    def _note(self, state: L1State, detail: str) -> bool:
        """Keep the state; whether it is another one."""
        before = self._core.l1
        if state is before.state:
            self._core.l1 = L1Health(state, before.since_ms, detail)
            return False
        self._core.l1 = L1Health(state, self._core.now_ms(), detail)
        if state is L1State.OK:
            log.info("the Bitcoin node is ok", was=before.state)
        else:
            log.warning(f"the Bitcoin node is {state}", was=before.state, detail=detail, remedy=state.remedy)
        return True
