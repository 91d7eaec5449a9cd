"""The genesis: what its chain id commits to, and every ground for refusing one."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.custody import CoinKind, reserve_script
from bridge.params import PegParams
from bridge.state import Anchor
from pegnode.chain.parameters import ChainParams
from pegnode.consensus.parameters import ConsensusParams
from pegnode.genesis import L1_GENESIS_HASHES_HEX, MAX_GENESIS_BYTES, Genesis, GenesisReason, GenesisRefused
from tests.support.chain import CONFIGS, START_MS, local_genesis, member_sections, recovery_keys_hex

ANCHOR = Anchor(10, BlockHash(bytes(range(32))))
GENESIS = local_genesis(ANCHOR)
TEMPLATES = {"local": 4, "federation-15": 15}


def from_template(name: str = "local", text: str | None = None, members: int | None = None) -> Genesis:
    return Genesis.from_template(
        (CONFIGS / f"{name}.toml").read_text() if text is None else text,
        members=member_sections(TEMPLATES[name] if members is None else members),
        recovery_keys_hex=recovery_keys_hex(),
        anchor=ANCHOR,
        time_ms=START_MS,
    )


def refusal(data: bytes) -> GenesisRefused:
    with pytest.raises(GenesisRefused) as caught:
        Genesis.decode(data)
    return caught.value


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The genesis with one thing changed, as JSON."""
    raw = msgspec.json.decode(GENESIS.canonical_bytes)
    change(raw)
    return msgspec.json.encode(raw)


# What a genesis is


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_with_members_makes_a_genesis(name: str) -> None:
    genesis = from_template(name)
    rules = genesis.rules()
    assert rules.membership.size == TEMPLATES[name]
    assert rules.chain_id == genesis.chain_id == rules.genesis_header.chain_id
    assert hash_to_hex(rules.l1_genesis_hash) == L1_GENESIS_HASHES_HEX[genesis.l1.network]
    assert genesis.anchor == ANCHOR == rules.genesis_header.anchor
    policy = rules.custody.newest
    assert policy.member_keys == tuple(member.custody_key32 for member in rules.membership.members)
    assert (policy.quorum, policy.chain_id) == (rules.membership.quorum, genesis.chain_id)
    genesis.consensus.validate()


def test_federation_of_fifteen_needs_eleven_signatures() -> None:
    assert from_template("federation-15").rules().custody.newest.quorum == 11


def test_genesis_survives_its_document_and_any_layout() -> None:
    assert Genesis.decode(GENESIS.document) == GENESIS
    assert Genesis.decode(GENESIS.canonical_bytes) == GENESIS
    raw = msgspec.json.decode(GENESIS.canonical_bytes)
    reordered = msgspec.json.encode(dict(reversed(raw.items())))
    assert reordered != GENESIS.canonical_bytes
    assert Genesis.decode(reordered).chain_id == GENESIS.chain_id


def test_chain_id_is_the_tagged_hash_of_the_canonical_bytes() -> None:
    assert GENESIS.chain_id == tagged_hash("pegnode/chain-id", GENESIS.canonical_bytes)
    assert b" " not in GENESIS.canonical_bytes


def test_chain_id_stays_what_it_was() -> None:
    """Pinned: a change of the encoding would give every existing chain another identity."""
    pinned = replace_peg(GENESIS, **{field.name: number for number, field in enumerate(fields(PegParams))})
    pace = ConsensusParams(4, 5, 6, 7, 8)
    pinned = msgspec.structs.replace(pinned, chain=ChainParams(1, 2, 3), consensus=pace)
    assert pinned.chain_id.hex() == "8747742cec9fe4dc87bac9a9373014189d478a36d0c310334d273caa17e47d07"


def replace_peg(genesis: Genesis, **values: int) -> Genesis:
    return msgspec.structs.replace(genesis, peg=replace(genesis.peg, **values))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every number and text."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


@pytest.mark.parametrize("path", leaves(msgspec.json.decode(GENESIS.canonical_bytes)), ids=str)
def test_chain_id_commits_to_every_value(path: tuple[Any, ...]) -> None:
    raw = msgspec.json.decode(GENESIS.canonical_bytes)
    section = raw
    for key in path[:-1]:
        section = section[key]
    old = section[path[-1]]
    section[path[-1]] = old + 1 if isinstance(old, int) else old[:-1] + ("1" if old[-1] != "1" else "2")
    other = msgspec.convert(raw, Genesis)
    assert other.chain_id != GENESIS.chain_id


