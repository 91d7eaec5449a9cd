"""What the demonstration does on Bitcoin itself: a miner's wallet, and addresses of the five kinds to withdraw to."""

from bridge.bitcoin.addresses import l1_network
from bridge.bitcoin.script import ScriptType
from bridge.l1.client import L1Client
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import AddressType, RegtestMiner
from bridge.l1.reply import Reply

NETWORK = l1_network("regtest")
WALLET = "miner"
SPENDABLE_BLOCKS = 101
"""The first coinbase can be spent when a hundred blocks follow it."""

_WALLET_KINDS = {
    ScriptType.P2PKH: AddressType.P2PKH,
    ScriptType.P2SH: AddressType.P2SH,
    ScriptType.P2WPKH: AddressType.P2WPKH,
    ScriptType.P2TR: AddressType.P2TR,
}


async def funded_miner(client: L1Client) -> RegtestMiner:
    """A new wallet on the Bitcoin node, with coins to spend."""
    miner = await RegtestMiner.create(client, WALLET)
    await miner.generate(SPENDABLE_BLOCKS)
    return miner


async def fresh_address(client: L1Client, miner: RegtestMiner, kind: ScriptType) -> str:
    """An address of that kind, whose key the miner's wallet keeps.

    The wallet hands out all kinds but P2WSH: for that, a key of the wallet goes into a script of its own.
    """
    if kind in _WALLET_KINDS:
        return await miner.new_address(_WALLET_KINDS[kind])
    key_hex = await _public_key_hex(client, await miner.new_address())
    return (await client.derive_addresses(f"wsh(multi(1,{key_hex}))"))[0]


async def _public_key_hex(client: L1Client, address: str) -> str:
    reply = await client.connection.call(Call("getaddressinfo", (address,)), path=f"/wallet/{WALLET}")
    return Reply(reply, "getaddressinfo")["pubkey"].text()
