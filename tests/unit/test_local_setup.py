"""A local federation's files: everything fits together, and a failure leaves nothing."""

import contextlib
import logging
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from federation import private_files
from federation.journal_entries import open_journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from federation.keystore import SecretKind, read_member_secrets, read_secret
from federation.keystore_errors import KeystoreRefused
from federation.signer import Signer
from pegnode.config import FunctionaryConfig, L1Config, NodeConfig
from pegnode.errors import ReasonedError
from pegnode.folders import (
    DATA_FOLDER,
    FUNCTIONARY_FILE,
    JOURNAL_FOLDER,
    KEYS_FOLDER,
    MEMBER_NAMES,
    NODE_FILE,
    NODE_NAME,
    PASSPHRASE_FILE,
    RECOVERY_FOLDER,
)
from pegnode.genesis import Genesis
from pegnode.genesis_rules import GenesisReason, GenesisRefused
from pegnode.net.address import peer_id_from_secret
from pegnode.passphrase import read_passphrase_file
from pegnode.ports import free_ports
from pegnode.setup import local as local_setup
from pegnode.setup import staging
from pegnode.setup.assembly import Assembly, assemble
from pegnode.setup.card import decode_card
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.folder import CARD_FILE
from pegnode.setup.local import TEMPLATE_FILE, create_local_federation
from pegnode.setup.template import AgreedTemplate
from tests.support.configs import own_keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LOCAL = (CONFIGS / "local.toml").read_text()
ANCHOR = Anchor(101, BlockHash(b"\x07" * 32))
L1 = L1Config(url="http://127.0.0.1:18443", cookie_file=Path("/bitcoind/.cookie"))
TIME_MS = 1_790_000_000_000


def _create(
    directory: Path,
    template: str = LOCAL,
    *,
    l1: L1Config = L1,
    random_bytes: Callable[[int], bytes] | None = None,
) -> Assembly:
    return create_local_federation(
        directory,
        template,
        l1=l1,
        anchor=ANCHOR,
        time_ms=TIME_MS,
        random_bytes=random_bytes or random.Random(7).randbytes,
    )


def _refused(directory: Path, **arguments: object) -> ReasonedError:
    """The refusal of an attempt, after which nothing is there that was not there before."""
    before = sorted(directory.parent.rglob("*"))
    with pytest.raises(ReasonedError) as caught:
        _create(directory, **arguments)  # type: ignore[arg-type]
    assert sorted(directory.parent.rglob("*")) == before
    return caught.value


def _configs(directory: Path) -> list[FunctionaryConfig]:
    names = [name for name in MEMBER_NAMES if (directory / name).exists()]
    return [FunctionaryConfig.load(directory / name / FUNCTIONARY_FILE) for name in names]


def _secrets(directory: Path) -> Iterator[bytes]:
    passphrase = read_passphrase_file(directory / PASSPHRASE_FILE)
    for folder in sorted((directory / RECOVERY_FOLDER).iterdir()):
        yield read_secret(folder, SecretKind.RECOVERY, passphrase)
    for config in _configs(directory):
        member = read_member_secrets(own_keys(config), passphrase)
        yield from (member.vote, member.custody, member.transport)


@pytest.mark.parametrize(("template", "size"), [("local.toml", 4), ("federation-15.toml", 15)])
def test_every_member_can_start_with_its_files(tmp_path: Path, template: str, size: int) -> None:
    directory = tmp_path / "federation"
    assembly = _create(directory, (CONFIGS / template).read_text())
    configs = _configs(directory)
    assert [config.name for config in configs] == list(MEMBER_NAMES[:size])
    for index, config in enumerate(configs):
        genesis = Genesis.load(config.genesis)
        assert genesis == assembly.genesis
        assert (genesis.anchor, genesis.time_ms) == (ANCHOR, TIME_MS)
        rules = genesis.rules()
        assert config.member(rules.membership).index == index
        assert config.passphrase_file is not None
        secrets = read_member_secrets(own_keys(config), read_passphrase_file(config.passphrase_file))
        signer = Signer(secrets, rules.membership, index, rules.chain_id, os.urandom)
        assert peer_id_from_secret(signer.transport_secret) == signer.member.peer_id
        assert len(config.peer_addresses(rules.membership)) == size - 1


