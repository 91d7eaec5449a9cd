"""How values look at the edge: reversed hex, addresses, and bitcoin amounts as exact JSON numbers.

Fields whose name ends in `_sats` are integers of satoshis. Fields that bitcoind gives in bitcoin keep its names and its
form, a JSON number with eight decimals; it is written as text, digit for digit, so no float is ever involved.

A transaction may have thousands of inputs and outputs, each of which takes a while: it is rendered in steps, between
which others may have their turn.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import msgspec

from bridge.bitcoin.addresses import Network, encode_address
from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.identifiers import OutPoint, Script, hash_to_hex
from bridge.bitcoin.script import ScriptType, classify
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.deposits import CLAIM_FLAG, REFUND_FLAG
from bridge.state import Anchor
from pegnode.chain.header import Header
from pegnode.chain.state import TransactionKind
from pegnode.chain.transactions import OP_RETURN
from pegnode.halts import LatchedFinding, finding_name, remedy, subject_text
from pegnode.rpc.results import AnchorReply, HaltReply

_SCRIPT_TYPE_NAMES = {
    ScriptType.P2PKH: "pubkeyhash",
    ScriptType.P2SH: "scripthash",
    ScriptType.P2WPKH: "witness_v0_keyhash",
    ScriptType.P2WSH: "witness_v0_scripthash",
    ScriptType.P2TR: "witness_v1_taproot",
}
"""Source: Bitcoin Core, script/solver.cpp."""

_ESPLORA_TYPE_NAMES = {
    ScriptType.P2PKH: "p2pkh",
    ScriptType.P2SH: "p2sh",
    ScriptType.P2WPKH: "v0_p2wpkh",
    ScriptType.P2WSH: "v0_p2wsh",
    ScriptType.P2TR: "v1_p2tr",
}

Json = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


def each(items: Iterable[T], render: Callable[[T], R]) -> Generator[None, None, list[R]]:
    """All items rendered, one in a step."""
    rendered = []
    for item in items:
        rendered.append(render(item))
        yield
    return rendered


def encoded(steps: Generator[None, None, Json]) -> Generator[None, None, msgspec.Raw]:
    """What steps lead to as finished JSON: a list of many such takes little memory, and is encoded in no time."""
    rendered = yield from steps
    return msgspec.Raw(msgspec.json.encode(rendered))


def btc(value_sats: int) -> msgspec.Raw:
    """An amount as a JSON number of bitcoin."""
    return msgspec.Raw(format_btc(value_sats).encode("ascii"))


def outpoint_text(outpoint: OutPoint | None) -> str | None:
    """`txid:vout`, or None."""
    return None if outpoint is None else str(outpoint)


def anchor_reply(anchor: Anchor) -> AnchorReply:
    """A block of L1."""
    return AnchorReply(anchor.height, hash_to_hex(anchor.hash))


def halt_reply(latched: LatchedFinding) -> HaltReply:
    """Why a node is halted."""
    finding = latched.finding
    return HaltReply(
        kind=finding_name(finding.kind),
        subject=subject_text(finding),
        detail=latched.detail,
        since_ms=latched.since_ms,
        remedy=remedy(finding.kind),
    )


def address_text(script: Script, network: Network) -> str | None:
    """The address of a script; None for a script that has none."""
    return None if classify(script) is None else encode_address(script, network)


def script_json(script: Script, network: Network) -> Json:
    """`scriptPubKey` in bitcoind's form, without `asm` and `desc`."""
    kind = classify(script)
    if kind is not None:
        name = _SCRIPT_TYPE_NAMES[kind]
        return {"hex": script.hex(), "address": encode_address(script, network), "type": name}
    return {"hex": script.hex(), "type": "nulldata" if script[:1] == bytes([OP_RETURN]) else "nonstandard"}


def esplora_script_json(script: Script, network: Network) -> Json:
    """A script in Esplora's form, without its `asm`."""
    kind = classify(script)
    if kind is None:
        name = "op_return" if script[:1] == bytes([OP_RETURN]) else "unknown"
        return {"scriptpubkey": script.hex(), "scriptpubkey_type": name}
    return {
        "scriptpubkey": script.hex(),
        "scriptpubkey_type": _ESPLORA_TYPE_NAMES[kind],
        "scriptpubkey_address": encode_address(script, network),
    }


def transaction_json(
    transaction: Transaction, network: Network, kind: TransactionKind, spent: Sequence[TxOut | None] = ()
) -> Generator[None, None, Json]:
    """A decoded transaction in bitcoind's form, in steps, without the block it stands in.

    The input of a claim or a refund spends no output of this chain: it names the deposit or the burn instead.
    spent: what each input spends, to be shown with it.
    """
    inputs = zip_longest(transaction.inputs, spent)
    rendered: Json = {"txid": hash_to_hex(transaction.txid)}
    yield
    rendered |= {
        "hash": hash_to_hex(transaction.wtxid),
        "version": transaction.version,
        "size": len(transaction.serialize()),
        "vsize": transaction.vsize_vbytes,
        "weight": transaction.weight,
        "locktime": transaction.locktime,
        "kind": kind.value,
        "hex": transaction.serialize().hex(),
    }
    rendered["vin"] = yield from each(inputs, lambda pair: _input_json(*pair, kind, network))
    rendered["vout"] = yield from each(enumerate(transaction.outputs), lambda item: _output_json(*item, network))
    return rendered


def _input_json(item: TxIn, spent: TxOut | None, kind: TransactionKind, network: Network) -> Json:
    rendered: Json = {"txid": hash_to_hex(item.outpoint.txid), "vout": item.outpoint.vout}
    if kind is TransactionKind.CLAIM:
        rendered["claims_deposit"] = str(OutPoint(item.outpoint.txid, item.outpoint.vout ^ CLAIM_FLAG))
    elif kind is TransactionKind.REFUND:
        rendered["refunds_burn"] = str(OutPoint(item.outpoint.txid, item.outpoint.vout ^ REFUND_FLAG))
    rendered["scriptSig"] = {"hex": item.script_sig.hex()}
    if item.witness:
        rendered["txinwitness"] = [element.hex() for element in item.witness]
    rendered["sequence"] = item.sequence
    if spent is not None:
        rendered["prevout"] = {"value": btc(spent.value_sats), "scriptPubKey": script_json(spent.script, network)}
    return rendered


def _output_json(index: int, output: TxOut, network: Network) -> Json:
    return {"value": btc(output.value_sats), "n": index, "scriptPubKey": script_json(output.script, network)}


def header_json(header: Header, tip_height: int) -> Json:
    """A block header: bitcoind's fields where they make sense here, and this chain's own.

    Block hashes are reversed hex, as Bitcoin shows hashes; roots and the chain id are plain hex.
    """
    return {
        "hash": hash_to_hex(header.hash),
        "confirmations": tip_height - header.height + 1,
        "height": header.height,
        "version": header.version,
        "time": header.time_seconds,
        "mediantime": header.time_seconds,
        "time_ms": header.time_ms,
        "previousblockhash": hash_to_hex(header.parent),
        "epoch": header.epoch,
        "view": header.view,
        "leader": header.leader,
        "anchor": {"height": header.anchor.height, "hash": hash_to_hex(header.anchor.hash)},
        "body_root": header.body_root.hex(),
        "ledger_root": header.ledger_root.hex(),
    }
