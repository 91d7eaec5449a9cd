"""The search for secrets finds what is planted: else its silence would mean nothing."""

import base64
import json
from pathlib import Path

import pytest

from tests.support.secret_search import (
    Finding,
    key_spellings,
    mnemonic_spellings,
    search,
    search_files,
    text_spellings,
)

KEY = bytes(range(7, 39))
WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
PASSPHRASE = "correct horse battery staple"
SECRETS = {
    "key": key_spellings(KEY),
    "words": mnemonic_spellings(WORDS),
    "passphrase": text_spellings(PASSPHRASE),
}


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (KEY, "key"),
        (KEY[::-1], "key"),
        (f"secret={KEY.hex()}".encode(), "key"),
        (KEY.hex().upper().encode(), "key"),
        (f"{int.from_bytes(KEY, 'big')}".encode(), "key"),
        (f"{int.from_bytes(KEY, 'little')}".encode(), "key"),
        (repr({"secret": KEY}).encode(), "key"),
        (json.dumps({"secret": repr(KEY)}).encode(), "key"),
        (str(list(KEY)).encode(), "key"),
        (WORDS.encode(), "words"),
        (json.dumps(WORDS.split()).encode(), "words"),
        (repr(WORDS.split()[3:8]).encode(), "words"),
        ("\n".join(WORDS.split()[5:]).encode(), "words"),
        (f"PEGNODE_PASSPHRASE={PASSPHRASE}".encode(), "passphrase"),
    ],
)
def test_planted_secret_is_found(content: bytes, secret: str) -> None:
    found = list(search("here", b"before" + content + b"after", SECRETS))
    assert [finding.secret for finding in found] == [secret]


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"__cookie__:"])
@pytest.mark.parametrize("after", [b"", b"z", b"zz"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_secret_within_base64_is_found(before: bytes, after: bytes, encode: "type[bytes]") -> None:
    for name, value in (("key", KEY), ("passphrase", PASSPHRASE.encode())):
        found = list(search("here", encode(before + value + after), SECRETS))
        assert [finding.secret for finding in found] == [name]


@pytest.mark.parametrize(
    "content", [b"", KEY[:-1], KEY.hex()[:-1].encode(), b"legal winner thank you", b"horse battery"]
)
def test_nothing_else_is_found(content: bytes) -> None:
    assert list(search("here", content, SECRETS)) == []


def test_files_are_searched_by_content_and_name(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "log").write_text(f"key={KEY.hex()}")
    (tmp_path / f"{PASSPHRASE}.txt").touch()
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "out").write_text(WORDS)
    found = list(search_files(tmp_path, SECRETS, [tmp_path / "passphrase", tmp_path / "left"]))
    assert {(finding.secret, finding.spelling) for finding in found} == {("key", "hex"), ("passphrase", "plain")}
    assert Finding(str(tmp_path / "deep" / "er" / "log"), "key", "hex") in found
