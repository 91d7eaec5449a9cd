"""Templates: what all must agree on is complete, and people can compare it."""

import msgspec
import pytest

from bridge.state import Anchor
from pegnode.errors import ReasonedError
from pegnode.genesis_rules import GenesisReason, GenesisRefused
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.template import Agreed, AgreedTemplate, completed, parameters_of
from tests.support.cards import ANCHOR, CONFIGS, PARAMETERS, TIME_MS, agreed, member_card, template, template_text


def _refused(text: str) -> ReasonedError:
    with pytest.raises(ReasonedError) as caught:
        AgreedTemplate.parse(text)
    return caught.value


@pytest.mark.parametrize("name", ["local", "federation-15"])
def test_completed_template_says_what_was_agreed(name: str) -> None:
    parameters = (CONFIGS / f"{name}.toml").read_text()
    text = completed(parameters, agreed(), {agreed().recovery_keys_hex[0]: "vault-1"})
    read = AgreedTemplate.parse(text)
    assert read.agreed == agreed()
    assert read.parameters == parameters_of(parameters) == parameters_of(text)
    assert (read.agreed.anchor, read.agreed.time_ms) == (ANCHOR, TIME_MS)
    assert text.startswith(parameters)
    assert "# vault-1" in text


def test_fingerprint_is_of_values_alone() -> None:
    text = template_text()
    keys = "\n".join(f'    "{key}",' for key in agreed().recovery_keys_hex)
    turned = "\n".join(f'    "{key}",' for key in reversed(agreed().recovery_keys_hex))
    laid_out = "# a comment\r\n" + text.replace("\n", "\r\n").replace(
        "confirmations = 6", "confirmations   =   6 # six"
    )
    assert template(laid_out).digest == template().digest
    assert keys in text
    assert template(text.replace(keys, turned)).digest == template().digest
    assert template().fingerprint.replace(" ", "") == template().digest.hex()[:32]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("confirmations = 6", "confirmations = 7"),
        ("max_inputs = 4_000", "max_inputs = 4_001"),
        ("heartbeat_ms = 10_000", "heartbeat_ms = 10_001"),
        (f"time_ms = {TIME_MS}", f"time_ms = {TIME_MS + 1}"),
        ("anchor_height = 101", "anchor_height = 102"),
        ('anchor_hash_hex = "07', 'anchor_hash_hex = "08'),
    ],
)
def test_fingerprint_commits_to_every_value(old: str, new: str) -> None:
    assert template_text().count(old) == 1
    assert template(template_text().replace(old, new)).digest != template().digest


def test_template_without_an_agreed_section_is_refused() -> None:
    refused = _refused(PARAMETERS)
    assert refused.reason is SetupReason.TEMPLATE_INCOMPLETE
    assert "peg federation template" in refused.detail


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"time_ms = {TIME_MS}", ""),
        (f"time_ms = {TIME_MS}", "time_ms = -1"),
        (f"time_ms = {TIME_MS}", f'time_ms = "{TIME_MS}"'),
        ("anchor_height = 101", ""),
        ("anchor_height = 101", "anchor_height = 101.0"),
        ("anchor_height = 101", "anchor_height = 101\nmore = 1"),
        ('anchor_hash_hex = "0707', 'anchor_hash_hex = "07'),
        ('anchor_hash_hex = "' + "07" * 32, 'anchor_hash_hex = "' + "00" * 32),
        ("[agreed]", "[[agreed]]"),
    ],
)
def test_template_with_an_incomplete_agreement_is_refused(old: str, new: str) -> None:
    assert template_text().count(old) == 1
    assert _refused(template_text().replace(old, new)).reason is SetupReason.TEMPLATE_INCOMPLETE


@pytest.mark.parametrize("text", ["[peg", "a = " + "[" * 100_000, "\x00"])
def test_text_that_is_no_toml_is_refused(text: str) -> None:
    assert _refused(text).reason is GenesisReason.MALFORMED


def test_refusal_names_the_file_and_the_line() -> None:
    text = template_text().replace("recovery_quorum = 2", "recovery_quorum = 4")
    line = text[: text.index("recovery_quorum")].count("\n") + 1
    with pytest.raises(GenesisRefused, match=rf"template\.toml:{line}: peg\.recovery_quorum: "):
        AgreedTemplate.parse(text, "template.toml")
    parameters = PARAMETERS.replace("member_count = 4", "member_count = 40")
    with pytest.raises(GenesisRefused, match=r"p\.toml:7: member_count: 40; "):
        parameters_of(parameters, "p.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("member_count = 4", ""),
        ("member_count = 4", "member_count = 0"),
        ("member_count = 4", "member_count = 1000"),
        ("recovery_quorum = 2", "recovery_quorum = 4"),
        ("confirmations = 6", "confirmations = 0"),
        ('network = "regtest"', 'network = "moon"'),
        ("max_peg_sats =", "most_peg_sats ="),
    ],
)
def test_parameters_that_no_federation_can_have_are_refused_before_anybody_gets_them(old: str, new: str) -> None:
    assert PARAMETERS.count(old) == 1
    with pytest.raises(GenesisRefused):
        completed(PARAMETERS.replace(old, new), agreed())
    assert isinstance(_refused(template_text().replace(old, new)), GenesisRefused)


def test_completed_template_is_not_completed_again() -> None:
    with pytest.raises(SetupRefused) as caught:
        completed(template_text(), agreed())
    assert caught.value.reason is SetupReason.TEMPLATE_COMPLETE


def test_recovery_key_named_twice_is_refused() -> None:
    first, second, _ = agreed().recovery_keys_hex
    refused = _refused(template_text().replace(second, first))
    assert refused.reason is SetupReason.RECOVERY_KEY_SHARED


def test_recovery_key_that_is_no_key_is_refused() -> None:
    refused = _refused(template_text().replace(agreed().recovery_keys_hex[0], "ff" * 32))
    assert refused.reason is SetupReason.RECOVERY_KEY_UNKNOWN


def test_recovery_keys_have_one_order() -> None:
    keys = [bytes.fromhex(key) for key in agreed().recovery_keys_hex]
    assert Agreed.of(ANCHOR, keys[::-1], TIME_MS) == agreed()
    genesis = template().compose([member_card(name).section for name in ("a", "b", "c", "d")])
    assert genesis.recovery_keys_hex == tuple(sorted(genesis.recovery_keys_hex))


def test_agreement_is_of_values_and_not_of_the_machine() -> None:
    moved = msgspec.structs.replace(agreed(), time_ms=TIME_MS + 1)
    assert completed(PARAMETERS, moved) != completed(PARAMETERS, agreed())
    assert moved.anchor == Anchor(101, ANCHOR.hash)
