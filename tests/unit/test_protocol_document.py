"""The documents against the code: generated parts are fresh, examples follow from the text, every named thing exists.

The examples are worked out again here from docs/protocol.md alone, with hashlib and the second curve implementation:
what can't be computed from the document can't be implemented from it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from bridge.bitcoin.addresses import decode_address, l1_network, sidechain_network
from bridge.bitcoin.script import dust_limit_sats
from federation.self_test import reference_tweak_add, reference_verify
from pegnode.chain.header import HEADER_SIZE
from pegnode.net import messages
from pegnode.signing import messages as link
from scripts import protocol_tables as tables

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
PROSE = re.sub(r"<!-- generated: .*?<!-- end -->", "", PROTOCOL, flags=re.DOTALL)
DESCRIBED = {
    "HeaderReason", "BodyReason", "TransactionReason", "TransactionRule", "ScriptReason", "EvidenceReason",
    "BurnReason", "LedgerReason", "BatchReason", "WithheldReason", "RefusalReason", "CosignReason", "VoteReason",
    "MembershipReason", "CustodyReason", "ParamsReason", "ChainParamsReason", "ConsensusParamsReason", "PoolReason",
}  # fmt: skip
"""Enumerations of which the text explains every reason."""
EXPLAINED_BY_TYPE = {"transaction-value-out-of-range", "transaction-has-witness"}
"""Said in other words: a value's range, and evidence's own reason for a witness."""


def example(name: str) -> dict[str, str]:
    """The values of one example in the document, by their names."""
    found = re.search(rf"<!-- generated: example-{name} -->\n```text\n(.*?)\n```", PROTOCOL, re.DOTALL)
    assert found is not None
    lines = found[1].splitlines()
    return {key: value.strip() for key, value in zip(lines[::2], lines[1::2], strict=True)}


def data(values: Mapping[str, str], name: str) -> bytes:
    """One value of an example as bytes."""
    return bytes.fromhex(values[name])


def tagged(tag: str, message: bytes) -> bytes:
    """The document's `tagged`."""
    prefix = sha256(tag.encode()).digest()
    return sha256(prefix + prefix + message).digest()


def tagged_list(tag: str, items: list[bytes]) -> bytes:
    """The document's `list`."""
    return tagged(tag, struct.pack("<I", len(items)) + b"".join(tagged(tag + "/leaf", item) for item in items))


def variable(value: bytes) -> bytes:
    """The document's variable field."""
    return struct.pack("<I", len(value)) + value


def sha256d(value: bytes) -> bytes:
    """Bitcoin's hash."""
    return sha256(sha256(value).digest()).digest()


GENESIS, CUSTODY, DEPOSIT = example("genesis"), example("custody"), example("deposit")
CHAIN_ID = data(GENESIS, "chain id")


def test_generated_parts_are_fresh() -> None:
    assert tables.main(["--check"]) == 0


def test_check_finds_a_stale_part() -> None:
    parts = tables.generated_parts(PROTOCOL)
    stale = PROTOCOL.replace("`header-version`", "`header-virsion`")
    assert tables.filled(stale, parts) != stale
    assert tables.filled(PROTOCOL, parts) == PROTOCOL


@pytest.mark.parametrize("marker", ["<!-- generated: tags -->", "<!-- generated: reasons -->"])
def test_check_refuses_a_document_without_a_place(marker: str) -> None:
    with pytest.raises(tables.StaleTable):
        tables.filled(PROTOCOL.replace(marker, ""), tables.generated_parts(PROTOCOL))


def test_wrong_arguments_are_refused() -> None:
    assert tables.main(["--chekc"]) == 2


def test_reasons_are_unique() -> None:
    entries = tables.reasons(tables.sources())
    assert len(entries) > 300
    assert tables.repeated(entries) == {}


