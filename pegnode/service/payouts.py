"""Paying out: from a batch in a final block to an L1 transaction that is signed, broadcast and settled.

Theory of operation. Every recorded version of an open lineage has a session on every node. A member whose laws allow
it adds its own share and sends it to the others until the transaction is signed; whoever holds a quorum of shares
combines them, keeps the result on disk, and broadcasts it again and again until a final block settles the lineage. A
member that was away, and still sends its share of what others have signed, is answered with the signed transaction.

A version that has been replaced is signed and offered like the newest: it may be the one that confirms, where the
newest can't reach the miners. Bitcoin nodes refuse it while they hold a newer one, which says nothing, and is no
complaint. Nothing here decides anything: what may be paid is in the final ledger.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import inf
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.errors import MalformedError, Rejected
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error, L1RpcError, RpcCode
from federation.cosign import CosignRefused, CosignSession, CosignShare
from federation.errors import FaultySigner
from federation.recorded_batch import plan_version, recorded_version
from federation.refusal import SigningRefused
from pegnode.net.messages import SharesMessage, SignedPayoutMessage
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.unfinal import UnfinalBlock
from pegnode.signing.port import SignerAway, SignerPort

log = structlog.get_logger()

MAX_EARLY_SHARES: Final = 8
"""Shares of one member that are kept for versions this node has yet to see final; the oldest make room."""
RETRY_S: Final = 3.0
"""Shares are sent again, refusals reconsidered and payouts broadcast again this often."""


class Payouts:
    """The sessions of every open lineage. signer: None on a node without keys, which only looks on and broadcasts.

    is_current: whether this node has caught up with the chain. Until then it signs nothing: what its old ledger holds
    open may be settled long since.
    """

    def __init__(
        self,
        core: NodeCore,
        client: L1Client,
        peers: Peers,
        signer: SignerPort | None,
        is_current: Callable[[], bool],
    ) -> None:
        self._core = core
        self._client = client
        self._peers = peers
        self._signer = signer
        self._is_current = is_current
        self._sessions: dict[Txid, CosignSession] = {}
        self._shares: dict[Txid, dict[int, CosignShare]] = {}
        self._answered_s: dict[Txid, dict[int, float]] = {}
        self._early: dict[int, OrderedDict[Txid, tuple[PeerId, CosignShare]]] = {}
        self._refusals: dict[Txid, str] = {}
        self._complaints: dict[Txid, str] = {}
        self._broadcast: set[Txid] = set()
        self._poked = trio.Event()
        peers.on_message(SharesMessage, self._receive, from_guests=False)
        peers.on_message(SignedPayoutMessage, self._receive_signed, from_guests=False)
        core.on_final(self._after_final)

    def signatures(self, txid: Txid) -> int:
        """How many members' shares of a version this node holds."""
        return len(self._shares.get(txid, {}))

    def is_broadcast(self, txid: Txid) -> bool:
        """Whether this node's Bitcoin node has taken the transaction since this process started."""
        return txid in self._broadcast

    def refusal(self, txid: Txid) -> str | None:
        """Why this member does not sign a version; None when it did or was not asked yet."""
        return self._refusals.get(txid)

    async def run(self) -> None:
        """Work on every open version after each final block with a batch, and from time to time, for ever."""
        while True:
            self._forget_closed()
            for versions in list(self._open_lineages()):
                for txid in reversed(versions):
                    try:
                        await self._advance(txid, versions)
                    except L1Error as error:
                        log.info("payout waits for L1", txid=hash_to_hex(txid), detail=str(error))
                    except SignerAway as away:
                        log.info("payout waits for the signer", txid=hash_to_hex(txid), detail=str(away))
            with trio.move_on_after(RETRY_S):
                await self._poked.wait()
            self._poked = trio.Event()

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        if unfinal.block.body.batches:
            early, self._early = self._early, {}
            for sender, shares in early.items():
                for peer, share in shares.values():
                    self._take(peer, sender, share)
            self._poked.set()

    def _open_lineages(self) -> Iterator[list[Txid]]:
        """The versions of each open lineage, oldest first."""
        for _, lineage in self._core.store.ledger.open_lineages.items():
            yield [version.txid for version in lineage.versions]

    def _forget_closed(self) -> None:
        open_versions = set(chain.from_iterable(self._open_lineages()))
        for kept in (self._sessions, self._shares, self._answered_s, self._refusals, self._complaints):
            for txid in kept.keys() - open_versions:
                del kept[txid]

    async def _advance(self, txid: Txid, versions: Sequence[Txid]) -> None:
        signed = self._core.store.signed_payout(txid)
        if signed is None and self._is_confirmed(versions):
            return  # by another version: nobody needs this one any more
        if signed is None:
            await self._add_own_share(txid)
            signed = self._combine(txid)
        if signed is not None:
            await self._send(txid, signed, versions)

    async def _add_own_share(self, txid: Txid) -> None:
        session = self._session(txid)
        signer = self._signer
        if session is None or signer is None or not self._is_current():
            return
        own = self._shares.get(txid, {}).get(signer.index)
        if own is None:
            try:
                own = await signer.cosign(txid)
            except SigningRefused as refused:
                self._refuse(txid, refused)
                return
            self._refusals.pop(txid, None)
            session.add_share(own, signer.index)
            self._shares.setdefault(txid, {})[signer.index] = own
            log.info("payout signed by this member", txid=hash_to_hex(txid), inputs=len(own.signatures))
        self._peers.to_members(SharesMessage((own.encode(),)))

    def _refuse(self, txid: Txid, refused: SigningRefused) -> None:
        reason = str(refused)
        if self._refusals.get(txid) != reason:
            self._refusals[txid] = reason
            log.warning("payout not signed", txid=hash_to_hex(txid), reason=refused.reason, detail=refused.detail)

    def _session(self, txid: Txid) -> CosignSession | None:
        """The session of a version in the final ledger; None when there is nothing to sign."""
        if txid not in self._sessions:
            ledger, rules = self._core.store.ledger, self._core.rules
            try:
                lineage, version = recorded_version(ledger, txid)
                plan = plan_version(ledger, lineage, version, rules.custody)
            except SigningRefused as refused:
                self._refuse(txid, refused)
                return None
            self._sessions[txid] = CosignSession(plan, rules.membership)
        return self._sessions[txid]

    def _receive(self, peer: PeerId, message: SharesMessage) -> None:
        member = self._peers.member_of(peer)
        for data in message.shares:
            share = CosignShare.decode(data)
            if member is not None:
                self._take(peer, member, share)

    def _take(self, peer: PeerId, sender: int, share: CosignShare) -> None:
        """Take a member's share of an open version, or keep it until this node has seen the version final too.

        One of a closed version is from a member that has yet to hear of the settlement.
        """
        if share.txid not in self._core.store.ledger.versions:
            shares = self._early.setdefault(sender, OrderedDict())
            shares[share.txid] = (peer, share)
            if len(shares) > MAX_EARLY_SHARES:
                shares.popitem(last=False)
            return
        session = self._session(share.txid) if self._is_open(share.txid) else None
        if session is None:
            return
        try:
            is_new = session.add_share(share, sender)
        except FaultySigner as fault:
            log.warning("faulty share", member=fault.member, reason=fault.reason, detail=fault.detail)
            self._peers.drop(peer, DropReason.FALSE_SIGNATURE, str(fault))
            return
        if is_new:
            self._shares.setdefault(share.txid, {})[sender] = share
        signed = self._core.store.signed_payout(share.txid)
        if signed is not None:
            self._answer(peer, sender, share.txid, signed)
        elif is_new:
            self._poked.set()

    def _answer(self, peer: PeerId, sender: int, txid: Txid, signed: bytes) -> None:
        """Give a member what it still collects shares for, as often as it sends them by itself: it is far longer."""
        answered_s, now_s = self._answered_s.setdefault(txid, {}), trio.current_time()
        if now_s >= answered_s.get(sender, -inf) + RETRY_S:
            answered_s[sender] = now_s
            self._peers.send(peer, SignedPayoutMessage(signed))

    def _is_open(self, txid: Txid) -> bool:
        """Whether a version's lineage is open in the final ledger."""
        ledger = self._core.store.ledger
        number = ledger.versions.get(txid)
        return number is not None and number in ledger.open_lineages

    def _receive_signed(self, peer: PeerId, message: SignedPayoutMessage) -> None:
        """Take a payout that another member has combined, if this one could have made the same."""
        try:
            signed = Transaction.parse(message.transaction)
        except Rejected as error:
            raise MalformedError(str(error)) from error
        txid = signed.txid
        if not self._is_open(txid) or self._core.store.signed_payout(txid) is not None:
            return
        session = self._session(txid)
        if session is None:
            return
        try:
            session.check_signed(signed)
        except (CosignRefused, Rejected) as error:
            log.warning("faulty payout", peer=peer, txid=hash_to_hex(txid), detail=str(error))
            self._peers.drop(peer, DropReason.FALSE_SIGNATURE, str(error))
            return
        self._core.store.keep_signed_payout(txid, message.transaction)
        self._poked.set()

    def _combine(self, txid: Txid) -> bytes | None:
        session = self._sessions.get(txid)
        if session is None or not session.is_complete():
            return None
        try:
            signed = session.combine()
        except (CosignRefused, Rejected):
            log.exception("shares do not combine", txid=hash_to_hex(txid))
            return None
        data = signed.serialize()
        self._core.store.keep_signed_payout(txid, data)
        log.info("payout signed by a quorum", txid=hash_to_hex(txid), vsize_vbytes=signed.vsize_vbytes)
        return data

    async def _send(self, txid: Txid, signed: bytes, versions: Sequence[Txid]) -> None:
        """Offer a signed version to the Bitcoin node, unless it knows it, or a version of its lineage has confirmed."""
        if self._is_confirmed([txid]) or await self._client.mempool_contains(txid):
            self._broadcast.add(txid)
            return
        if self._is_confirmed(versions):
            return
        try:
            await self._client.send_raw_transaction(signed)
        except L1RpcError as error:
            if error.code != RpcCode.ALREADY_IN_CHAIN:
                if txid == versions[-1]:
                    self._complain(txid, str(error))
                return
        self._broadcast.add(txid)
        self._complaints.pop(txid, None)
        log.info("payout broadcast", txid=hash_to_hex(txid))

    def _is_confirmed(self, versions: Sequence[Txid]) -> bool:
        """Whether a late block of this node's Bitcoin node holds one of them."""
        return any(self._core.watcher.block_of(txid) is not None for txid in versions)

    def _complain(self, txid: Txid, detail: str) -> None:
        """Log once why a payout is not taken, for it is offered again and again."""
        if self._complaints.get(txid) != detail:
            self._complaints[txid] = detail
            log.warning("payout not taken by the Bitcoin node", txid=hash_to_hex(txid), detail=detail)
