"""Where the deposits to some claim scripts stand: seen on L1, deep enough, or credited on the sidechain."""

from collections.abc import Iterator

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.transaction import Transaction
from bridge.deposits import CLAIM_FLAG, claim_transaction
from bridge.l1.watcher import Payment
from pegnode.chain.state import TransactionKind
from pegnode.rpc.node_api import DepositInfo, DepositStatus
from pegnode.service.core import NodeCore


def report_deposits(core: NodeCore, claim_scripts: tuple[Script, ...]) -> tuple[DepositInfo, ...]:
    """The deposits of `claim_scripts`, oldest first: the credited ones from the chain, the others from L1's window."""
    found: dict[OutPoint, DepositInfo] = {}
    for claim_script in claim_scripts:
        for info in (*_claimed(core, claim_script), *_seen(core, claim_script)):
            found.setdefault(info.outpoint, info)
    return tuple(sorted(found.values(), key=lambda info: (info.l1_height or 0, info.outpoint)))


def _claimed(core: NodeCore, claim_script: Script) -> Iterator[DepositInfo]:
    """Deposits whose claims are in final blocks, also those whose coins have long been paid out."""
    for entry in core.store.index.script_history(sha256(claim_script)):
        final = core.store.index.transaction(entry.txid)
        if final is None or final.kind is not TransactionKind.CLAIM:
            continue
        claim = Transaction.parse(final.data)
        flagged = claim.inputs[0].outpoint
        outpoint = OutPoint(flagged.txid, flagged.vout ^ CLAIM_FLAG)
        coin = core.store.ledger.coins.get(outpoint)
        value_sats = claim.outputs[0].value_sats + core.rules.params.claim_fee_sats
        l1_height = coin.l1_height if coin else None
        confirmations = core.watcher.confirmations(l1_height) if l1_height is not None else 0
        yield DepositInfo(
            outpoint=outpoint,
            claim_script=claim_script,
            value_sats=value_sats,
            l1_height=l1_height,
            confirmations=max(confirmations, core.rules.params.confirmations),
            confirmations_needed=core.rules.params.confirmations,
            status=DepositStatus.CLAIMED,
            claim_txid=claim.txid,
        )


def _seen(core: NodeCore, claim_script: Script) -> Iterator[DepositInfo]:
    """Payments in L1's latest blocks that are not credited."""
    for payment in core.watcher.payments_to(core.registry.script_of(claim_script)):
        below = payment.value_sats < core.rules.params.min_deposit_sats
        claim = claim_transaction(payment.outpoint, payment.value_sats, claim_script, core.rules.params)
        yield DepositInfo(
            outpoint=payment.outpoint,
            claim_script=claim_script,
            value_sats=payment.value_sats,
            l1_height=payment.l1_block.height,
            confirmations=core.watcher.confirmations(payment.l1_block.height),
            confirmations_needed=core.rules.params.confirmations,
            status=DepositStatus.BELOW_MINIMUM if below else _status(core, payment),
            claim_txid=None if below else claim.txid,
        )


def _status(core: NodeCore, payment: Payment) -> DepositStatus:
    deep = core.watcher.confirmations(payment.l1_block.height) >= core.rules.params.confirmations
    return DepositStatus.CLAIMABLE if deep else DepositStatus.SEEN
