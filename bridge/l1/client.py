"""The questions this program asks its own Bitcoin node, version 25 or newer.

Hashes go in and come out as raw bytes in internal order; reversed hex exists only within this module. Money is exact
satoshis, feerates are satoshis per 1000 virtual bytes. Every method raises L1Unavailable when the node gives no usable
answer, and L1RpcError when it refuses the request; a block or transaction that it doesn't know is None or False where
the method's type says so.
"""

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid, hash_to_hex
from bridge.l1.answers import (
    ChainInfo,
    DescriptorInfo,
    L1Header,
    L1TxOut,
    MempoolVerdict,
    NetworkInfo,
    TxOutSetScan,
)
from bridge.l1.connection import L1Connection
from bridge.l1.credentials import Credentials
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable, RpcCode
from bridge.l1.jsonrpc import Call
from bridge.l1.reply import Reply

DEFAULT_TIMEOUT_S: Final = 15.0
SCAN_TIMEOUT_S: Final = 1800.0
"""A scan reads the whole set of unspent outputs: minutes on the main chain."""
SCAN_MAX_BYTES: Final = 512_000_000
"""Some 450 for each output found. Dust at a reserve script must not make a scan fail, for a recovery begins with one:
a million outputs cost some 4 BTC in dust and fees, the 70,000 that an ordinary answer has room for cost 0.3."""
MAX_HEIGHT: Final = 2**31 - 1
"""The node keeps heights in signed 32 bits."""
_BATCH_CALLS: Final = 500
"""Calls in one request: of outputs and headers, some 400 bytes each in the answer."""
_SPENT_AT_ONCE: Final = 100_000
"""Outputs in one question, some 100 bytes each: the node takes 32 MB."""


