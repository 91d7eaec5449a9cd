"""Core's key_io_valid.json and key_io_invalid.json: addresses. The private keys among them are no addresses."""

from typing import Any

import pytest

from bridge.bitcoin.addresses import AddressReason, decode_address, encode_address, l1_network
from bridge.bitcoin.script import classify
from bridge.errors import Rejected
from tests.vectors.bitcoin_core import load_cases

NETWORKS = {"main": "main", "testnet4": "test", "signet": "signet", "regtest": "regtest"}
"""Core's names of chains, and ours of those that write addresses so: every testnet writes them alike."""
KEYS = [case for case in load_cases("key_io_valid.json", 3) if case[2]["isPrivkey"]]
VALID = [case for case in load_cases("key_io_valid.json", 3) if not case[2]["isPrivkey"]]
INVALID = [case[0] for case in load_cases("key_io_invalid.json", 1)]


def test_no_case_got_lost() -> None:
    assert (len(VALID), len(KEYS), len(INVALID)) == (54, 16, 70)
    assert {case[2]["chain"] for case in VALID} == NETWORKS.keys()


@pytest.mark.parametrize(("text", "script_hex", "about"), VALID)
def test_address_stands_for_the_published_script(text: str, script_hex: str, about: dict[str, Any]) -> None:
    network = l1_network(NETWORKS[about["chain"]])
    script = bytes.fromhex(script_hex)
    if classify(script) is None:
        with pytest.raises(Rejected) as rejection:
            decode_address(text, network)
        assert rejection.value.reason is AddressReason.UNSUPPORTED_TYPE
        return
    assert decode_address(text, network) == script
    assert encode_address(script, network) in (text, text.lower())


@pytest.mark.parametrize("text", [*INVALID, *(case[0] for case in KEYS)])
@pytest.mark.parametrize("name", NETWORKS.values())
def test_other_text_is_refused_everywhere(text: str, name: str) -> None:
    with pytest.raises(Rejected) as rejection:
        decode_address(text, l1_network(name))
    assert rejection.value.reason in AddressReason
