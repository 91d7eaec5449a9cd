"""What clients write, as values: each function names the argument it refuses, with bitcoind's number for it."""

from bridge.bitcoin.addresses import AddressReason, Network, decode_address
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_from_hex, outpoint_from_text
from bridge.bitcoin.transaction import Transaction
from bridge.errors import MalformedError, Rejected
from pegnode.rpc.errors import RpcCode, RpcError


def hash_argument(name: str, text: str) -> bytes:
    """32 bytes, written reversed in hex; raises RpcError (INVALID_PARAMETER)."""
    try:
        return hash_from_hex(text)
    except MalformedError as error:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"{name}: {error}") from error


def txid_argument(name: str, text: str) -> Txid:
    """A txid; raises RpcError (INVALID_PARAMETER)."""
    return Txid(hash_argument(name, text))


def block_hash_argument(name: str, text: str) -> BlockHash:
    """A block hash; raises RpcError (INVALID_PARAMETER)."""
    return BlockHash(hash_argument(name, text))


def outpoint_argument(name: str, text: str) -> OutPoint:
    """An outpoint, written txid:vout; raises RpcError (INVALID_PARAMETER)."""
    try:
        return outpoint_from_text(text)
    except MalformedError as error:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"{name}: {error}") from error


def index_argument(name: str, value: int) -> int:
    """An output's index, u32; raises RpcError (INVALID_PARAMETER)."""
    if not 0 <= value <= 0xFFFFFFFF:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"{name}: {value} is no output's index")
    return value


def count_argument(name: str, value: int, limit: int) -> int:
    """How many entries to return, from 1 to `limit`; raises RpcError (INVALID_PARAMETER)."""
    if not 1 <= value <= limit:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"{name}: from 1 to {limit}, not {value}")
    return value


def bytes_argument(name: str, text: str) -> bytes:
    """Bytes in hex; raises RpcError (DESERIALIZATION_ERROR)."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise RpcError(RpcCode.DESERIALIZATION_ERROR, f"{name}: not hexadecimal") from error


def transaction_argument(name: str, text: str) -> Transaction:
    """A transaction in hex; raises RpcError (DESERIALIZATION_ERROR)."""
    try:
        return Transaction.parse(bytes_argument(name, text))
    except Rejected as error:
        data = {"reason": error.reason.value}
        raise RpcError(RpcCode.DESERIALIZATION_ERROR, f"{name}: TX decode failed. {error}", data) from error


def address_argument(name: str, text: str, network: Network) -> Script:
    """The script of an address of `network`; raises RpcError (INVALID_ADDRESS_OR_KEY), naming a foreign network."""
    try:
        return decode_address(text, network)
    except Rejected as error:
        data = {"reason": error.reason.value}
        message = error.detail if error.reason is AddressReason.WRONG_NETWORK else str(error)
        raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, f"{name}: {message}", data) from error
