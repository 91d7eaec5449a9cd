"""Fetching final blocks from peers: how a node that was away, or has no keys, follows the chain.

Theory of operation. A request asks for what follows the newest block that is known to be final. An answer holds
consecutive blocks. Those up to one with a finalization of its own are checked against that certificate, then applied by
all rules, then committed. Those at the end whose finalization is a descendant's come with the headers up to that
descendant, are applied on the word of its certificate, and are committed when the descendant is. While an answer is
applied, what follows it is asked for already, of the peer whose turn it is.

Who has not answered for PATIENCE_S is not waited for any longer when another one can be asked, and who has not for
ANSWER_TIMEOUT_S is dropped. So is whoever answers what proves false, or what was not asked for. Who brought nothing
new, little, or late has a demerit, and is asked after those who have fewer; it loses one with each good answer.

Whoever brings proof of a final block beside this node's own chain is not at fault: more members are than consensus
bears. Nothing becomes final here then, nor when the machine saw the like, or a member's journal says that it did.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.errors import MalformedError
from bridge.l1.errors import L1Error
from bridge.records import Finding
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from pegnode.net.messages import (
    MAX_BLOCKS_PER_ANSWER,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    TipMessage,
)
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.block_server import MAX_ANSWER_BYTES, BlockServer
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.records import RecordRelay
from pegnode.service.unfinal import UnfinalBlock
from pegnode.service.validation import validate_final

log = structlog.get_logger()

Body = tuple[Block, bytes]
"""A block with its encoding."""

PATIENCE_S: Final = 2.0
ANSWER_TIMEOUT_S: Final = 30.0
"""A peer that serves many others may take some seconds over an answer, and no honest one takes this long."""
MAX_UNANSWERED: Final = 3
"""Requests to one peer at a time; one more may wait with it."""
STINGY_BYTES: Final = MAX_ANSWER_BYTES // 4
"""An answer of fewer bytes than this, and fewer blocks than there are, is less than was due."""
COMMIT_BLOCKS: Final = 16
"""So many certified blocks are written at once: each write waits for the disk."""
L1_RETRY_S: Final = 1.0
MEMBER_GRACE_S: Final = 1.0
GRACE_BLOCKS: Final = 2
"""How long a member that is no further behind waits before it asks: what consensus is about to decide comes unasked."""


@dataclass(frozen=True, slots=True)
class _Request:
    first_height: int
    asked_s: float


class CatchUp:
    """Asks for what is missing, and answers what others miss."""

    def __init__(self, core: NodeCore, peers: Peers, records: RecordRelay) -> None:
        self._core = core
        self._peers = peers
        self._records = records
        self._is_member = peers.member_of(peers.transport.peer_id) is not None
        self._server = BlockServer(core, peers)
        self._tips: dict[PeerId, int] = {}
        self._demerits: dict[PeerId, int] = {}
        self._unanswered: dict[PeerId, deque[_Request]] = {}
        self._turns: dict[PeerId, int] = {}
        self._turn = 0
        self._expected: set[int] = set()
        self._answers: dict[int, tuple[PeerId, FinalBlocksAnswer]] = {}
        self._proven: BlockHash | None = None
        self._certified: dict[BlockHash, bytes] = {}
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._hurry = trio.Event()
        peers.on_message(TipMessage, self._receive_tip, from_guests=True)
        peers.on_message(FinalBlocksAnswer, self._receive_answer, from_guests=True, is_free=True)
        peers.on_connected(self._tell_tip)
        peers.on_disconnected(self._forget)
        core.on_final(self._announce)

    @property
    def best_known_height(self) -> int:
        """The highest final height that a connected member, or this node, has."""
        return max([*self._member_heights(), self._core.store.tip.header.height])

    @property
    def is_current(self) -> bool:
        """Whether a quorum of members tells of tips, and this node has what one honest member of them must have.

        Until then L1 can't be judged by its ledger: a coin that is gone may be one that a later block pays out.
        """
        own = self._core.store.tip.header.height
        membership = self._core.rules.membership
        heights = self._member_heights()
        if self._is_member:
            heights.append(own)
        heights.sort(reverse=True)
        return len(heights) >= membership.quorum and own >= heights[membership.fault_tolerance]

    def height_of(self, peer: PeerId) -> int | None:
        """The final height that a peer has told of."""
        return self._tips.get(peer)

    def _member_heights(self) -> list[int]:
        return [height for peer, height in self._tips.items() if self._peers.member_of(peer) is not None]

    def _tell_tip(self, peer: PeerId) -> None:
        self._peers.send(peer, self._own_tip())

    def _announce(self, unfinal: UnfinalBlock) -> None:
        if unfinal.block.header == self._core.store.tip.header:
            self._peers.to_all(self._own_tip())

    def _own_tip(self) -> TipMessage:
        tip = self._core.store.tip
        return TipMessage(tip.header.height, tip.hash)

    def _forget(self, peer: PeerId) -> None:
        self._tips.pop(peer, None)
        self._unanswered.pop(peer, None)
        if self._peers.member_of(peer) is None:
            self._demerits.pop(peer, None)
            self._turns.pop(peer, None)
        self._changed.set()

    def _receive_tip(self, peer: PeerId, message: TipMessage) -> None:
        behind = message.height - self._core.store.tip.header.height
        is_first = peer not in self._tips
        self._tips[peer] = message.height
        if behind > 0:
            self._wanted.set()
            if is_first or behind > GRACE_BLOCKS:
                self._hurry.set()
        self._changed.set()

    def _receive_answer(self, peer: PeerId, message: FinalBlocksAnswer) -> None:
        requests = self._unanswered.get(peer)
        if not requests or requests[0].first_height != message.first_height:
            self._peers.drop(peer, DropReason.MISPLACED_MESSAGE, "final blocks that were not asked for")
            return
        requests.popleft()
        if message.first_height in self._expected:
            self._answers.setdefault(message.first_height, (peer, message))
            self._changed.set()

    async def run(self) -> None:
        """Catch up whenever a peer is ahead, and serve those who are behind, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._server.run)
            nursery.start_soon(self._drop_the_silent)
            await self._follow()

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            if self._is_member:
                with trio.move_on_after(MEMBER_GRACE_S):
                    await self._hurry.wait()
            self._wanted, self._hurry = trio.Event(), trio.Event()
            while self._core.contradiction is None and self._best_peer(self._next_height()) is not None:
                await self._fetch()
            if self._core.contradiction is not None:
                self._core.waiting_for = f"people to settle it: {self._core.contradiction}"

    async def _drop_the_silent(self) -> None:
        while True:
            await trio.sleep(1.0)
            before_s = trio.current_time() - ANSWER_TIMEOUT_S
            for peer, requests in list(self._unanswered.items()):
                if requests and requests[0].asked_s <= before_s:
                    self._peers.drop(peer, DropReason.NO_ANSWER, f"asked for blocks from {requests[0].first_height} on")

    def _next_height(self) -> int:
        """What to ask for: the height after the newest block that is known to be final."""
        unfinal = self._core.unfinal
        if self._proven is not None and not unfinal.reaches_tip(self._proven):
            self._proven = None
        proven = None if self._proven is None else unfinal.get(self._proven)
        newest = self._core.store.tip.header if proven is None else proven.block.header
        return newest.height + 1

    def _best_peer(self, height: int, but: frozenset[PeerId] = frozenset()) -> PeerId | None:
        """A connected peer that says it has a block: of those with the fewest demerits, a member, whose turn it is.

        So whoever boasts of blocks that it doesn't send is asked last, however often it boasts.
        """
        able = [
            (self._demerits.get(peer, 0), self._peers.member_of(peer) is None, self._turns.get(peer, 0), peer)
            for peer, tip in self._tips.items()
            if tip >= height and peer not in but and len(self._unanswered.get(peer, ())) < MAX_UNANSWERED
        ]
        return min(able)[-1] if able else None

    def _request(self, peer: PeerId, first_height: int) -> None:
        self._turn += 1
        self._turns[peer] = self._turn
        self._expected.add(first_height)
        self._unanswered.setdefault(peer, deque()).append(_Request(first_height, trio.current_time()))
        self._peers.send(peer, FinalBlocksRequest(first_height))

    def _asked(self, first_height: int) -> dict[PeerId, float]:
        """Who has yet to answer a request, and when it was asked."""
        return {
            peer: request.asked_s
            for peer, requests in self._unanswered.items()
            for request in requests
            if request.first_height == first_height
        }

    async def _fetch(self) -> None:
        """One answer, from whoever brings it first, applied."""
        wanted = self._next_height()
        self._expected &= {wanted}
        self._answers = {height: answer for height, answer in self._answers.items() if height == wanted}
        answered = await self._await_answer(wanted)
        if answered is None:
            return
        peer, answer = answered
        following = wanted + len(answer.blocks)
        another = self._best_peer(following)
        if answer.blocks and another is not None and self._is_as_good(another, peer):
            self._request(another, following)
        due = min(MAX_BLOCKS_PER_ANSWER, self._tips.get(peer, 0) + 1 - wanted)
        await self._apply(peer, answer)
        if self._next_height() <= wanted:
            self._tips.pop(peer, None)
            self._add_demerit(peer)
        elif len(answer.blocks) < due and sum(len(item.block) for item in answer.blocks) < STINGY_BYTES:
            self._add_demerit(peer)
        else:
            self._demerits[peer] = max(0, self._demerits.get(peer, 0) - 1)

    async def _await_answer(self, wanted: int) -> tuple[PeerId, FinalBlocksAnswer] | None:
        """The answer for a height, asking one peer after the other; None when nobody is left who could have it."""
        tried: set[PeerId] = set()
        late: set[PeerId] = set()
        while wanted not in self._answers:
            self._changed = trio.Event()
            asked = self._asked(wanted)
            tried |= asked.keys()
            awaited = {peer: asked_s for peer, asked_s in asked.items() if peer not in late}
            another = self._best_peer(wanted, frozenset(tried))
            if another is not None and not any(self._is_as_good(peer, another) for peer in awaited):
                self._request(another, wanted)
                continue
            if not asked:
                return None
            with trio.move_on_at(min(awaited.values(), default=math.inf) + PATIENCE_S) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught:
                slow = min(awaited, key=awaited.__getitem__)
                late.add(slow)
                self._add_demerit(slow)
                log.info("no answer to a request for blocks yet", peer=slow, first_height=wanted)
        await trio.lowlevel.checkpoint()
        return self._answers.pop(wanted)

    def _is_as_good(self, one: PeerId, other: PeerId) -> bool:
        return self._demerits.get(one, 0) <= self._demerits.get(other, 0)

    def _add_demerit(self, peer: PeerId) -> None:
        if peer in self._peers.transport.connected() or self._peers.member_of(peer) is not None:
            self._demerits[peer] = self._demerits.get(peer, 0) + 1

    async def _apply(self, peer: PeerId, answer: FinalBlocksAnswer) -> None:
        """Apply the parts of an answer, each as far as one certificate proves it."""
        part: list[Body] = []
        try:
            for item in answer.blocks:
                part.append((Block.decode_whole(item.block), item.block))
                if item.certificate:
                    self._check_proof([block.header for block, _ in part], item.certificate)
                    if not await self._keep_all(part):
                        return
                    self._certified[part[-1][0].header.hash] = item.certificate
                    if len(self._certified) >= COMMIT_BLOCKS:
                        self._commit()
                    part = []
            if part:
                following = [Header.decode(data) for data in answer.headers]
                self._check_proof([*(block.header for block, _ in part), *following], answer.certificate)
                if await self._keep_all(part):
                    self._proven = part[-1][0].header.hash
        except (MalformedError, VoteRejected) as fault:
            self._peers.drop(peer, DropReason.FALSE_BLOCKS, str(fault))
        finally:
            self._commit()

    def _check_proof(self, headers: Sequence[Header], data: bytes) -> None:
        """Raise unless the headers are a chain and the certificate finalizes the last of them."""
        rules = self._core.rules
        certificate = Certificate.decode(data)
        verify_certificate(certificate, rules.membership, rules.chain_id)
        if certificate.kind is not VoteKind.FINALIZE or certificate.block_hash != headers[-1].hash:
            raise MalformedError("the certificate does not finalize the last block")
        for parent, child in pairwise(headers):
            if child.parent != parent.hash:
                raise MalformedError("the blocks are no chain")
        self._compare(headers)

    def _compare(self, headers: Sequence[Header]) -> None:
        """Stop for good when one of these, which a quorum made final, is beside this node's own chain."""
        store = self._core.store
        tip = store.tip.header
        for header in headers:
            follows = header.height > tip.height + 1 or header.parent == tip.hash
            if not follows and store.height_of(header.hash) is None:
                name = f"{hash_to_hex(header.hash)}, height {header.height},"
                self._core.contradict(f"a quorum made block {name} final beside this node's own chain")
                return

    def _commit(self) -> None:
        """Make final, in one write, what is kept and certified; nothing, unless it all leads down to the tip."""
        certified, self._certified = self._certified, {}
        if certified and self._core.unfinal.reaches_tip(last := next(reversed(certified))):
            self._core.finalize(last, certified[last], certified)

    async def _keep_all(self, part: list[Body]) -> bool:
        """Apply blocks that are certified to be final, oldest first; whether all of them are kept here, or final."""
        try:
            for block, data in part:
                await trio.lowlevel.checkpoint()
                if not await self._keep(block, data):
                    return False
        finally:
            self._core.waiting_for = None
        return True

    def _ask_for_records(self, height: int) -> None:
        """L1 may have left the anchor of a final block: whoever has that block may have the record that says so."""
        for peer, tip in self._tips.items():
            if tip >= height:
                self._records.ask(peer)

    async def _keep(self, block: Block, data: bytes) -> bool:
        """Apply a block, waiting for L1 as long as it takes; False when it stands on nothing, or breaks a rule."""
        core, finding = self._core, Finding.anchor_left(block.header.anchor)
        while core.store.height_of(block.header.hash) is None:
            try:
                kept = await validate_final(core, block, data)
                core.unsuspect(finding)
                return kept
            except BlockRejected as rejected:
                # A quorum made it final, so it is not the peer who is wrong.
                what = f"{hash_to_hex(block.header.hash)}, final at height {block.header.height}"
                core.halt(Finding.block_refused(block.header.hash), f"block {what}, breaks a rule here: {rejected}")
                return False
            except L1Contradicted as contradiction:
                core.suspect(finding, f"final block {block.header.height}: {contradiction}")
                core.waiting_for = f"L1 for block {block.header.height}: {contradiction}"
            except L1Waiting as waiting:
                core.unsuspect(finding)
                core.waiting_for = f"L1 for block {block.header.height}: {waiting}"
            except L1Error as outage:
                core.waiting_for = f"L1 for block {block.header.height}: {outage}"
            self._ask_for_records(block.header.height)
            self._commit()  # this may take long
            await trio.sleep(L1_RETRY_S)
        return True
