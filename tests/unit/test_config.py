"""One TOML file for each process: every option known, every doubt refused with the option's name."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.l1.credentials import CookieAuth
from federation.membership import Member, Membership
from pegnode.config import (
    MAX_FILE_BYTES,
    ConfigReason,
    ConfigRefused,
    FunctionaryConfig,
    L1Config,
    LogLevel,
    NodeConfig,
    P2pConfig,
    PeerConfig,
    RpcConfig,
    render,
)
from pegnode.net.transport import PeerAddress, PeerId

FUNCTIONARY = """\
name = "alice"
genesis = "../genesis.json"
data_dir = "data"
keys_dir = "keys"
passphrase_file = "/run/secrets/peg"
log_level = "debug"

[l1]
url = "http://127.0.0.1:18443"
cookie_file = "/var/lib/bitcoind/.cookie"

[p2p]
listen = "/ip4/0.0.0.0/tcp/9735"

[[p2p.peers]]
name = "bob"
address = "/dns4/bob.example/tcp/9735"

[[p2p.peers]]
name = "carol"
address = "/ip6/::1/tcp/9736"

[rpc]
bind = "127.0.0.1:8332"
"""
NODE = FUNCTIONARY.replace('keys_dir = "keys"\npassphrase_file = "/run/secrets/peg"\n', "").replace(
    'name = "alice"', 'name = "watcher"', 1
)
MEMBERSHIP = Membership(
    0, tuple(Member(index, name, b"", b"", f"id-of-{name}") for index, name in enumerate(("alice", "bob", "carol")))
)


def _changed(old: str, new: str, text: str = FUNCTIONARY) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def _refusal(text: str, kind: type[NodeConfig] = FunctionaryConfig) -> ConfigRefused:
    with pytest.raises(ConfigRefused) as caught:
        kind.parse(text, Path("/federation/alice"))
    return caught.value


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


def test_paths_are_relative_to_the_file_and_not_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.toml").write_text(NODE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert NodeConfig.load(Path("../node.toml")).data_dir == tmp_path.resolve() / "data"


def test_log_level_is_info_unless_given() -> None:
    config = FunctionaryConfig.parse(_changed('log_level = "debug"\n', ""), Path("/x"))
    assert config.log_level is LogLevel.INFO


def test_user_and_password_file_serve_instead_of_a_cookie() -> None:
    text = _changed('cookie_file = "/var/lib/bitcoind/.cookie"', 'user = "peg"\npassword_file = "l1-password"')
    l1 = FunctionaryConfig.parse(text, Path("/x")).l1
    assert (l1.cookie_file, l1.user, l1.password_file) == (None, "peg", Path("/x/l1-password"))


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [("127.0.0.1:8332", "127.0.0.1", 8332), ("[::1]:0", "::1", 0), ("127.9.9.9:1", "127.9.9.9", 1)],
)
def test_rpc_binds_to_loopback_addresses(bind: str, host: str, port: int) -> None:
    rpc = FunctionaryConfig.parse(_changed("127.0.0.1:8332", bind), Path("/x")).rpc
    assert (rpc.host, rpc.port) == (host, port)


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("0.0.0.0:8332", ConfigReason.NOT_LOOPBACK),
        ("192.168.1.5:8332", ConfigReason.NOT_LOOPBACK),
        ("[::]:8332", ConfigReason.NOT_LOOPBACK),
        ("localhost:8332", ConfigReason.BAD_ADDRESS),
        ("127.0.0.1", ConfigReason.BAD_ADDRESS),
        ("127.0.0.1:", ConfigReason.BAD_ADDRESS),
        ("127.0.0.1:65536", ConfigReason.BAD_ADDRESS),
        ("127.0.0.1:-1", ConfigReason.BAD_ADDRESS),
        ("127.0.0.999:1", ConfigReason.BAD_ADDRESS),
        ("::1:8332", ConfigReason.BAD_ADDRESS),
        ("", ConfigReason.BAD_ADDRESS),
    ],
)
def test_rpc_elsewhere_is_refused(bind: str, reason: ConfigReason) -> None:
    refused = _refusal(_changed("127.0.0.1:8332", bind))
    assert refused.reason is reason
    assert "rpc.bind" in refused.detail


@pytest.mark.parametrize(
    ("old", "new", "option"),
    [
        ("data_dir", "data_dri", "data_dri"),
        ("cookie_file", "cookiefile", "l1.cookiefile"),
        ("[p2p]\n", "[p2p]\nlisten_too = 1\n", "p2p.listen_too"),
        ('name = "carol"', 'name = "carol"\nport = 1', "p2p.peers[1].port"),
        ("bind =", "bnd =", "rpc.bnd"),
        ("[rpc]", "[metrics]\nbind = 1\n[rpc]", "metrics"),
    ],
)
def test_unknown_option_is_refused_by_name(old: str, new: str, option: str) -> None:
    refused = _refusal(_changed(old, new))
    assert refused.reason is ConfigReason.UNKNOWN_OPTION
    assert refused.detail == option


def test_node_has_no_keys() -> None:
    NodeConfig.parse(NODE, Path("/x"))
    refused = _refusal(FUNCTIONARY, NodeConfig)
    assert (refused.reason, refused.detail) == (ConfigReason.UNKNOWN_OPTION, "keys_dir")


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ('keys_dir = "keys"\n', "keys_dir"),
        ('genesis = "../genesis.json"\n', "genesis"),
        ('url = "http://127.0.0.1:18443"\n', "l1.url"),
        ('listen = "/ip4/0.0.0.0/tcp/9735"\n', "p2p.listen"),
        ('address = "/ip6/::1/tcp/9736"\n', "p2p.peers[1].address"),
        ('[rpc]\nbind = "127.0.0.1:8332"\n', "rpc"),
    ],
)
def test_missing_option_is_refused_by_name(line: str, option: str) -> None:
    refused = _refusal(_changed(line, ""))
    assert (refused.reason, refused.detail) == (ConfigReason.MISSING_OPTION, option)


@pytest.mark.parametrize(
    "credentials", ["", 'user = "peg"', 'password_file = "password"'], ids=["none", "user", "password"]
)
def test_incomplete_l1_credentials_are_refused(credentials: str) -> None:
    refused = _refusal(_changed('cookie_file = "/var/lib/bitcoind/.cookie"', credentials))
    assert refused.reason is ConfigReason.MISSING_OPTION
    assert "l1.cookie_file" in refused.detail


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("cookie_file", 'user = "peg"\ncookie_file', "l1.cookie_file"),
        ("cookie_file", 'password_file = "p"\ncookie_file', "l1.cookie_file"),
        ('keys_dir = "keys"', 'keys_dir = "../alice/data"', "keys_dir"),
        ('name = "bob"', 'name = "alice"', "p2p.peers"),
        ("127.0.0.1:8332", "127.0.0.1:9735", "rpc.bind"),
    ],
)
def test_contradiction_is_refused(old: str, new: str, names: str) -> None:
    refused = _refusal(_changed(old, new))
    assert refused.reason is ConfigReason.CONTRADICTION
    assert names in refused.detail


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ('name = "alice"', "name = 5", "name"),
        ('name = "alice"', 'name = ""', "name"),
        ('log_level = "debug"', 'log_level = "loud"', "log_level"),
        ('data_dir = "data"', 'data_dir = ""', "data_dir"),
        ('data_dir = "data"', "data_dir = 7", "data_dir"),
        ('data_dir = "data"', "data_dir = { path = 7 }", "data_dir"),
        ('data_dir = "data"', "data_dir = [{ path = 7 }]", "data_dir"),
        ('data_dir = "data"', 'data_dir = "a\\u0000b"', "data_dir"),
        ('listen = "/ip4/0.0.0.0/tcp/9735"', "listen = 9735", "p2p.listen"),
        ('[rpc]\nbind = "127.0.0.1:8332"', "", "rpc"),
    ],
)
def test_wrong_value_is_refused_by_name(old: str, new: str, names: str) -> None:
    text = _changed(old, new)
    refused = _refusal(text if "[rpc]" in text else "rpc = 5\n" + text)
    assert refused.reason is ConfigReason.WRONG_VALUE
    assert names in refused.detail


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/ip4/0.0.0.0/tcp/9735", "0.0.0.0:9735"),
        ("/ip4/0.0.0.0/tcp/9735", "/ip4/0.0.0.0/tcp/9735/p2p/16Uiu2HAm"),
        ("/ip6/::1/tcp/9736", "/ip6/nowhere/tcp/9736"),
        ("/ip6/::1/tcp/9736", "/ip6/::1/tcp/0"),
    ],
)
def test_bad_multiaddr_is_refused(old: str, new: str) -> None:
    assert _refusal(_changed(old, new)).reason is ConfigReason.BAD_ADDRESS


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:18443",
        "ftp://127.0.0.1:1",
        "http://",
        "http://127.0.0.1",
        "http://127.0.0.1:x",
        "http://[::1:8",
        "http://127.0.0.1:18443/wallet/miner",
        "http://127.0.0.1:18443?x=1",
        "http://127.0.0.1:18443#x",
    ],
)
def test_bad_l1_url_is_refused(url: str) -> None:
    refused = _refusal(_changed("http://127.0.0.1:18443", url))
    assert refused.reason is ConfigReason.BAD_URL
    assert "l1.url" in refused.detail


def test_l1_url_with_a_password_is_refused_without_showing_it() -> None:
    refused = _refusal(_changed("http://127.0.0.1:18443", "http://peg:hunter2@127.0.0.1:18443"))
    assert refused.reason is ConfigReason.BAD_URL
    assert "hunter2" not in str(refused)


def test_credentials_are_the_cookie_or_the_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\nsecond line\n")
    cookie = L1Config(url="http://127.0.0.1:1", cookie_file=tmp_path / ".cookie")
    assert cookie.credentials() == CookieAuth(tmp_path / ".cookie")
    l1 = L1Config(url="http://127.0.0.1:1", user="peg", password_file=tmp_path / "password")
    assert l1.credentials().read() == ("peg", "hunter2")
    assert "hunter2" not in repr(l1) + repr(l1.credentials())


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe"])
def test_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigRefused) as caught:
        L1Config(url="http://127.0.0.1:1", user="peg", password_file=path).credentials()
    assert caught.value.reason is ConfigReason.UNREADABLE


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


@pytest.mark.parametrize("peers", ["5", "[5]", "{ name = 5 }"])
def test_peers_that_are_no_list_of_tables_are_refused(peers: str) -> None:
    text = FUNCTIONARY[: FUNCTIONARY.index("[[p2p.peers]]")] + f"peers = {peers}\n\n[rpc]\nbind = '127.0.0.1:1'\n"
    refused = _refusal(text)
    assert refused.reason is ConfigReason.WRONG_VALUE
    assert "p2p.peers" in refused.detail


def test_peer_named_twice_is_refused() -> None:
    refused = _refusal(_changed('name = "carol"', 'name = "bob"'))
    assert refused.reason is ConfigReason.DUPLICATE_PEER
    assert "bob" in refused.detail


@pytest.mark.parametrize("text", ["name = ", "[l1]\n[l1]", "name = 'a'\nname = 'b'"])
def test_what_is_no_toml_is_refused(text: str) -> None:
    assert _refusal(text).reason is ConfigReason.NOT_TOML


@given(text=st.text(max_size=80))
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    assert isinstance(_refusal(text).reason, ConfigReason)


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigRefused) as caught:
        NodeConfig.load(tmp_path / "node.toml")
    assert caught.value.reason is ConfigReason.NOT_TOML


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    for name in ("absent.toml", "large.toml"):
        with pytest.raises(ConfigRefused) as caught:
            NodeConfig.load(tmp_path / name)
        assert caught.value.reason is ConfigReason.UNREADABLE


def test_refusal_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("surprise = 1")
    with pytest.raises(ConfigRefused) as caught:
        NodeConfig.load(tmp_path / "node.toml")
    assert caught.value.reason is ConfigReason.UNKNOWN_OPTION
    assert caught.value.detail == f"{tmp_path / 'node.toml'}: surprise"


def test_members_are_found_by_name() -> None:
    config = FunctionaryConfig.parse(FUNCTIONARY, Path("/x"))
    assert config.member(MEMBERSHIP).index == 0
    assert config.peer_addresses(MEMBERSHIP) == (
        PeerAddress(PeerId("id-of-bob"), "/dns4/bob.example/tcp/9735"),
        PeerAddress(PeerId("id-of-carol"), "/ip6/::1/tcp/9736"),
    )


def test_peer_that_is_no_member_is_refused() -> None:
    config = FunctionaryConfig.parse(_changed('name = "bob"', 'name = "mallory"'), Path("/x"))
    with pytest.raises(ConfigRefused) as caught:
        config.peer_addresses(MEMBERSHIP)
    assert caught.value.reason is ConfigReason.UNKNOWN_PEER


def test_functionary_that_is_no_member_is_refused() -> None:
    config = FunctionaryConfig.parse(_changed('name = "alice"', 'name = "mallory"'), Path("/x"))
    with pytest.raises(ConfigRefused) as caught:
        config.member(MEMBERSHIP)
    assert caught.value.reason is ConfigReason.NOT_A_MEMBER


_NAMES = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() or "\x7f" in text)


@given(name=_NAMES, peer=_NAMES, user=_NAMES)
def test_rendered_configuration_is_read_back(name: str, peer: str, user: str) -> None:
    assume(name != peer + "x")
    directory = Path("/federation/alice")
    config = FunctionaryConfig.parse(FUNCTIONARY, directory)
    l1 = L1Config(url="http://127.0.0.1:1", user=user, password_file=directory / "password")
    for changed in (
        config,
        NodeConfig.parse(NODE, directory),
        FunctionaryConfig(
            name=name,
            genesis=Path("/federation/genesis.json"),
            data_dir=Path("/elsewhere/data"),
            keys_dir=directory / "keys",
            l1=l1,
            p2p=P2pConfig(listen="/ip4/0.0.0.0/tcp/0", peers=(PeerConfig(name=peer + "x", address="/dns/a/tcp/1"),)),
            rpc=RpcConfig(bind="[::1]:0"),
        ),
    ):
        assert type(changed).parse(render(changed, directory), directory) == changed


def test_rendered_paths_move_with_the_directory() -> None:
    text = render(FunctionaryConfig.parse(FUNCTIONARY, Path("/federation/alice")), Path("/federation/alice"))
    assert "/federation" not in text
    assert '"/var/lib/bitcoind/.cookie"' in text
    moved = FunctionaryConfig.parse(text, Path("/moved/alice"))
    assert (moved.genesis, moved.keys_dir) == (Path("/moved/genesis.json"), Path("/moved/alice/keys"))
