"""What an audit looks like: the equality line by line in exact satoshis, each row, the verdict last, 100 columns."""

from typing import Any

import pytest

from pegnode.cli.audit_view import print_audit
from pegnode.cli.terminal import out
from pegnode.rpc.audit_results import AgesReply, AuditReply, AuditRowReply, ReplayReply
from pegnode.rpc.results import AnchorReply

HASH = "ab" * 32
MANY_SATS = 2_099_999_997_690_000
"""All bitcoin there will ever be."""


def row(**changes: Any) -> AuditRowReply:
    """The widest row there is."""
    named: dict[str, Any] = {
        "status": "unexplained",
        "cause": "second-settlement",
        "outpoint": f"{HASH}:1234",
        "value_sats": MANY_SATS,
        "coin": False,
        "kind": "donation",
        "epoch": 0,
        "l1_height": 9_000_000,
        "confirmations": 65_535,
        "recovery_l1_height": 9_065_535,
        "spent_by": None,
    }
    return AuditRowReply(**named | changes)


def reply(**changes: Any) -> AuditReply:
    """Everything that there is, on the sidechain."""
    named: dict[str, Any] = dict.fromkeys(AuditReply.__struct_fields__, 0)
    named |= {
        "ok": True,
        "findings": [],
        "warnings": [],
        "block_hash": HASH,
        "scanned": True,
        "l1_tip": AnchorReply(9_000_000, HASH),
        "reserves_sats": MANY_SATS,
        "counted_reserves_sats": MANY_SATS,
        "supply_sats": MANY_SATS - 1,
        "counted_supply_sats": MANY_SATS - 1,
        "fund_sats": 1,
        "l1_held_sats": MANY_SATS,
        "coins": 1,
        "utxos": 2_000,
        "ages": AgesReply(0, None, 0, 0, 0),
        "rows": [row()],
        "replay": None,
    }
    return AuditReply(**named | changes)


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, audit: AuditReply) -> str:
    monkeypatch.setattr(out, "width", 100)
    print_audit(audit)
    return capsys.readouterr().out


def test_audit_fits_100_columns_and_ends_with_the_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(capsys, monkeypatch, reply(replay=ReplayReply(7, 1, 5)))
    assert max(map(len, text.splitlines())) <= 100
    for words in (
        "  reserves     2,099,999,997,690,000  2,099,999,997,690,000  1 coin\n",
        "=              2,099,999,997,690,000                         the equality holds\n",
        "the reserves\n",
        "ababababab…:1234",
        "replayed from the genesis: 7 blocks, 1 transaction, 5 certificates\n",
    ):
        assert words in text
    assert text.endswith("no findings: every satoshi is explained\n")


def test_what_is_wrong_is_said_where_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = reply(
        ok=False,
        findings=["missing: 5 sats"],
        warnings=["1 coin, old"],
        fund_sats=2,
        counted_supply_sats=3,
        l1_held_sats=4,
        scanned=False,
        rows=[],
    )
    text = printed(capsys, monkeypatch, wrong)
    for words in (
        "THE EQUALITY DOES NOT HOLD",
        "DIFFERS: 2,000 unspent outputs",
        "NOT THE RESERVES",
        "one by one",
        "no coins\n",
        "finding: missing: 5 sats\n",
    ):
        assert words in text
    assert "no findings" not in text
    assert text.endswith("warning: 1 coin, old\n")