def test_reason_that_occurs_twice_is_found() -> None:
    text = 'class A(Reason):\n    """Why."""\n\n    ONE = "x-one"  # a comment\n    TWO = "x-two"\n    """A text."""\n'
    modules = {"a.py": text, "b.py": 'class B(Reason):\n    """Why."""\n\n    OTHER = "x-two"\n'}
    entries = tables.reasons(modules)
    assert [(entry.value, entry.meaning) for entry in entries] == [
        ("x-one", "a comment"),
        ("x-two", "A text."),
        ("x-two", ""),
    ]
    assert tables.repeated(entries) == {"x-two": ["a.py: A", "b.py: B"]}
    with pytest.raises(tables.StaleTable):
        tables.reasons_table(modules, {}, "")


def test_reason_without_meaning_or_test_is_found() -> None:
    modules = {"a.py": 'class A(Reason):\n    """Why."""\n\n    ONE = "x-one"  # a comment\n    TWO = "x-two"\n'}
    tests = {"tests/unit/test_a.py": "def test_one() -> None:\n    assert f() is A.ONE\n"}
    assert tables.gaps(modules, tests) == ["a.py: A.TWO does not say what it means", "no test asserts A.TWO"]
    assert tables.gaps({}, {}) == []


def test_check_fails_while_a_reason_has_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "gaps", lambda *_: ["no test asserts A.TWO"])
    assert tables.main(["--check"]) == 1


def test_test_that_the_document_names_stays_while_it_asserts_the_reason() -> None:
    modules = {"a.py": 'class A(Reason):\n    """Why."""\n\n    ONE = "x-one"  # a comment\n'}
    first = {"a": "def test_first() -> None:\n    assert f() is A.ONE\n"}
    both = first | {"b": "def test_second() -> None:\n    assert f() is A.ONE\n"}
    row = "| `x-one` | a comment | `test_{}` |"
    assert row.format("first") in tables.reasons_table(modules, both, "")
    assert row.format("second") in tables.reasons_table(modules, both, row.format("second"))
    assert row.format("first") in tables.reasons_table(modules, first, row.format("second"))


def test_tag_that_nobody_described_is_refused() -> None:
    planted = {"a.py": 'X_TAG = "pegnode/new"\n\ndef f(x):\n    return tagged_hash("TapNew", x)\n'}
    assert tables.tags(planted) == {"pegnode/new": {"a.py"}, "TapNew": {"a.py"}}
    with pytest.raises(tables.StaleTable):
        tables.tags_table(tables.sources() | planted)


def test_reasons_in_the_text_exist() -> None:
    known = {entry.value for entry in tables.reasons(tables.sources())}
    families = (
        "header|body|transaction|script|custody|evidence|burn|ledger|batch|vote|refusal|cosign|membership|params|chain"
        "|consensus|genesis|pool|journal|keystore"
    )
    named = set(re.findall(rf"`((?:{families})-[a-z0-9-]+)`", PROSE))
    assert len(named) > 100
    assert named <= known


def test_text_explains_every_reason_of_a_rule() -> None:
    entries = [entry for entry in tables.reasons(tables.sources()) if entry.enumeration in DESCRIBED]
    assert {entry.enumeration for entry in entries} == DESCRIBED
    unexplained = {entry.value for entry in entries if f"`{entry.value}`" not in PROSE}
    assert unexplained == EXPLAINED_BY_TYPE


@pytest.mark.parametrize(
    ("first", "last", "kinds"),
    [
        ("### Messages", "### Between", get_args(messages.AnyMessage)),
        ("### Between", "## 17. Reasons", (*get_args(link.Question), *get_args(link.Answer))),
    ],
)
def test_messages_are_those_of_the_code(first: str, last: str, kinds: tuple[type[msgspec.Struct], ...]) -> None:
    section = PROSE[PROSE.index(first) : PROSE.index(last)]
    rows = re.findall(r"^\| (\d+) \| ([a-zA-Z0-9 ]+) \|", section, re.M)
    code = {kind.__struct_config__.tag: kind.__name__ for kind in kinds}
    assert {int(tag): name.replace(" ", "").lower() for tag, name in rows} == {
        tag: name.removesuffix("Message").lower() for tag, name in code.items()
    }


