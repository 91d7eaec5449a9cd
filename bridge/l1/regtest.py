"""What only a private chain allows: mining on demand, coins from nothing, and reorganisations at will."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Self

from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.identifiers import BlockHash, Txid, hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.jsonrpc import Call
from bridge.l1.reply import Reply

COINBASE_MATURITY = 100
MINING_TIMEOUT_S = 120.0


class AddressType(StrEnum):
    """Which kind of address the wallet hands out, in bitcoind's words."""

    P2PKH = "legacy"
    P2SH = "p2sh-segwit"
    P2WPKH = "bech32"
    P2TR = "bech32m"


class RegtestMiner:
    """A wallet of a regtest node that mines to itself and pays. Errors are those of the client."""

    def __init__(self, client: L1Client, wallet: str, mining_address: str) -> None:
        """Use a loaded wallet and one of its addresses; `create` and `open` are the ways to both."""
        self._client = client
        self._path = f"/wallet/{wallet}"
        self.mining_address = mining_address

    @classmethod
    async def create(cls, client: L1Client, wallet: str = "miner") -> Self:
        """Create a wallet, which the node then loads at each of its starts."""
        call = Call("createwallet", (wallet, False, False, "", False, True, True))
        await client.connection.call(call, timeout_s=MINING_TIMEOUT_S)
        return await cls.open(client, wallet)

    @classmethod
    async def open(cls, client: L1Client, wallet: str = "miner") -> Self:
        """Use a wallet that `create` once made."""
        miner = cls(client, wallet, "")
        miner.mining_address = await miner.new_address()
        return miner

    async def new_address(self, kind: AddressType = AddressType.P2WPKH) -> str:
        """Return a fresh address of the wallet."""
        return (await self._ask("getnewaddress", "", kind.value)).text()

    async def balance_sats(self) -> int:
        """Return what the wallet can spend at once."""
        return (await self._ask("getbalance")).sats()

    async def generate(self, blocks: int, address: str | None = None) -> list[BlockHash]:
        """Mine blocks that hold what the mempool does; return their hashes, oldest first."""
        reply = await self._ask("generatetoaddress", blocks, address or self.mining_address)
        return [block.block_hash() for block in reply.items()]

    async def generate_block(self, transactions: Sequence[Txid | bytes] = ()) -> BlockHash:
        """Mine one block that holds exactly these, each a txid (32 bytes, in the mempool) or a whole transaction."""
        named = [hash_to_hex(item) if len(item) == 32 else item.hex() for item in transactions]
        reply = await self._ask("generateblock", self.mining_address, named)
        return reply["hash"].block_hash()

    async def send_to_address(self, address: str, value_sats: int) -> Txid:
        """Pay from the wallet; the transaction waits in the mempool."""
        return (await self._ask("sendtoaddress", address, format_btc(value_sats))).txid()

    async def send_many(self, payments: Mapping[str, int]) -> Txid:
        """Pay satoshis to several addresses in one transaction."""
        amounts = {address: format_btc(value_sats) for address, value_sats in payments.items()}
        return (await self._ask("sendmany", "", amounts)).txid()

    async def invalidate_block(self, block_hash: BlockHash) -> None:
        """Take a block and what follows it off the active chain; their transactions return to the mempool."""
        await self._ask("invalidateblock", hash_to_hex(block_hash))

    async def reconsider_block(self, block_hash: BlockHash) -> None:
        """Undo `invalidate_block`."""
        await self._ask("reconsiderblock", hash_to_hex(block_hash))

    async def _ask(self, method: str, *parameters: object) -> Reply:
        call = Call(method, parameters)
        result = await self._client.connection.call(call, timeout_s=MINING_TIMEOUT_S, path=self._path)
        return Reply(result, method)
