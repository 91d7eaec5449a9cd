"""A member's verdict on a proposed block: valid by the rules, and votable by its own prudence."""

import structlog

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.l1.errors import L1Error
from pegnode.chain.block import Block
from pegnode.chain.conditions import VoteWithheld, check_finality_near, check_vote_conditions
from pegnode.chain.state import ChainView
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from pegnode.consensus.events import Verdict
from pegnode.service.core import NodeCore
from pegnode.service.validation import validate

log = structlog.get_logger()


class Judge:
    """Checks blocks against the state after their parent and one's own Bitcoin node. Keeps what it found valid."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core
        self._last_detail: dict[bytes, str] = {}
        self._withheld: str | None = None

    @property
    def withheld(self) -> str | None:
        """Why this member does not vote, for now, for the block that it judged last, for people; None if it does."""
        return self._withheld

    async def judge(self, block: Block, data: bytes) -> Verdict:
        """The verdict on `block`, encoded as `data`. WAITING and WITHHELD may change when asked again."""
        try:
            is_kept = await validate(self._core, block, data)
        except BlockRejected as rejected:
            block_hash = hash_to_hex(block.header.hash)
            log.warning("block rejected", hash=block_hash, reason=rejected.reason, detail=rejected.detail)
            return Verdict.INVALID
        except (L1Waiting, L1Contradicted, L1Error) as waiting:
            self._explain(block, "block waits for L1", str(waiting))
            return Verdict.WAITING
        parent = self._core.unfinal.view(block.header.parent)
        if not is_kept or parent is None:
            return Verdict.WAITING
        return await self._votable(block, parent)

    async def _votable(self, block: Block, parent: ChainView) -> Verdict:
        core = self._core
        try:
            check_finality_near(block, core.store.tip.header)
            prudence = await core.questions.vote_facts(
                parent.tip.header, block, parent.ledger, now_ms=core.now_ms(), halted=core.halted
            )
            after = core.unfinal.view(block.header.hash)
            if after is None:
                return Verdict.WAITING
            check_vote_conditions(block, parent.tip.header, after.ledger, prudence, core.rules)
        except (VoteWithheld, L1Error) as withheld:
            self._explain(block, "vote withheld", str(withheld))
            return Verdict.WITHHELD
        self._withheld = None
        return Verdict.VOTABLE

    def _explain(self, block: Block, event: str, detail: str) -> None:
        """Keep why, and log it once, however often the same block is asked about."""
        self._withheld = detail
        if self._last_detail.get(block.header.hash) != detail:
            self._last_detail = {block.header.hash: detail}
            log.info(event, height=block.header.height, view=block.header.view, detail=detail)
