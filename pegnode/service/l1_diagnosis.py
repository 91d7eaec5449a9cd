"""What is the matter with one's own Bitcoin node, from one look at it: a function without time or network."""

from dataclasses import dataclass
from typing import Final

from bridge.l1.answers import ChainInfo, NetworkInfo
from bridge.l1.states import L1State

MINIMUM_VERSION: Final = 250_000
"""The oldest release whose RPC has all that is asked: 25.0."""
SLOW_S: Final = 2.0
"""An answer that takes longer is slow: the votes on L1 matters need several, within a view."""
BEHIND_S: Final = 5.0
"""A lag shorter than this, or of one block that comes while the tip moves, is how blocks spread."""
STUCK_S: Final = 60.0
"""A lag without a new block for as long as this is no catching up."""


@dataclass(frozen=True, slots=True)
class L1Look:
    """What one look at the node showed, and what is known besides.

    answer_s: how long it took to answer.  chain_fault: why it is on another chain; None when it is not.
    left_anchor: its active chain holds another block in the place of the newest final block's anchor.
    known_height: how high L1 is at least, by members' reports and the final chain.
    lagging_s: for how long others, or its own headers, have been ahead of its tip.  still_s: the age of its tip here.
    needed_height: the lowest block that may have to be read.
    """

    chain: ChainInfo
    network: NetworkInfo
    answer_s: float = 0.0
    chain_fault: str | None = None
    left_anchor: bool = False
    known_height: int = 0
    lagging_s: float = 0.0
    still_s: float = 0.0
    needed_height: int = 0

    @property
    def lag_blocks(self) -> int:
        """How many blocks the node is behind what is known of L1."""
        return max(0, self.known_height - self.chain.blocks, self.chain.headers - self.chain.blocks)


def diagnose(look: L1Look) -> tuple[L1State, str]:
    """The first state that applies, and its details, for people."""
    chain, network = look.chain, look.network
    if network.version < MINIMUM_VERSION:
        return L1State.TOO_OLD, f"{network.subversion or network.version}; the oldest that will do is 25.0"
    if look.chain_fault is not None:
        return L1State.WRONG_CHAIN, look.chain_fault
    if chain.is_downloading:
        return L1State.INITIAL_DOWNLOAD, f"{chain.blocks} of {chain.headers} blocks, {network.connections} peers"
    if look.left_anchor:
        return L1State.FORKED, f"its tip is {chain.blocks}"
    return _follows(look)


def _follows(look: L1Look) -> tuple[L1State, str]:
    """Whether the node follows its chain, and serves it."""
    chain, peers = look.chain, look.network.connections
    lag = f"{look.lag_blocks} {'block' if look.lag_blocks == 1 else 'blocks'} behind"
    if look.lag_blocks and min(look.lagging_s, look.still_s) >= STUCK_S:
        return L1State.STUCK, f"{lag}, no new block for {look.still_s:.0f} s, {peers} peers"
    if chain.chain != "regtest" and not peers and look.still_s >= STUCK_S:
        return L1State.STUCK, "it has no peers"
    lags = look.lagging_s >= BEHIND_S and (look.lag_blocks > 1 or look.still_s >= BEHIND_S)
    if look.lag_blocks and lags:
        return L1State.BEHIND, lag
    if chain.pruned and chain.prune_height > look.needed_height:
        return L1State.PRUNED, f"it has no block below {chain.prune_height}; needed from {look.needed_height} on"
    if look.answer_s >= SLOW_S:
        return L1State.SLOW, f"{look.answer_s:.1f} s for an answer"
    return L1State.OK, ""
