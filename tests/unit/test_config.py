"""One TOML file for each process: what its options become."""

from pathlib import Path

import pytest

from bridge.l1.credentials import CookieAuth
from federation.membership import Member, Membership
from pegnode.config import (
    FunctionaryConfig,
    L1Config,
    LogLevel,
    NodeConfig,
    P2pConfig,
    PeerConfig,
    RpcConfig,
    load_config,
)
from pegnode.net.transport import PeerAddress, PeerId
from pegnode.options.errors import ConfigReason, ConfigRefused
from tests.support.configs import FUNCTIONARY, NODE, changed

MEMBERSHIP = Membership(
    0, tuple(Member(index, name, b"", b"", f"id-of-{name}") for index, name in enumerate(("alice", "bob", "carol")))
)


def test_functionary_configuration_is_read(tmp_path: Path) -> None:
    directory = tmp_path.resolve() / "alice"
    directory.mkdir()
    (directory / "functionary.toml").write_text(FUNCTIONARY)
    assert FunctionaryConfig.load(directory / "functionary.toml") == FunctionaryConfig(
        name="alice",
        genesis=tmp_path.resolve() / "genesis.json",
        data_dir=directory / "data",
        keys_dir=directory / "keys",
        passphrase_file=Path("/run/secrets/peg"),
        log_level=LogLevel.DEBUG,
        l1=L1Config(url="http://127.0.0.1:18443", cookie_file=Path("/var/lib/bitcoind/.cookie")),
        p2p=P2pConfig(
            listen="/ip4/0.0.0.0/tcp/9735",
            peers=(
                PeerConfig(name="bob", address="/dns4/bob.example/tcp/9735"),
                PeerConfig(name="carol", address="/ip6/::1/tcp/9736"),
            ),
        ),
        rpc=RpcConfig(bind="127.0.0.1:8332"),
    )


@pytest.mark.parametrize(("text", "kind"), [(FUNCTIONARY, FunctionaryConfig), (NODE, NodeConfig)])
def test_kind_of_process_is_known_from_its_file(tmp_path: Path, text: str, kind: type[NodeConfig]) -> None:
    (tmp_path / "process.toml").write_text(text)
    config = load_config(tmp_path / "process.toml")
    assert type(config) is kind
    assert config == kind.load(tmp_path / "process.toml")


def test_paths_are_relative_to_the_file_and_not_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.toml").write_text(NODE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert NodeConfig.load(Path("../node.toml")).data_dir == tmp_path.resolve() / "data"


def test_windows_line_ends_are_read() -> None:
    assert FunctionaryConfig.parse(FUNCTIONARY.replace("\n", "\r\n"), Path("/x")).name == "alice"


def test_log_level_is_info_unless_given() -> None:
    config = FunctionaryConfig.parse(changed('log_level = "debug"\n', ""), Path("/x"))
    assert config.log_level is LogLevel.INFO


def test_passphrase_file_may_be_left_out() -> None:
    config = FunctionaryConfig.parse(changed('passphrase_file = "/run/secrets/peg"\n', ""), Path("/x"))
    assert config.passphrase_file is None


def test_user_and_password_file_serve_instead_of_a_cookie() -> None:
    text = changed('cookie_file = "/var/lib/bitcoind/.cookie"', 'user = "peg"\npassword_file = "l1-password"')
    l1 = FunctionaryConfig.parse(text, Path("/x")).l1
    assert (l1.cookie_file, l1.user, l1.password_file) == (None, "peg", Path("/x/l1-password"))


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [("127.0.0.1:8332", "127.0.0.1", 8332), ("[::1]:0", "::1", 0), ("127.9.9.9:1", "127.9.9.9", 1)],
)
def test_rpc_binds_to_loopback_addresses(bind: str, host: str, port: int) -> None:
    rpc = FunctionaryConfig.parse(changed("127.0.0.1:8332", bind), Path("/x")).rpc
    assert (rpc.host, rpc.port) == (host, port)


def test_credentials_are_the_cookie_or_the_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\nsecond line\n")
    cookie = L1Config(url="http://127.0.0.1:1", cookie_file=tmp_path / ".cookie")
    assert cookie.credentials() == CookieAuth(tmp_path / ".cookie")
    l1 = L1Config(url="http://127.0.0.1:1", user="peg", password_file=tmp_path / "password")
    assert l1.credentials().read() == ("peg", "hunter2")
    assert "hunter2" not in repr(l1) + repr(l1.credentials())


@pytest.mark.parametrize(
    "l1",
    [
        L1Config(url="http://127.0.0.1:1", user="peg"),
        L1Config(url="http://127.0.0.1:1", password_file=Path(__file__)),
        L1Config(url="http://127.0.0.1:1"),
    ],
    ids=["user", "password", "none"],
)
def test_incomplete_credentials_are_refused(l1: L1Config) -> None:
    with pytest.raises(ConfigRefused) as caught:
        l1.credentials()
    assert caught.value.reason is ConfigReason.MISSING_OPTION


def test_members_are_found_by_name() -> None:
    config = FunctionaryConfig.parse(FUNCTIONARY, Path("/x"))
    assert config.member(MEMBERSHIP).index == 0
    assert config.peer_addresses(MEMBERSHIP) == (
        PeerAddress(PeerId("id-of-bob"), "/dns4/bob.example/tcp/9735"),
        PeerAddress(PeerId("id-of-carol"), "/ip6/::1/tcp/9736"),
    )


def test_peer_that_is_no_member_is_refused() -> None:
    config = FunctionaryConfig.parse(changed('name = "bob"', 'name = "mallory"'), Path("/x"))
    with pytest.raises(ConfigRefused) as caught:
        config.peer_addresses(MEMBERSHIP)
    assert caught.value.reason is ConfigReason.UNKNOWN_PEER
    assert (
        caught.value.detail == "p2p.peers[0].name: 'mallory' is no member of this genesis, which has alice, bob, carol"
    )


def test_functionary_that_is_no_member_is_refused() -> None:
    config = FunctionaryConfig.parse(changed('name = "alice"', 'name = "mallory"'), Path("/x"))
    with pytest.raises(ConfigRefused) as caught:
        config.member(MEMBERSHIP)
    assert caught.value.reason is ConfigReason.NOT_A_MEMBER
