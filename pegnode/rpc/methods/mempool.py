"""Methods about waiting transactions, named as bitcoind names them."""

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.errors import Rejected
from pegnode.chain.transactions import TransactionRule
from pegnode.errors import Refusal
from pegnode.mempool.pool import WaitingTransaction
from pegnode.rpc.arguments import transaction_argument
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi
from pegnode.rpc.render import Json, btc, each
from pegnode.service.slices import to_the_end

MAX_TESTED_TRANSACTIONS = 25


async def sendrawtransaction(node: NodeApi, hexstring: str) -> str:
    """Put a transaction into the mempool and relay it. Returns its txid; one that already waits is accepted again."""
    transaction = transaction_argument("hexstring", hexstring)
    if node.store.index.place(transaction.txid) is not None:
        raise RpcError(RpcCode.ALREADY_IN_CHAIN, "Transaction outputs already in utxo set")
    try:
        return hash_to_hex(await node.submit_transaction(transaction.serialize()))
    except (Rejected, Refusal) as error:
        if error.reason is TransactionRule.MISSING_INPUT:
            raise RpcError(RpcCode.VERIFY_ERROR, str(error), {"reason": error.reason.value}) from error
        raise


async def testmempoolaccept(node: NodeApi, rawtxs: list[str]) -> list[Json]:
    """Whether the mempool would take each transaction, judged on its own and not sent."""
    if not 1 <= len(rawtxs) <= MAX_TESTED_TRANSACTIONS:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"Array must contain between 1 and {MAX_TESTED_TRANSACTIONS}")
    return await to_the_end(each(rawtxs, lambda text: _tested(node, text)))


async def getrawmempool(node: NodeApi, verbose: bool = False) -> list[str] | dict[str, Json]:
    """The txids of all that waits, or with verbose their entries by txid."""
    entries = node.mempool.entries()
    if not verbose:
        return [hash_to_hex(entry.transaction.txid) for entry in entries]
    return dict(await to_the_end(each(entries, _named_entry)))


async def getmempoolinfo(node: NodeApi) -> Json:
    """How much waits, and what the mempool takes."""
    entries, limits, usage = node.mempool.entries(), node.pool_limits, node.mempool.size_bytes
    vsizes = await to_the_end(each(entries, lambda entry: entry.transaction.vsize_vbytes))
    return {
        "loaded": True,
        "size": len(entries),
        "bytes": sum(vsizes),
        "usage": usage,
        "total_fee": btc(sum(entry.fee_sats for entry in entries)),
        "maxmempool": limits.max_bytes,
        "mempoolminfee": btc(limits.min_feerate_sat_kvb),
        "minrelaytxfee": btc(limits.min_feerate_sat_kvb),
        "unbroadcastcount": 0,
    }


def _tested(node: NodeApi, text: str) -> Json:
    transaction = transaction_argument("rawtxs", text)
    names: Json = {"txid": hash_to_hex(transaction.txid), "wtxid": hash_to_hex(transaction.wtxid)}
    try:
        verdict = node.try_transaction(transaction.serialize())
    except (Rejected, Refusal) as error:
        return names | {"allowed": False, "reject-reason": error.reason.value, "reject-details": error.detail}
    return names | {"allowed": True, "vsize": verdict.vsize_vbytes, "fees": {"base": btc(verdict.fee_sats)}}


def _named_entry(entry: WaitingTransaction) -> tuple[str, Json]:
    return hash_to_hex(entry.transaction.txid), {
        "vsize": entry.transaction.vsize_vbytes,
        "weight": entry.transaction.weight,
        "time": entry.arrived_ms // 1000,
        "wtxid": hash_to_hex(entry.transaction.wtxid),
        "fees": {"base": btc(entry.fee_sats)},
    }


MEMPOOL_METHODS: tuple[Handler, ...] = (sendrawtransaction, testmempoolaccept, getrawmempool, getmempoolinfo)
