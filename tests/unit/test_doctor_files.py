"""What `peg doctor` says of files: configuration, genesis, keys, passphrase, journal and database."""

import os
from pathlib import Path

import msgspec
import pytest

from bridge.bitcoin.curve import x_only
from federation.journal_entries import create_journal, open_journal
from federation.journal_header import JournalIdentity
from federation.keystore import MemberSecrets, member_path, write_member_secrets
from federation.membership import Member
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.doctor import files, keys, stores
from pegnode.doctor.findings import Check, Outcome, ok, problem, refused
from pegnode.net.address import peer_id_from_secret
from pegnode.passphrase import VARIABLE
from pegnode.storage.store import ChainStore
from tests.support.chain import local_genesis, peer_id, secret
from tests.support.configs import NODE, changed, own_keys
from tests.unit.test_genesis import ANCHOR

GENESIS = local_genesis(ANCHOR)
RULES = GENESIS.rules()
SECRETS = MemberSecrets(secret("vote", 0), secret("custody", 0), b"\x11" * 32)
WORDS = "correct horse battery staple"
KEYS_OK = ok(Check.KEYS, "well")
IDENTITY = JournalIdentity(RULES.chain_id, 0, 0)


@pytest.fixture
def config(tmp_path: Path) -> FunctionaryConfig:
    """A member with keys, a passphrase file and a genesis, in a folder of its own."""
    text = changed('passphrase_file = "/run/secrets/peg"', 'passphrase_file = "passphrase"')
    text = text.replace('"../genesis.json"', '"genesis.json"').replace('"alice"', '"member-0"')
    text = text.replace('"bob"', '"member-1"').replace('"carol"', '"member-2"')
    (tmp_path / "functionary.toml").write_text(text)
    (tmp_path / "genesis.json").write_bytes(GENESIS.document)
    (tmp_path / "passphrase").write_text(f"{WORDS}\n")
    (tmp_path / "passphrase").chmod(0o600)
    write_member_secrets(tmp_path / "keys", SECRETS, Passphrase(WORDS), scrypt_log_n=LEAST_LOG_N)
    return FunctionaryConfig.load(tmp_path / "functionary.toml")


# The configuration and the genesis


def test_configuration_is_named_with_its_kind(config: FunctionaryConfig, tmp_path: Path) -> None:
    finding, loaded = files.configuration(tmp_path / "functionary.toml")
    assert (finding.check, finding.outcome, loaded) == (Check.CONFIGURATION, Outcome.OK, config)
    assert finding.what.endswith("a functionary named member-0")
    (tmp_path / "node.toml").write_text(NODE)
    assert files.configuration(tmp_path / "node.toml")[0].what.endswith("a node named watcher")


def test_refused_configuration_is_a_problem_with_its_line(config: FunctionaryConfig, tmp_path: Path) -> None:
    path = tmp_path / "functionary.toml"
    path.write_text(changed("data_dir", "data_dri"))
    finding, loaded = files.configuration(path)
    assert (finding.outcome, loaded) == (Outcome.PROBLEM, None)
    assert f"{path}:3: data_dri: " in finding.what
    assert files.configuration(tmp_path / "absent.toml")[0].outcome is Outcome.PROBLEM


@pytest.mark.parametrize(
    ("mode", "owner", "outcome"),
    [
        (0o644, 1000, Outcome.OK),
        (0o644, 0, Outcome.OK),
        (0o664, 1000, Outcome.WARNING),
        (0o644, 1001, Outcome.WARNING),
    ],
)
def test_configuration_that_others_may_change_is_warned_of(mode: int, owner: int, outcome: Outcome) -> None:
    node = NodeConfig.parse(NODE, Path("/x"))
    assert files.check_owner(Path("/x/node.toml"), mode, owner, 1000, node).outcome is outcome


def test_genesis_is_shown_with_its_chain_id(config: FunctionaryConfig) -> None:
    [finding], genesis = files.genesis(config)
    assert (finding.check, finding.outcome, genesis) == (Check.GENESIS, Outcome.OK, GENESIS)
    assert GENESIS.chain_id.hex() in finding.what