def test_header_offsets_add_up() -> None:
    section = PROSE[PROSE.index("### Header") : PROSE.index("### Body")]
    rows = re.findall(r"^\| (\d+) \| [a-zA-Z ]+ \| (u\d+|\d+)", section, re.M)
    position = 0
    for offset, form in rows:
        assert int(offset) == position
        position += int(form[1:]) // 8 if form[0] == "u" else int(form)
    assert position == HEADER_SIZE
    assert f"### Header: {HEADER_SIZE} bytes" in section


def test_chain_id_and_block_zero_follow_from_the_text() -> None:
    canonical = GENESIS["canonical JSON (text)"].encode()
    assert tagged("pegnode/chain-id", canonical) == CHAIN_ID
    header = data(GENESIS, "header 0")
    assert (header[4:36], header[56:88]) == (CHAIN_ID, CHAIN_ID)
    assert tagged("pegnode/block", header) == data(GENESIS, "hash of header 0")
    names = ("records", "evidence", "refunds", "transactions", "batches")
    empty = tagged_list("pegnode/body", [tagged_list(f"pegnode/body/{name}", []) for name in names])
    assert header[134:166] == data(GENESIS, "root of the empty body") == empty
    totals = header[98:134] + bytes(8 * 8 + 4 + 3 * 32)
    live = [tagged_list(f"pegnode/ledger/{name}", []) for name in ("coins", "lost", "withdrawals", "lineages")]
    assert tagged_list("pegnode/ledger", [totals, *live]) == header[166:] == data(GENESIS, "root of the empty ledger")


def test_deposit_address_follows_from_the_text() -> None:
    claim_script = data(CUSTODY, "claim script")
    nums = bytes.fromhex("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0")
    scalar = tagged("pegnode/custody/deposit", nums + CHAIN_ID + bytes(4) + variable(claim_script))
    assert scalar == data(CUSTODY, "scalar")
    tweaked = reference_tweak_add(nums, scalar)
    assert tweaked is not None
    internal_key, _ = tweaked
    assert internal_key == data(CUSTODY, "internal key P")
    leaves = [data(CUSTODY, "quorum leaf"), data(CUSTODY, "recovery leaf")]
    hashes = [tagged("TapLeaf", b"\xc0" + bytes([len(leaf)]) + leaf) for leaf in leaves]
    root = tagged("TapBranch", b"".join(sorted(hashes)))
    output = reference_tweak_add(internal_key, tagged("TapTweak", internal_key + root))
    assert output is not None
    script = b"\x51\x20" + output[0]
    assert script == data(CUSTODY, "output script")
    assert data(CUSTODY, "control block of the quorum leaf") == bytes([0xC0 | output[1]]) + internal_key + hashes[1]
    assert decode_address(CUSTODY["deposit address on L1 (text)"], l1_network("regtest")) == script
    claim_address = CUSTODY["claim address on the sidechain (text)"]
    assert decode_address(claim_address, sidechain_network("regtest")) == claim_script


def test_leaves_follow_from_the_descriptor() -> None:
    descriptor = CUSTODY["descriptor without checksum (text)"]
    keys = [bytes.fromhex(key) for key in re.findall(r",([0-9a-f]{64})", descriptor)]
    members, recovery = keys[:4], keys[4:]

    def multi_a(quorum: int, of: list[bytes]) -> bytes:
        first, *others = (b"\x20" + key for key in of)
        return first + b"\xac" + b"".join(key + b"\xba" for key in others) + bytes([0x50 + quorum]) + b"\x9c"

    assert data(CUSTODY, "quorum leaf") == multi_a(3, members)
    assert data(CUSTODY, "recovery leaf") == b"\x02\xc0\x0f\xb2\x69" + multi_a(2, recovery)
    assert descriptor.startswith(f"tr({CUSTODY['internal key P']},{{multi_a(3,")
    assert "and_v(v:older(4032),multi_a(2," in descriptor


