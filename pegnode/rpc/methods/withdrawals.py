"""Methods about how value goes home: withdrawals, the batches that pay them, and the coins that they spend."""

from collections.abc import Iterator
from itertools import islice

from bridge.batch_form import least_share_sats
from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.identifiers import Script, Txid, hash_to_hex
from bridge.bitcoin.script import dust_limit_sats
from bridge.bitcoin.transaction import Transaction
from bridge.custody import reserve_script
from bridge.refunds import expires_at, refund_outpoint
from bridge.state import BatchVersion, Coin, Lineage, Withdrawal, WithdrawalStatus
from bridge.waiting import Outlook, Waiting
from bridge.withdrawals import Burn, encode_burn
from pegnode.rpc.arguments import address_argument, count_argument, outpoint_argument
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.fees import suggested_max_fee_sats
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi
from pegnode.rpc.render import address_text, outpoint_text
from pegnode.rpc.results import (
    BatchReply,
    CoinReply,
    PayoutReply,
    WaitingReply,
    WithdrawalEstimateReply,
    WithdrawalReply,
)

MAX_LISTED = 1_000
_STATUSES = {status.name.lower(): status for status in WithdrawalStatus}


async def listwithdrawals(
    node: NodeApi, status: str = "", burns: list[str] | None = None, count: int = 100, before: int | None = None
) -> list[WithdrawalReply]:
    """Withdrawals, newest first: all, those of a status (pending, batched, settled, refunded), or those of some burns.

    before: only those with a lesser number, to page on.
    """
    count = count_argument("count", count, MAX_LISTED)
    if status and status not in _STATUSES:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"status: one of {', '.join(_STATUSES)}")
    wanted = (
        withdrawal
        for withdrawal in _withdrawals(node, burns, before)
        if not status or withdrawal.status is _STATUSES[status]
    )
    outlook = _outlook(node)
    return [_withdrawal_reply(node, withdrawal, outlook) for withdrawal in islice(wanted, count)]


async def getwithdrawal(node: NodeApi, burn: str) -> WithdrawalReply:
    """The withdrawal that an output of a sidechain transaction burned for. burn: txid:vout."""
    withdrawal = node.store.ledger.withdrawal(outpoint_argument("burn", burn))
    if withdrawal is None:
        raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "No such withdrawal in the final chain")
    return _withdrawal_reply(node, withdrawal, _outlook(node))


async def listreservecoins(node: NodeApi) -> list[CoinReply]:
    """Every L1 coin that the reserve owns, the largest first."""
    coins = [coin for _, coin in node.store.ledger.coins.items()]
    return [_coin_reply(node, coin) for coin in sorted(coins, key=lambda coin: -coin.value_sats)]


async def listbatches(node: NodeApi, count: int = 100, before: int | None = None) -> list[BatchReply]:
    """Batches with their versions, newest first. before: only those with a lesser number, to page on."""
    count = count_argument("count", count, MAX_LISTED)
    return [_batch_reply(node, lineage) for lineage in islice(node.store.ledger.lineages_newest_first(before), count)]


async def estimatewithdrawal(
    node: NodeApi,
    l1_address: str,
    amount_sats: int,
    refund_address: str | None = None,
    max_fee_sats: int | None = None,
) -> WithdrawalEstimateReply:
    """What a withdrawal may cost, and with a refund address the script of the output that burns.

    amount_sats: what is burned; the L1 address receives it less at most max_fee_sats, which without an argument is the
    suggestion. The refund address, on the sidechain, is paid if the withdrawal expires.
    """
    if not 0 < amount_sats <= MAX_MONEY_SATS:
        raise RpcError(RpcCode.INVALID_PARAMETER, "amount_sats: out of range")
    l1_script = address_argument("l1_address", l1_address, node.l1_network)
    feerate_sat_kvb = _feerate_sat_kvb(node)
    suggested_sats = suggested_max_fee_sats(node.store.ledger, node.rules, l1_script, amount_sats, feerate_sat_kvb)
    bound_sats = suggested_sats if max_fee_sats is None else max_fee_sats
    if not 0 <= bound_sats <= MAX_MONEY_SATS:
        raise RpcError(RpcCode.INVALID_PARAMETER, "max_fee_sats: out of range")
    script_hex = None
    if refund_address is not None:
        refund_script = address_argument("refund_address", refund_address, node.network)
        script_hex = encode_burn(node.rules.l1_genesis_hash, Burn(l1_script, bound_sats, refund_script)).hex()
    return WithdrawalEstimateReply(
        amount_sats=amount_sats,
        feerate_sat_kvb=feerate_sat_kvb,
        suggested_max_fee_sats=suggested_sats,
        least_max_fee_sats=least_share_sats(node.rules.params, node.rules.params.feerate_floor_sat_kvb),
        max_fee_sats=bound_sats,
        received_sats=amount_sats - bound_sats,
        dust_limit_sats=dust_limit_sats(l1_script),
        min_withdrawal_sats=node.rules.params.min_withdrawal_sats,
        burn_script_hex=script_hex,
    )


def _feerate_sat_kvb(node: NodeApi) -> int:
    """The estimate of the node's own Bitcoin node; without one, the least that a batch may have."""
    return node.status().l1.feerate_sat_kvb or node.rules.params.feerate_floor_sat_kvb


def _outlook(node: NodeApi) -> Outlook:
    return Outlook(node.store.ledger, _feerate_sat_kvb(node), node.rules.custody, node.rules.params)


