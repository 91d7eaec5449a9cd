"""Every ground for refusing a genesis or a template: its reason, the fields that it is about, and their lines."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.curve import x_only
from bridge.custody import MAX_RELATIVE_BLOCKS
from bridge.errors import Reason
from bridge.params import ParamsReason, PegParams
from pegnode.chain.parameters import ChainParams, ChainParamsReason
from pegnode.consensus.parameters import ConsensusParams, ConsensusParamsReason
from pegnode.genesis import Genesis
from pegnode.genesis_rules import MAX_FEDERATION_MEMBERS, PARAMETERS_OF_RULES, GenesisReason, GenesisRefused
from pegnode.options.toml_document import spelt
from tests.support.chain import CONFIGS, START_MS, local_genesis, member_sections, peer_id, recovery_keys_hex, secret
from tests.unit.test_genesis import ANCHOR

GENESIS = local_genesis(ANCHOR)
TEMPLATE = (CONFIGS / "local.toml").read_text()
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


def from_template(text: str = TEMPLATE, members: int = 4, file: str = "") -> Genesis:
    return Genesis.from_template(
        text,
        members=member_sections(members),
        recovery_keys_hex=recovery_keys_hex(),
        anchor=ANCHOR,
        time_ms=START_MS,
        file=file,
    )


def template_refusal(old: str, new: str) -> GenesisRefused:
    """Why the local template with one place changed makes no genesis."""
    assert TEMPLATE.count(old) == 1, old
    with pytest.raises(GenesisRefused) as caught:
        from_template(TEMPLATE.replace(old, new), file="local.toml")
    return caught.value


def line_of(part: str) -> int:
    assert TEMPLATE.count(part) == 1, part
    return TEMPLATE[: TEMPLATE.index(part)].count("\n") + 1


# Documents


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", GENESIS.document + b"x", b'{"\xf4\x00": 1}', b"[" * 100_000, b'{"a": 1e999}']
)
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    assert refusal(data).reason is GenesisReason.MALFORMED


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


# Parameters


@pytest.mark.parametrize(
    ("reason", "change", "expected"),
    [
        (GenesisReason.VERSION, lambda raw: raw.update(version=2), ["version"]),
        (GenesisReason.NETWORK, lambda raw: raw["l1"].update(network="testnet7"), ["l1.network"]),
        (
            GenesisReason.L1_GENESIS,
            lambda raw: raw["l1"].update(network="main"),
            ["l1.genesis_hash_hex", "l1.network"],
        ),
        (
            GenesisReason.L1_GENESIS,
            lambda raw: raw["l1"].update(genesis_hash_hex="ab" * 32),
            ["l1.genesis_hash_hex", "l1.network"],
        ),
        (
            GenesisReason.EVIDENCE_SHARE,
            lambda raw: raw["chain"].update(max_body_bytes=2_099_999),
            ["chain.max_body_bytes", "peg.max_evidence_bytes"],
        ),
        *(
            (
                GenesisReason.RECOVERY_TIMELOCK,
                lambda raw, blocks=blocks: raw["peg"].update(recovery_timelock_blocks=blocks),
                ["peg.recovery_timelock_blocks"],
            )
            for blocks in (-1, 0, 1, 23, MAX_RELATIVE_BLOCKS + 1)
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    reason: GenesisReason, change: Change, expected: list[str]
) -> None:
    refused = refusal(changed(change))
    assert (refused.reason, names(refused)) == (reason, expected)


@pytest.mark.parametrize(
    ("inner", "section", "values"),
    [
        (ParamsReason.OUT_OF_RANGE, "peg", {"confirmations": 0}),
        (ParamsReason.OUT_OF_RANGE, "peg", {"max_peg_sats": 0}),
        (ParamsReason.OUT_OF_RANGE, "peg", {"max_peg_sats": 2_100_000_000_000_001}),
        (ParamsReason.OUT_OF_RANGE, "peg", {"max_withdrawal_sats": -1}),
        (ParamsReason.OUT_OF_RANGE, "peg", {"max_window_withdrawals_sats": 10**30}),
        (ParamsReason.EVIDENCE_BYTES, "peg", {"max_evidence_bytes": 1_000_000}),
        (ParamsReason.CLAIM_FEE, "peg", {"claim_fee_sats": 709}),
        (ParamsReason.COIN_FLOOR, "peg", {"coin_floor_sats": 709}),
        (ParamsReason.MIN_DEPOSIT, "peg", {"min_deposit_sats": 1_999}),
        (ParamsReason.WITHDRAWAL_CAPS, "peg", {"max_withdrawal_sats": 1_999}),
        (ParamsReason.WITHDRAWAL_CAPS, "peg", {"max_window_withdrawals_sats": 999_999_999}),
        (ParamsReason.WITHDRAWAL_CAPS, "peg", {"max_peg_sats": 9_999_999_999}),
        (ParamsReason.WITHDRAWAL_EXPIRY, "peg", {"withdrawal_expiry_anchors": 3}),
        (ParamsReason.FEERATES_CROSSED, "peg", {"feerate_floor_sat_kvb": 5_001}),
        (ParamsReason.BATCH_PAYEES, "peg", {"batch_min_payouts": 101}),
        (ParamsReason.BATCH_INPUTS, "peg", {"batch_max_first_inputs": 51}),
        (ParamsReason.BATCH_WEIGHT, "peg", {"batch_max_inputs": 2_000}),
        (ChainParamsReason.MAX_BODY_BYTES, "chain", {"max_body_bytes": 4_000_001}),
        (ChainParamsReason.MAX_BODY_BYTES, "chain", {"max_body_bytes": 0}),
        (ChainParamsReason.MAX_INPUTS, "chain", {"max_inputs": 2_438}),
        (ChainParamsReason.MAX_INPUTS, "chain", {"max_inputs": 10**9}),
        (ChainParamsReason.MAX_SIGOP_COST, "chain", {"max_sigop_cost": 15_999}),
        (ChainParamsReason.MAX_SIGOP_COST, "chain", {"max_sigop_cost": 80_001}),
        (ConsensusParamsReason.OUT_OF_RANGE, "consensus", {"block_interval_ms": 0}),
        (ConsensusParamsReason.OUT_OF_RANGE, "consensus", {"resend_ms": -1}),
        (ConsensusParamsReason.OUT_OF_RANGE, "consensus", {"heartbeat_ms": 3_600_001}),
        (ConsensusParamsReason.CAP_BELOW_TIMEOUT, "consensus", {"max_view_timeout_ms": 1_999}),
        (ConsensusParamsReason.HEARTBEAT_TOO_SHORT, "consensus", {"heartbeat_ms": 499}),
        (ConsensusParamsReason.RESEND_TOO_LATE, "consensus", {"resend_ms": 16_001}),
    ],
)
def test_parameter_that_breaks_a_rule_is_refused_with_the_rule(
    inner: Reason, section: str, values: dict[str, int]
) -> None:
    refused = refusal(changed(lambda raw: raw[section].update(values)))
    assert refused.reason is {"peg": GenesisReason.PEG, "chain": GenesisReason.CHAIN}.get(
        section, GenesisReason.CONSENSUS
    )
    assert inner.value in refused.detail
    [name] = values
    assert f"{section}.{name}" in names(refused)


def test_every_rule_of_the_peg_says_which_parameters_it_is_about() -> None:
    assert set(PARAMETERS_OF_RULES) == set(ParamsReason) - {ParamsReason.OUT_OF_RANGE}
    known = {field.name for field in fields(PegParams)}
    assert all(parameters and known.issuperset(parameters) for parameters in PARAMETERS_OF_RULES.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["peg"].update(claim_fee_sats=710, min_deposit_sats=1_710),
        lambda raw: raw["peg"].update(coin_floor_sats=710),
        lambda raw: raw["peg"].update(recovery_timelock_blocks=24),
        lambda raw: raw["peg"].update(recovery_quorum=3),
        lambda raw: raw["chain"].update(max_body_bytes=2_100_000),
        lambda raw: raw["chain"].update(max_inputs=2_439, max_sigop_cost=16_000),
        lambda raw: raw["chain"].update(max_inputs=97_560, max_sigop_cost=80_000),
        lambda raw: raw["consensus"].update(max_view_timeout_ms=2_000, heartbeat_ms=500),
        lambda raw: raw["consensus"].update(resend_ms=16_000, heartbeat_ms=3_600_000),
    ],
)
def test_parameters_at_their_limits_are_accepted(change: Change) -> None:
    Genesis.decode(changed(change))


# Templates


def test_template_wants_its_number_of_members() -> None:
    with pytest.raises(GenesisRefused) as caught:
        from_template(members=3, file="local.toml")
    assert caught.value.reason is GenesisReason.MEMBER_COUNT
    line = line_of("member_count =")
    assert caught.value.detail == f"local.toml:{line}: member_count: the template is for 4 members, and these are 3"


@pytest.mark.parametrize(
    ("reason", "old", "new", "name"),
    [
        (GenesisReason.MISSING_FIELD, "[chain]", "[chains]", "chains"),
        (
            GenesisReason.UNKNOWN_FIELD,
            "\nconfirmations = 6 ",
            "\nconfirmation = 6\nconfirmations = 6 ",
            "peg.confirmation",
        ),
        (GenesisReason.UNKNOWN_FIELD, "member_count = 4", "quorum = 0\nmember_count = 4", "quorum"),
        (GenesisReason.UNKNOWN_FIELD, "member_count = 4", "quorum = 5\nmember_count = 4", "quorum"),
        (GenesisReason.INVALID_FIELD, "\nconfirmations = 6 ", "\nconfirmations = 6.0 ", "peg.confirmations"),
        (GenesisReason.INVALID_FIELD, "member_count = 4", "member_count = 'four'", "member_count"),
        (GenesisReason.NETWORK, '"regtest"', '"regtests"', "network"),
        (GenesisReason.MEMBER_COUNT, "member_count = 4", "member_count = 0", "member_count"),
        (GenesisReason.MEMBER_COUNT, "member_count = 4", "member_count = 20", "member_count"),
        (GenesisReason.PEG, "claim_fee_sats = 1_000 ", "claim_fee_sats = 700 ", "peg.claim_fee_sats"),
        (GenesisReason.PEG, "max_peg_sats = 2_100_000_000_000_000", "max_peg_sats = 0", "peg.max_peg_sats"),
        (GenesisReason.RECOVERY_QUORUM, "recovery_quorum = 2", "recovery_quorum = 0", "peg.recovery_quorum"),
        (GenesisReason.RECOVERY_QUORUM, "recovery_quorum = 2", "recovery_quorum = 4", "peg.recovery_quorum"),
        (GenesisReason.CHAIN, "max_inputs = 4_000", "max_inputs = 40", "chain.max_inputs"),
        (GenesisReason.CONSENSUS, "heartbeat_ms = 10_000", "heartbeat_ms = 10", "consensus.heartbeat_ms"),
        (GenesisReason.DUPLICATE_FIELD, "resend_ms = 2_000", "heartbeat_ms = 2_000", "consensus.heartbeat_ms"),
    ],
)
def test_template_that_makes_no_genesis_is_refused_with_the_line(
    reason: GenesisReason, old: str, new: str, name: str
) -> None:
    refused = template_refusal(old, new)
    if name == "chains":  # the section that is called otherwise is the first finding
        assert (refused.reason, names(refused)) == (GenesisReason.UNKNOWN_FIELD, ["chains"])
    else:
        assert refused.reason is reason
        assert names(refused)[0] == name
    expected = line_of(old) + new.startswith("\n")
    assert refused.lines[0] == expected
    assert refused.detail.startswith(f"local.toml:{expected}: ")


def test_missing_cap_is_refused_with_the_line_of_its_section() -> None:
    refused = template_refusal("max_peg_sats = 2_100_000_000_000_000 ", "# ")
    assert (refused.reason, names(refused)) == (GenesisReason.MISSING_FIELD, ["peg.max_peg_sats"])
    assert refused.lines == (line_of("[peg]"),)


@pytest.mark.parametrize("text", ["[peg", "a = " + "1" * 5_000, "a = " + "[" * 50_000])
def test_template_that_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(GenesisRefused) as caught:
        from_template(text)
    assert caught.value.reason is GenesisReason.MALFORMED