def test_deposit_address_depends_on_the_chain() -> None:
    """A genesis that differs anywhere has another reserve, so a deposit to one can't be claimed on the other."""
    other = replace_peg(GENESIS, refund_fee_sats=501)
    scripts = [
        reserve_script(genesis.rules().custody.newest, CoinKind.DEPOSIT, b"\x00\x14" + bytes(20)).script
        for genesis in (GENESIS, other)
    ]
    assert scripts[0] != scripts[1]


# Files


def test_genesis_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(GENESIS.document)
    assert Genesis.load(path) == GENESIS


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(GenesisRefused, match=r"genesis\.json") as caught:
        Genesis.load(tmp_path / "genesis.json")
    assert caught.value.reason is GenesisReason.UNREADABLE


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(b" " * (MAX_GENESIS_BYTES + 1))
    with pytest.raises(GenesisRefused) as caught:
        Genesis.load(path)
    assert caught.value.reason is GenesisReason.UNREADABLE


# Refusals


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"\xff": 1}', b"[" * 100_000, GENESIS.document + b"x"])
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    assert refusal(data).reason is GenesisReason.MALFORMED


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b"1"])
def test_json_that_is_no_genesis_is_refused(data: bytes) -> None:
    assert refusal(data).reason is GenesisReason.INVALID_FIELD


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
    assert refused.reason is GenesisReason.INVALID_FIELD
    assert name in refused.detail
    assert f"$.{section}" in refused.detail


@pytest.mark.parametrize(
    "name", ["version", "time_ms", "l1", "members", "recovery_keys_hex", "peg", "chain", "consensus"]
)
def test_missing_section_is_refused_by_name(name: str) -> None:
    refused = refusal(changed(lambda raw: raw.pop(name)))
    assert refused.reason is GenesisReason.INVALID_FIELD
    assert name in refused.detail