@pytest.mark.parametrize(("quorum", "members", "weight"), [(3, 4, "566"), (11, 15, "1,465")])
def test_weight_of_an_input_follows_from_the_text(quorum: int, members: int, weight: str) -> None:
    leaf = 34 * members + 2
    sizes = (1 if members + 2 < 253 else 3) + (1 if leaf < 253 else 3)
    assert f"{164 + sizes + 65 * quorum + (members - quorum) + leaf + 66:,}" == weight
    assert f"{weight} at {quorum} of {members}" in PROSE


def test_claim_and_block_one_follow_from_the_text() -> None:
    claim_script, deposit = data(CUSTODY, "claim script"), data(DEPOSIT, "L1 transaction, stripped")
    txid = sha256d(deposit)
    spent = txid + struct.pack("<I", 1 | 1 << 30) + b"\x00" + b"\xff" * 4
    paid = struct.pack("<Q", 100_000_000 - 1_000) + bytes([len(claim_script)]) + claim_script
    claim = struct.pack("<I", 2) + b"\x01" + spent + b"\x01" + paid + bytes(4)
    assert claim == data(DEPOSIT, "claim")
    assert sha256d(claim) == data(DEPOSIT, "txid of the claim, internal order")
    assert DEPOSIT["txid of the claim as Bitcoin shows it"] == sha256d(claim)[::-1].hex()

    opening = struct.pack("<IBI", 1, 1, 0) + variable(claim_script)
    proof = data(DEPOSIT, "proof (merkleblock)")
    evidence = (
        variable(data(DEPOSIT, "L1 transaction, stripped")) + variable(proof) + struct.pack("<II", 99, 1) + opening
    )
    assert evidence == data(DEPOSIT, "evidence")
    sections = {"records": [], "evidence": [evidence], "refunds": [], "transactions": [], "batches": []}
    roots = [tagged_list(f"pegnode/body/{name}", items) for name, items in sections.items()]
    header = data(DEPOSIT, "header 1")
    assert header[134:166] == data(DEPOSIT, "body root of block 1") == tagged_list("pegnode/body", roots)
    assert header[56:88] == data(GENESIS, "hash of header 0")
    assert tagged("pegnode/block", header) == data(DEPOSIT, "hash of header 1")


def test_ledger_after_block_one_follows_from_the_text() -> None:
    claim_script, txid = data(CUSTODY, "claim script"), data(DEPOSIT, "its txid, internal order")
    outpoint, header = txid + struct.pack("<I", 1), data(DEPOSIT, "header 1")
    coin = outpoint + struct.pack("<QBI", 100_000_000, 1, 0) + variable(claim_script) + struct.pack("<I", 99) + b"\x00"
    assert coin == data(DEPOSIT, "coin")
    entered = tagged("pegnode/entered", bytes(32) + outpoint + struct.pack("<I", 100))
    created = sha256d(data(DEPOSIT, "claim")) + bytes(4)
    time_ms = int.from_bytes(header[90:98], "little")
    output = struct.pack("<QQQ", 99_999_000, 1, time_ms) + variable(claim_script)
    delta = struct.pack("<II", 0, 1) + variable(created) + variable(output)
    utxo = tagged("pegnode/utxo-delta", bytes(32) + delta)
    terms = struct.pack("<5Q", 100_000_000, 0, 99_999_000, 0, 1_000)
    totals = header[98:134] + terms + bytes(3 * 8 + 4) + entered + bytes(32) + utxo
    assert totals == data(DEPOSIT, "totals after block 1")
    live = [tagged_list("pegnode/ledger/coins", [coin])]
    live += [tagged_list(f"pegnode/ledger/{name}", []) for name in ("lost", "withdrawals", "lineages")]
    assert header[166:] == tagged_list("pegnode/ledger", [totals, *live])


