"""What is fuzzed: a target checks properties for any bytes, and raises Finding, or anything else, where they fail."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.fuzz.decoders import Decoder, check_decoder

CORPUS = Path(__file__).parent / "corpus"
SELECTOR_BYTES = 2


@dataclass(frozen=True)
class Target:
    """check: runs one input; whether it was accepted.  seeds: inputs to begin with.  max_bytes: of an input."""

    name: str
    check: Callable[[bytes], bool]
    seeds: Callable[[], Sequence[bytes]]
    max_bytes: int

    @property
    def corpus_path(self) -> Path:
        """Where the repository keeps the inputs that together reach everything reached so far, in lines of hex."""
        return CORPUS / f"{self.name}.hex"

    def corpus(self) -> list[bytes]:
        """The inputs kept in the repository."""
        return [bytes.fromhex(line) for line in self.corpus_path.read_text(encoding="ascii").split()]


def selector(decoder: Decoder) -> bytes:
    """What an input for this decoder begins with. It depends on the name alone, so that a corpus lasts."""
    return (zlib.crc32(decoder.name.encode()) & 0xFFFF).to_bytes(SELECTOR_BYTES, "little")


def _decoder_target(name: str, decoders: Callable[[], tuple[Decoder, ...]], max_bytes: int) -> Target:
    @cache
    def selected() -> dict[bytes, list[Decoder]]:
        found: dict[bytes, list[Decoder]] = {}
        for decoder in decoders():
            found.setdefault(selector(decoder), []).append(decoder)
        return found

    def check(data: bytes) -> bool:
        choice, content = data[:SELECTOR_BYTES], data[SELECTOR_BYTES:]
        options = list(selected().values())
        chosen = selected().get(choice) or options[int.from_bytes(choice, "little") % len(options)]
        accepted = [check_decoder(decoder, content) for decoder in chosen]  # every one of them
        return any(accepted)

    def seeds() -> list[bytes]:
        return [selector(item) + sample for item in decoders() for sample in (*item.samples, *item.refused)]

    return Target(name, check, seeds, max_bytes)


def load(name: str) -> Target:
    """The target of that name. What it exercises is imported here and no earlier, so that it can be instrumented."""
    match name:
        case "binary":
            from tests.fuzz.binary import binary_decoders

            return _decoder_target(name, binary_decoders, 4_096)
        case "documents":
            from tests.fuzz.documents import document_decoders
            from tests.fuzz.replies import reply_decoders

            return _decoder_target(name, lambda: (*document_decoders(), *reply_decoders()), 4_096)
        case "requests":
            from tests.fuzz.requests import request_decoders

            return _decoder_target(name, request_decoders, 1_024)
        case "transactions":
            from tests.fuzz import transactions

            return Target(name, transactions.check, transactions.seeds, 256)
        case "evidence":
            from tests.fuzz import evidence

            return Target(name, evidence.check, evidence.seeds, 256)
        case "blocks":
            from tests.fuzz import blocks

            return Target(name, blocks.check, blocks.seeds, 256)
    raise ValueError(f"there is no target {name}: {', '.join(NAMES)}")


NAMES = ("binary", "documents", "requests", "transactions", "evidence", "blocks")
