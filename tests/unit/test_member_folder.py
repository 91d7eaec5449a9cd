"""A member's folder: made in two steps, nothing replaced, and a journal begun once."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from federation.errors import Refused
from federation.journal_entries import create_journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from federation.keystore import read_member_secrets, write_member_secrets
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.config import FunctionaryConfig, L1Config, NodeConfig
from pegnode.errors import ReasonedError
from pegnode.genesis import Genesis
from pegnode.options.errors import ConfigRefused
from pegnode.setup import folder as folder_module
from pegnode.setup.assembly import Assembly, assemble
from pegnode.setup.card import CardReason, MemberCard
from pegnode.setup.errors import SetupReason
from pegnode.setup.folder import (
    CARD_FILE,
    OwnSettings,
    complete_member,
    create_member,
    listen_address,
    write_node,
)
from pegnode.setup.inputs import read_card, recovery_key, write_new
from tests.support.cards import member_card, member_cards, member_secrets, recovery_card, template, template_text

PASSPHRASE = Passphrase("six words that nobody else knows")
OWN = OwnSettings(L1Config(url="http://127.0.0.1:8332", cookie_file=Path("/bitcoind/.cookie")), "127.0.0.1:18901")


def _create(directory: Path, name: str = "alice", address: str = "/dns4/alice.example/tcp/18900") -> MemberCard:
    return create_member(
        directory,
        name,
        address,
        PASSPHRASE,
        random_bytes=random.Random(name).randbytes,
        scrypt_log_n=LEAST_LOG_N,
    )


def _assembly(card: MemberCard) -> Assembly:
    return assemble([card, *member_cards()[1:]], template())


def _refused(work: Callable[[], object]) -> ReasonedError | Refused:
    try:
        work()
    except (ReasonedError, Refused) as refused:
        return refused
    pytest.fail("it was not refused")


def _contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_member_is_made_in_two_steps(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    assert read_card(directory / CARD_FILE) == card
    assert card.belongs_to(read_member_secrets(directory / "keys", PASSPHRASE))
    assert sorted(path.name for path in directory.iterdir()) == ["card.json", "keys"]
    own = replace(OWN, passphrase_file=tmp_path / "passphrase")
    assert complete_member(directory, _assembly(card), PASSPHRASE, own)
    config = FunctionaryConfig.load(directory / "functionary.toml")
    assert Genesis.load(config.genesis) == _assembly(card).genesis
    assert (config.name, config.p2p.listen) == ("alice", "/ip4/0.0.0.0/tcp/18900")
    assert config.passphrase_file == tmp_path / "passphrase"
    assert [(peer.name, peer.address) for peer in config.p2p.peers] == [
        (member.name, member.address) for member in member_cards()[1:]
    ]


def test_assembling_twice_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    complete_member(directory, _assembly(card), PASSPHRASE, OWN)
    before = _contents(directory)
    assert not complete_member(directory, _assembly(card), PASSPHRASE, replace(OWN, rpc_bind="127.0.0.1:1"))
    assert _contents(directory) == before


def test_lost_journal_is_not_begun_again(tmp_path: Path) -> None:
    """Two journals of one member could hold opposite votes."""
    directory = tmp_path / "alice"
    card = _create(directory)
    complete_member(directory, _assembly(card), PASSPHRASE, OWN)
    shutil.rmtree(directory / "data")
    assert not complete_member(directory, _assembly(card), PASSPHRASE, OWN)
    assert not (directory / "data").exists()


def test_journal_that_an_interrupted_attempt_left_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    identity = JournalIdentity(_assembly(card).genesis.chain_id, 0, 0)
    create_journal(directory / "data" / "journal", identity).close()
    assert complete_member(directory, _assembly(card), PASSPHRASE, OWN)


def test_journal_of_another_chain_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    create_journal(directory / "data" / "journal", JournalIdentity(bytes(32), 0, 0)).close()
    refused = _refused(lambda: complete_member(directory, _assembly(card), PASSPHRASE, OWN))
    assert isinstance(refused, JournalRefused)
    assert refused.reason is JournalReason.FOREIGN
    assert not (directory / "genesis.json").exists()


def test_genesis_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, everything else is; an attempt that failed before is repeated."""
    directory = tmp_path / "alice"
    card = _create(directory)

    def fail(self: Path, target: Path) -> Path:
        if target.name == "genesis.json":
            raise OSError(28, "No space left on device")
        os.replace(self, target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        refused = _refused(lambda: complete_member(directory, _assembly(card), PASSPHRASE, OWN))
    assert refused.reason is SetupReason.UNWRITABLE
    assert (directory / "functionary.toml").exists()
    assert not (directory / "genesis.json").exists()
    assert complete_member(directory, _assembly(card), PASSPHRASE, OWN)
    assert Genesis.load(directory / "genesis.json") == _assembly(card).genesis


def test_another_genesis_is_never_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    complete_member(directory, _assembly(card), PASSPHRASE, OWN)
    before = _contents(directory)
    changed = template(template_text().replace("max_inputs = 4_000", "max_inputs = 4_001"))
    other = assemble([card, *member_cards()[1:]], changed)
    refused = _refused(lambda: complete_member(directory, other, PASSPHRASE, OWN))
    assert refused.reason is SetupReason.EXISTS
    assert "chain.max_inputs is 4000 there and 4001 now" in refused.detail
    assert _contents(directory) == before


def test_configuration_that_somebody_wrote_is_never_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    (directory / "functionary.toml").write_text("# mine\n")
    refused = _refused(lambda: complete_member(directory, _assembly(card), PASSPHRASE, OWN))
    assert refused.reason is SetupReason.EXISTS
    assert (directory / "functionary.toml").read_text() == "# mine\n"
    assert not (directory / "data").exists()


def test_member_whose_card_is_missing_among_the_cards_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "erin"
    _create(directory, "erin")
    everybody = assemble(member_cards(), template())
    refused = _refused(lambda: complete_member(directory, everybody, PASSPHRASE, OWN))
    assert refused.reason is SetupReason.NOT_AMONG_CARDS
    assert "add it" in refused.detail


def test_member_whose_name_another_card_has_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    other = member_card("alice", keys_of="mallory")
    refused = _refused(lambda: complete_member(directory, _assembly(other), PASSPHRASE, OWN))
    assert refused.reason is SetupReason.NOT_AMONG_CARDS
    assert card.fingerprint in refused.detail
    assert other.fingerprint in refused.detail


def test_card_of_other_keys_than_the_member_has_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    _create(directory)
    other = member_card("alice", keys_of="mallory")
    (directory / CARD_FILE).write_bytes(other.document)
    refused = _refused(lambda: complete_member(directory, _assembly(other), PASSPHRASE, OWN))
    assert refused.reason is SetupReason.NOT_OWN_KEYS
    assert sorted(path.name for path in directory.iterdir()) == ["card.json", "keys"]


def test_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    write_member_secrets(tmp_path / "keys", member_secrets("alice"), PASSPHRASE, scrypt_log_n=LEAST_LOG_N)
    refused = _refused(lambda: complete_member(tmp_path, _assembly(member_card("alice")), PASSPHRASE, OWN))
    assert refused.reason is CardReason.UNREADABLE
    assert "peg federation init" in refused.detail


def test_wrong_passphrase_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    wrong = Passphrase("six words that are not the right ones")
    refused = _refused(lambda: complete_member(directory, _assembly(card), wrong, OWN))
    assert isinstance(refused, KeystoreRefused)
    assert refused.reason is KeystoreReason.WRONG_PASSPHRASE
    assert sorted(path.name for path in directory.iterdir()) == ["card.json", "keys"]


def test_settings_that_contradict_each_other_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    own = replace(OWN, rpc_bind="127.0.0.1:18900")
    assert isinstance(_refused(lambda: complete_member(directory, _assembly(card), PASSPHRASE, own)), ConfigRefused)
    assert sorted(path.name for path in directory.iterdir()) == ["card.json", "keys"]


def test_keys_are_never_made_where_files_are(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    _create(directory)
    before = _contents(directory)
    assert _refused(lambda: _create(directory)).reason is SetupReason.NOT_EMPTY
    assert _contents(directory) == before


def test_bad_address_makes_no_keys(tmp_path: Path) -> None:
    refused = _refused(lambda: _create(tmp_path / "alice", address="/ip4/0.0.0.0/tcp/1"))
    assert refused.reason is CardReason.BAD_ADDRESS
    assert list(tmp_path.iterdir()) == []


def test_failure_to_write_the_card_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert _refused(lambda: _create(tmp_path / "alice")).reason is SetupReason.UNWRITABLE
    assert list(tmp_path.iterdir()) == []


def test_unwritable_data_folder_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    (directory / "data").touch()
    refused = _refused(lambda: complete_member(directory, _assembly(card), PASSPHRASE, OWN))
    assert refused.reason is SetupReason.UNWRITABLE


def test_full_node_dials_every_member(tmp_path: Path) -> None:
    path = write_node(tmp_path / "node", assemble(member_cards(), template()), OWN)
    config = NodeConfig.load(path)
    assert [peer.name for peer in config.p2p.peers] == ["alice", "bob", "carol", "dave"]
    assert len(config.peer_addresses(Genesis.load(config.genesis).rules().membership)) == 4


@pytest.mark.parametrize(
    ("address", "listens"),
    [
        ("/ip4/192.0.2.7/tcp/18900", "/ip4/0.0.0.0/tcp/18900"),
        ("/ip4/127.0.0.1/tcp/18900", "/ip4/127.0.0.1/tcp/18900"),
        ("/ip6/2001:db8::7/tcp/18900", "/ip6/::/tcp/18900"),
        ("/ip6/::1/tcp/18900", "/ip6/::1/tcp/18900"),
        ("/dns6/alice.example/tcp/18900", "/ip4/0.0.0.0/tcp/18900"),
    ],
)
def test_member_listens_where_its_card_says_unless_told_otherwise(tmp_path: Path, address: str, listens: str) -> None:
    assert listen_address(member_card("alice", address)) == listens
    card = _create(tmp_path / "alice", address=address)
    others = [member_card(name, f"/ip4/127.0.0.1/tcp/{port}") for name, port in (("bob", 1), ("carol", 2), ("dave", 3))]
    assembly = assemble([card, *others], template()) if card.is_local else _assembly(card)
    complete_member(tmp_path / "alice", assembly, PASSPHRASE, replace(OWN, listen="/ip4/127.0.0.1/tcp/7"))
    assert FunctionaryConfig.load(tmp_path / "alice" / "functionary.toml").p2p.listen == "/ip4/127.0.0.1/tcp/7"


def test_card_file_is_named_in_every_refusal(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    assert _refused(lambda: read_card(path)).reason is CardReason.UNREADABLE
    for content in (b"{}", json.dumps({"format": "pegnode-member-card", "version": 9}).encode(), b"x" * 10_000):
        path.write_bytes(content)
        assert str(path) in _refused(lambda: read_card(path)).detail


def test_recovery_key_comes_from_a_card_or_from_digits(tmp_path: Path) -> None:
    card = recovery_card(1)
    (tmp_path / "card.json").write_bytes(card.document)
    key = bytes.fromhex(card.recovery_key_hex)
    assert recovery_key(str(tmp_path / "card.json")) == (key, "vault-1")
    assert recovery_key(card.recovery_key_hex.upper()) == (key, None)
    (tmp_path / "member.json").write_bytes(member_card("alice").document)
    assert "as a member" in _refused(lambda: recovery_key(str(tmp_path / "member.json"))).detail
    assert _refused(lambda: recovery_key("00ff")).reason is CardReason.UNREADABLE


def test_file_for_others_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "template.toml"
    write_new(path, b"one")
    assert _refused(lambda: write_new(path, b"two")).reason is SetupReason.EXISTS
    assert path.read_bytes() == b"one"
    assert _refused(lambda: write_new(path / "below", b"three")).reason is SetupReason.UNWRITABLE


def test_unreadable_file_in_the_way_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "alice"
    card = _create(directory)
    (directory / "functionary.toml").mkdir()
    refused = _refused(lambda: complete_member(directory, _assembly(card), PASSPHRASE, OWN))
    assert refused.reason is SetupReason.UNWRITABLE
    assert folder_module.NODE_LISTEN.endswith("/0")
