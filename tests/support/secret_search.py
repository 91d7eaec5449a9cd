"""Find secrets in bytes, in whatever spelling a program could have let them slip."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

WORDS_IN_A_ROW = 4
"""So many words of a mnemonic, one after another, are no accident."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret where it does not belong. spelling: how it was written there."""

    place: str
    secret: str
    spelling: str


def key_spellings(key: bytes) -> dict[str, bytes]:
    """How 32 or 64 bytes may be written: raw, hex, base64, a number, a Python literal; in both byte orders.

    A literal also as a log or JSON has it within quotes.
    """
    spellings: dict[str, bytes] = {}
    for order, value in (("", key), ("reversed ", key[::-1])):
        spellings |= {
            f"{order}raw": value,
            f"{order}hex": value.hex().encode(),
            f"{order}HEX": value.hex().upper().encode(),
            f"{order}decimal": str(int.from_bytes(value, "big")).encode(),
            f"{order}literal": repr(value)[2:-1].encode(),
            f"{order}literal, quoted": json.dumps(repr(value)[2:-1])[1:-1].encode(),
            f"{order}list": ", ".join(map(str, value)).encode(),
        } | {f"{order}{name}": text for name, text in _base64_spellings(value)}
    return spellings


def text_spellings(text: str) -> dict[str, bytes]:
    """How a passphrase or password may be written: as it is, in hex, or within base64, as HTTP's Basic login has it."""
    value = text.encode()
    return {"plain": value, "hex": value.hex().encode()} | dict(_base64_spellings(value))


def mnemonic_spellings(words: str) -> dict[str, bytes]:
    """Several words in a row, with anything usual between them."""
    listed = words.split()
    windows = [listed[start : start + WORDS_IN_A_ROW] for start in range(len(listed) - WORDS_IN_A_ROW + 1)]
    return {
        f"words {number} by {separator!r}": separator.join(window).encode()
        for number, window in enumerate(windows, start=1)
        for separator in (" ", "\n", ",", ", ", '", "', '","', "', '")
    } | text_spellings(words)


def _base64_spellings(value: bytes) -> Iterator[tuple[str, bytes]]:
    """The digits that depend on `value` alone, when it stands behind 0, 1 or 2 other bytes of its group of three."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + value)
        core = encoded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]
        yield f"base64+{shift}", core
        yield f"base64url+{shift}", core.translate(bytes.maketrans(b"+/", b"-_"))


def search(place: str, content: bytes, secrets: Mapping[str, Mapping[str, bytes]]) -> Iterator[Finding]:
    """Every secret that `content` spells in any of its spellings."""
    for name, spellings in secrets.items():
        for spelling, pattern in spellings.items():
            if pattern in content:
                yield Finding(place, name, spelling)
                break


def search_files(
    directory: Path, secrets: Mapping[str, Mapping[str, bytes]], passed_over: Iterable[Path]
) -> Iterator[Finding]:
    """Every secret in the names and contents of the files below a directory, but for these files and folders."""
    left_out = set(passed_over)
    for path in sorted(directory.rglob("*")):
        if left_out & {path, *path.parents}:
            continue
        yield from search(f"name of {path}", str(path).encode(), secrets)
        if path.is_file():
            yield from search(str(path), path.read_bytes(), secrets)
