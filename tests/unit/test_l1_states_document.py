"""The documents name every state of the Bitcoin node, with the words that the program uses."""

from pathlib import Path

from bridge.l1.states import L1State

DOCS = Path(__file__).parents[2] / "docs"


def test_operating_has_the_table_of_states() -> None:
    rows = [f"| `{state}` | {state.cause} | {state.remedy} |" for state in L1State]
    table = "\n".join(["| state | what is the matter | what to do |", "|---|---|---|", *rows, ""])
    assert table in (DOCS / "operating.md").read_text()


def test_rpc_names_every_state() -> None:
    assert ", ".join(f"`{state}`" for state in L1State) in " ".join((DOCS / "rpc.md").read_text().split())
