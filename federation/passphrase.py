"""A passphrase: what people may choose, and how it becomes bytes. (pure)

Its text is normalised by NFKC, so that one passphrase typed on two keyboards is the same bytes. Nothing is trimmed:
what could get lost unseen on the way to a file, such as a blank at an end, is refused. Sources: RFC 8265, UAX 15.
"""

import unicodedata
from typing import NoReturn, final

from federation.keystore_errors import KeystoreReason, KeystoreRefused

MIN_CHARACTERS = 12
MAX_BYTES = 1024
_UNTYPEABLE = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
"""Unicode categories: control, invisible, unassigned, private, surrogate; line and paragraph separators."""


@final
class Passphrase:
    """A passphrase that is fit for use. It shows itself to nobody, and is neither pickled nor copied.

    Raises KeystoreRefused (BAD_PASSPHRASE), whose detail does not quote it.
    """

    __slots__ = ("_utf8",)

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFKC", text)
        problem = _problem(normal)
        if problem is not None:
            raise KeystoreRefused(KeystoreReason.BAD_PASSPHRASE, problem)
        self._utf8 = normal.encode("utf-8")

    def reveal(self) -> bytes:
        """The normalised text in UTF-8: for a key derivation, and for nothing that prints."""
        return self._utf8

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Passphrase) and self._utf8 == other._utf8

    def __hash__(self) -> NoReturn:
        raise TypeError("a passphrase has no hash")

    def __repr__(self) -> str:
        return "Passphrase(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a passphrase is neither pickled nor copied")


def _problem(normal: str) -> str | None:
    """What is wrong with a normalised text; None for nothing."""
    if not normal:
        return "the passphrase is empty"
    if any(unicodedata.category(character) in _UNTYPEABLE for character in normal):
        return "the passphrase has a control character or one that can't be typed"
    if normal != normal.strip():
        return "the passphrase begins or ends with a blank"
    if len(normal) < MIN_CHARACTERS:
        return f"the passphrase has fewer than {MIN_CHARACTERS} characters; take six random words"
    if len(normal.encode("utf-8")) > MAX_BYTES:
        return f"the passphrase is longer than {MAX_BYTES} bytes"
    return None