def _withdrawals(node: NodeApi, burns: list[str] | None, before: int | None) -> Iterator[Withdrawal]:
    """The named withdrawals, or all, by descending number."""
    ledger = node.store.ledger
    if burns is None:
        yield from ledger.withdrawals_newest_first(before)
        return
    named = {outpoint_argument("burns", text) for text in burns}
    found = [withdrawal for burn in named if (withdrawal := ledger.withdrawal(burn)) is not None]
    for withdrawal in sorted(found, key=lambda item: -item.number):
        if before is None or withdrawal.number < before:
            yield withdrawal


def _withdrawal_reply(node: NodeApi, withdrawal: Withdrawal, outlook: Outlook) -> WithdrawalReply:
    lineage = None if withdrawal.lineage is None else node.store.ledger.lineage(withdrawal.lineage)
    payouts = [] if lineage is None else [_payout_reply(node, version) for version in lineage.versions]
    refund = node.store.index.spender(refund_outpoint(withdrawal.burn))
    expires_at_anchor = expires_at(withdrawal, node.rules.params)
    is_pending = withdrawal.status is WithdrawalStatus.PENDING
    left_anchors = max(0, expires_at_anchor - node.store.ledger.totals.anchor.height)
    return WithdrawalReply(
        burn=str(withdrawal.burn),
        number=withdrawal.number,
        status=withdrawal.status.name.lower(),
        stage=_stage(withdrawal.status, payouts),
        value_sats=withdrawal.value_sats,
        max_fee_sats=withdrawal.max_fee_sats,
        paid_sats=None if lineage is None else _paid_sats(lineage, withdrawal),
        l1_address=address_text(withdrawal.l1_script, node.l1_network),
        l1_script_hex=withdrawal.l1_script.hex(),
        refund_address=address_text(withdrawal.refund_script, node.network),
        burned_at_anchor=withdrawal.burned_at_anchor,
        expires_at_anchor=expires_at_anchor,
        expires_in_anchors=left_anchors if is_pending else None,
        waiting=_waiting_reply(outlook.waiting(withdrawal)) if is_pending else None,
        lineage=withdrawal.lineage,
        payout=outpoint_text(withdrawal.payout),
        payouts=payouts,
        refund_txid=None if refund is None else hash_to_hex(refund.txid),
    )


def _waiting_reply(waiting: Waiting) -> WaitingReply:
    return WaitingReply(waiting.reason.value, waiting.share_sats, waiting.burns_missing, waiting.anchors_left)


def _stage(status: WithdrawalStatus, payouts: list[PayoutReply]) -> str:
    if status is WithdrawalStatus.PENDING:
        return "waiting"
    if status is not WithdrawalStatus.BATCHED:
        return status.name.lower()
    if any(payout.confirmations > 0 for payout in payouts):
        return "confirmed"
    if any(payout.broadcast for payout in payouts):
        return "broadcast"
    return "signed" if any(payout.signed for payout in payouts) else "batched"


def _paid_sats(lineage: Lineage, withdrawal: Withdrawal) -> int | None:
    """What the settling version pays this burn, or before settlement the newest one."""
    if withdrawal.burn not in lineage.payees:
        return None
    settling = [version for version in lineage.versions if version.txid == lineage.settled_by]
    version = settling[0] if settling else lineage.versions[-1]
    outputs = Transaction.parse(version.transaction).outputs
    return outputs[lineage.payees.index(withdrawal.burn)].value_sats


def _payout_reply(node: NodeApi, version: BatchVersion) -> PayoutReply:
    progress = node.payout_progress(Txid(version.txid))
    return PayoutReply(
        txid=hash_to_hex(version.txid),
        feerate_sat_kvb=version.feerate_sat_kvb,
        fee_sats=version.fee_sats,
        fund_part_sats=version.fund_part_sats,
        anchor_height=version.anchor_height,
        signatures=0 if progress is None else progress.signatures,
        signed=progress is not None and progress.signed,
        broadcast=progress is not None and progress.broadcast,
        confirmations=0 if progress is None else progress.confirmations,
    )


def _coin_reply(node: NodeApi, coin: Coin) -> CoinReply:
    policy = node.rules.custody.policy(coin.epoch)
    return CoinReply(
        outpoint=str(coin.outpoint),
        value_sats=coin.value_sats,
        kind=coin.kind.name.lower(),
        epoch=coin.epoch,
        address=encode_address(reserve_script(policy, coin.kind, coin.claim_script).script, node.l1_network),
        claim_address=address_text(Script(coin.claim_script), node.network) if coin.claim_script else None,
        l1_height=coin.l1_height,
        age_anchors=node.store.ledger.totals.anchor.height - coin.l1_height,
        recovery_l1_height=coin.l1_height + policy.recovery_timelock_blocks,
        lineage=coin.lineage,
    )


def _batch_reply(node: NodeApi, lineage: Lineage) -> BatchReply:
    return BatchReply(
        number=lineage.number,
        kind=lineage.kind.name.lower(),
        open=lineage.number in node.store.ledger.open_lineages,
        inputs=[str(outpoint) for outpoint in lineage.inputs],
        payees=[str(burn) for burn in lineage.payees],
        versions=[_payout_reply(node, version) for version in lineage.versions],
        reserved_fund_sats=lineage.reserved_fund_sats,
        settled_by=None if lineage.settled_by is None else hash_to_hex(lineage.settled_by),
        settled_l1_height=lineage.settled_l1_height,
    )


WITHDRAWAL_METHODS: tuple[Handler, ...] = (
    listwithdrawals, getwithdrawal, listreservecoins, listbatches, estimatewithdrawal,
)  # fmt: skip
