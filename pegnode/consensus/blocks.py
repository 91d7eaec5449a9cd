"""The tree of blocks above the final tip: which are known, which were found valid, which are wanted."""

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from pegnode.consensus.events import BlockInfo, FinalTip, Verdict

MAX_WALK = 2048
"""How far down ancestors are looked for."""
MAX_FINAL_BODIES = 16
"""How many blocks that are final, but not stored here, are fetched one by one, and kept. A member that is further
behind catches up from the storage of others, and would only fill its memory."""

_SETTLED = (Verdict.VOTABLE, Verdict.INVALID)


@dataclass(slots=True)
class _Record:
    info: BlockInfo
    seen_ms: int
    verdict: Verdict | None = None
    asked: bool = False


class BlockTree:
    """Blocks by hash. A block is *ready* when it is the final tip, or valid on top of a ready parent."""

    def __init__(self, tip: FinalTip) -> None:
        self._tip = tip
        self._records: dict[BlockHash, _Record] = {}

    @property
    def tip(self) -> FinalTip:
        """The newest final block that is stored."""
        return self._tip

    def __len__(self) -> int:
        return len(self._records)

    def add(self, info: BlockInfo, now_ms: int) -> None:
        """Enter a block whose body is at hand; a known one stays as it is."""
        if info.hash != self._tip.hash:
            self._records.setdefault(info.hash, _Record(info, now_ms))

    def info(self, block_hash: BlockHash) -> BlockInfo | None:
        """What is known of a block above the tip."""
        record = self._records.get(block_hash)
        return None if record is None else record.info

    def seen_ms(self, block_hash: BlockHash) -> int | None:
        """When the block was first seen."""
        record = self._records.get(block_hash)
        return None if record is None else record.seen_ms

    def verdict(self, block_hash: BlockHash) -> Verdict | None:
        """The newest verdict on a known block."""
        record = self._records.get(block_hash)
        return None if record is None else record.verdict

    def judge(self, block_hash: BlockHash, verdict: Verdict) -> None:
        """Note a verdict. A block once found valid stays so, and an invalid one stays invalid."""
        record = self._records.get(block_hash)
        if record is None or record.verdict in _SETTLED:
            return
        if record.verdict is Verdict.WITHHELD and verdict is not Verdict.VOTABLE:
            return
        record.verdict = verdict

    def ready(self, block_hash: BlockHash) -> bool:
        """Whether a block can stand on this one."""
        return block_hash == self._tip.hash or self.verdict(block_hash) in (Verdict.VOTABLE, Verdict.WITHHELD)

    def fits_parent(self, info: BlockInfo) -> bool:
        """Whether height and view follow those of the parent, which must be known."""
        parent = self._tip if info.parent_hash == self._tip.hash else self._records[info.parent_hash].info
        return info.height == parent.height + 1 and info.view > parent.view

    def unready(self, block_hash: BlockHash) -> list[BlockInfo]:
        """This block and its ancestors as far as they are known and not ready, newest first."""
        chain: list[BlockInfo] = []
        while not self.ready(block_hash) and len(chain) < MAX_WALK:
            info = self.info(block_hash)
            if info is None:
                break
            chain.append(info)
            block_hash = info.parent_hash
        return chain

    def missing(self, block_hash: BlockHash, final_view: int) -> BlockHash | None:
        """The newest block on the way down from this one whose body is not at hand, within the limits.

        final_view: the highest view that is known to be final.
        """
        chain = self.unready(block_hash)
        final = sum(info.view <= final_view for info in chain)
        if len(chain) == MAX_WALK or final >= MAX_FINAL_BODIES:
            return None
        if chain and chain[-1].height <= self._tip.height + 1:
            return None
        bottom = chain[-1].parent_hash if chain else block_hash
        return None if self.ready(bottom) else bottom

    def next_to_check(self, block_hash: BlockHash) -> BlockInfo | None:
        """The oldest block on the way down that waits for a check, if its parent is ready; each is named once."""
        chain = self.unready(block_hash)
        if not chain or not self.ready(chain[-1].parent_hash):
            return None
        record = self._records[chain[-1].hash]
        if record.asked or record.verdict is Verdict.INVALID:
            return None
        record.asked = True
        return record.info

    def is_far_below(self, block_hash: BlockHash) -> bool:
        """Whether the tip is further below this block, whose body is at hand, than bodies are fetched one by one."""
        info = self.info(block_hash)
        return info is not None and info.height - self._tip.height > MAX_FINAL_BODIES and not self.ready(block_hash)

    def drop_left_behind(self, final_hash: BlockHash, final_view: int) -> tuple[BlockHash, ...]:
        """Forget what is not ready, of a final view or below, but the newest final blocks; the hashes forgotten.

        While a member catches up, blocks become final faster than it can check them. It will get them with the rest.
        """
        newest = {info.hash for info in self.unready(final_hash)[:MAX_FINAL_BODIES]}
        below = (record.info for record in self._records.values() if record.info.view <= final_view)
        return self.drop(info.hash for info in below if info.hash not in newest and not self.ready(info.hash))

    def recheck_waiting(self) -> None:
        """Let blocks that wait for L1 be named by `next_to_check` again."""
        for record in self._records.values():
            if record.verdict is Verdict.WAITING:
                record.asked = False

    def invalid_ancestor(self, block_hash: BlockHash) -> BlockHash | None:
        """This block or its nearest known ancestor that was found invalid."""
        for info in self.unready(block_hash):
            if self.verdict(info.hash) is Verdict.INVALID:
                return info.hash
        return None

    def reaches_tip(self, block_hash: BlockHash) -> bool:
        """Whether this ready block descends from the tip."""
        while (info := self.info(block_hash)) is not None:
            block_hash = info.parent_hash
        return block_hash == self._tip.hash

    def move_tip(self, tip: FinalTip) -> tuple[BlockHash, ...]:
        """Make `tip` the final tip; the hashes of the blocks forgotten, which are all of its view or below."""
        self._tip = tip
        return self.drop(record.info.hash for record in self._records.values() if record.info.view <= tip.view)

    def drop(self, block_hashes: Iterable[BlockHash]) -> tuple[BlockHash, ...]:
        """Forget these blocks; the hashes of those that were known."""
        dropped = tuple(block_hash for block_hash in list(block_hashes) if block_hash in self._records)
        for block_hash in dropped:
            del self._records[block_hash]
        return dropped
