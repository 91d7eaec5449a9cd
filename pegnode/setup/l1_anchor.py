"""The anchor, on one's own Bitcoin node: chosen there by one member, checked there by every other."""

from bridge.bitcoin.identifiers import hash_from_hex, hash_to_hex
from bridge.l1.client import L1Client
from bridge.state import Anchor
from pegnode.genesis import Genesis, Template
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX
from pegnode.setup.errors import SetupReason, SetupRefused

SPARE_DEPTHS = 2
"""An anchor is chosen this many times as deep as it must be: the other members' nodes may be behind."""


async def choose_anchor(client: L1Client, parameters: Template, height: int | None = None) -> Anchor:
    """A block of the node's active chain that is buried for good, or the one at `height` if that is.

    Raises SetupRefused: WRONG_L1, ANCHOR_UNKNOWN, ANCHOR_SHALLOW; L1Error.
    """
    await _require_network(client, parameters.network)
    tip_height, _ = await client.tip()
    chosen = max(0, tip_height - SPARE_DEPTHS * parameters.peg.confirmations) if height is None else height
    _require_depth(chosen, tip_height, parameters.peg.confirmations)
    block_hash = await client.block_hash(chosen)
    if block_hash is None:
        raise SetupRefused(SetupReason.ANCHOR_UNKNOWN, f"the Bitcoin node has no block {chosen} any more; try again")
    return Anchor(chosen, block_hash)


async def check_anchor(client: L1Client, genesis: Genesis) -> int:
    """How many confirmations the genesis's anchor has on this node, which must be enough.

    Raises SetupRefused: WRONG_L1, ANCHOR_UNKNOWN, ANCHOR_CONTRADICTED, ANCHOR_SHALLOW; L1Error.
    """
    anchor = genesis.anchor
    await _require_network(client, genesis.l1.network)
    tip_height, _ = await client.tip()
    found = await client.block_hash(anchor.height)
    if found is None:
        raise _too_far(anchor.height, tip_height)
    if found != anchor.hash:
        detail = (
            f"at height {anchor.height} your Bitcoin node has {hash_to_hex(found)}, and the federation's anchor is "
            f"{hash_to_hex(anchor.hash)}; find out with the others whose is right before anybody goes on"
        )
        raise SetupRefused(SetupReason.ANCHOR_CONTRADICTED, detail)
    _require_depth(anchor.height, tip_height, genesis.peg.confirmations)
    return tip_height - anchor.height + 1


async def _require_network(client: L1Client, network: str) -> None:
    first = await client.block_hash(0)
    wanted = L1_GENESIS_HASHES_HEX.get(network)
    if wanted is None or first != hash_from_hex(wanted):
        chain = (await client.chain_info()).chain
        detail = (
            f"the federation is on L1 network {network!r}, and your Bitcoin node follows {chain!r}; name the right one"
        )
        raise SetupRefused(SetupReason.WRONG_L1, detail)


def _require_depth(height: int, tip_height: int, confirmations: int) -> None:
    """The first block of all can't be left by any chain: it needs no depth."""
    if height > tip_height:
        raise _too_far(height, tip_height)
    depth = tip_height - height + 1
    if height and depth < confirmations:
        detail = f"block {height} has {depth} confirmations on your Bitcoin node, and needs {confirmations}"
        raise SetupRefused(SetupReason.ANCHOR_SHALLOW, f"{detail}; wait, or let the node catch up")


def _too_far(height: int, tip_height: int) -> SetupRefused:
    detail = f"your Bitcoin node is at height {tip_height}, and the anchor at {height}; wait until it has caught up"
    return SetupRefused(SetupReason.ANCHOR_UNKNOWN, detail)
