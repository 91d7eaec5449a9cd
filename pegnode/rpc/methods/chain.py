"""Methods about the final chain, named as bitcoind names them."""

from collections.abc import Generator
from typing import Any

import msgspec

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_to_hex
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.rpc.arguments import block_hash_argument, index_argument, txid_argument
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.lookup import FoundTransaction, find_bytes, find_transaction, found_final
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi
from pegnode.rpc.render import Json, btc, each, encoded, header_json, script_json, transaction_json
from pegnode.service.slices import to_the_end


async def getblockchaininfo(node: NodeApi) -> Json:
    """The state of the chain as this node has it."""
    header, status = node.store.tip.header, node.status()
    best_known = max(status.best_known_height, header.height)
    return {
        "chain": f"pegnode-{node.network.name}",
        "blocks": header.height,
        "headers": best_known,
        "bestblockhash": hash_to_hex(header.hash),
        "difficulty": 0,
        "time": header.time_seconds,
        "mediantime": header.time_seconds,
        "verificationprogress": (header.height + 1) / (best_known + 1),
        "initialblockdownload": status.syncing,
        "chainwork": bytes(32).hex(),
        "size_on_disk": node.store.size_on_disk_bytes(),
        "pruned": False,
        "warnings": list(status.halt_findings),
        "chain_id": node.rules.chain_id.hex(),
        "anchor": {"height": header.anchor.height, "hash": hash_to_hex(header.anchor.hash)},
    }


async def getblockcount(node: NodeApi) -> int:
    """The height of the newest final block."""
    return node.store.tip.header.height


async def getbestblockhash(node: NodeApi) -> str:
    """The hash of the newest final block."""
    return hash_to_hex(node.store.tip.hash)


async def getblockhash(node: NodeApi, height: int) -> str:
    """The hash of the block at a height."""
    header = node.store.header_at(height) if 0 <= height <= node.store.tip.header.height else None
    if header is None:
        raise RpcError(RpcCode.INVALID_PARAMETER, "Block height out of range")
    return hash_to_hex(header.hash)


async def getblockheader(node: NodeApi, blockhash: str, verbose: bool = True) -> Json | str:
    """A block's header: its fields, or with verbose false its bytes in hex."""
    height, data = _block(node, block_hash_argument("blockhash", blockhash))
    if not verbose:
        return data[:HEADER_SIZE].hex()
    return _header_json(node, height, data)


async def getblock(node: NodeApi, blockhash: str, verbosity: int | bool = 1) -> Json | str:
    """A block: 0 its bytes in hex, 1 its header and txids, 2 its header and decoded transactions.

    Derived transactions (claims, then refunds) stand before the ordinary ones; claims are not in the block's bytes.
    """
    height, data = _block(node, block_hash_argument("blockhash", blockhash))
    if int(verbosity) == 0:
        return data.hex()
    rendered = _header_json(node, height, data)
    if int(verbosity) == 1:
        transactions: list[Any] = await to_the_end(each(node.store.index.txids_at(height), hash_to_hex))
    else:
        transactions = await to_the_end(_transactions_json(node, height))
    return rendered | {"size": len(data), "nTx": len(transactions), "tx": transactions}


async def getrawtransaction(
    node: NodeApi, txid: str, verbosity: int | bool = 0, blockhash: str | None = None
) -> Json | str:
    """A final or waiting transaction: 0 its bytes in hex, 1 decoded, 2 also with the outputs it spends and its fee.

    With a blockhash, only if it stands in that block.
    """
    wanted = txid_argument("txid", txid)
    if blockhash is not None:
        height, _ = _block(node, block_hash_argument("blockhash", blockhash))
        place = node.store.index.place(wanted)
        if place is None or place.height != height:
            raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "No such transaction")
    if int(verbosity) > 0:
        return await to_the_end(_named_json(node, wanted, with_spent=int(verbosity) > 1))
    data = find_bytes(node, wanted)
    if data is None:
        raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "No such transaction")
    return data.hex()


async def gettxout(node: NodeApi, txid: str, n: int, include_mempool: bool = True) -> Json | None:
    """An unspent output, or null when it is spent or never was. With include_mempool, waiting transactions count."""
    outpoint = OutPoint(txid_argument("txid", txid), index_argument("n", n))
    tip = node.store.tip.header
    utxo = node.store.utxos.get(outpoint)
    if include_mempool:
        if node.mempool.spender(outpoint) is not None:
            return None
        waiting = node.mempool.get(outpoint.txid)
        if utxo is None and waiting is not None and outpoint.vout < len(waiting.transaction.outputs):
            output = waiting.transaction.outputs[outpoint.vout]
            return _output_json(node, output.value_sats, output.script, 0)
    return None if utxo is None else _output_json(node, utxo.value_sats, utxo.script, tip.height - utxo.height + 1)


def _output_json(node: NodeApi, value_sats: int, script: Script, confirmations: int) -> Json:
    return {
        "bestblock": hash_to_hex(node.store.tip.hash),
        "confirmations": confirmations,
        "value": btc(value_sats),
        "scriptPubKey": script_json(script, node.network),
        "coinbase": False,
    }


def _block(node: NodeApi, block_hash: BlockHash) -> tuple[int, bytes]:
    """The height and the bytes of a final block; raises RpcError."""
    height = node.store.height_of(block_hash)
    data = None if height is None else node.store.block_at(height)
    if height is None or data is None:
        raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "Block not found")
    return height, data


def _header_json(node: NodeApi, height: int, data: bytes) -> Json:
    rendered = header_json(Header.decode(data[:HEADER_SIZE]), node.store.tip.header.height)
    following = node.store.header_at(height + 1)
    if following is not None:
        rendered["nextblockhash"] = hash_to_hex(following.hash)
    certificate = node.store.certificate_at(height)
    rendered["certificate"] = None if certificate is None else certificate.hex()
    return rendered


def _transactions_json(node: NodeApi, height: int) -> Generator[None, None, list[msgspec.Raw]]:
    """The transactions of a block."""
    rendered, tip_height = [], node.store.tip.header.height
    for final in node.store.index.transactions_at(height):
        shown = yield from encoded(_found_json(node, found_final(final), tip_height))
        rendered.append(shown)
    return rendered


def _named_json(node: NodeApi, txid: Txid, *, with_spent: bool) -> Generator[None, None, Json]:
    """The transaction of this txid; raises RpcError."""
    found = find_transaction(node, txid)
    if found is None:
        raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "No such transaction")
    return (yield from _found_json(node, found, node.store.tip.header.height, with_spent=with_spent))


def _found_json(
    node: NodeApi, found: FoundTransaction, tip_height: int, *, with_spent: bool = False
) -> Generator[None, None, Json]:
    yield
    shown = found.spent if with_spent else ()
    rendered = yield from transaction_json(found.transaction, node.network, found.kind, shown)
    if with_spent:
        rendered["fee"] = btc(found.fee_sats)
    if found.place is not None:
        header = node.store.header_at(found.place.height)
        if header is not None:
            rendered["blockhash"] = hash_to_hex(header.hash)
            rendered["blocktime"] = rendered["time"] = header.time_seconds
        rendered["confirmations"] = tip_height - found.place.height + 1
    return rendered


CHAIN_METHODS: tuple[Handler, ...] = (
    getblockchaininfo, getblockcount, getbestblockhash, getblockhash, getblockheader, getblock, getrawtransaction,
    gettxout,
)  # fmt: skip