@pytest.mark.parametrize("content", [None, b"{}", GENESIS.document.replace(b'"version": 1', b'"version": 2')])
def test_refused_genesis_is_a_problem(config: FunctionaryConfig, content: bytes | None) -> None:
    config.genesis.unlink()
    if content is not None:
        config.genesis.write_bytes(content)
    [finding], genesis = files.genesis(config)
    assert (finding.check, finding.outcome, genesis) == (Check.GENESIS, Outcome.PROBLEM, None)
    assert str(config.genesis) in finding.what


@pytest.mark.parametrize("name", ["member-0", "member-1"])
def test_name_that_the_genesis_does_not_know_is_a_problem(config: FunctionaryConfig, tmp_path: Path, name: str) -> None:
    path = tmp_path / "functionary.toml"
    path.write_text(path.read_text().replace(f'"{name}"', '"mallory"'))
    other = FunctionaryConfig.load(path)
    finding = files.check_names(other, RULES.membership, RULES.chain_id)
    assert (finding.check, finding.outcome) == (Check.GENESIS, Outcome.PROBLEM)
    assert "'mallory' is no member" in finding.what
    assert (files.own_member(other, RULES.membership) is None) is (name == "member-0")


def test_full_node_is_no_member() -> None:
    assert files.own_member(NodeConfig.parse(NODE, Path("/x")), RULES.membership) is None


# Keys


def _member(vote: bytes = SECRETS.vote, transport: str | None = None) -> Member:
    own = peer_id_from_secret(SECRETS.transport)
    return Member(0, "member-0", x_only(vote), x_only(SECRETS.custody), transport or own)


def test_own_keys_are_ok(config: FunctionaryConfig) -> None:
    assert keys.keys(own_keys(config), _member()).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("member", "word"),
    [(_member(vote=secret("vote", 1)), "another vote key"), (_member(transport=peer_id(3)), "another transport key")],
)
def test_keys_of_another_member_are_a_problem(config: FunctionaryConfig, member: Member, word: str) -> None:
    finding = keys.keys(own_keys(config), member)
    assert (finding.check, finding.outcome) == (Check.KEYS, Outcome.PROBLEM)
    assert word in finding.what


def test_keys_without_a_member_are_not_compared(config: FunctionaryConfig) -> None:
    assert keys.keys(own_keys(config), None).outcome is Outcome.WARNING


@pytest.mark.parametrize(("mode", "word"), [(0o640, "open to others"), (None, "there is no")])
def test_key_file_that_is_open_or_absent_is_a_problem(config: FunctionaryConfig, mode: int | None, word: str) -> None:
    path = member_path(own_keys(config))
    path.unlink() if mode is None else path.chmod(mode)
    finding = keys.keys(own_keys(config), _member())
    assert (finding.check, finding.outcome) == (Check.KEYS, Outcome.PROBLEM)
    assert word in finding.what


def test_passphrase_file_is_tried(config: FunctionaryConfig, tmp_path: Path) -> None:
    assert keys.passphrase(own_keys(config), config.passphrase_file, KEYS_OK).outcome is Outcome.OK
    (tmp_path / "passphrase").write_text("another horse battery staple\n")
    finding = keys.passphrase(own_keys(config), config.passphrase_file, KEYS_OK)
    assert (finding.check, finding.outcome) == (Check.PASSPHRASE, Outcome.PROBLEM)
    assert "horse" not in finding.what + finding.remedy
    (tmp_path / "passphrase").chmod(0o644)
    assert "open to others" in keys.passphrase(own_keys(config), config.passphrase_file, KEYS_OK).what


