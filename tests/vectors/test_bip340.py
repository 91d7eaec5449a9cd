"""Schnorr signatures. Source: BIP340."""

import csv
from pathlib import Path

import pytest

from bridge.bitcoin import curve

ROWS = list(csv.DictReader((Path(__file__).parent / "data" / "bip340.csv").open(encoding="ascii")))
SIGNING_ROWS = [row for row in ROWS if row["secret key"]]


def test_vectors_are_complete() -> None:
    assert [int(row["index"]) for row in ROWS] == list(range(15))
    assert len(SIGNING_ROWS) == 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["index"]))
def test_verification_gives_the_published_result(row: dict[str, str]) -> None:
    key, message, signature = (bytes.fromhex(row[name]) for name in ("public key", "message", "signature"))
    assert curve.schnorr_verify(key, message, signature) is (row["verification result"] == "TRUE")


@pytest.mark.parametrize("row", SIGNING_ROWS, ids=lambda row: str(row["index"]))
def test_signing_gives_the_published_signature(row: dict[str, str]) -> None:
    secret, aux, message = (bytes.fromhex(row[name]) for name in ("secret key", "aux_rand", "message"))
    assert curve.x_only(secret).hex().upper() == row["public key"]
    assert curve.schnorr_sign(secret, message, aux).hex().upper() == row["signature"]
