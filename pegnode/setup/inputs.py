"""The files that people exchange: cards, read with their path in every refusal, and whatever is written once."""

import os
import re
from pathlib import Path

from pegnode.setup.card import Card, CardReason, CardRefused, RecoveryCard, decode_card
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.folder import read_card_file

_KEY = re.compile(r"[0-9a-f]{64}")


def read_card(path: Path) -> Card:
    """The card in a file. Raises CardRefused."""
    try:
        return decode_card(read_card_file(path))
    except CardRefused as error:
        detail = error.detail if error.reason is CardReason.UNREADABLE else f"{path}: {error.detail}"
        raise CardRefused(error.reason, detail) from error


def recovery_key(text: str) -> tuple[bytes, str | None]:
    """The key, x-only, that a card's path or 64 hex digits name, and the holder's name if a card does.

    Raises CardRefused.
    """
    if _KEY.fullmatch(text.lower()):
        return bytes.fromhex(text), None
    card = read_card(Path(text))
    if not isinstance(card, RecoveryCard):
        detail = f"{text} is {card.name}'s card as a member; a recovery key is another, with a card of its own"
        raise CardRefused(CardReason.MALFORMED, detail)
    return bytes.fromhex(card.recovery_key_hex), card.name


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet. Raises SetupRefused: EXISTS, UNWRITABLE."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with open(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise SetupRefused(SetupReason.EXISTS, f"{path} exists; nothing is replaced, name another") from error
    except OSError as error:
        raise SetupRefused(SetupReason.UNWRITABLE, f"{path}: {error.strerror}") from error