def test_votes_follow_from_the_text() -> None:
    votes, block_hash = example("votes"), data(DEPOSIT, "hash of header 1")
    key = data(votes, "vote key of member 1")
    assert data(votes, "secret vote key of member 1") == sha256(b"pegnode example: bob vote").digest()
    for number, (kind, named) in enumerate({"notarize": block_hash, "nullify": b"", "finalize": block_hash}.items(), 1):
        digest = tagged(f"pegnode/vote/{kind}", CHAIN_ID + struct.pack("<IQ", 0, 1) + variable(named))
        assert digest == data(votes, f"digest of {kind}")
        if kind != "finalize":
            vote = data(votes, f"{kind} vote")
            assert vote[:-64] == struct.pack("<BIQ", number, 0, 1) + variable(named) + struct.pack("<H", 1)
            assert reference_verify(key, digest, vote[-64:])


def test_burn_script_follows_from_the_text() -> None:
    *parts, script, address = example("burn").values()
    assert "".join(parts) == script
    assert [len(bytes.fromhex(part)) for part in parts] == [1, 33, 35, 9, 23]
    assert struct.pack("<Q", 2_000).hex() == parts[3][2:]
    assert decode_address(address, l1_network("regtest")).hex() == parts[2][2:]


def test_refund_follows_from_the_text() -> None:
    refund = example("refund")
    outpoint = data(refund, "burning transaction, internal order") + struct.pack("<I", 0 | 1 << 29)
    assert data(refund, "index of the burn, with bit 29") == outpoint[32:]
    value_sats, fee_sats, given_sats = map(int, re.findall(r"\d+", refund["given back (sats)"]))
    assert (value_sats - fee_sats, fee_sats) == (given_sats, 500)
    script = data(example("burn"), "push of 22 bytes: refund script")[1:]
    output = struct.pack("<Q", given_sats) + bytes([len(script)]) + script
    raw = struct.pack("<I", 2) + b"\x01" + outpoint + b"\x00" + b"\xff" * 4 + b"\x01" + output + bytes(4)
    assert (raw, sha256d(raw)) == (data(refund, "refund"), data(refund, "its txid, internal order"))


def test_payout_follows_from_the_text() -> None:
    batch = example("batch")
    feerate, size, fee = (int(batch[name]) for name in list(batch)[:3])
    weight = 34 + 4 * (1 + 1) + 566 + 5 * 4 * (9 + 34)
    assert size == -(-weight // 4)
    assert fee == -(-size * feerate // 1000)
    assert batch["change (sats)"].split(", ") == ["17500000"] * 4
    transaction = data(batch, "unsigned transaction")
    assert sha256d(transaction) == data(batch, "its txid, internal order")
    encoded = b"\x01" + bytes(4) + struct.pack("<Q", feerate) + variable(transaction)
    assert encoded == data(batch, "batch")


def test_dust_limits_are_those_of_the_code() -> None:
    scripts = {
        "P2PKH": b"\x76\xa9\x14" + bytes(20) + b"\x88\xac",
        "P2SH": b"\xa9\x14" + bytes(20) + b"\x87",
        "P2WPKH": b"\x00\x14" + bytes(20),
        "P2WSH and P2TR": b"\x51\x20" + bytes(32),
    }
    limits = ", ".join(f"{name} {dust_limit_sats(script)}" for name, script in scripts.items())
    assert f"Dust limits: {limits} sats." in PROSE


def test_threat_model_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", THREATS))
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    existing = {name for text in sources for name in re.findall(r"^(?:async )?def (test_[a-z0-9_]+)", text, re.M)}
    assert len(named) > 100
    assert named - existing == set()
