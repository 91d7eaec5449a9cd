"""A member's configuration and a full node's, as files have them, and ways to spoil them."""

from pathlib import Path

import pytest

from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.options.errors import ConfigRefused

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
KEYS = 'keys_dir = "keys"\npassphrase_file = "/run/secrets/peg"\n'
NODE = FUNCTIONARY.replace(KEYS, "").replace('name = "alice"', 'name = "watcher"', 1)
DIRECTORY = Path("/federation/alice")


def changed(old: str, new: str, text: str = FUNCTIONARY) -> str:
    """The text with one place of it changed."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def refusal(text: str, kind: type[NodeConfig] = FunctionaryConfig) -> ConfigRefused:
    """Why this text is no configuration of that kind."""
    with pytest.raises(ConfigRefused) as caught:
        kind.parse(text, DIRECTORY)
    return caught.value


def line_of(text: str, part: str) -> int:
    """The line, from 1, on which the only occurrence of `part` begins."""
    assert text.count(part) == 1, part
    return text[: text.index(part)].count("\n") + 1


def own_keys(config: FunctionaryConfig) -> Path:
    """Where the keys of a member lie that holds them itself."""
    assert config.keys_dir is not None
    return config.keys_dir
