"""Votes and certificates from members: which are genuine, which are news, and who sends too many.

A signature costs 60 µs to check, and a member can make as many as it likes. So each member has an allowance of checks,
and a certificate is checked only if it says what none before it said: a quorum's votes combine to many certificates of
one statement, of which the first tells all. One that comes again costs its sender as much as one signature, for it is
read, and compared with what is remembered.
"""

from collections.abc import Sequence
from typing import Final

import trio

from federation.certificate import (
    Certificate,
    Vote,
    VoteKind,
    VoteRejected,
    check_size,
    verify_certificate,
    verify_vote,
)
from pegnode.chain.parameters import ChainRules
from pegnode.net.allowance import Allowance
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.peers import Peers

CHECKS_PER_S: Final = 1_000
CHECKS_BURST: Final = 50_000
"""A proposal after thousands of nullified views comes with a certificate of each; this is far more than ever needed."""
MAX_STATEMENTS: Final = 8_192
"""Certified statements that are recognized when they come again."""

Statement = tuple[VoteKind, int, bytes]


class SignatureChecks:
    """Checks what members send, and drops those who send what is false or too much."""

    def __init__(self, rules: ChainRules, peers: Peers) -> None:
        self._rules = rules
        self._peers = peers
        self._allowances: dict[PeerId, Allowance] = {}
        self._certified: dict[Statement, None] = {}

    def is_genuine(self, peer: PeerId, vote: Vote) -> bool:
        """Whether a vote bears its member's signature; if not, its sender is dropped."""
        if not self._charge(peer, 1):
            return False
        try:
            verify_vote(vote, self._rules.membership, self._rules.chain_id)
        except VoteRejected as rejected:
            self._condemn(peer, rejected)
            return False
        return True

    def news(self, peer: PeerId, certificates: Sequence[Certificate]) -> list[Certificate] | None:
        """Those that say what none before them said; None, and the sender dropped, when one is not genuine.

        The caller sees to it that every one of them is acted upon: none will be told of again.
        """
        new: dict[Statement, Certificate] = {}
        for certificate in certificates:
            statement = (certificate.kind, certificate.view, bytes(certificate.block_hash))
            is_known = statement in self._certified or statement in new
            if not self._charge(peer, 1 if is_known else self._rules.membership.quorum):
                return None
            try:
                if is_known:
                    check_size(certificate, self._rules.membership)  # so that reading it costs no more than was paid
                    continue
                verify_certificate(certificate, self._rules.membership, self._rules.chain_id)
            except VoteRejected as rejected:
                self._condemn(peer, rejected)
                return None
            new[statement] = certificate
        self._certified.update(dict.fromkeys(new))
        while len(self._certified) > MAX_STATEMENTS:
            del self._certified[next(iter(self._certified))]
        return list(new.values())

    def _charge(self, peer: PeerId, checks: int) -> bool:
        allowance = self._allowances.setdefault(peer, Allowance(CHECKS_PER_S, CHECKS_BURST, trio.current_time))
        if allowance.take(checks):
            return True
        self._peers.drop(peer, DropReason.FLOOD, "more signatures to check than its allowance")
        return False

    def _condemn(self, peer: PeerId, rejected: VoteRejected) -> None:
        self._peers.drop(peer, DropReason.FALSE_SIGNATURE, str(rejected))
