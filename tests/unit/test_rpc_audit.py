"""Methods for whoever wants proof."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.errors import Rejected
from bridge.state import LedgerReason, Totals
from federation.statement import StatementReason, StatementRefused
from pegnode.audit.document import StatementDocument
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

DEPOSIT_SATS = 10_000_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    fake.fund(p2tr("alice"), value_sats=DEPOSIT_SATS)
    yield fake
    fake.close()


async def audited(node: FakeNode, scan: bool = False) -> AuditReply:
    return msgspec.convert((await node.ask("audit", scan)).result, AuditReply)


async def test_audit_recounts_and_shows_each_row(node: FakeNode) -> None:
    audit = await audited(node)
    assert (audit.ok, audit.findings, audit.warnings) == (True, [], [])
    assert (audit.coins, audit.utxos, audit.open_withdrawals) == (1, 1, 0)
    assert audit.counted_reserves_sats == audit.reserves_sats == audit.l1_held_sats == DEPOSIT_SATS
    assert audit.counted_supply_sats == audit.supply_sats
    header = node.store.tip.header
    assert audit.ledger_root == header.ledger_root.hex()
    assert (audit.height, audit.block_hash) == (header.height, hash_to_hex(header.hash))
    assert audit.l1_tip.height == node.chain.l1.height
    [row] = audit.rows
    assert (row.status, row.cause, row.value_sats, row.coin, row.kind) == ("reserve", "held", 10**7, True, "deposit")
    assert row.recovery_l1_height - row.l1_height == node.rules.params.recovery_timelock_blocks
    assert audit.ages.earliest_recovery_l1_height == row.recovery_l1_height
    assert (audit.ages.oldest_blocks, audit.ages.past_half_sats) == (row.confirmations, 0)


async def test_audit_scans_only_when_told_to(node: FakeNode) -> None:
    assert not (await audited(node)).scanned
    assert (await audited(node, scan=True)).scanned


async def test_audit_names_a_reserve_coin_that_the_bitcoin_node_lacks(node: FakeNode) -> None:
    [(lost, _)] = node.store.ledger.coins.items()
    node.lost.append(lost)
    audit = await audited(node)
    assert (audit.ok, audit.findings) == (False, [f"missing: {DEPOSIT_SATS} sats at {lost}: gone"])
    assert (audit.l1_held_sats, audit.l1_missing_sats) == (0, DEPOSIT_SATS)
    assert [(row.status, row.outpoint, row.confirmations) for row in audit.rows] == [("missing", str(lost), 0)]


async def test_audit_tells_a_broken_equality(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_totals: Totals) -> None:
        raise Rejected(LedgerReason.EQUALITY)

    monkeypatch.setattr(Totals, "require_equality", refuse)
    audit = await audited(node)
    assert (audit.ok, audit.findings) == (False, [LedgerReason.EQUALITY.value])


UNAVAILABLE = {
    UnavailableReason.L1_UNREACHABLE: -9,
    UnavailableReason.L1_BEHIND: -9,
    UnavailableReason.SYNCING: -10,
    UnavailableReason.L1_MOVED: -1,
    UnavailableReason.SCAN_BUSY: -1,
    UnavailableReason.NO_KEYS: -1,
    UnavailableReason.SIGNER_AWAY: -1,
}


@pytest.mark.parametrize("reason", UnavailableReason)
async def test_audit_says_why_there_is_none(node: FakeNode, reason: UnavailableReason) -> None:
    node.failure = NodeUnavailable(reason)
    answer = await node.ask("audit")
    assert (answer.code, answer.reason) == (UNAVAILABLE[reason], reason.value)


async def test_signstatement_hands_the_statement_over_and_the_signature_back(node: FakeNode) -> None:
    fresh = msgspec.convert((await node.ask("signstatement")).result, StatementDocument)
    assert fresh.signed() == node.signed
    await node.ask("signstatement", node.signed.statement.encode().hex())
    assert node.asked_statements == [None, node.signed.statement]


async def test_signstatement_refuses_bytes_that_are_no_statement(node: FakeNode) -> None:
    for text in ("00", "zz", node.signed.statement.encode().hex() + "00"):
        assert (await node.ask("signstatement", text)).code == -22
    assert node.asked_statements == []


async def test_signstatement_names_the_law_that_refuses(node: FakeNode) -> None:
    node.failure = StatementRefused(StatementReason.STALE, "old")
    answer = await node.ask("signstatement")
    assert (answer.code, answer.reason) == (-26, StatementReason.STALE.value)


async def test_getblockcertificate_gives_what_is_stored(node: FakeNode) -> None:
    assert (await node.ask("getblockcertificate", 1)).result == b"a certificate".hex()
    assert (await node.ask("getblockcertificate", 0)).result is None
    for height in (-1, 2):
        assert (await node.ask("getblockcertificate", height)).code == -8
