"""How a scene looks: a panel of 80 columns or more with both chains, the peg's terms, the members and the users."""

from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bridge.bitcoin.amounts import format_btc
from pegnode.demo.scene import MemberScene, MemberState, Scene, Terms, UserScene

MAX_WIDTH: Final = 110
"""Columns; wider would only spread the figures."""

_STATE_STYLES: Final = {
    MemberState.STOPPED: ("○", "dim"),
    MemberState.KILLED: ("✖", "bold red"),
    MemberState.STARTING: ("◌", "yellow"),
    MemberState.WAITING: ("◌", "yellow"),
    MemberState.CATCHING_UP: ("◐", "yellow"),
    MemberState.RUNNING: ("●", "green"),
    MemberState.HALTED: ("■", "bold red"),
}


def dashboard(scene: Scene | None, title: str, now: RenderableType, elapsed_s: float, width: int) -> Panel:
    """The panel. scene: None before there is anything to see.  now: what is awaited.  width: of the console."""
    halves = Table.grid(expand=True, padding=(0, 1))
    halves.add_column(ratio=9)
    halves.add_column(ratio=10)
    if scene is not None:
        halves.add_row(_peg(scene), Group(_members(scene.members), "", _users(scene.users)))
        halves.add_row()
    return Panel(
        Group(halves, now),
        title=Text.assemble(("pegnode", "bold"), " · ", title),
        title_align="left",
        subtitle=f"{elapsed_s:.0f} s",
        subtitle_align="right",
        border_style="blue",
        box=box.ROUNDED,
        padding=(0, 1),
        width=min(width, MAX_WIDTH),
    )


def _peg(scene: Scene) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(justify="right", min_width=16)
    table.add_row("Bitcoin block", _number(scene.l1_height))
    table.add_row("sidechain block", _number(scene.height))
    if scene.terms is not None:
        for name, sats, style in _term_rows(scene.terms):
            table.add_row(name, Text(format_btc(sats), style))
        table.add_row(Text("balance", "dim"), _verdict(scene.terms))
    return table


def _term_rows(terms: Terms) -> list[tuple[str, int, str]]:
    """The terms in the order of the equality; the deficit only when there is one."""
    deficit = [("+ deficit", terms.deficit_sats, "bold red")] if terms.deficit_sats else []
    return [
        ("reserves", terms.reserves_sats, "bold"),
        *deficit,
        ("= supply", terms.supply_sats, ""),
        ("+ unsettled", terms.unsettled_sats, "yellow" if terms.unsettled_sats else ""),
        ("+ fund", terms.fund_sats, ""),
    ]


def _verdict(terms: Terms) -> Text:
    return Text("✓ equal", "bold green") if terms.hold else Text("✖ NOT EQUAL", "bold white on red")


def _members(members: tuple[MemberScene, ...]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row("", "", Text("block", "dim"), Text("view", "dim"))
    for member in members:
        mark, style = _STATE_STYLES[member.state]
        state = Text.assemble((mark, style), " ", (member.state.value, style))
        table.add_row(Text(member.name, "bold"), state, _number(member.height), _number(member.view))
    return table


def _users(users: tuple[UserScene, ...]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column()
    table.add_column(justify="right")
    for user in users:
        table.add_row(Text(user.name, "bold cyan"), f"{format_btc(user.balance_sats)} L-BTC")
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
