"""The members' reports of how far L1 is buried, from which leaders choose anchors."""

from collections.abc import Mapping

from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from pegnode.net.messages import L1Report
from pegnode.net.transport import PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers


class L1Reports:
    """Keeps the newest report of each member, and tells the others this member's own."""

    def __init__(self, core: NodeCore, peers: Peers, member: int) -> None:
        self._core = core
        self._peers = peers
        self._member = member
        self._by_member = core.l1_reports
        peers.on_message(L1Report, self._receive, from_guests=False)
        peers.on_connected(self._greet)

    @property
    def by_member(self) -> Mapping[int, Anchor]:
        """For each member heard of, the highest L1 block that its node has at the peg's depth."""
        return self._by_member

    def announce(self) -> None:
        """Tell the others what this member's own node has at the depth, if that has changed."""
        buried = self._core.watcher.buried(self._core.rules.params.confirmations)
        if buried is not None and buried != self._by_member.get(self._member):
            self._by_member[self._member] = buried
            self._peers.to_members(L1Report(buried.height, buried.hash))

    def _greet(self, peer: PeerId) -> None:
        own = self._by_member.get(self._member)
        if own is not None and self._peers.member_of(peer) is not None:
            self._peers.send(peer, L1Report(own.height, own.hash))

    def _receive(self, peer: PeerId, message: L1Report) -> None:
        member = self._peers.member_of(peer)
        if member is not None:
            self._by_member[member] = Anchor(message.height, BlockHash(message.block_hash))
            self._core.work_changed()
