"""The genesis: what it is, what its chain id commits to, and the files that hold one."""

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
from pegnode.genesis import MAX_GENESIS_BYTES, Genesis
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX, GenesisReason, GenesisRefused
from pegnode.input_file import FileReason, FileRefused
from tests.support.chain import CONFIGS, START_MS, local_genesis, member_sections, recovery_keys_hex

ANCHOR = Anchor(10, BlockHash(bytes(range(32))))
GENESIS = local_genesis(ANCHOR)
TEMPLATES = {"local": 4, "federation-15": 15}


def from_template(name: str = "local") -> Genesis:
    return Genesis.from_template(
        (CONFIGS / f"{name}.toml").read_text(),
        members=member_sections(TEMPLATES[name]),
        recovery_keys_hex=recovery_keys_hex(),
        anchor=ANCHOR,
        time_ms=START_MS,
    )


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
    pace = ConsensusParams(4, 5, 3, 6, 7, 8)
    pinned = msgspec.structs.replace(pinned, chain=ChainParams(1, 2, 3), consensus=pace)
    assert pinned.chain_id.hex() == "7549b90d004672622c1d14665142e22168afb170bbecd2ec7653c3db6636dd11"


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


def test_refusal_of_a_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(GENESIS.document.replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(GenesisRefused) as caught:
        Genesis.load(path)
    assert caught.value.reason is GenesisReason.VERSION
    assert caught.value.detail == f"{path}: version: 2, not 1: it needs the release that made it"


def test_files_that_are_no_genesis_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * (MAX_GENESIS_BYTES + 1))
    for name, reason in (("absent.json", FileReason.ABSENT), ("large.json", FileReason.TOO_LARGE)):
        with pytest.raises(FileRefused, match=name) as caught:
            Genesis.load(tmp_path / name)
        assert caught.value.reason is reason
