"""Bech32m, and addresses of witness programs. Source: BIP350."""

import json
from pathlib import Path

import pytest

from bridge.bitcoin import bech32
from bridge.bitcoin.addresses import AddressReason, decode_address, encode_address, l1_network
from bridge.bitcoin.script import classify
from bridge.errors import MalformedError, Rejected

VECTORS = json.loads((Path(__file__).parent / "data" / "bip350.json").read_text(encoding="ascii"))


@pytest.mark.parametrize("text", VECTORS["validBech32m"])
def test_bech32m_reads_and_writes_a_valid_string(text: str) -> None:
    hrp, symbols, remainder = bech32.decode(text)
    assert remainder == bech32.BECH32M
    assert bech32.encode(hrp, symbols, bech32.BECH32M) == text.lower()


@pytest.mark.parametrize(("text", "why"), VECTORS["invalidBech32m"])
def test_bech32m_refuses_an_invalid_string(text: str, why: str) -> None:
    try:
        _, _, remainder = bech32.decode(text)
    except MalformedError:
        return
    assert remainder != bech32.BECH32M, why


@pytest.mark.parametrize(("text", "script_hex"), VECTORS["validAddresses"])
def test_address_reads_a_witness_program(text: str, script_hex: str) -> None:
    network = l1_network("main" if text.lower().startswith("bc") else "test")
    script = bytes.fromhex(script_hex)
    if classify(script) is None:
        with pytest.raises(Rejected) as rejection:
            decode_address(text, network)
        assert rejection.value.reason is AddressReason.UNSUPPORTED_TYPE
    else:
        assert decode_address(text, network) == script
        assert encode_address(script, network) == text.lower()


@pytest.mark.parametrize(("text", "network", "reason"), VECTORS["invalidAddresses"])
def test_address_refuses_an_invalid_one(text: str, network: str, reason: str) -> None:
    with pytest.raises(Rejected) as rejection:
        decode_address(text, l1_network(network))
    assert rejection.value.reason == AddressReason(reason)
