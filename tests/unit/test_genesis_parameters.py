"""Parameters that can't be a chain's, in a genesis or in a template: the reason, the fields, and their lines."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from bridge.custody import MAX_RELATIVE_BLOCKS
from bridge.errors import Reason
from bridge.params import ParamsReason, PegParams
from pegnode.chain.parameters import ChainParamsReason
from pegnode.consensus.parameters import ConsensusParamsReason
from pegnode.genesis import Genesis
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX, PARAMETERS_OF_RULES, GenesisReason, GenesisRefused
from tests.support.chain import CONFIGS, START_MS, member_sections, recovery_keys_hex
from tests.unit.test_genesis import ANCHOR
from tests.unit.test_genesis_rules import changed, names, refusal

TEMPLATE = (CONFIGS / "local.toml").read_text()
Change = Callable[[dict[str, Any]], object]


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
        *(
            (
                GenesisReason.L1_ANCHOR,
                lambda raw, anchor=anchor: raw["l1"].update(anchor_height=anchor[0], anchor_hash_hex=anchor[1]),
                ["l1.anchor_hash_hex", "l1.anchor_height"],
            )
            for anchor in ((7, "00" * 32), (0, "ab" * 32), (7, L1_GENESIS_HASHES_HEX["regtest"]))
        ),
        (
            GenesisReason.EVIDENCE_SHARE,
            lambda raw: raw["chain"].update(max_body_bytes=2_104_899),
            ["chain.max_body_bytes", "peg.max_evidence_bytes", "peg.max_refunds_per_block"],
        ),
        (
            GenesisReason.EVIDENCE_SHARE,
            lambda raw: raw["peg"].update(max_refunds_per_block=1_021),
            ["chain.max_body_bytes", "peg.max_evidence_bytes", "peg.max_refunds_per_block"],
        ),
        *(
            (
                GenesisReason.RECOVERY_TIMELOCK,
                lambda raw, blocks=blocks: raw["peg"].update(recovery_timelock_blocks=blocks),
                ["peg.recovery_timelock_blocks"],
            )
            for blocks in (-1, 0, 1, 71, MAX_RELATIVE_BLOCKS + 1)
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
        (ConsensusParamsReason.FLOOR_ABOVE_TIMEOUT, "consensus", {"min_view_timeout_ms": 2_001}),
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
        lambda raw: raw["peg"].update(recovery_timelock_blocks=72),
        lambda raw: raw["peg"].update(recovery_quorum=3),
        lambda raw: raw["chain"].update(max_body_bytes=2_104_900),
        lambda raw: raw["peg"].update(max_refunds_per_block=1_020),
        lambda raw: raw["chain"].update(max_inputs=2_439, max_sigop_cost=16_000),
        lambda raw: raw["chain"].update(max_inputs=97_560, max_sigop_cost=80_000),
        lambda raw: raw["consensus"].update(min_view_timeout_ms=2_000, max_view_timeout_ms=2_000, heartbeat_ms=500),
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


@pytest.mark.parametrize(("members", "quorum"), [(1, 1), (3, 3), (6, 5), (15, 11)])
def test_quorum_that_follows_is_named_where_another_was_given(members: int, quorum: int) -> None:
    refused = template_refusal("member_count = 4", f"quorum = 1\nmember_count = {members}")
    assert f"here {quorum} of {members}" in refused.detail


def test_missing_cap_is_refused_with_the_line_of_its_section() -> None:
    refused = template_refusal("max_peg_sats = 2_100_000_000_000_000 ", "# ")
    assert (refused.reason, names(refused)) == (GenesisReason.MISSING_FIELD, ["peg.max_peg_sats"])
    assert refused.lines == (line_of("[peg]"),)


def test_each_missing_cap_is_named_with_a_line() -> None:
    text = TEMPLATE.replace("max_peg_sats = 2_100_000_000_000_000 ", "# ").replace("\nmax_inputs = ", "\n# ")
    with pytest.raises(GenesisRefused) as caught:
        from_template(text, file="local.toml")
    assert caught.value.detail.startswith(f"local.toml:{line_of('[peg]')}: peg.max_peg_sats: missing: ")
    assert f"; and line {line_of('[chain]')}: chain.max_inputs: missing: " in caught.value.detail


@pytest.mark.parametrize("text", ["[peg", "a = " + "1" * 5_000, "a = " + "[" * 50_000])
def test_template_that_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(GenesisRefused) as caught:
        from_template(text, file="local.toml")
    assert caught.value.reason is GenesisReason.MALFORMED