def test_files_that_people_would_exchange_make_the_same_genesis(tmp_path: Path) -> None:
    directory = tmp_path / "federation"
    assembly = _create(directory)
    cards = [decode_card(path.read_bytes()) for path in directory.rglob(CARD_FILE)]
    assert len(cards) == 4 + 3
    assert assemble(cards, AgreedTemplate.parse((directory / TEMPLATE_FILE).read_text())) == assembly


def test_peers_are_dialled_where_they_listen(tmp_path: Path) -> None:
    directory = tmp_path / "federation"
    _create(directory)
    configs = _configs(directory)
    listens = {config.name: config.p2p.listen for config in configs}
    for config in (*configs, NodeConfig.load(directory / NODE_NAME / NODE_FILE)):
        dialled = {peer.name: peer.address for peer in config.p2p.peers}
        assert dialled == {name: address for name, address in listens.items() if name != config.name}


def test_ports_are_distinct(tmp_path: Path) -> None:
    directory = tmp_path / "federation"
    _create(directory)
    node = NodeConfig.load(directory / NODE_NAME / NODE_FILE)
    configs = _configs(directory)
    ports = {int(config.p2p.listen.split("/")[-1]) for config in configs}
    ports |= {config.rpc.port for config in (*configs, node)}
    assert len(ports) == 4 + 5
    assert 0 not in ports
    assert len(set(free_ports(40))) == 40


def test_recovery_keys_are_those_of_the_genesis_with_one_to_spare(tmp_path: Path) -> None:
    directory = tmp_path / "federation"
    genesis = _create(directory).genesis
    passphrase = read_passphrase_file(directory / PASSPHRASE_FILE)
    folders = (directory / RECOVERY_FOLDER).iterdir()
    keys = [x_only(read_secret(folder, SecretKind.RECOVERY, passphrase)).hex() for folder in folders]
    assert tuple(sorted(keys)) == genesis.recovery_keys_hex
    assert len(keys) == genesis.peg.recovery_quorum + 1


def test_no_key_is_made_twice(tmp_path: Path) -> None:
    _create(tmp_path / "federation")
    assert len(set(_secrets(tmp_path / "federation"))) == 4 * 3 + 3


def test_nothing_holds_secrets_in_the_clear_and_only_their_owner_may_look(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    directory = tmp_path / "federation"
    assembly = _create(directory)
    secrets = list(_secrets(directory))
    for path in directory.rglob("*"):
        if path.is_dir() and path.parent.name != JOURNAL_FOLDER:
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        if path.suffix == ".key" or path.name == PASSPHRASE_FILE:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content or secret.hex().encode() in content for secret in secrets), path
    said = repr(assembly) + "".join(capfd.readouterr()) + caplog.text
    assert not any(secret.hex() in said for secret in secrets)


def test_every_member_has_an_empty_journal_of_its_own(tmp_path: Path) -> None:
    chain_id = _create(tmp_path / "federation").genesis.chain_id
    for index, config in enumerate(_configs(tmp_path / "federation")):
        folder = config.data_dir / JOURNAL_FOLDER
        with contextlib.closing(open_journal(folder, JournalIdentity(chain_id, 0, index))) as journal:
            assert not journal.contents().votes
        with pytest.raises(JournalRefused) as caught:
            open_journal(folder, JournalIdentity(chain_id, 0, index + 1))
        assert caught.value.reason is JournalReason.FOREIGN


