"""Bitcoin's hash functions, and the tagged hash that every hash of ours is."""

import hashlib
from functools import lru_cache


def sha256(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def sha256d(data: bytes) -> bytes:
    """SHA-256 twice, 32 bytes: Bitcoin's hash of transactions and headers."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


@lru_cache(maxsize=256)
def _tag_state(tag: str) -> "hashlib._Hash":
    tag_hash = sha256(tag.encode("ascii"))
    return hashlib.sha256(tag_hash + tag_hash)


def tagged_hash(tag: str, data: bytes) -> bytes:
    """sha256(sha256(tag) || sha256(tag) || data), 32 bytes. The tag is ASCII. Source: BIP340."""
    state = _tag_state(tag).copy()
    state.update(data)
    return state.digest()


def tagged_list(tag: str, items: list[bytes]) -> bytes:
    """A counted commitment to `items`, 32 bytes: the tagged hash of their count (u32) and of each item's tagged leaf.

    The leaf's tag is `tag` + "/leaf", so an item can't be taken for a list, nor a list for an item.
    """
    leaves = b"".join(tagged_hash(tag + "/leaf", item) for item in items)
    return tagged_hash(tag, len(items).to_bytes(4, "little") + leaves)
