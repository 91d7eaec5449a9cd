"""Addresses of both chains. An address of one is refused on the other by name, so that nobody pays the wrong one."""

from dataclasses import dataclass

from bitcoin.base58 import Base58ChecksumError, CBase58Data, InvalidBase58Error

from bridge.bitcoin import bech32
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptType, classify, witness_program
from bridge.errors import MalformedError, Reason, Rejected

_HASH160_SIZE = 20
_MAX_BASE58_LENGTH = 35


class AddressReason(Reason):
    """Why a text is not an address here, or a script has none."""

    MALFORMED = "address-malformed"  # Neither bech32 nor base58.
    CHECKSUM = "address-checksum"  # A character is wrong: the checksum does not fit.
    WRONG_NETWORK = "address-wrong-network"  # An address of another chain, whose name is given.
    UNSUPPORTED_TYPE = "address-unsupported-type"  # No address of one of the five types.
    UNKNOWN_NETWORK = "address-unknown-network"  # No network has this name.


@dataclass(frozen=True, slots=True)
class Network:
    """How one chain writes addresses. hrp: of Bech32; versions: the first byte in base 58; title: for people."""

    name: str
    hrp: str
    p2pkh_version: int
    p2sh_version: int
    title: str


# Source: Bitcoin Core, kernel/chainparams.cpp.
_L1_NETWORKS = (
    Network("main", "bc", 0, 5, "Bitcoin"),
    Network("test", "tb", 111, 196, "Bitcoin testnet"),
    Network("signet", "tb", 111, 196, "Bitcoin signet"),
    Network("regtest", "bcrt", 111, 196, "Bitcoin regtest"),
)
# Ours. In base 58, addresses begin with P and p on main, with T and t on the others.
_SIDECHAIN_NETWORKS = (
    Network("main", "peg", 55, 117, "the Pegnode sidechain of Bitcoin"),
    Network("test", "tpeg", 65, 127, "the Pegnode sidechain of Bitcoin testnet"),
    Network("signet", "tpeg", 65, 127, "the Pegnode sidechain of Bitcoin signet"),
    Network("regtest", "pegrt", 65, 127, "the Pegnode sidechain of Bitcoin regtest"),
)
NETWORKS = _L1_NETWORKS + _SIDECHAIN_NETWORKS


def l1_network(name: str) -> Network:
    """The Bitcoin network of that name, as bitcoind names it; raises Rejected(AddressReason.UNKNOWN_NETWORK)."""
    return _named(name, _L1_NETWORKS)


def sidechain_network(l1_name: str) -> Network:
    """The sidechain's network on the Bitcoin network of that name; raises Rejected(AddressReason.UNKNOWN_NETWORK)."""
    return _named(l1_name, _SIDECHAIN_NETWORKS)


def encode_address(script: bytes, network: Network) -> str:
    """The address of an output script of the five types; raises Rejected(AddressReason.UNSUPPORTED_TYPE)."""
    match classify(script):
        case ScriptType.P2PKH:
            return str(CBase58Data.from_bytes(script[3:23], network.p2pkh_version))
        case ScriptType.P2SH:
            return str(CBase58Data.from_bytes(script[2:22], network.p2sh_version))
    program = witness_program(script)
    if classify(script) is None or program is None:
        raise Rejected(AddressReason.UNSUPPORTED_TYPE, f"no address stands for the script {script.hex()}")
    version, data = program
    constant = bech32.BECH32M if version else bech32.BECH32
    return bech32.encode(network.hrp, [version, *bech32.to_symbols(data)], constant)


def decode_address(text: str, network: Network) -> Script:
    """The output script of an address.

    Raises Rejected(AddressReason): MALFORMED, CHECKSUM, WRONG_NETWORK (the detail names the other chain), or
    UNSUPPORTED_TYPE for a witness version or size that is not in use.
    """
    if len(text) > _MAX_BASE58_LENGTH:
        return _decode_bech32(text, network)
    try:
        return _decode_base58(text, network)
    except Rejected as rejected:
        is_bech32 = any(text.lower().startswith(known.hrp + "1") for known in NETWORKS)
        if rejected.reason is AddressReason.WRONG_NETWORK or not is_bech32:
            raise
    # Shorter than any address in use, yet not in base 58: why it is refused is Bech32's to say.
    return _decode_bech32(text, network)


def _decode_bech32(text: str, network: Network) -> Script:
    try:
        hrp, symbols, remainder = bech32.decode(text)
        if remainder not in (bech32.BECH32, bech32.BECH32M):
            raise Rejected(AddressReason.CHECKSUM, "a character is wrong or missing")
        version, program = symbols[0], bech32.from_symbols(symbols[1:])
    except (MalformedError, IndexError) as error:
        raise Rejected(AddressReason.MALFORMED, str(error)) from error
    if remainder != (bech32.BECH32M if version else bech32.BECH32):
        raise Rejected(AddressReason.CHECKSUM, f"the checksum is not the one of witness version {version}")
    if hrp != network.hrp:
        raise _wrong_network(network, [known for known in NETWORKS if known.hrp == hrp])
    script = Script(bytes([version + 0x50 if version else 0, len(program)]) + program)
    if version > 16 or not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        raise Rejected(AddressReason.MALFORMED, f"no witness program of version {version} has {len(program)} bytes")
    if classify(script) is None:
        raise Rejected(AddressReason.UNSUPPORTED_TYPE, f"witness version {version} with {len(program)} bytes")
    return script


def _decode_base58(text: str, network: Network) -> Script:
    try:
        data = CBase58Data(text)
    except Base58ChecksumError as error:
        raise Rejected(AddressReason.CHECKSUM, "a character is wrong or missing") from error
    except (InvalidBase58Error, IndexError) as error:
        raise Rejected(AddressReason.MALFORMED, "neither Bech32 nor base 58") from error
    if len(data) != _HASH160_SIZE:
        raise Rejected(AddressReason.MALFORMED, f"{len(data)} bytes in base 58")
    if data.nVersion == network.p2pkh_version:
        return Script(b"\x76\xa9\x14" + bytes(data) + b"\x88\xac")
    if data.nVersion == network.p2sh_version:
        return Script(b"\xa9\x14" + bytes(data) + b"\x87")
    others = [known for known in NETWORKS if data.nVersion in (known.p2pkh_version, known.p2sh_version)]
    raise _wrong_network(network, others)


def _wrong_network(network: Network, others: list[Network]) -> Rejected:
    whose = " or ".join(other.title for other in others) or "a chain unknown here"
    return Rejected(AddressReason.WRONG_NETWORK, f"an address of {whose}, not of {network.title}")


def _named(name: str, networks: tuple[Network, ...]) -> Network:
    for network in networks:
        if network.name == name:
            return network
    raise Rejected(AddressReason.UNKNOWN_NETWORK, name)
