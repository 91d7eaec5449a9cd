"""Which certificates are news, and for how long it is remembered that one is none."""

import pytest

from federation.certificate import VoteKind
from pegnode.net.transport import PeerId
from pegnode.service import signature_checks
from pegnode.service.peers import Peers
from pegnode.service.signature_checks import SignatureChecks
from tests.machine.fake_chain import fake_certificate
from tests.support.chain import MemoryChain
from tests.support.lone_node import Wire

LIMIT = 8


def test_as_many_statements_are_remembered_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature_checks, "MAX_STATEMENTS", LIMIT)
    monkeypatch.setattr(signature_checks, "verify_certificate", lambda *_: None)
    rules = MemoryChain().rules
    checks = SignatureChecks(rules, Peers(Wire(rules.membership, 0), rules.membership, lambda: 0.0))
    monkeypatch.setattr(checks, "_charge", lambda *_: True)
    said = [fake_certificate((0, 1, 2), VoteKind.NULLIFY, view) for view in range(1, 12)]
    for certificate in said:
        assert checks.news(PeerId("any"), [certificate]) == [certificate]
    assert checks.news(PeerId("any"), said[-LIMIT:]) == []
    assert checks.news(PeerId("any"), said[:1]) == said[:1]
