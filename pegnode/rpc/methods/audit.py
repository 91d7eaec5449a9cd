"""Methods for whoever wants proof: the audit, what it takes to carry out the chain again, and signed statements."""

from collections.abc import Iterable

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.errors import MalformedError
from federation.statement import SolvencyStatement
from pegnode.audit.ages import Ages
from pegnode.audit.document import StatementDocument
from pegnode.audit.report import Audit
from pegnode.audit.reserve import Row, RowCause, RowStatus
from pegnode.rpc.arguments import bytes_argument
from pegnode.rpc.audit_results import AgesReply, AuditReply, AuditRowReply
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi
from pegnode.rpc.render import anchor_reply


async def audit(node: NodeApi, scan: bool = False) -> AuditReply:
    """Recount reserves, unsettled withdrawals and the whole UTXO set, and explain the reserve on the Bitcoin node.

    Without a scan only the ledger's coins are looked for there, and payments in its latest blocks. With one, the
    Bitcoin node goes through its whole UTXO set for every reserve script that this node knows: minutes on the main
    chain, and one scan at a time.
    """
    return _audit_reply(node, await node.audit(scan))


async def signstatement(node: NodeApi, statement: str | None = None) -> StatementDocument:
    """A statement of solvency with this member's signature, after an audit with a scan that found nothing.

    statement: the bytes of one that others have signed, in hex, to sign it too if this member finds the same; without
    it, a new one of the newest block.
    """
    given = None
    if statement is not None:
        try:
            given = SolvencyStatement.decode(bytes_argument("statement", statement))
        except MalformedError as error:
            raise RpcError(RpcCode.DESERIALIZATION_ERROR, f"statement: {error}") from error
    return StatementDocument.of(await node.sign_statement(given))


async def getblockcertificate(node: NodeApi, height: int) -> str | None:
    """The quorum's signatures that make the block at a height final, in hex; null for one final by a later block."""
    if not 0 <= height <= node.store.tip.header.height:
        raise RpcError(RpcCode.INVALID_PARAMETER, "Block height out of range")
    certificate = node.store.certificate_at(height)
    return None if certificate is None else certificate.hex()


def _audit_reply(node: NodeApi, audit: Audit) -> AuditReply:
    recount, rows, ages = audit.recount, audit.rows, audit.ages
    totals = recount.totals
    return AuditReply(
        ok=not audit.findings,
        findings=list(audit.findings),
        warnings=[*ages.warnings, *(f"this node has halted: {finding}" for finding in audit.halt_findings)],
        chain_id=node.rules.chain_id.hex(),
        height=recount.tip.header.height,
        block_hash=hash_to_hex(recount.tip.hash),
        anchor=anchor_reply(totals.anchor),
        ledger_root=recount.ledger_root.hex(),
        time_ms=audit.time_ms,
        reserves_sats=totals.reserves_sats,
        deficit_sats=totals.deficit_sats,
        supply_sats=totals.supply_sats,
        unsettled_sats=totals.unsettled_sats,
        fund_sats=totals.fund_sats,
        counted_reserves_sats=recount.counted_reserves_sats,
        counted_supply_sats=recount.counted_supply_sats,
        counted_unsettled_sats=recount.counted_unsettled_sats,
        coins=recount.coin_count,
        utxos=recount.utxo_count,
        open_withdrawals=recount.open_withdrawal_count,
        l1_tip=anchor_reply(audit.l1_tip),
        scanned=audit.scanned,
        scripts=audit.scripts,
        l1_held_sats=_sum(row for row in rows if row.is_coin and row.on_l1 and row.status is not RowStatus.UNEXPLAINED),
        l1_paid_out_sats=_sum(row for row in rows if row.cause is RowCause.SPENT_IN_BLOCK),
        l1_missing_sats=_sum(row for row in rows if row.status is RowStatus.MISSING),
        change_sats=_sum(row for row in rows if row.cause is RowCause.CHANGE),
        unclaimed_sats=_sum(row for row in rows if row.status is RowStatus.UNCLAIMED),
        unexplained_sats=_sum(row for row in rows if row.status is RowStatus.UNEXPLAINED),
        ages=_ages_reply(ages),
        rows=[_row_reply(row) for row in rows],
    )


def _sum(rows: Iterable[Row]) -> int:
    return sum(row.value_sats for row in rows)


def _ages_reply(ages: Ages) -> AgesReply:
    return AgesReply(
        oldest_blocks=ages.oldest_blocks,
        earliest_recovery_l1_height=ages.earliest_recovery_l1_height,
        past_half_sats=ages.past_half_sats,
        past_three_quarters_sats=ages.past_three_quarters_sats,
        mature_sats=ages.mature_sats,
    )


def _row_reply(row: Row) -> AuditRowReply:
    return AuditRowReply(
        status=row.status.value,
        cause=row.cause.value,
        outpoint=str(row.outpoint),
        value_sats=row.value_sats,
        coin=row.is_coin,
        kind=row.kind.name.lower(),
        epoch=row.epoch,
        l1_height=row.l1_height,
        confirmations=row.confirmations,
        recovery_l1_height=row.recovery_l1_height,
        spent_by=None if row.spent_by is None else hash_to_hex(row.spent_by),
    )


AUDIT_METHODS: tuple[Handler, ...] = (audit, signstatement, getblockcertificate)
