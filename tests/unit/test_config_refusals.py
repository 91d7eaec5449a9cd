"""Every doubt about a configuration is refused with its reason, its option and its line."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.input_file import FileReason, FileRefused
from pegnode.options.errors import ConfigReason, ConfigRefused, OptionRefused
from pegnode.options.reading import MAX_FILE_BYTES
from pegnode.options.toml_document import spelt
from tests.support.configs import FUNCTIONARY, NODE, changed, line_of, refusal


def _names(refused: OptionRefused) -> list[str]:
    return [spelt(option) for option in refused.options]


# Which line


def test_refusal_names_file_line_option_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "functionary.toml"
    path.write_text(changed("data_dir", "data_dri"))
    with pytest.raises(ConfigRefused) as caught:
        FunctionaryConfig.load(path)
    assert caught.value.detail == f"{path}:3: data_dri: unknown option; did you mean data_dir?"


def test_refusal_of_bad_toml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('name = "alice"\ngenesis = \n')
    with pytest.raises(ConfigRefused) as caught:
        NodeConfig.load(path)
    assert caught.value.reason is ConfigReason.NOT_TOML
    assert caught.value.detail == f"{path}:2: invalid value"


def test_contradiction_names_the_lines_of_both_options() -> None:
    text = changed("127.0.0.1:8332", "127.0.0.1:9735")
    refused = refusal(text)
    assert refused.lines == (line_of(text, "bind ="), line_of(text, "listen ="))
    assert refused.detail.startswith(f"line {line_of(text, 'bind =')}: rpc.bind: p2p.listen takes port 9735 too")
    assert refused.detail.endswith(f"(p2p.listen is on line {line_of(text, 'listen =')})")


def test_missing_option_names_the_line_of_its_section() -> None:
    text = changed('url = "http://127.0.0.1:18443"\n', "")
    assert refusal(text).lines == (line_of(text, "[l1]"),)


# Options that are there or not


@pytest.mark.parametrize(
    ("old", "new", "option", "hint"),
    [
        ("data_dir", "data_dri", "data_dri", "did you mean data_dir?"),
        ("cookie_file", "cookiefile", "l1.cookiefile", "did you mean cookie_file?"),
        ("[p2p]\n", "[p2p]\nmetrics = 1\n", "p2p.metrics", "here there are listen, peers"),
        ('name = "carol"', 'name = "carol"\nport = 1', "p2p.peers[1].port", "here there are name, address"),
        ("bind =", "bnd =", "rpc.bnd", "did you mean bind?"),
        ("[rpc]", "[metrics]\nbind = 1\n[rpc]", "metrics", "here there are"),
        ("[rpc]", '["rpc "]\nbind = 1\n[rpc]', "'rpc '", "did you mean rpc?"),
    ],
)
def test_unknown_option_is_refused_by_name_and_line(old: str, new: str, option: str, hint: str) -> None:
    text = changed(old, new)
    refused = refusal(text)
    assert (refused.reason, _names(refused)) == (ConfigReason.UNKNOWN_OPTION, [option])
    [line] = refused.lines
    assert line is not None
    assert spelt(refused.options[0][-1:]) in text.splitlines()[line - 1].replace('"', "'")
    assert hint in refused.detail


def test_node_has_no_keys() -> None:
    NodeConfig.parse(NODE, Path("/x"))
    refused = refusal(FUNCTIONARY, NodeConfig)
    assert (refused.reason, _names(refused), refused.lines) == (ConfigReason.UNKNOWN_OPTION, ["keys_dir"], (4,))
    assert "functionary" in refused.detail


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
def test_missing_option_is_refused_by_name_and_meaning(line: str, option: str) -> None:
    refused = refusal(changed(line, ""))
    assert (refused.reason, _names(refused)) == (ConfigReason.MISSING_OPTION, [option])
    assert f"{option}: missing: " in refused.detail


def test_all_missing_options_are_named_at_once_each_with_its_line() -> None:
    text = changed('genesis = "../genesis.json"\n', "").replace('url = "http://127.0.0.1:18443"\n', "")
    refused = refusal(text)
    assert [_names(flaw) for flaw in (refused, *refused.others)] == [["genesis"], ["l1.url"]]
    assert f"; and line {line_of(text, '[l1]')}: l1.url: missing: " in refused.detail


def test_all_unknown_options_are_named_at_once_and_before_what_they_may_be_meant_for() -> None:
    text = changed("data_dir", "data_dri").replace("cookie_file", "cookiefile")
    refused = refusal(text)
    assert refused.detail == (
        f"line {line_of(text, 'data_dri')}: data_dri: unknown option; did you mean data_dir?; and "
        f"line {line_of(text, 'cookiefile')}: l1.cookiefile: unknown option; did you mean cookie_file?"
    )


@pytest.mark.parametrize(
    ("credentials", "option"),
    [("", "l1.cookie_file"), ('user = "peg"', "l1.password_file"), ('password_file = "password"', "l1.user")],
)
def test_incomplete_l1_credentials_are_refused(credentials: str, option: str) -> None:
    refused = refusal(changed('cookie_file = "/var/lib/bitcoind/.cookie"', credentials))
    assert (refused.reason, _names(refused)) == (ConfigReason.MISSING_OPTION, [option])


@pytest.mark.parametrize(
    ("old", "new", "option", "line", "first"),
    [
        ('data_dir = "data"', 'name = "bob"', "name", 3, 1),
        ('url = "http://127.0.0.1:18443"', 'url = "http://a:1"\nurl = "http://b:2"', "l1.url", 10, 9),
        ("[rpc]", "[l1]\n[rpc]", "l1", 23, 8),
        ('name = "carol"', 'name = "carol"\nname = "dave"', "p2p.peers[1].name", 21, 20),
    ],
)
def test_option_given_twice_is_refused_with_both_lines(old: str, new: str, option: str, line: int, first: int) -> None:
    refused = refusal(changed(old, new))
    assert (refused.reason, _names(refused)) == (ConfigReason.DUPLICATE_OPTION, [option])
    assert refused.lines == (line,)
    assert f"set before on line {first}" in refused.detail


# Values


def test_values_that_make_no_sense_are_named_at_once_each_with_its_line() -> None:
    text = changed('name = "alice"', 'name = ""').replace("http://127.0.0.1:18443", "ftp://127.0.0.1:18443")
    text = text.replace('keys_dir = "keys"', 'keys_dir = "data/keys"')
    refused = refusal(text)
    found = [(flaw.reason, _names(flaw)[0]) for flaw in (refused, *refused.others)]
    assert found == [
        (ConfigReason.WRONG_VALUE, "name"),
        (ConfigReason.BAD_URL, "l1.url"),
        (ConfigReason.CONTRADICTION, "keys_dir"),
    ]
    assert f"; and line {line_of(text, 'url =')}: l1.url: not of the form http://host:port" in refused.detail


@pytest.mark.parametrize(
    ("old", "new", "names", "part"),
    [
        ("cookie_file", 'user = "peg"\ncookie_file', ["l1.user", "l1.cookie_file"], "cookie_file"),
        ("cookie_file", 'password_file = "p"\ncookie_file', ["l1.password_file", "l1.cookie_file"], "cookie_file"),
        ('keys_dir = "keys"', 'keys_dir = "../alice/data"', ["keys_dir", "data_dir"], "data_dir"),
        ('keys_dir = "keys"', 'keys_dir = "data/keys"', ["keys_dir", "data_dir"], "data_dir"),
        ('data_dir = "data"', 'data_dir = "keys/data"', ["keys_dir", "data_dir"], "data_dir"),
        ('name = "bob"', 'name = "alice"', ["p2p.peers[0].name", "name"], 'genesis = "'),
        ("127.0.0.1:8332", "127.0.0.1:9735", ["rpc.bind", "p2p.listen"], "listen"),
        ("127.0.0.1:8332", "127.0.0.1:18443", ["l1.url", "rpc.bind"], "bind"),
        ("/ip6/::1/tcp/9736", "/ip4/0.0.0.0/tcp/9735", ["p2p.peers[1].address", "p2p.listen"], "listen"),
    ],
)
def test_contradiction_is_refused_with_every_option_of_it(old: str, new: str, names: list[str], part: str) -> None:
    text = changed(old, new)
    refused = refusal(text)
    assert (refused.reason, _names(refused)) == (ConfigReason.CONTRADICTION, names)
    assert all(refused.lines)
    assert len(refused.lines) == 2


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ('name = "alice"', "name = 5", "name"),
        ('name = "alice"', 'name = ""', "name"),
        ('log_level = "debug"', 'log_level = "loud"', "log_level"),
        ('log_level = "debug"', "log_level = 3", "log_level"),
        ('data_dir = "data"', 'data_dir = ""', "data_dir"),
        ('data_dir = "data"', "data_dir = 7", "data_dir"),
        ('data_dir = "data"', "data_dir = { path = 7 }", "data_dir"),
        ('data_dir = "data"', "data_dir = [{ path = 7 }]", "data_dir"),
        ('data_dir = "data"', 'data_dir = "a\\u0000b"', "data_dir"),
        ('listen = "/ip4/0.0.0.0/tcp/9735"', "listen = 9735", "p2p.listen"),
        ('address = "/ip6/::1/tcp/9736"', "address = 9735", "p2p.peers[1].address"),
        ('bind = "127.0.0.1:8332"', "bind = 1979-05-27", "rpc.bind"),
    ],
)
def test_wrong_value_is_refused_by_name_and_line(old: str, new: str, name: str) -> None:
    text = changed(old, new)
    refused = refusal(text)
    assert (refused.reason, _names(refused)) == (ConfigReason.WRONG_VALUE, [name])
    assert refused.lines == (line_of(text, new),)


@pytest.mark.parametrize("value", ["5", "'x'", "[]", "true"])
def test_value_in_place_of_a_section_is_refused(value: str) -> None:
    refused = refusal(f"rpc = {value}\n" + changed('[rpc]\nbind = "127.0.0.1:8332"', ""))
    assert (refused.reason, _names(refused), refused.lines) == (ConfigReason.WRONG_VALUE, ["rpc"], (1,))
    assert "a section" in refused.detail


@pytest.mark.parametrize("peers", ["5", "[5]", "{ name = 5 }"])
def test_peers_that_are_no_list_of_tables_are_refused(peers: str) -> None:
    text = FUNCTIONARY[: FUNCTIONARY.index("[[p2p.peers]]")] + f"peers = {peers}\n\n[rpc]\nbind = '127.0.0.1:1'\n"
    refused = refusal(text)
    assert refused.reason is ConfigReason.WRONG_VALUE
    assert _names(refused)[0].startswith("p2p.peers")
    assert refused.lines == (line_of(text, "peers ="),)


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
    text = changed("127.0.0.1:8332", bind)
    refused = refusal(text)
    assert (refused.reason, _names(refused)) == (reason, ["rpc.bind"])
    assert refused.lines == (line_of(text, "bind ="),)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("/ip4/0.0.0.0/tcp/9735", "0.0.0.0:9735", "p2p.listen"),
        ("/ip4/0.0.0.0/tcp/9735", "/ip4/0.0.0.0/tcp/9735/p2p/16Uiu2HAm", "p2p.listen"),
        ("/ip4/0.0.0.0/tcp/9735", "/dns4/me.example/tcp/9735", "p2p.listen"),
        ("/ip4/0.0.0.0/tcp/9735", "/ip4/0.0.0.0/tcp/65536", "p2p.listen"),
        ("/ip6/::1/tcp/9736", "/ip6/nowhere/tcp/9736", "p2p.peers[1].address"),
        ("/ip6/::1/tcp/9736", "/ip6/::1/tcp/0", "p2p.peers[1].address"),
    ],
)
def test_bad_multiaddr_is_refused(old: str, new: str, name: str) -> None:
    text = changed(old, new)
    refused = refusal(text)
    assert (refused.reason, _names(refused)) == (ConfigReason.BAD_ADDRESS, [name])
    assert refused.lines == (line_of(text, new),)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:18443",
        "ftp://127.0.0.1:1",
        "http://",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:x",
        "http://[::1:8",
        "http://127.0.0.1:18443/wallet/miner",
        "http://127.0.0.1:18443?x=1",
        "http://127.0.0.1:18443#x",
    ],
)
def test_bad_l1_url_is_refused(url: str) -> None:
    refused = refusal(changed("http://127.0.0.1:18443", url))
    assert (refused.reason, _names(refused), refused.lines) == (ConfigReason.BAD_URL, ["l1.url"], (9,))


def test_l1_url_with_a_password_is_refused_without_showing_it() -> None:
    refused = refusal(changed("http://127.0.0.1:18443", "http://peg:hunter2@127.0.0.1:18443"))
    assert refused.reason is ConfigReason.BAD_URL
    assert "hunter2" not in str(refused)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ('name = "carol"', 'name = "bob"', ["p2p.peers[1].name", "p2p.peers[0].name"]),
        (
            'address = "/ip6/::1/tcp/9736"',
            'address = "/dns4/bob.example/tcp/9735"',
            ["p2p.peers[1].address", "p2p.peers[0].address"],
        ),
    ],
)
def test_peer_named_twice_is_refused_with_both_lines(old: str, new: str, names: list[str]) -> None:
    refused = refusal(changed(old, new))
    assert (refused.reason, _names(refused)) == (ConfigReason.DUPLICATE_PEER, names)
    first, second = refused.lines
    assert first is not None
    assert second is not None
    assert first > second


# Whole files


@pytest.mark.parametrize("text", ["name = ", "a = " + "1" * 5_000, "a = " + "[" * 50_000, "[l1", "a = 'x\ny'"])
def test_what_is_no_toml_is_refused(text: str) -> None:
    assert refusal(text).reason is ConfigReason.NOT_TOML


@given(text=st.text(max_size=80))
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    assert isinstance(refusal(text).reason, ConfigReason)


@given(data=st.data())
def test_any_damage_is_refused_with_a_reason_or_read(data: st.DataObject) -> None:
    """Cuts and repetitions of a good file, which hit every rule more often than random text does."""
    lines = FUNCTIONARY.split("\n")
    picked = data.draw(st.lists(st.sampled_from(lines), max_size=30))
    with suppress(ConfigRefused):  # anything else is a defect
        FunctionaryConfig.parse("\n".join(picked), Path("/x"))


def test_files_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    for name, reason in (
        ("latin.toml", FileReason.NOT_UTF8),
        ("large.toml", FileReason.TOO_LARGE),
        ("absent.toml", FileReason.ABSENT),
    ):
        with pytest.raises(FileRefused) as caught:
            NodeConfig.load(tmp_path / name)
        assert caught.value.reason is reason