def test_passphrase_of_the_environment_is_tried(config: FunctionaryConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = msgspec.structs.replace(config, passphrase_file=None)
    monkeypatch.delenv(VARIABLE, raising=False)
    finding = keys.passphrase(own_keys(asked), asked.passphrase_file, KEYS_OK)
    assert (finding.check, finding.outcome) == (Check.PASSPHRASE, Outcome.WARNING)
    assert "asks for it" in finding.what
    monkeypatch.setenv(VARIABLE, WORDS)
    assert keys.passphrase(own_keys(asked), asked.passphrase_file, KEYS_OK).outcome is Outcome.OK


def test_passphrase_is_not_tried_on_keys_that_are_wrong(config: FunctionaryConfig) -> None:
    finding = keys.passphrase(own_keys(config), config.passphrase_file, problem(Check.KEYS, "open to others", "chmod"))
    assert (finding.check, finding.outcome) == (Check.PASSPHRASE, Outcome.WARNING)


def test_what_was_refused_is_told_apart_from_its_remedy() -> None:
    assert refused(Check.KEYS, "open; run: chmod 600; then start", "x") == problem(
        Check.KEYS, "open", "run: chmod 600; then start"
    )
    assert refused(Check.KEYS, "open", "x") == problem(Check.KEYS, "open", "x")


def test_passphrase_beside_the_keys_is_warned_of() -> None:
    beside = keys.check_place(Path("/a/keys/passphrase"), Path("/a/keys"), "x")
    assert (beside.check, beside.outcome) == (Check.PASSPHRASE, Outcome.WARNING)
    assert keys.check_place(Path("/a/passphrase"), Path("/a/keys"), "x").outcome is Outcome.OK
    assert keys.check_place(None, Path("/a/keys"), "x").outcome is Outcome.OK


# Journal and database


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's size and time of change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_own_journal_is_ok_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    create_journal(path, IDENTITY, 7).close()
    before = _tree(path)
    finding = stores.journal(path, IDENTITY, running=False)
    assert (finding.check, finding.outcome) == (Check.JOURNAL, Outcome.OK)
    assert "up to view 7" in finding.what
    assert _tree(path) == before
    assert stores.journal(path, IDENTITY, running=True).outcome is Outcome.OK
    assert stores.journal(path, None, running=False).outcome is Outcome.WARNING


def test_journal_of_another_member_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    create_journal(path, JournalIdentity(RULES.chain_id, 0, 1)).close()
    finding = stores.journal(path, IDENTITY, running=False)
    assert (finding.check, finding.outcome) == (Check.JOURNAL, Outcome.PROBLEM)
    assert "another member's" in finding.remedy


def test_missing_journal_is_a_problem_and_none_is_begun(tmp_path: Path) -> None:
    finding = stores.journal(tmp_path / "journal", IDENTITY, running=False)
    assert (finding.check, finding.outcome) == (Check.JOURNAL, Outcome.PROBLEM)
    assert finding.remedy.startswith("if it is lost: peg journal renew --config FILE")
    assert list(tmp_path.iterdir()) == []


def test_damaged_journal_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    create_journal(path, IDENTITY).close()
    for file in path.glob("MANIFEST*"):
        os.truncate(file, 10)
    assert stores.journal(path, IDENTITY, running=False).outcome is Outcome.PROBLEM


def test_journal_in_use_by_a_stranger_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    create_journal(path, IDENTITY).close()
    held = open_journal(path, IDENTITY)
    finding = stores.journal(path, IDENTITY, running=False)
    held.close()
    assert (finding.check, finding.outcome) == (Check.JOURNAL, Outcome.PROBLEM)
    assert "run twice" in finding.remedy


def test_database_is_ok_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "chain"
    assert stores.database(path, RULES, running=False).outcome is Outcome.OK
    assert not path.exists()
    ChainStore.open(path, RULES).close()
    before = _tree(path)
    finding = stores.database(path, RULES, running=False)
    assert (finding.check, finding.outcome) == (Check.DATABASE, Outcome.OK)
    assert "up to block 0" in finding.what
    assert _tree(path) == before
    assert stores.database(path, RULES, running=True).outcome is Outcome.OK


def test_database_in_use_or_of_another_chain_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "chain"
    other = local_genesis(ANCHOR, peg={"refund_fee_sats": 501}).rules()
    store = ChainStore.open(path, other)
    in_use = stores.database(path, RULES, running=False)
    store.close()
    foreign = stores.database(path, RULES, running=False)
    for finding in (in_use, foreign):
        assert (finding.check, finding.outcome) == (Check.DATABASE, Outcome.PROBLEM)
        assert finding.remedy
    assert in_use.what != foreign.what