@pytest.mark.parametrize("section", ["peg", "chain", "consensus"])
def test_unknown_parameter_is_refused_by_name(section: str) -> None:
    refused = refusal(changed(lambda raw: raw[section].update(max_pegs=1)))
    assert refused.reason is GenesisReason.UNKNOWN_FIELD
    assert refused.detail == f"{section}.max_pegs"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(extra=1),
        lambda raw: raw["l1"].update(extra=1),
        lambda raw: raw["members"][0].update(extra=1),
        lambda raw: raw.update(time_ms=-1),
        lambda raw: raw.update(time_ms=1.5),
        lambda raw: raw["l1"].update(anchor_height=2**32),
        lambda raw: raw["peg"].update(confirmations=True),
        lambda raw: raw["peg"].update(confirmations="6"),
        lambda raw: raw["peg"].update(confirmations=None),
        lambda raw: raw["l1"].update(anchor_hash_hex="AB" * 32),
        lambda raw: raw["l1"].update(anchor_hash_hex="ab" * 31),
        lambda raw: raw["l1"].update(anchor_hash_hex="ab" * 32 + "\n"),
        lambda raw: raw["recovery_keys_hex"].append("0x" + "ab" * 31),
        lambda raw: raw["members"][0].update(vote_key_hex=raw["members"][0]["vote_key_hex"].upper()),
        lambda raw: raw["members"][0].update(name="Ann"),
        lambda raw: raw["members"][0].update(name=""),
        lambda raw: raw["members"][0].update(name="a\n"),
        lambda raw: raw["members"][0].update(peer_id=""),
        lambda raw: raw["members"][0].update(peer_id="not base 58"),
    ],
)
def test_invalid_field_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    assert refusal(changed(change)).reason is GenesisReason.INVALID_FIELD


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (GenesisReason.VERSION, lambda raw: raw.update(version=2)),
        (GenesisReason.NETWORK, lambda raw: raw["l1"].update(network="testnet7")),
        (GenesisReason.L1_GENESIS, lambda raw: raw["l1"].update(network="main")),
        (GenesisReason.L1_GENESIS, lambda raw: raw["l1"].update(genesis_hash_hex="ab" * 32)),
        (GenesisReason.MEMBERS, lambda raw: raw.update(members=[])),
        (GenesisReason.MEMBERS, lambda raw: raw["members"].append(raw["members"][0])),
        (GenesisReason.MEMBERS, lambda raw: raw["members"][0].update(vote_key_hex="ff" * 32)),
        (GenesisReason.CUSTODY, lambda raw: raw.update(recovery_keys_hex=[])),
        (GenesisReason.CUSTODY, lambda raw: raw["peg"].update(recovery_quorum=4)),
        (GenesisReason.CUSTODY, lambda raw: raw.update(recovery_keys_hex=[raw["members"][0]["custody_key_hex"]] * 2)),
        (GenesisReason.PEG, lambda raw: raw["peg"].update(confirmations=0)),
        (GenesisReason.PEG, lambda raw: raw["peg"].update(claim_fee_sats=709)),
        (GenesisReason.PEG, lambda raw: raw["peg"].update(coin_floor_sats=709)),
        (GenesisReason.PEG, lambda raw: raw["peg"].update(min_deposit_sats=1_999)),
        (GenesisReason.CHAIN, lambda raw: raw["chain"].update(max_body_bytes=2_099_999)),
        (GenesisReason.CHAIN, lambda raw: raw["chain"].update(max_body_bytes=4_000_001)),
        (GenesisReason.CHAIN, lambda raw: raw["chain"].update(max_inputs=2_438)),
        (GenesisReason.CHAIN, lambda raw: raw["chain"].update(max_sigop_cost=15_999)),
        (GenesisReason.CONSENSUS, lambda raw: raw["consensus"].update(block_interval_ms=0)),
        (GenesisReason.CONSENSUS, lambda raw: raw["consensus"].update(max_view_timeout_ms=1_999)),
        (GenesisReason.CONSENSUS, lambda raw: raw["consensus"].update(heartbeat_ms=499)),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    reason: GenesisReason, change: Callable[[dict[str, Any]], object]
) -> None:
    assert refusal(changed(change)).reason is reason


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["peg"].update(claim_fee_sats=710, min_deposit_sats=1_710),
        lambda raw: raw["peg"].update(coin_floor_sats=710),
        lambda raw: raw["chain"].update(max_body_bytes=2_100_000),
        lambda raw: raw["chain"].update(max_inputs=2_439, max_sigop_cost=16_000),
        lambda raw: raw["consensus"].update(max_view_timeout_ms=2_000, heartbeat_ms=500),
    ],
)
def test_parameters_at_their_limits_are_accepted(change: Callable[[dict[str, Any]], object]) -> None:
    Genesis.decode(changed(change))


# Templates


def test_template_wants_its_number_of_members() -> None:
    with pytest.raises(GenesisRefused) as caught:
        from_template(members=3)
    assert caught.value.reason is GenesisReason.MEMBER_COUNT


@pytest.mark.parametrize(
    ("reason", "old", "new"),
    [
        (GenesisReason.MALFORMED, "[peg]", "[peg"),
        (GenesisReason.MALFORMED, "[peg]", f"x = {'[' * 10_000}"),
        (GenesisReason.MALFORMED, "confirmations = 6\n", f"confirmations = {'6' * 5_000}\n"),
        (GenesisReason.INVALID_FIELD, "confirmations = 6\n", "\n"),
        (GenesisReason.INVALID_FIELD, "confirmations = 6\n", "confirmations = 6.0\n"),
        (GenesisReason.INVALID_FIELD, "[chain]", "[chains]"),
        (GenesisReason.UNKNOWN_FIELD, "confirmations = 6\n", "confirmations = 6\nconfirmation = 6\n"),
        (GenesisReason.NETWORK, '"regtest"', '"regtests"'),
        (GenesisReason.PEG, "claim_fee_sats = 1_000\n", "claim_fee_sats = 700\n"),
        (GenesisReason.CONSENSUS, "heartbeat_ms = 10_000", "heartbeat_ms = 10"),
    ],
)
def test_template_that_makes_no_genesis_is_refused(reason: GenesisReason, old: str, new: str) -> None:
    text = (CONFIGS / "local.toml").read_text()
    assert old in text
    with pytest.raises(GenesisRefused) as caught:
        from_template(text=text.replace(old, new))
    assert caught.value.reason is reason
