"""What tests of deposits share: kinds of L1 transactions that pay deposit addresses, and what became of them."""

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from pegnode.rpc.deposit_states import DepositInfo
from tests.support.members import Member, MemoryFederation

ALL = (0, 1, 2, 3)
DEPOSIT_SATS = 1_000_000
NEEDED = 6
"""Confirmations of a deposit."""


def coinbase_deposit(federation: MemoryFederation, claim_script: Script, value_sats: int) -> OutPoint:
    """An L1 block whose coinbase pays a deposit address."""
    null = OutPoint(Txid(bytes(32)), 0xFFFFFFFF)
    output = TxOut(value_sats, federation.deposit_script(claim_script))
    coinbase = Transaction(1, (TxIn(null, b"\x04abcd"),), (output,))
    federation.l1.chain.mine_exactly(coinbase)
    return coinbase.outpoint(0)


def entered(member: Member, *outpoints: OutPoint) -> bool:
    """Whether a member's final ledger has taken in these outputs."""
    return all(outpoint in member.store.ledger.entered for outpoint in outpoints)


async def only_deposit(member: Member, claim_script: Script) -> DepositInfo:
    """The one deposit to an address, as a member reports it."""
    [info] = await member.live.deposits((claim_script,))
    return info
