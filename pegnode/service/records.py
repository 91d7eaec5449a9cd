"""Passing on what a quorum decided: records that wait for a block, or lead from one branch of L1 to another.

Theory of operation. A record proves itself, so it is taken from anybody: a user, a member or a guest. It is checked
before it is kept or passed on. Who sends one that no quorum signed is dropped; one whose serial was used meanwhile, or
for which there is no room, is ignored. What waits is told to each new peer, and to the members again from time to time.

A node that can't judge a final block, for L1 left the block's anchor, asks those who have it for records: one of them
says what lay below that anchor. It asks each peer once, and again only after a while or when another serial is next.
"""

from itertools import islice
from typing import Final

import structlog
import trio

from bridge.errors import Rejected
from federation.errors import Refused
from federation.record import SignedRecord
from pegnode.mempool.record_pool import RecordPoolReason
from pegnode.net.messages import MAX_RECORDS_PER_ANSWER, RecordMessage, RecordsAnswer, RecordsRequest
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers

log = structlog.get_logger()

MAX_ANSWER_BYTES: Final = 500_000
"""Records are added to an answer as long as it stays below this."""
ASK_AGAIN_S: Final = 10.0
"""How long after a request the same peer is asked again: what it did not have it may have got."""
MAX_UNANSWERED: Final = 3
"""Requests to one peer: who does not answer these is asked no more."""
TELL_AGAIN_S: Final = 30.0


class RecordRelay:
    """Takes records from users and peers, keeps what a quorum signed and passes it on."""

    def __init__(self, core: NodeCore, peers: Peers) -> None:
        self._core = core
        self._peers = peers
        self._asked: dict[PeerId, tuple[int, float]] = {}
        self._unanswered: dict[PeerId, list[int]] = {}
        peers.on_message(RecordMessage, self._receive, from_guests=True)
        peers.on_message(RecordsRequest, self._answer, from_guests=True)
        peers.on_message(RecordsAnswer, self._receive_answer, from_guests=True, is_free=True)
        peers.on_connected(self._greet)
        peers.on_disconnected(self._forget)

    async def run(self) -> None:
        """Tell the members, from time to time, what still waits: one may have been away."""
        while True:
            await trio.sleep(TELL_AGAIN_S)
            for signed in self._core.records.waiting():
                self._peers.to_members(RecordMessage(signed.encode()))

    def submit(self, signed: SignedRecord) -> None:
        """Take a record that a quorum signed; one that waits already is passed on again.

        Raises Rejected (RecordPoolReason), or Refused when no quorum of the members signed it.
        """
        try:
            self._add(signed)
        except Rejected as rejected:
            if rejected.reason is not RecordPoolReason.ALREADY_WAITING:
                raise
        self._pass_on(signed)

    def ask(self, peer: PeerId) -> None:
        """Ask a peer for the records that lead from one branch of L1 to another, from the next serial on."""
        first_serial, now_s = self._core.store.ledger.totals.record_serial + 1, trio.current_time()
        asked_serial, asked_s = self._asked.get(peer, (0, -ASK_AGAIN_S))
        unanswered = self._unanswered.get(peer, [])
        if len(unanswered) >= MAX_UNANSWERED or (asked_serial == first_serial and now_s < asked_s + ASK_AGAIN_S):
            return
        if self._peers.send(peer, RecordsRequest(first_serial)):
            self._asked[peer] = (first_serial, now_s)
            self._unanswered[peer] = [*unanswered, first_serial]

    def _add(self, signed: SignedRecord) -> None:
        self._core.records.add(signed, self._core.store, self._core.rules)

    def _pass_on(self, signed: SignedRecord, sender: PeerId | None = None) -> None:
        log.info("record waits", serial=signed.record.serial, signers=signed.signers)
        self._peers.to_all(RecordMessage(signed.encode()), sender)
        self._core.work_changed()

    def _receive(self, peer: PeerId, message: RecordMessage) -> None:
        signed = SignedRecord.decode(message.record)
        if self._keep(peer, signed):
            self._pass_on(signed, peer)

    def _keep(self, peer: PeerId, signed: SignedRecord) -> bool:
        """Keep what a peer sent, if it is news; who sent what no quorum signed is dropped."""
        try:
            self._add(signed)
        except Rejected as rejected:
            log.debug("record not kept", reason=rejected.reason, detail=rejected.detail)
            return False
        except Refused as refused:
            self._peers.drop(peer, DropReason.FALSE_SIGNATURE, str(refused))
            return False
        return True

    def _answer(self, peer: PeerId, message: RecordsRequest) -> None:
        records: list[bytes] = []
        # From memory: to read them all from disk, and decode them, would be much work for a small message.
        for signed in islice(self._core.records.leading(message.first_serial), MAX_RECORDS_PER_ANSWER):
            data = signed.encode()
            if records and sum(map(len, records)) + len(data) > MAX_ANSWER_BYTES:
                break
            records.append(data)
        if self._peers.charge(peer, sum(map(len, records))):
            self._peers.send(peer, RecordsAnswer(message.first_serial, tuple(records)))

    def _receive_answer(self, peer: PeerId, message: RecordsAnswer) -> None:
        if message.first_serial not in self._unanswered.get(peer, ()):
            self._peers.drop(peer, DropReason.MISPLACED_MESSAGE, "records that were not asked for")
            return
        self._unanswered[peer].remove(message.first_serial)
        # Not passed on: those that were carried out concern nobody else, and those that wait come from everywhere.
        for data in message.records:
            self._keep(peer, SignedRecord.decode(data))
        self._core.work_changed()

    def _greet(self, peer: PeerId) -> None:
        for signed in self._core.records.waiting():
            self._peers.send(peer, RecordMessage(signed.encode()))

    def _forget(self, peer: PeerId) -> None:
        self._asked.pop(peer, None)
        self._unanswered.pop(peer, None)
