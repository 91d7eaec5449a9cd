"""A rendered configuration explains every option that exists, and is read back as what it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pegnode.config import FunctionaryConfig, L1Config, NodeConfig, P2pConfig, PeerConfig, RpcConfig
from pegnode.options.reading import description, element_type, is_section, required_type
from pegnode.options.rendering import MAX_LINE, render
from tests.support.configs import DIRECTORY, FUNCTIONARY, NODE


def _options(section: type[msgspec.Struct]) -> Iterator[msgspec.structs.FieldInfo]:
    """Every option of a configuration, those of its sections among them."""
    for field in msgspec.structs.fields(section):
        yield field
        kind = required_type(field.type)
        for inner in (kind, element_type(kind)):
            if is_section(inner):
                yield from _options(inner)


def _rendered(kind: type[NodeConfig], peers: bool = True) -> str:
    text = FUNCTIONARY if kind is FunctionaryConfig else NODE
    if not peers:
        text = text[: text.index("[[p2p.peers]]")] + text[text.index("[rpc]") :]
    return render(kind.parse(text, DIRECTORY), DIRECTORY)


@pytest.mark.parametrize("peers", [True, False])
@pytest.mark.parametrize("kind", [FunctionaryConfig, NodeConfig])
def test_every_option_is_in_the_file_under_its_meaning(kind: type[NodeConfig], peers: bool) -> None:
    lines = _rendered(kind, peers).splitlines()
    for field in _options(kind):
        meant = [number for number, line in enumerate(lines) if line.startswith(f"# {description(field)}")]
        assert len(meant) == 1, field.name
        shown = lines[meant[0] + 1].removeprefix("# ")
        assert shown.startswith((f"{field.name} = ", f"[{field.name}]", f"[[p2p.{field.name}]]")), shown


@pytest.mark.parametrize("kind", [FunctionaryConfig, NodeConfig])
def test_every_meaning_is_one_line_and_names_the_default(kind: type[NodeConfig]) -> None:
    lines = _rendered(kind).splitlines()
    assert max(map(len, lines)) <= MAX_LINE
    for field in _options(kind):
        [line] = [line for line in lines if line.startswith(f"# {description(field)}")]
        assert ("(default: " in line) is not (field.required or field.name in ("peers", "signer")), line


def test_option_without_a_meaning_is_not_rendered() -> None:
    class Undocumented(NodeConfig, frozen=True, kw_only=True):
        """A new option, and nobody said what it does."""

        surprise: str = "x"

    config = Undocumented.parse(NODE, DIRECTORY)
    with pytest.raises(TypeError, match="surprise has no description"):
        render(config, DIRECTORY)


def test_optional_option_without_an_example_is_not_rendered() -> None:
    class Unshown(NodeConfig, frozen=True, kw_only=True):
        """Explained, and nobody said what it looks like."""

        surprise: Annotated[str | None, msgspec.Meta(description="A surprise")] = None

    with pytest.raises(TypeError, match="surprise has no example"):
        render(Unshown.parse(NODE, DIRECTORY), DIRECTORY)


def test_examples_within_comments_are_valid_once_uncommented() -> None:
    """Without peers, without a passphrase file: each shown example is put to use."""
    text = FUNCTIONARY[: FUNCTIONARY.index("[[p2p.peers]]")] + FUNCTIONARY[FUNCTIONARY.index("[rpc]") :]
    text = text.replace('passphrase_file = "/run/secrets/peg"\n', "")
    rendered = render(FunctionaryConfig.parse(text, DIRECTORY), DIRECTORY)
    for example in ('passphrase_file = "', "[[p2p.peers]]", 'name = "bob"', 'address = "'):
        assert f"\n# {example}" in rendered
        rendered = rendered.replace(f"\n# {example}", f"\n{example}")
    config = FunctionaryConfig.parse(rendered, DIRECTORY)
    assert config.passphrase_file is not None
    assert config.p2p.peers == (PeerConfig(name="bob", address="/ip4/203.0.113.7/tcp/9735"),)


def test_login_examples_are_valid_once_uncommented() -> None:
    rendered = _rendered(NodeConfig)
    rendered = rendered.replace("\ncookie_file =", "\n# cookie_file =")
    rendered = rendered.replace("\n# user =", "\nuser =").replace("\n# password_file =", "\npassword_file =")
    assert NodeConfig.parse(rendered, DIRECTORY).l1 == L1Config(
        url="http://127.0.0.1:18443", user="pegnode", password_file=DIRECTORY / "l1-password"
    )


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