def test_federation_may_move_with_its_directory(tmp_path: Path) -> None:
    assembly = _create(tmp_path / "federation")
    moved = tmp_path / "moved"
    (tmp_path / "federation").rename(moved)
    config = FunctionaryConfig.load(moved / "alice" / FUNCTIONARY_FILE)
    assert Genesis.load(config.genesis) == assembly.genesis
    assert config.keys_dir == moved.resolve() / "alice" / KEYS_FOLDER
    assert config.data_dir == moved.resolve() / "alice" / DATA_FOLDER
    assert config.passphrase_file == moved.resolve() / PASSPHRASE_FILE


def test_l1_settings_reach_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    l1 = L1Config(url="http://127.0.0.1:1", user="peg", password_file=Path("password"))
    directory = tmp_path / "federation"
    _create(directory, l1=l1)
    for config in (NodeConfig.load(directory / NODE_NAME / NODE_FILE), *_configs(directory)):
        assert (config.l1.url, config.l1.user, config.l1.cookie_file) == ("http://127.0.0.1:1", "peg", None)
        assert config.l1.password_file == (tmp_path / "password").resolve()


def test_absent_parents_are_made(tmp_path: Path) -> None:
    _create(tmp_path / "a" / "b" / "federation")
    assert (tmp_path / "a" / "b" / "federation" / "alice").is_dir()


def test_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "federation").mkdir()
    _create(tmp_path / "federation")
    assert [path.name for path in tmp_path.iterdir()] == ["federation"]


def test_directory_with_files_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "federation"
    _create(directory)
    secrets = list(_secrets(directory))
    assert _refused(directory).reason is SetupReason.NOT_EMPTY
    assert list(_secrets(directory)) == secrets


def test_directory_that_was_filled_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "federation"
    directory.mkdir()
    check = staging._require_absent_or_empty

    def fill_after(checked: Path) -> None:
        check(checked)
        if checked == directory:
            (directory / "other").touch()

    monkeypatch.setattr(staging, "_require_absent_or_empty", fill_after)
    with pytest.raises(SetupRefused) as caught:
        _create(directory)
    assert caught.value.reason is SetupReason.NOT_EMPTY
    assert sorted(tmp_path.rglob("*")) == [directory, directory / "other"]


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "federation").touch()
    assert _refused(tmp_path / "federation").reason is SetupReason.UNWRITABLE


def test_directory_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _refused(tmp_path / "file" / "federation").reason is SetupReason.UNWRITABLE


@pytest.mark.parametrize("count", [-1, 0, 16, 256, 1000])
def test_member_count_beyond_the_names_is_refused(tmp_path: Path, count: int) -> None:
    template = LOCAL.replace("member_count = 4", f"member_count = {count}")
    assert isinstance(_refused(tmp_path / "federation", template=template), SetupRefused | GenesisRefused)


def test_template_that_makes_no_genesis_is_refused(tmp_path: Path) -> None:
    refused = _refused(tmp_path / "federation", template=LOCAL.replace('"regtest"', '"moon"'))
    assert isinstance(refused, GenesisRefused)
    assert refused.reason is GenesisReason.NETWORK


def test_lack_of_free_ports_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> tuple[int, ...]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(local_setup, "free_ports", fail)
    assert _refused(tmp_path / "federation").reason is SetupReason.NO_PORTS


@pytest.mark.parametrize("failing_at", [1, 5, 8])
def test_failure_at_any_key_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_at: int) -> None:
    written = 0
    write = private_files._write_new_file

    def fail_late(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == failing_at:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(private_files, "_write_new_file", fail_late)
    with pytest.raises(KeystoreRefused):
        _create(tmp_path / "federation")
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local_setup, "complete_member", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _create(tmp_path / "federation")
    assert list(tmp_path.iterdir()) == []


def test_second_attempt_succeeds_after_a_failure(tmp_path: Path) -> None:
    _refused(tmp_path / "federation", template="")
    _create(tmp_path / "federation")
    shutil.rmtree(tmp_path / "federation")
    _create(tmp_path / "federation")
