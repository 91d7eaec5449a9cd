"""`peg audit`: the equality, recounted from the chain and from one's own Bitcoin node."""

import typer

from pegnode.cli.home import DirectoryOption, Home, NodeOption
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, out, print_json, print_table
from pegnode.rpc.results import AuditReply

Row = tuple[str, int, int | None, str]


def audit(directory: DirectoryOption, node: NodeOption = None, json: JsonOption = False) -> None:
    """Recount every term of the equality, line by line. Exit status 1 on one unexplained satoshi."""
    with errors_as_one_line():
        with Home(directory, node).client() as client:
            reply = client.ask(AuditReply, "audit")
        if json:
            print_json(reply)
        else:
            _print(reply)
    if not reply.ok:
        raise typer.Exit(1)


def _print(reply: AuditReply) -> None:
    on_l1_sats = reply.l1_held_sats + reply.l1_paid_out_sats
    rows: list[Row] = [
        ("reserves", reply.reserves_sats, reply.counted_reserves_sats, f"{reply.coins} coins in the ledger"),
        ("", reply.reserves_sats, on_l1_sats, _l1_words(reply)),
        ("deficit", reply.deficit_sats, None, "admitted losses"),
        ("supply", reply.supply_sats, reply.counted_supply_sats, f"{reply.utxos} unspent outputs"),
        ("unsettled", reply.unsettled_sats, reply.counted_unsettled_sats, f"{reply.open_withdrawals} open withdrawals"),
        ("fund", reply.fund_sats, None, "fees and donations"),
    ]
    out.print(f"after block {reply.height} {reply.block_hash}", markup=False)
    print_table(
        ("term", "ledger ", "counted ", "", "from"),
        [(name, coins(ledger), *_counted(ledger, count), words) for name, ledger, count, words in rows],
        "",
    )
    left = reply.reserves_sats + reply.deficit_sats
    right = reply.supply_sats + reply.unsettled_sats + reply.fund_sats
    verdict = "holds" if left == right else "DOES NOT HOLD"
    out.print(
        f"reserves + deficit = {coins(left)}; supply + unsettled + fund = {coins(right)}: {verdict}", markup=False
    )
    for finding in reply.findings:
        out.print(f"finding: {finding}", markup=False)
    if reply.ok:
        out.print("no findings: every satoshi is explained", markup=False)


def _l1_words(reply: AuditReply) -> str:
    words = "unspent on the Bitcoin node"
    if reply.l1_paid_out_sats:
        words += f", {coins(reply.l1_paid_out_sats)} of it spent by a batch that is not settled yet"
    return words


def _counted(ledger_sats: int, counted_sats: int | None) -> tuple[str, str]:
    if counted_sats is None:
        return "", ""
    return coins(counted_sats), "ok" if counted_sats == ledger_sats else "DIFFERS"
