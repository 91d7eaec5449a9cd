"""What L1 abandoned: the blocks between an anchor and the active chain, and what of the reserve came from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bridge.bitcoin.amounts import format_btc
from bridge.l1.client import L1Client
from bridge.records import MAX_ABANDONED_BLOCKS, AbandonedBlock
from bridge.state import Anchor, Coin
from pegnode.resume.words import block_text, count_text

_MOST_COINS_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class AbandonedBranch:
    """fork: the last block of it and of the active chain.  blocks: those above, ascending; the last is the anchor."""

    fork: Anchor
    blocks: tuple[AbandonedBlock, ...]


async def abandoned_branch(client: L1Client, anchor: Anchor) -> AbandonedBranch | None:
    """The branch that ends in `anchor`, as one's own Bitcoin node knows it, block by block. Raises L1Error.

    None for an anchor on the active chain, one of which the node never read all, or a branch of more blocks than a
    record may name.
    """
    blocks: list[AbandonedBlock] = []
    block_hash = anchor.hash
    while len(blocks) <= MAX_ABANDONED_BLOCKS:
        header = await client.block_header(block_hash)
        if header is None or header.height != anchor.height - len(blocks):
            return None
        if header.confirmations > 0:
            return (
                AbandonedBranch(Anchor(header.height, header.block_hash), tuple(reversed(blocks))) if blocks else None
            )
        if header.previous_hash is None or header.n_tx < 1:
            return None
        blocks.append(AbandonedBlock(header.block_hash, header.n_tx))
        block_hash = header.previous_hash
    return None


def describe_left(anchor: Anchor, branch: AbandonedBranch | None, coins: Iterable[Coin]) -> str:
    """For people: which blocks are abandoned, and which coins of the ledger came from them, with their value.

    branch: None when the Bitcoin node does not tell.
    """
    what = f"the Bitcoin node left the L1 block {block_text(anchor)}, to which final blocks refer"
    if branch is None:
        return what
    told = f"{what}: {count_text(len(branch.blocks), 'block')} above block {block_text(branch.fork)} abandoned"
    above = [coin for coin in coins if coin.l1_height > branch.fork.height]
    if not above:
        return f"{told}, and no coin of the reserve came from there"
    total = format_btc(sum(coin.value_sats for coin in above))
    named = [f"{coin.outpoint} of {format_btc(coin.value_sats)} BTC" for coin in above[:_MOST_COINS_NAMED]]
    more = f", and {len(above) - len(named)} more" if len(above) > len(named) else ""
    came = f"{count_text(len(above), 'coin')} of the reserve, {total} BTC"
    return f"{told}. From there came {came}: {', '.join(named)}{more}"
