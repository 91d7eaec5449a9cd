"""How an audit is printed for people: the equality line by line, then the reserve row by row. Exact satoshis."""

from collections import Counter

from pegnode.cli.terminal import out, print_fields, print_table
from pegnode.rpc.audit_results import AuditReply, AuditRowReply

Line = tuple[str, int, int | None, str]
TERM_WIDTH = 13
SATS_WIDTH = 23


def print_audit(reply: AuditReply) -> None:
    """Everything that an audit found, the verdict last."""
    print_fields(
        {
            "sidechain": f"block {reply.height} {reply.block_hash}",
            "L1": f"block {reply.l1_tip.height} {reply.l1_tip.hash}",
            "looked for": _looked_for(reply),
        }
    )
    _print_equality(reply)
    _print_reserve(reply)
    _print_rows(reply.rows)
    for finding in reply.findings:
        out.print(f"finding: {finding}", markup=False, style="bold red" if out.is_terminal else "")
    for warning in reply.warnings:
        out.print(f"warning: {warning}", markup=False, style="yellow" if out.is_terminal else "")
    if reply.replay is not None:
        done = reply.replay
        out.print(
            f"replayed from the genesis: {_count(done.blocks, 'block')}, {_count(done.transactions, 'transaction')},"
            f" {_count(done.certificates, 'certificate')}",
            markup=False,
        )
    if reply.ok:
        out.print("no findings: every satoshi is explained", markup=False)


def _looked_for(reply: AuditReply) -> str:
    if reply.scanned:
        return f"{reply.scripts} reserve scripts, in all of the Bitcoin node's unspent outputs"
    return f"the ledger's coins one by one, and payments to {reply.scripts} reserve scripts in L1's latest blocks"


def _print_equality(reply: AuditReply) -> None:
    left = reply.reserves_sats + reply.deficit_sats
    right = reply.supply_sats + reply.unsettled_sats + reply.fund_sats
    owed = _count(reply.open_withdrawals, "withdrawal")
    lines: list[Line] = [
        ("  reserves", reply.reserves_sats, reply.counted_reserves_sats, _count(reply.coins, "coin")),
        ("+ deficit", reply.deficit_sats, None, "admitted losses"),
        ("=", left, None, ""),
        ("  supply", reply.supply_sats, reply.counted_supply_sats, _count(reply.utxos, "unspent output")),
        ("+ unsettled", reply.unsettled_sats, reply.counted_unsettled_sats, owed),
        ("+ fund", reply.fund_sats, None, "fees and donations"),
        ("=", right, None, "the equality holds" if left == right else "THE EQUALITY DOES NOT HOLD"),
    ]
    out.print(f"\n{'':<{TERM_WIDTH}}{'ledger, sats':>{SATS_WIDTH}}{'counted, sats':>{SATS_WIDTH}}", markup=False)
    for name, ledger_sats, counted_sats, words in lines:
        counted = "" if counted_sats is None else f"{counted_sats:,}"
        mark = "" if counted_sats in (None, ledger_sats) else "DIFFERS: "
        text = f"{name:<{TERM_WIDTH}}{ledger_sats:>{SATS_WIDTH},}{counted:>{SATS_WIDTH}}  {mark}{words}"
        out.print(text.rstrip(), markup=False)


def _print_reserve(reply: AuditReply) -> None:
    """Where the reserves are on L1, and what lies there besides."""
    explained = reply.l1_held_sats + reply.l1_paid_out_sats
    lines: list[Line] = [
        ("  held", reply.l1_held_sats, None, "unspent on L1, with the ledger's value and script"),
        ("+ paid out", reply.l1_paid_out_sats, None, "spent by a batch that is not settled yet"),
        ("=", explained, None, "the reserves" if explained == reply.reserves_sats else "NOT THE RESERVES"),
        ("  change", reply.change_sats, None, "of what is paid out, back already"),
        ("  unclaimed", reply.unclaimed_sats, None, "payments that have not entered the ledger"),
        ("  missing", reply.l1_missing_sats, None, ""),
        ("  unexplained", reply.unexplained_sats, None, ""),
    ]
    out.print("\non L1", markup=False)
    for name, sats, _, words in lines:
        out.print(f"{name:<{TERM_WIDTH}}{sats:>{SATS_WIDTH},}  {words}".rstrip(), markup=False)


def _print_rows(rows: list[AuditRowReply]) -> None:
    counts = Counter(row.status for row in rows)
    out.print("\n" + (", ".join(f"{count} {status}" for status, count in counts.items()) or "no coins"), markup=False)
    if rows:
        print_table(
            ("status", "cause", "kind", "sats ", "conf. ", "recovery from ", "output"),
            [
                (
                    row.status,
                    row.cause,
                    row.kind,
                    f"{row.value_sats:,}",
                    str(row.confirmations),
                    str(row.recovery_l1_height),
                    _short(row.outpoint),
                )
                for row in rows
            ],
            "",
        )
    out.print("", markup=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _short(outpoint: str) -> str:
    """Enough of an outpoint to find it by; findings and --json have all of it."""
    txid, _, vout = outpoint.partition(":")
    return f"{txid[:10]}…:{vout}"
