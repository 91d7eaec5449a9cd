"""The configuration of a signer, and of a member whose keys a signer holds."""

import msgspec
import pytest

from pegnode.config import FunctionaryConfig, NodeConfig, SignerConfig, SignerLink
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.options.rendering import render
from tests.support.configs import DIRECTORY, FUNCTIONARY, KEYS, NODE, changed, refusal

LINK = '\n[signer]\nsocket = "../signer/run/signer.sock"\n'
LINKED = changed(KEYS, "") + LINK
SIGNER = """\
name = "alice"
genesis = "../alice/genesis.json"
data_dir = "data"
keys_dir = "../alice/keys"
socket = "run/signer.sock"

[l1]
url = "http://127.0.0.1:18443"
cookie_file = "/var/lib/bitcoind/.cookie"
"""


def test_member_with_a_signer_needs_no_keys() -> None:
    config = FunctionaryConfig.parse(LINKED, DIRECTORY)
    assert config.signer == SignerLink(socket=DIRECTORY.parent / "signer" / "run" / "signer.sock")
    assert (config.keys_dir, config.passphrase_file) == (None, None)


def test_member_with_a_signer_refuses_keys_of_its_own() -> None:
    refused = refusal(FUNCTIONARY + LINK)
    assert refused.reason is ConfigReason.CONTRADICTION
    assert refused.options == (("keys_dir",), ("passphrase_file",), ("signer", "socket"))
    assert refusal(changed('keys_dir = "keys"\n', "") + LINK).options == (("passphrase_file",), ("signer", "socket"))


def test_member_without_keys_and_without_a_signer_is_refused() -> None:
    refused = refusal(changed(KEYS, ""))
    assert (refused.reason, refused.options) == (ConfigReason.MISSING_OPTION, (("keys_dir",),))


@pytest.mark.parametrize(
    ("old", "new", "reason", "option"),
    [
        ("socket =", "sokcet =", ConfigReason.UNKNOWN_OPTION, ("signer", "sokcet")),
        ('socket = "../signer/run/signer.sock"', "", ConfigReason.MISSING_OPTION, ("signer", "socket")),
        ('"../signer/run/signer.sock"', "7", ConfigReason.WRONG_VALUE, ("signer", "socket")),
    ],
)
def test_section_of_the_signer_is_read_strictly(
    old: str, new: str, reason: ConfigReason, option: tuple[str, ...]
) -> None:
    refused = refusal(changed(old, new, LINKED))
    assert (refused.reason, refused.options) == (reason, (option,))


def test_full_node_has_no_signer() -> None:
    refused = refusal(NODE + LINK, NodeConfig)
    assert (refused.reason, refused.options) == (ConfigReason.UNKNOWN_OPTION, (("signer",),))


def test_signer_configuration_is_read_and_rendered() -> None:
    config = SignerConfig.parse(SIGNER, DIRECTORY)
    assert config.socket == DIRECTORY / "run" / "signer.sock"
    assert SignerConfig.parse(render(config, DIRECTORY), DIRECTORY) == config
    assert "peg signer run --config FILE" in render(config, DIRECTORY)


def test_member_with_a_signer_is_rendered_and_read_back() -> None:
    config = FunctionaryConfig.parse(LINKED, DIRECTORY)
    rendered = render(config, DIRECTORY)
    assert "\n[signer]\n" in rendered
    assert FunctionaryConfig.parse(rendered, DIRECTORY) == config
    plain = render(msgspec.structs.replace(config, signer=None, keys_dir=DIRECTORY / "keys"), DIRECTORY)
    assert "\n# [signer]\n" in plain


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('data_dir = "data"', 'data_dir = "../alice/keys/data"', ConfigReason.CONTRADICTION),
        ('socket = "run/signer.sock"\n', "", ConfigReason.MISSING_OPTION),
        ('keys_dir = "../alice/keys"\n', "", ConfigReason.MISSING_OPTION),
        ("[l1]", "rpc = 1\n[l1]", ConfigReason.UNKNOWN_OPTION),
        ('name = "alice"', 'name = ""', ConfigReason.WRONG_VALUE),
        ("http://127.0.0.1:18443", "nowhere", ConfigReason.BAD_URL),
    ],
)
def test_signer_configuration_is_refused(old: str, new: str, reason: ConfigReason) -> None:
    with pytest.raises(ConfigRefused) as caught:
        SignerConfig.parse(changed(old, new, SIGNER), DIRECTORY)
    assert caught.value.reason is reason
