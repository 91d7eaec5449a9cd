"""Findings that halt a node, for tests that need some."""

from bridge.records import Finding
from pegnode.halts import LatchedFinding
from tests.support.peg import outpoint


def gone(number: int = 1) -> Finding:
    """One of many coins is gone."""
    return Finding.coin_gone(outpoint(number))


def latched(number: int = 1, serial: int = 0, detail: str = "a coin is gone") -> LatchedFinding:
    """That finding, kept when record `serial` was the last."""
    return LatchedFinding(gone(number), detail, serial, 1_700_000_000_000)
