"""How the demonstration looks: everything is there, and within the terminal's width."""

import io
from dataclasses import replace
from typing import cast

import pytest
from rich.console import Console

from pegnode.demo.dashboard import dashboard
from pegnode.demo.display import LiveDisplay, PlainDisplay
from pegnode.demo.lines import THEME
from pegnode.demo.narration import Narrator
from pegnode.demo.scene import MemberScene, MemberState, Scene, Terms, UserScene

TERMS = Terms(reserves_sats=1_000, deficit_sats=0, supply_sats=700, unsettled_sats=250, fund_sats=50)
NAMES = ("alice", "bob", "carol", "dave")


def scene(state: MemberState = MemberState.RUNNING, terms: Terms | None = TERMS) -> Scene:
    """Four members, one of them in a state, and a user."""
    members = tuple(MemberScene(name, MemberState.RUNNING, 11, 14) for name in NAMES[:3])
    return Scene(107, 11, terms, (*members, MemberScene("dave", state)), (UserScene("ann", 123_456_789),))


def printed(value: object, width: int) -> str:
    """What a console without colours shows of it."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(value)
    return cast(io.StringIO, console.file).getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("state", list(MemberState))
def test_dashboard_shows_everything_within_its_width(width: int, state: MemberState) -> None:
    text = printed(dashboard(scene(state), "Proofs", "waits", 12.3, width), width)
    assert max(map(len, text.splitlines())) <= width
    for word in (
        *NAMES,
        state.value,
        "107",
        "0.00001000",
        "0.00000700",
        "0.00000250",
        "1.23456789 L-BTC",
        "12 s",
        "waits",
    ):
        assert word in text
    assert "✓ equal" in text
    assert "deficit" not in text


def test_dashboard_shows_a_deficit_and_an_inequality() -> None:
    text = printed(dashboard(scene(terms=replace(TERMS, deficit_sats=5)), "Proofs", "", 0, 80), 80)
    assert "+ deficit" in text
    assert "NOT EQUAL" in text
    assert "Bitcoin block" in printed(dashboard(scene(terms=None), "Proofs", "", 0, 80), 80)
    assert "0 s" in printed(dashboard(None, "Proofs", "", 0, 80), 80)


@pytest.mark.parametrize("width", [80, 120])
def test_live_display_scrolls_the_story_above_the_panel(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=50, force_terminal=True, color_system=None, theme=THEME)
    display = LiveDisplay(console)
    narrator = Narrator([display])
    with display:
        narrator.chapter(2, "Payments")
        narrator.show(scene(MemberState.KILLED))
        narrator.tell("ann pays ben 0.25000000 L-BTC: final in block 2 after 0.16 s")
        narrator.hold(f"dave has caught up: block 9 is {'ab' * 32} on all four")
        narrator.wait("the members see Bitcoin block 108")
        narrator.table(("step", "seconds "), [("Payments", "1.5")])
    text = cast(io.StringIO, console.file).getvalue()
    assert "2  Payments ─" in text
    assert "· ann pays ben 0.25000000 L-BTC: final in block 2 after 0.16 s" in text
    assert "ab" * 32 in text
    assert text.rindex("Payments       1.5") < text.rindex("the members see Bitcoin block 108")
    assert text.rindex("╰─") > text.rindex("✖ killed")


def test_live_panel_leaves_room_for_an_echoed_interrupt_and_keeps_the_last_terms() -> None:
    console = Console(file=io.StringIO(), width=80, height=50, force_terminal=True, color_system=None, theme=THEME)
    display = LiveDisplay(console)
    with display:
        display.show(scene(), 1.0)
        display.show(scene(terms=None), 2.0)
    lines = cast(io.StringIO, console.file).getvalue().splitlines()
    assert max(len(text.rstrip()) for text in lines if "╰─" in text) == 78
    assert any("✓ equal" in text for text in lines[lines.index(next(text for text in lines if "2 s" in text)) - 9 :])


def test_plain_display_is_ascii_and_tells_what_became_of_members() -> None:
    words = io.StringIO()
    narrator = Narrator([PlainDisplay(Console(file=words, width=100))])
    narrator.chapter(1, "A federation")
    narrator.show(scene(MemberState.STARTING))
    narrator.show(scene(MemberState.RUNNING))
    narrator.show(scene(MemberState.KILLED))
    narrator.hold("it holds")
    narrator.wait("nothing to print")
    narrator.table(("step", "seconds "), [("Payments", "1.5")])
    text = words.getvalue()
    assert text.isascii()
    assert [line.strip() for line in text.splitlines()][:3] == [
        "",
        "1. A federation",
        "0.0     dave: running -> killed",
    ]
    assert "ok  it holds" in text
    assert "Payments |     1.5" in text
    assert "nothing to print" not in text