class L1Client:
    """One Bitcoin node. Usable by several tasks at once; an async context manager, or call `aclose`."""

    def __init__(self, url: str, auth: Credentials, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Prepare; nothing is sent. url: http://host:port. Raises L1Unavailable(BAD_URL)."""
        self.connection = L1Connection(url, auth, timeout_s)

    async def aclose(self) -> None:
        """Give the connections back."""
        await self.connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # The chain

    async def chain_info(self) -> ChainInfo:
        """Which chain, how far, and whether the node is still catching up."""
        return ChainInfo.parse(await self._ask("getblockchaininfo"))

    async def network_info(self) -> NetworkInfo:
        """Return version and relay policy."""
        return NetworkInfo.parse(await self._ask("getnetworkinfo"))

    async def tip(self) -> tuple[int, BlockHash]:
        """Return height and hash of the active chain's tip, of one moment."""
        info = await self.chain_info()
        return info.blocks, info.best_block_hash

    async def block_hash(self, height: int) -> BlockHash | None:
        """Return the active chain's block at `height`; None above the tip."""
        if height > MAX_HEIGHT:
            return None  # the node would call this an error, and a peer may have made the number up
        reply = await self._ask_or_none(RpcCode.INVALID_PARAMETER, "getblockhash", height)
        return None if reply is None else reply.block_hash()

    async def block_header(self, block_hash: BlockHash) -> L1Header | None:
        """Return the header of any block that the node has a header of; None otherwise."""
        reply = await self._ask_or_none(RpcCode.NOT_FOUND, "getblockheader", hash_to_hex(block_hash), True)
        return None if reply is None else L1Header.parse(reply)

    async def block_headers(self, block_hashes: Sequence[BlockHash]) -> list[L1Header | None]:
        """Return what `block_header` does, for many blocks."""
        calls = [Call("getblockheader", (hash_to_hex(block_hash), True)) for block_hash in block_hashes]
        replies = await self._ask_all(calls, RpcCode.NOT_FOUND)
        return [None if reply is None else L1Header.parse(reply) for reply in replies]

    async def block(self, block_hash: BlockHash) -> bytes:
        """Return a block as the network serializes it; L1RpcError(NOT_FOUND) for one that the node doesn't know."""
        return (await self._ask("getblock", hash_to_hex(block_hash), 0)).data()

    # Outputs

    async def txout(self, outpoint: OutPoint, include_mempool: bool) -> L1TxOut | None:
        """Return an unspent output of the active chain; None when it is spent or unknown.

        include_mempool: whether a spend in the mempool counts as spent, and an output there as existing.
        """
        [found] = await self.txouts([outpoint], include_mempool)
        return found

    async def txouts(self, outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        """Return what `txout` does, for many outputs. The tip may move in between: see `best_block_hash` of each."""
        calls = [
            Call("gettxout", (hash_to_hex(outpoint.txid), outpoint.vout, include_mempool)) for outpoint in outpoints
        ]
        replies = await self._ask_all(calls)
        return [None if reply is None or reply.is_null else L1TxOut.parse(reply) for reply in replies]

    async def tx_out_proof(self, txids: Sequence[Txid], block_hash: BlockHash | None = None) -> bytes:
        """Return a merkleblock that proves these transactions, all in one block. Source: BIP37.

        block_hash: where to look; without it the node needs its transaction index, or an unspent output.
        Raises L1RpcError(NOT_FOUND) when not all of them are there.
        """
        where = () if block_hash is None else (hash_to_hex(block_hash),)
        return (await self._ask("gettxoutproof", [hash_to_hex(txid) for txid in txids], *where)).data()

    async def scan_txoutset(self, descriptors: Sequence[str], timeout_s: float = SCAN_TIMEOUT_S) -> TxOutSetScan:
        """Return every unspent output of the active chain that matches one of the descriptors.

        Raises L1RpcError(INVALID_PARAMETER) while another scan runs: the node makes one at a time. One that takes too
        long is ended, or it would be in everybody's way.
        """
        parameters = ("start", list(descriptors))
        try:
            call = Call("scantxoutset", parameters)
            result = await self.connection.call(call, timeout_s=timeout_s, max_response_bytes=SCAN_MAX_BYTES)
        except L1Unavailable as outage:
            if outage.reason is L1Reason.TIMEOUT:
                with suppress(L1Unavailable):
                    await self._ask("scantxoutset", "abort")
            raise
        return TxOutSetScan.parse(Reply(result, "scantxoutset"))

    # Transactions

    async def raw_transaction(self, txid: Txid, block_hash: BlockHash | None = None) -> bytes | None:
        """Return a transaction with its witness, from the mempool or the chain; None when it isn't found.

        block_hash: where to look; without it a confirmed one is found through the transaction index alone.
        """
        where = () if block_hash is None else (hash_to_hex(block_hash),)
        reply = await self._ask_or_none(RpcCode.NOT_FOUND, "getrawtransaction", hash_to_hex(txid), False, *where)
        return None if reply is None else reply.data()

    async def raw_transactions(self, txids: Sequence[Txid]) -> list[bytes | None]:
        """Return what `raw_transaction` does of transactions in the mempool, with few enough for one answer."""
        calls = [Call("getrawtransaction", (hash_to_hex(txid), False)) for txid in txids]
        replies = await self._ask_all(calls, RpcCode.NOT_FOUND)
        return [None if reply is None else reply.data() for reply in replies]

    async def has_transaction_index(self) -> bool:
        """Whether the node finds confirmed transactions by their id alone: it has `txindex`, and it is complete."""
        found = await self._ask("getindexinfo", "txindex")
        return "txindex" in found and found["txindex"]["synced"].flag()

    async def transaction_block(self, txid: Txid) -> BlockHash | None:
        """Return the block of the active chain that holds a transaction, through the node's transaction index."""
        reply = await self._ask_or_none(RpcCode.NOT_FOUND, "getrawtransaction", hash_to_hex(txid), True)
        if reply is None or "blockhash" not in reply or reply["confirmations"].integer() < 1:
            return None
        return reply["blockhash"].block_hash()

    async def send_raw_transaction(self, transaction: bytes) -> Txid:
        """Give a transaction to the mempool and the network; again is no error while it is in the mempool.

        Raises L1RpcError: MALFORMED, VERIFY_ERROR, VERIFY_REJECTED, ALREADY_IN_CHAIN.
        """
        return (await self._ask("sendrawtransaction", transaction.hex())).txid()

    async def test_mempool_accept(self, transaction: bytes) -> MempoolVerdict:
        """Whether the mempool would take a transaction, which isn't sent."""
        return MempoolVerdict.parse((await self._ask("testmempoolaccept", [transaction.hex()])).only())

    async def estimate_feerate(self, target_blocks: int) -> int | None:
        """Return the feerate in sat/kvB to confirm within `target_blocks`; None while the node knows too little."""
        reply = await self._ask("estimatesmartfee", target_blocks)
        return reply["feerate"].sats() if "feerate" in reply else None

    # The mempool

    async def mempool_txids(self) -> frozenset[Txid]:
        """Return the id of every transaction in the mempool."""
        return frozenset(reply.txid() for reply in (await self._ask("getrawmempool")).items())

    async def mempool_contains(self, txid: Txid) -> bool:
        """Whether a transaction waits in the mempool."""
        return await self._ask_or_none(RpcCode.NOT_FOUND, "getmempoolentry", hash_to_hex(txid)) is not None

    async def mempool_spender(self, outpoint: OutPoint) -> Txid | None:
        """Return the transaction in the mempool that spends an output; None when none does."""
        [spender] = await self.mempool_spenders([outpoint])
        return spender

    async def mempool_spenders(self, outpoints: Sequence[OutPoint]) -> list[Txid | None]:
        """Return what `mempool_spender` does, for many outputs, up to 100,000 of them at one moment."""
        found: dict[OutPoint, Txid] = {}
        for start in range(0, len(outpoints), _SPENT_AT_ONCE):
            some = outpoints[start : start + _SPENT_AT_ONCE]
            asked = [{"txid": hash_to_hex(outpoint.txid), "vout": outpoint.vout} for outpoint in some]
            for reply in (await self._ask("gettxspendingprevout", asked)).items():
                if "spendingtxid" in reply:
                    outpoint = OutPoint(reply["txid"].txid(), reply["vout"].integer())
                    found[outpoint] = reply["spendingtxid"].txid()
        return [found.get(outpoint) for outpoint in outpoints]

    # Descriptors

    async def descriptor_info(self, descriptor: str) -> DescriptorInfo:
        """Return the node's reading of a descriptor; L1RpcError(NOT_FOUND) for one that it can't read."""
        return DescriptorInfo.parse(await self._ask("getdescriptorinfo", descriptor))

    async def derive_addresses(self, descriptor: str) -> tuple[str, ...]:
        """Return the addresses of a descriptor without a range. Its checksum is added where it has none."""
        if "#" not in descriptor:
            descriptor = f"{descriptor}#{(await self.descriptor_info(descriptor)).checksum}"
        return tuple(address.text() for address in (await self._ask("deriveaddresses", descriptor)).items())

    # Asking

    async def _ask(self, method: str, *parameters: object) -> Reply:
        return Reply(await self.connection.call(Call(method, parameters)), method)

    async def _ask_or_none(self, absent: RpcCode, method: str, *parameters: object) -> Reply | None:
        try:
            return await self._ask(method, *parameters)
        except L1RpcError as error:
            if error.code != absent:
                raise
            return None

    async def _ask_all(self, calls: Sequence[Call], absent: RpcCode | None = None) -> list[Reply | None]:
        replies: list[Reply | None] = []
        for start in range(0, len(calls), _BATCH_CALLS):
            chunk = calls[start : start + _BATCH_CALLS]
            for call, outcome in zip(chunk, await self.connection.batch(chunk), strict=True):
                if isinstance(outcome, L1RpcError) and outcome.code != absent:
                    raise outcome
                replies.append(None if isinstance(outcome, L1RpcError) else Reply(outcome, call.method))
        return replies
