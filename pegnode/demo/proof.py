"""That the payouts were made, proven from the Bitcoin node's own view, against which the sidechain is checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.bitcoin.addresses import decode_address
from bridge.bitcoin.identifiers import OutPoint, Script, Txid, hash_to_hex, outpoint_from_text
from bridge.bitcoin.script import ScriptType, classify
from bridge.bitcoin.transaction import Transaction
from bridge.l1.client import L1Client
from pegnode.demo.bitcoin import NETWORK
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.rpc.results import WithdrawalReply

SIGNATURE_SIZE = 64


@dataclass(frozen=True, slots=True)
class Burned:
    """What a user burned, and for which address: the demonstration's own record. kind: of the address."""

    user: str
    kind: ScriptType
    l1_address: str
    amount_sats: int
    max_fee_sats: int
    burn: OutPoint

    @property
    def l1_script(self) -> Script:
        """The script that must be paid."""
        return decode_address(self.l1_address, NETWORK)


@dataclass(frozen=True, slots=True)
class PayoutOnL1:
    """The transaction that paid, as the Bitcoin node has it. signatures: in each input's witness, the fewest."""

    transaction: Transaction
    fee_sats: int
    confirmations: int
    """0 while it waits in the mempool."""
    signatures: int


@dataclass(frozen=True, slots=True)
class Proven:
    """A payout that is as it must be. fee_share_sats: what the burn paid of the transaction's fee."""

    burned: Burned
    outpoint: OutPoint
    paid_sats: int
    fee_share_sats: int
    confirmations: int


async def payout_on_l1(client: L1Client, txid: Txid) -> PayoutOnL1 | None:
    """A payout, in a block or in the mempool; None when the Bitcoin node does not know it."""
    data = await client.raw_transaction(txid)
    if data is None:
        return None
    transaction = Transaction.parse(data)
    spent_sats = 0
    for item in transaction.inputs:
        previous = await client.raw_transaction(item.outpoint.txid)
        _require(previous is not None, f"the Bitcoin node does not know what {item.outpoint} was")
        spent_sats += Transaction.parse(previous or b"").outputs[item.outpoint.vout].value_sats
    block = await client.transaction_block(txid)
    header = None if block is None else await client.block_header(block)
    return PayoutOnL1(
        transaction=transaction,
        fee_sats=spent_sats - sum(output.value_sats for output in transaction.outputs),
        confirmations=0 if header is None else header.confirmations,
        signatures=min(sum(len(part) == SIGNATURE_SIZE for part in item.witness) for item in transaction.inputs),
    )


async def prove_payouts(
    client: L1Client,
    payout: PayoutOnL1,
    burns: Sequence[Burned],
    withdrawals: Sequence[WithdrawalReply],
    confirmations_needed: int,
) -> list[Proven]:
    """Each burn's payout: an unspent output of `payout` to the very script, of the burn less an equal fee share.

    withdrawals: what the sidechain says of the burns.  Raises DemoFailed (PAYOUT).
    """
    _require(payout.confirmations >= confirmations_needed, f"the payout has {payout.confirmations} confirmations")
    replies = {reply.burn: reply for reply in withdrawals}
    proven = [await _prove(client, payout, burned, replies.get(str(burned.burn))) for burned in burns]
    shares_sats = {item.fee_share_sats for item in proven}
    _require(len(shares_sats) == 1, f"shares of {sorted(shares_sats)} sats are not equal")
    whole_sats = sum(item.fee_share_sats for item in proven)
    _require(whole_sats == payout.fee_sats, f"shares of {whole_sats} sats make a fee of {payout.fee_sats}")
    _require(len({item.outpoint for item in proven}) == len(burns), "two burns share an output")
    await _require_scanned(client, proven)
    return proven


async def _prove(client: L1Client, payout: PayoutOnL1, burned: Burned, reply: WithdrawalReply | None) -> Proven:
    """One payout, by the unspent output that the sidechain names."""
    whose = f"{burned.user}'s {burned.kind.value} withdrawal"
    if reply is None or reply.status != "settled" or reply.payout is None:
        raise DemoFailed(DemoReason.PAYOUT, f"{whose} is not settled")
    outpoint = outpoint_from_text(reply.payout)
    _require(outpoint.txid == payout.transaction.txid, f"{whose} is said to be paid by {reply.payout}")
    txout = await client.txout(outpoint, include_mempool=True)
    if txout is None:
        raise DemoFailed(DemoReason.PAYOUT, f"{whose}: {outpoint} is not unspent")
    share_sats = burned.amount_sats - txout.value_sats
    _require(txout.script == burned.l1_script, f"{whose}: {outpoint} pays another script")
    _require(classify(txout.script) is burned.kind, f"{whose}: {outpoint} is of another kind")
    _require(0 < share_sats <= burned.max_fee_sats, f"{whose} pays {share_sats} sats of fee")
    _require(reply.paid_sats == txout.value_sats, f"{whose}: the sidechain says {reply.paid_sats} sats")
    _require(txout.confirmations == payout.confirmations, f"{whose} has {txout.confirmations} confirmations")
    return Proven(burned, outpoint, txout.value_sats, share_sats, txout.confirmations)


async def _require_scanned(client: L1Client, proven: Sequence[Proven]) -> None:
    """A scan of all unspent outputs finds exactly these at the payees' addresses, which were fresh."""
    scan = await client.scan_txoutset([f"addr({item.burned.l1_address})" for item in proven])
    found = {output.outpoint: (output.script, output.value_sats) for output in scan.outputs}
    expected = {item.outpoint: (item.burned.l1_script, item.paid_sats) for item in proven}
    _require(found == expected, f"a scan finds {len(found)} outputs at the {len(expected)} addresses, or other ones")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(DemoReason.PAYOUT, otherwise)


def txid_hex(payout: PayoutOnL1) -> str:
    """The payout's id as Bitcoin shows it."""
    return hash_to_hex(payout.transaction.txid)
