"""Addresses of both chains; Bech32's published vectors are in tests/vectors."""

from itertools import product

import pytest
from bitcoin.base58 import CBase58Data
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin import bech32
from bridge.bitcoin.addresses import (
    NETWORKS,
    AddressReason,
    Network,
    decode_address,
    encode_address,
    l1_network,
    sidechain_network,
)
from bridge.bitcoin.hashes import sha256
from bridge.errors import Rejected

HASH20, HASH32 = st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32)
SCRIPTS = st.one_of(
    HASH20.map(lambda value: b"\x76\xa9\x14" + value + b"\x88\xac"),
    HASH20.map(lambda value: b"\xa9\x14" + value + b"\x87"),
    HASH20.map(lambda value: b"\x00\x14" + value),
    HASH32.map(lambda value: b"\x00\x20" + value),
    HASH32.map(lambda value: b"\x51\x20" + value),
)
NAMES = ("main", "test", "signet", "regtest")
MAIN, REGTEST = l1_network("main"), l1_network("regtest")
PEG, PEG_REGTEST = sidechain_network("main"), sidechain_network("regtest")
P2WPKH = b"\x00\x14" + bytes(range(20))
P2PKH = b"\x76\xa9\x14" + bytes(range(20)) + b"\x88\xac"


def _reason(text: str, network: Network) -> AddressReason:
    with pytest.raises(Rejected) as rejection:
        decode_address(text, network)
    assert isinstance(rejection.value.reason, AddressReason)
    return rejection.value.reason


@given(SCRIPTS, st.sampled_from(NETWORKS))
def test_address_round_trips(script: bytes, network: Network) -> None:
    address = encode_address(script, network)
    assert decode_address(address, network) == script
    if address.startswith(network.hrp + "1"):
        assert decode_address(address.upper(), network) == script


@given(SCRIPTS, st.sampled_from(list(product(NAMES, NAMES))))
def test_address_of_one_chain_is_refused_on_the_other_by_name(script: bytes, names: tuple[str, str]) -> None:
    l1, sidechain = l1_network(names[0]), sidechain_network(names[1])
    for here, there in ((l1, sidechain), (sidechain, l1)):
        with pytest.raises(Rejected) as rejection:
            decode_address(encode_address(script, there), here)
        assert rejection.value.reason is AddressReason.WRONG_NETWORK
        assert there.title in rejection.value.detail
        assert here.title in rejection.value.detail


@given(SCRIPTS, st.sampled_from(NETWORKS), st.data())
def test_address_is_refused_with_one_wrong_character(script: bytes, network: Network, data: st.DataObject) -> None:
    address = encode_address(script, network)
    is_bech32 = address.startswith(network.hrp + "1")
    start = len(network.hrp) + 1 if is_bech32 else 0
    place = data.draw(st.integers(start, len(address) - 1))
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l" if is_bech32 else "123456789ABCDEFGHJKLMNPQRSTUVWXYZ"
    wrong = data.draw(st.sampled_from(alphabet).filter(lambda character: character != address[place]))
    assert _reason(address[:place] + wrong + address[place + 1 :], network) in (
        AddressReason.CHECKSUM,
        AddressReason.MALFORMED,  # in base 58 the first character can change the length
    )


@given(st.text(max_size=100), st.sampled_from(NETWORKS))
def test_any_text_is_refused_with_a_reason_or_reads_back(text: str, network: Network) -> None:
    try:
        script = decode_address(text, network)
    except Rejected:
        return
    assert encode_address(script, network) in (text, text.lower())


@pytest.mark.parametrize(
    ("text", "script_hex"),
    [
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac"),
        ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "a914b472a266d0bd89c13706a4132ccfb16f7c3b9fcb87"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    ],
)
def test_well_known_address_is_read(text: str, script_hex: str) -> None:
    assert decode_address(text, MAIN).hex() == script_hex


@pytest.mark.parametrize("network", [PEG, PEG_REGTEST])
def test_sidechain_address_shows_its_chain(network: Network) -> None:
    assert encode_address(P2WPKH, network).startswith(("peg1q", "pegrt1q"))
    assert encode_address(P2PKH, network)[0] in "PT"
    assert encode_address(b"\xa9\x14" + bytes(20) + b"\x87", network)[0] in "pt"


def test_sidechain_networks_share_no_prefix_with_any_of_bitcoin() -> None:
    l1, sidechain = NETWORKS[:4], NETWORKS[4:]
    for one, other in product(l1, sidechain):
        assert one.hrp != other.hrp
        assert not {one.p2pkh_version, one.p2sh_version} & {other.p2pkh_version, other.p2sh_version}


def test_checksum_is_refused_when_wrong() -> None:
    assert _reason("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", MAIN) is AddressReason.CHECKSUM
    assert _reason("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3", MAIN) is AddressReason.CHECKSUM


@pytest.mark.parametrize("text", ["", "1", "bc1", "0OIl", "not an address", "bc1q" + "q" * 100, "é" * 20, "bc1q\n"])
def test_text_is_refused_when_malformed(text: str) -> None:
    assert _reason(text, MAIN) in (AddressReason.MALFORMED, AddressReason.CHECKSUM)


@pytest.mark.parametrize("size", [0, 19, 21])
def test_base58_is_refused_with_another_size(size: int) -> None:
    text = str(CBase58Data.from_bytes(bytes(size), 0))
    assert _reason(text, MAIN) is AddressReason.MALFORMED


def test_base58_is_read_when_it_begins_like_bech32() -> None:
    scripts = (b"\x76\xa9\x14" + sha256(b"%d" % number)[:20] + b"\x88\xac" for number in range(100_000))
    script = next(script for script in scripts if encode_address(script, PEG_REGTEST).startswith("TB1"))
    address = encode_address(script, PEG_REGTEST)
    assert decode_address(address, PEG_REGTEST) == script
    assert _reason(address, MAIN) is AddressReason.WRONG_NETWORK


def test_address_of_an_unknown_chain_is_refused() -> None:
    unknown = Network("other", "xyz", 30, 31, "another chain")
    for script in (P2WPKH, P2PKH):
        with pytest.raises(Rejected, match="a chain unknown here") as rejection:
            decode_address(encode_address(script, unknown), REGTEST)
        assert rejection.value.reason is AddressReason.WRONG_NETWORK


@pytest.mark.parametrize("version", [1, 2, 16])
def test_unused_witness_version_is_refused(version: int) -> None:
    text = bech32.encode("bcrt", [version, *bech32.to_symbols(bytes(2))], bech32.BECH32M)
    assert _reason(text, REGTEST) is AddressReason.UNSUPPORTED_TYPE


@pytest.mark.parametrize("script", [b"", b"\x6a", b"\x51", b"\x52\x20" + bytes(32), b"\x51\x02\x4e\x73"])
def test_script_without_an_address_is_refused(script: bytes) -> None:
    with pytest.raises(Rejected) as rejection:
        encode_address(script, MAIN)
    assert rejection.value.reason is AddressReason.UNSUPPORTED_TYPE


@pytest.mark.parametrize("choose", [l1_network, sidechain_network])
def test_network_is_refused_when_unknown(choose: object) -> None:
    assert callable(choose)
    with pytest.raises(Rejected) as rejection:
        choose("moon")
    assert rejection.value.reason is AddressReason.UNKNOWN_NETWORK
