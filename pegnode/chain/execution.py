"""How the parts of a body change the state. Each function either changes it or raises Rejected and leaves it as it was.

The checker of a block and its builder both go through here, so that what one builds the other accepts.
"""

from dataclasses import dataclass, replace
from typing import Self

from bridge.batch import Batch, check_batch
from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.codec import Writer
from bridge.deposits import apply_evidence
from bridge.errors import Rejected
from bridge.evidence import Evidence, L1BlockFact
from bridge.ledger import add_fee, record_burn
from bridge.lineages import record_batch
from bridge.losses import book_losses
from bridge.records import Deficit, check_rebase, check_record
from bridge.refunds import due_refunds, refund, refund_transaction
from bridge.state import Anchor, chain_hash
from federation.errors import Refused
from federation.record import SignedRecord, verify_record
from pegnode.chain.parameters import ChainParams, ChainRules
from pegnode.chain.state import AppliedTransaction, ChainState, TransactionKind, Utxo
from pegnode.chain.transactions import BlockContext, check_transaction, is_spendable
from pegnode.chain.verdicts import BodyReason

UTXO_DELTA_TAG = "pegnode/utxo-delta"
OVER_BUDGET = frozenset({BodyReason.TOO_MANY_INPUTS, BodyReason.TOO_MANY_SIGOPS})
"""Reasons that are the block's and not the transaction's: in another block it may be valid."""


@dataclass(slots=True)
class ScriptBudget:
    """What the caps of a block leave for further ordinary transactions: inputs, and sigop cost in Bitcoin's units."""

    inputs: int
    sigop_cost: int

    @classmethod
    def of(cls, chain: ChainParams) -> Self:
        """That of a block without transactions."""
        return cls(chain.max_inputs, chain.max_sigop_cost)


def context_of(state: ChainState) -> BlockContext:
    """Where the transactions of the block under construction stand."""
    header = state.tip.header
    return BlockContext(header.height, header.time_ms)


def enter_record(state: ChainState, signed: SignedRecord, parent_anchor: Anchor, rules: ChainRules) -> None:
    """What a quorum decided, into the ledger. parent_anchor: of the block before. Raises Rejected."""
    record, anchor, totals = signed.record, state.tip.header.anchor, state.ledger.totals
    try:
        verify_record(signed, rules.membership, rules.chain_id)
    except Refused as refused:
        raise Rejected(refused.reason, refused.detail) from refused
    check_record(
        record,
        chain_id=rules.chain_id,
        epoch=rules.membership.epoch,
        serial=totals.record_serial,
        anchor_height=anchor.height,
    )
    if record.rebase is not None:
        check_rebase(record.rebase, parent_anchor, anchor)
    with state.ledger.atomic() as trial:
        if isinstance(record.content, Deficit):
            book_losses(trial, record.content)
        trial.totals = replace(trial.totals, record_serial=record.serial)
    state.records.append(signed)


def enter_evidence(state: ChainState, evidence: Evidence, fact: L1BlockFact, rules: ChainRules) -> None:
    """What L1 says, into the ledger; the claims it gives rise to, into the UTXO set. Raises Rejected."""
    for claim in apply_evidence(state.ledger, evidence, fact, rules.custody, rules.params):
        _apply(state, TransactionKind.CLAIM, claim, rules.params.claim_fee_sats, ())


def enter_refunds(state: ChainState, rules: ChainRules) -> tuple[bytes, ...]:
    """Refund every burn for which that is due; the transactions that do it, as the body has to hold them."""
    refunds = []
    for withdrawal in due_refunds(state.ledger, rules.params):
        refund(state.ledger, withdrawal.burn, rules.params.refund_fee_sats)
        transaction = refund_transaction(withdrawal, rules.params)
        _apply(state, TransactionKind.REFUND, transaction, rules.params.refund_fee_sats, ())
        refunds.append(transaction.serialize())
    return tuple(refunds)


def enter_batch(state: ChainState, batch: Batch, rules: ChainRules) -> None:
    """A batch that is due, and exactly the one that is due, into the ledger. Raises Rejected."""
    record_batch(state.ledger, check_batch(state.ledger, batch, rules.custody, rules.params))


def enter_transfer(state: ChainState, transaction: Transaction, budget: ScriptBudget, rules: ChainRules) -> None:
    """An ordinary transaction: its outputs for those it spends, its fee to the fund, its burns owed.

    It is charged to `budget`. Raises Rejected.
    """
    inputs = len(transaction.inputs)
    if inputs > budget.inputs:
        raise Rejected(BodyReason.TOO_MANY_INPUTS, f"{inputs}, and {budget.inputs} left")
    effect = check_transaction(transaction, state.utxos, state.ledger, context_of(state), rules)
    if effect.sigop_cost > budget.sigop_cost:
        raise Rejected(BodyReason.TOO_MANY_SIGOPS, f"{effect.sigop_cost}, and {budget.sigop_cost} left")
    with state.ledger.atomic() as trial:
        add_fee(trial, effect.fee_sats)
        for vout, burn, value_sats in effect.burns:
            record_burn(
                trial,
                transaction.outpoint(vout),
                value_sats=value_sats,
                max_fee_sats=burn.max_fee_sats,
                l1_script=burn.l1_script,
                refund_script=burn.refund_script,
            )
    _apply(state, TransactionKind.TRANSFER, transaction, effect.fee_sats, effect.spent)
    budget.inputs -= inputs
    budget.sigop_cost -= effect.sigop_cost


def _apply(
    state: ChainState,
    kind: TransactionKind,
    transaction: Transaction,
    fee_sats: int,
    spent: tuple[tuple[OutPoint, Utxo], ...],
) -> None:
    """Change the UTXO set, chain the change into the ledger's commitment, and note the transaction."""
    context = context_of(state)
    created = [
        (transaction.outpoint(vout), Utxo(output.value_sats, output.script, context.height, context.time_ms))
        for vout, output in enumerate(transaction.outputs)
        if is_spendable(output)
    ]
    for outpoint, _ in spent:
        state.utxos.delete(outpoint)
    for outpoint, utxo in created:
        state.utxos.put(outpoint, utxo)
    delta = Writer()
    delta.sequence(spent, lambda to, item: to.variable(item[0].encode()))
    delta.sequence(created, lambda to, item: to.variable(item[0].encode()).variable(item[1].encode()))
    totals = state.ledger.totals
    state.ledger.totals = replace(totals, utxo_chain=chain_hash(UTXO_DELTA_TAG, totals.utxo_chain, delta.finish()))
    state.transactions.append(AppliedTransaction(kind, transaction, fee_sats, spent))
