"""Blocks of L1 made of transactions alone, and proofs from them as a Bitcoin node gives them. Source: BIP37."""

from collections.abc import Collection, Sequence

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.transaction import compact_size


def node_hash(txids: Sequence[bytes], height: int, position: int) -> bytes:
    """The hash of a node of the whole tree; the last node of a row stands for a missing neighbour."""
    if height == 0:
        return txids[position]
    left = node_hash(txids, height - 1, 2 * position)
    has_right = (2 * position + 1) << (height - 1) < len(txids)
    return sha256d(left + (node_hash(txids, height - 1, 2 * position + 1) if has_right else left))


def tree_height(count: int) -> int:
    """Rows above the leaves."""
    return (count - 1).bit_length()


def header_of(merkle_root: bytes) -> bytes:
    """Eighty bytes of a header with that root."""
    return (4).to_bytes(4, "little") + bytes(32) + merkle_root + bytes(12)


def partial_tree(txids: Sequence[bytes], opened: Collection[int]) -> tuple[list[bytes], list[bool]]:
    """Hashes and flags, depth first: the leaves at the `opened` positions are matches."""
    hashes: list[bytes] = []
    flags: list[bool] = []

    def visit(height: int, position: int) -> None:
        leaves = range(position << height, min((position + 1) << height, len(txids)))
        flags.append(any(leaf in opened for leaf in leaves))
        if height == 0 or not flags[-1]:
            hashes.append(node_hash(txids, height, position))
            return
        visit(height - 1, 2 * position)
        if (2 * position + 1) << (height - 1) < len(txids):
            visit(height - 1, 2 * position + 1)

    visit(tree_height(len(txids)), 0)
    return hashes, flags


def encode_proof(header: bytes, count: int, hashes: Sequence[bytes], flags: Sequence[bool]) -> bytes:
    """A `merkleblock`, of whatever is given."""
    bits = sum(flag << place for place, flag in enumerate(flags)).to_bytes((len(flags) + 7) // 8, "little")
    body = compact_size(len(hashes)) + b"".join(hashes) + compact_size(len(bits)) + bits
    return header + count.to_bytes(4, "little") + body


def merkle_proof(txids: Sequence[bytes], *opened: int) -> bytes:
    """The proof of the transactions at these positions in a block of `txids`."""
    root = node_hash(txids, tree_height(len(txids)), 0)
    return encode_proof(header_of(root), len(txids), *partial_tree(txids, opened))
