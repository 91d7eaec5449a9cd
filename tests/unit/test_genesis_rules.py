"""A genesis is complete, and of its members and their keys each is another; else it is refused by field."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.curve import x_only
from bridge.params import PegParams
from pegnode.chain.parameters import ChainParams
from pegnode.consensus.parameters import ConsensusParams
from pegnode.genesis import Genesis
from pegnode.genesis_rules import MAX_FEDERATION_MEMBERS, GenesisReason, GenesisRefused
from pegnode.options.errors import MAX_NAMED
from pegnode.options.toml_document import spelt
from tests.support.chain import local_genesis, peer_id, secret
from tests.unit.test_genesis import ANCHOR

GENESIS = local_genesis(ANCHOR)
Change = Callable[[dict[str, Any]], object]


def refusal(data: bytes) -> GenesisRefused:
    with pytest.raises(GenesisRefused) as caught:
        Genesis.decode(data)
    return caught.value


def changed(change: Change) -> bytes:
    """The genesis with one thing changed, as JSON."""
    raw = msgspec.json.decode(GENESIS.canonical_bytes)
    change(raw)
    return msgspec.json.encode(raw)


def names(refused: GenesisRefused) -> list[str]:
    return [spelt(option) for option in refused.options]


# Documents


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", GENESIS.document + b"x", b'{"\xf4\x00": 1}', b"[" * 100_000, b'{"a": 1e999}']
)
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    assert refusal(data).reason is GenesisReason.MALFORMED


def test_json_nested_as_deep_as_can_be_read_is_refused() -> None:
    reasons = {refusal(b"[" * depth + b"]" * depth).reason for depth in range(850, 1_000)}
    reasons |= {refusal(b'{"a":' * depth + b"1" + b"}" * depth).reason for depth in range(850, 1_000)}
    assert GenesisReason.MALFORMED in reasons
    assert reasons <= {GenesisReason.MALFORMED, GenesisReason.INVALID_FIELD, GenesisReason.UNKNOWN_FIELD}


@pytest.mark.parametrize("data", [b"[]", b"null", b"1", b'"x"'])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    assert refusal(data).reason is GenesisReason.INVALID_FIELD


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"version":1', b'"version":1,"version":1'), (b'"confirmations":6', b'"confirmations":6,"confirmations":7')],
)
def test_field_given_twice_in_json_is_refused(old: bytes, new: bytes) -> None:
    assert GENESIS.canonical_bytes.count(old) == 1
    refused = refusal(GENESIS.canonical_bytes.replace(old, new))
    assert refused.reason is GenesisReason.DUPLICATE_FIELD
    assert new[1:8].decode() in refused.detail


@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    assert isinstance(refusal(data).reason, GenesisReason)


# Fields


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("peg", field.name) for field in fields(PegParams)),
        *(("chain", field.name) for field in fields(ChainParams)),
        *(("consensus", field.name) for field in fields(ConsensusParams)),
        *(("l1", name) for name in ("network", "genesis_hash_hex", "anchor_height", "anchor_hash_hex")),
    ],
)
def test_missing_parameter_is_refused_by_name(section: str, name: str) -> None:
    refused = refusal(changed(lambda raw: raw[section].pop(name)))
    assert (refused.reason, names(refused)) == (GenesisReason.MISSING_FIELD, [f"{section}.{name}"])


@pytest.mark.parametrize(
    "name", ["version", "time_ms", "l1", "members", "recovery_keys_hex", "peg", "chain", "consensus"]
)
def test_missing_section_is_refused_by_name(name: str) -> None:
    refused = refusal(changed(lambda raw: raw.pop(name)))
    assert (refused.reason, names(refused)) == (GenesisReason.MISSING_FIELD, [name])


@pytest.mark.parametrize(
    ("change", "name", "hint"),
    [
        (lambda raw: raw["peg"].update(max_pegs_sats=1), "peg.max_pegs_sats", "did you mean max_peg_sats?"),
        (lambda raw: raw["chain"].update(max_bodies=1), "chain.max_bodies", "max_body_bytes"),
        (lambda raw: raw["consensus"].update(pace=1), "consensus.pace", "here there are"),
        (lambda raw: raw.update(extra=1), "extra", "here there are"),
        (lambda raw: raw["l1"].update(networks=1), "l1.networks", "did you mean network?"),
        (lambda raw: raw["members"][1].update(address=1), "members[1].address", "here there are"),
    ],
)
def test_unknown_field_is_refused_by_name(change: Change, name: str, hint: str) -> None:
    refused = refusal(changed(change))
    assert (refused.reason, names(refused)) == (GenesisReason.UNKNOWN_FIELD, [name])
    assert hint in refused.detail


def test_all_missing_fields_are_named_at_once() -> None:
    def change(raw: dict[str, Any]) -> None:
        del raw["version"], raw["peg"]["confirmations"], raw["members"][2]["name"]

    refused = refusal(changed(change))
    missing = {spelt(flaw.options[0]) for flaw in (refused, *refused.others)}
    assert missing == {"version", "peg.confirmations", "members[2].name"}
    assert refused.detail.count("missing: ") == 3


def test_unknown_fields_are_named_at_once_and_before_what_they_may_be_meant_for() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["peg"]["confirmation"] = raw["peg"].pop("confirmations")
        raw["extra"] = 1

    refused = refusal(changed(change))
    assert [spelt(flaw.options[0]) for flaw in (refused, *refused.others)] == ["extra", "peg.confirmation"]
    assert "missing" not in refused.detail


def test_very_many_flaws_are_not_all_named() -> None:
    refused = refusal(changed(lambda raw: raw.update((f"extra{number}", 1) for number in range(1_000))))
    assert 1 + len(refused.others) == MAX_NAMED
    assert len(refused.detail) < 5_000


@pytest.mark.parametrize("quorum", [0, 2, 3, 5, 10**9])
@pytest.mark.parametrize("section", [None, "peg", "consensus"])
def test_quorum_is_refused_whatever_it_is(section: str | None, quorum: int) -> None:
    """It follows from the number of members: a right one says nothing, and a wrong one is no choice."""
    refused = refusal(changed(lambda raw: (raw[section] if section else raw).update(quorum=quorum)))
    assert refused.reason is GenesisReason.UNKNOWN_FIELD
    assert "the quorum is not chosen, it is n - (n-1)//3 of n members, here 3 of 4" in refused.detail


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda raw: raw.update(time_ms=-1), "time_ms"),
        (lambda raw: raw.update(time_ms=1.5), "time_ms"),
        (lambda raw: raw["l1"].update(anchor_height=2**32), "l1.anchor_height"),
        (lambda raw: raw.update(l1=5), "l1"),
        (lambda raw: raw.update(members={}), "members"),
        (lambda raw: raw.update(members=[5]), "members[0]"),
        (lambda raw: raw["peg"].update(confirmations=True), "peg.confirmations"),
        (lambda raw: raw["peg"].update(confirmations="6"), "peg.confirmations"),
        (lambda raw: raw["peg"].update(confirmations=None), "peg.confirmations"),
        (lambda raw: raw["l1"].update(anchor_hash_hex="AB" * 32), "l1.anchor_hash_hex"),
        (lambda raw: raw["l1"].update(anchor_hash_hex="ab" * 31), "l1.anchor_hash_hex"),
        (lambda raw: raw["l1"].update(anchor_hash_hex="ab" * 32 + "\n"), "l1.anchor_hash_hex"),
        (lambda raw: raw["recovery_keys_hex"].append("0x" + "ab" * 31), "recovery_keys_hex[3]"),
        (
            lambda raw: raw["members"][0].update(vote_key_hex=raw["members"][0]["vote_key_hex"].upper()),
            "members[0].vote_key_hex",
        ),
        (lambda raw: raw["members"][0].update(name="Ann"), "members[0].name"),
        (lambda raw: raw["members"][0].update(name=""), "members[0].name"),
        (lambda raw: raw["members"][0].update(name="a\n"), "members[0].name"),
        (lambda raw: raw["members"][0].update(name="a" * 33), "members[0].name"),
        (lambda raw: raw["members"][0].update(peer_id=""), "members[0].peer_id"),
        (lambda raw: raw["members"][0].update(peer_id="not base 58"), "members[0].peer_id"),
    ],
)
def test_invalid_field_is_refused_by_name(change: Change, name: str) -> None:
    refused = refusal(changed(change))
    assert (refused.reason, names(refused)) == (GenesisReason.INVALID_FIELD, [name])


# Members and keys


def crowd(count: int) -> bytes:
    """The genesis of as many members, with a fee that their signatures are worth."""
    raw = msgspec.json.decode(GENESIS.canonical_bytes)
    raw["members"] = msgspec.to_builtins(
        [
            {
                "name": f"member-{index}",
                "vote_key_hex": x_only(secret("vote", index)).hex(),
                "custody_key_hex": x_only(secret("custody", index)).hex(),
                "peer_id": peer_id(index),
            }
            for index in range(count)
        ]
    )
    raw["peg"].update(claim_fee_sats=10_000, coin_floor_sats=10_000, min_deposit_sats=20_000)
    return msgspec.json.encode(raw)


@pytest.mark.parametrize("count", [1, 3, 4, MAX_FEDERATION_MEMBERS])
def test_federation_may_have_up_to_nineteen_members(count: int) -> None:
    membership = Genesis.decode(crowd(count)).rules().membership
    assert (membership.size, membership.quorum) == (count, count - (count - 1) // 3)


@pytest.mark.parametrize("count", [0, MAX_FEDERATION_MEMBERS + 1, 300])
def test_federation_of_none_or_too_many_is_refused(count: int) -> None:
    refused = refusal(crowd(count))
    assert (refused.reason, names(refused)) == (GenesisReason.MEMBER_COUNT, ["members"])


def _same(raw: dict[str, Any], name: str, other: str) -> None:
    raw["members"][2][name] = raw["members"][0][other]


@pytest.mark.parametrize(
    ("reason", "change", "expected"),
    [
        (
            GenesisReason.DUPLICATE_NAME,
            lambda raw: _same(raw, "name", "name"),
            ["members[2].name", "members[0].name"],
        ),
        (
            GenesisReason.DUPLICATE_PEER_ID,
            lambda raw: _same(raw, "peer_id", "peer_id"),
            ["members[2].peer_id", "members[0].peer_id"],
        ),
        (
            GenesisReason.DUPLICATE_KEY,
            lambda raw: _same(raw, "vote_key_hex", "vote_key_hex"),
            ["members[2].vote_key_hex", "members[0].vote_key_hex"],
        ),
        (
            GenesisReason.DUPLICATE_KEY,
            lambda raw: _same(raw, "custody_key_hex", "vote_key_hex"),
            ["members[2].custody_key_hex", "members[0].vote_key_hex"],
        ),
        (
            GenesisReason.DUPLICATE_KEY,
            lambda raw: raw["members"][1].update(vote_key_hex=raw["members"][1]["custody_key_hex"]),
            ["members[1].custody_key_hex", "members[1].vote_key_hex"],
        ),
        (
            GenesisReason.DUPLICATE_KEY,
            lambda raw: raw["members"][1].update(vote_key_hex=x_only(secret("transport", 1)).hex()),
            ["members[1].peer_id", "members[1].vote_key_hex"],
        ),
        (
            GenesisReason.INVALID_KEY,
            lambda raw: raw["members"][3].update(vote_key_hex="ff" * 32),
            ["members[3].vote_key_hex"],
        ),
        (
            GenesisReason.INVALID_KEY,
            lambda raw: raw["members"][3].update(custody_key_hex="00" * 32),
            ["members[3].custody_key_hex"],
        ),
        (
            GenesisReason.INVALID_PEER_ID,
            lambda raw: raw["members"][3].update(peer_id="12D3KooWBtp1AcgQiqHqV4fGTWQTuYLGGQ4Sbn1QGZRN5kJNTq6f"),
            ["members[3].peer_id"],
        ),
        (
            GenesisReason.RECOVERY_QUORUM,
            lambda raw: raw["peg"].update(recovery_quorum=0),
            ["peg.recovery_quorum", "recovery_keys_hex"],
        ),
        (
            GenesisReason.RECOVERY_QUORUM,
            lambda raw: raw["peg"].update(recovery_quorum=4),
            ["peg.recovery_quorum", "recovery_keys_hex"],
        ),
        (
            GenesisReason.RECOVERY_QUORUM,
            lambda raw: raw.update(recovery_keys_hex=[]),
            ["peg.recovery_quorum", "recovery_keys_hex"],
        ),
        (
            GenesisReason.DUPLICATE_RECOVERY_KEY,
            lambda raw: raw["recovery_keys_hex"].append(raw["recovery_keys_hex"][1]),
            ["recovery_keys_hex[3]", "recovery_keys_hex[1]"],
        ),
        (
            GenesisReason.INVALID_KEY,
            lambda raw: raw["recovery_keys_hex"].append("ff" * 32),
            ["recovery_keys_hex[3]"],
        ),
        *(
            (
                GenesisReason.RECOVERY_KEY_OF_MEMBER,
                lambda raw, purpose=purpose: raw["recovery_keys_hex"].append(x_only(secret(purpose, 2)).hex()),
                ["recovery_keys_hex[3]", "members[2]"],
            )
            for purpose in ("vote", "custody", "transport")
        ),
        (
            GenesisReason.CUSTODY,
            lambda raw: raw.update(recovery_keys_hex=[x_only(secret("recovery", n)).hex() for n in range(44)]),
            ["recovery_keys_hex"],
        ),
    ],
)
def test_members_and_keys_that_clash_are_refused(reason: GenesisReason, change: Change, expected: list[str]) -> None:
    refused = refusal(changed(change))
    assert (refused.reason, names(refused)) == (reason, expected)
