"""Reading Bitcoin Core's script and transaction vectors: scripts as words, and flags as names.

Source: Bitcoin Core, src/test/script_tests.cpp, src/test/transaction_tests.cpp, src/core_io.cpp (ParseScript).
"""

import json
import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from bitcoin.core.script import OPCODES_BY_NAME
from pbk import ScriptVerificationFlags as Flags

from bridge.bitcoin.curve import NUMS
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import push
from bridge.bitcoin.taproot import control_block, output_key, tapleaf_hash

DATA = Path(__file__).parent / "data"

CONSENSUS = {
    "P2SH": Flags.P2SH,
    "DERSIG": Flags.DERSIG,
    "NULLDUMMY": Flags.NULLDUMMY,
    "CHECKLOCKTIMEVERIFY": Flags.CHECKLOCKTIMEVERIFY,
    "CHECKSEQUENCEVERIFY": Flags.CHECKSEQUENCEVERIFY,
    "WITNESS": Flags.WITNESS,
    "TAPROOT": Flags.TAPROOT,
}
"""The flags that the kernel's interface offers; all others are relay policy."""
POLICY = frozenset(
    (
        *("STRICTENC", "LOW_S", "SIGPUSHONLY", "MINIMALDATA", "CLEANSTACK", "MINIMALIF", "NULLFAIL"),
        *("CONST_SCRIPTCODE", "WITNESS_PUBKEYTYPE"),
        *("DISCOURAGE_UPGRADABLE_NOPS", "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM"),
    )
)

_NUMBER = re.compile(r"-?[0-9]+")
_FIRST_NAMED = 0x61
"""OP_NOP: what stands below pushes, and vectors write it as a number."""
_NEWER_NAMES = {"CHECKLOCKTIMEVERIFY": 0xB1, "CHECKSEQUENCEVERIFY": 0xB2, "CHECKSIGADD": 0xBA}


def load_cases(name: str, least_fields: int) -> list[list[Any]]:
    """The cases of a file; the comments between them have fewer fields."""
    cases = json.loads((DATA / name).read_text(encoding="ascii"))
    return [case for case in cases if len(case) >= least_fields]


def flag_names(text: str) -> frozenset[str]:
    """The flags of a case. Raises KeyError for one that is neither consensus nor known policy."""
    names = frozenset(name for name in text.split(",") if name not in ("", "NONE"))
    if names - POLICY - CONSENSUS.keys():
        raise KeyError(names)
    return names


def consensus_flags(names: Set[str]) -> Flags:
    """Those of them that the kernel can be given."""
    flags = Flags(0)
    for name in names & CONSENSUS.keys():
        flags |= CONSENSUS[name]
    return flags


def script(text: str) -> Script:
    """The script that words spell: numbers and 'texts' are pushed, 0x begins raw bytes, the rest are operations."""
    return Script(b"".join(_word(word) for word in text.split()))


def _word(word: str) -> bytes:
    if _NUMBER.fullmatch(word):
        return push(_number(int(word)))
    if word.startswith("0x"):
        return bytes.fromhex(word[2:])
    if len(word) >= 2 and word[0] == word[-1] == "'":
        return _push_text(word[1:-1].encode("ascii"))
    return bytes([_opcode(word.removeprefix("OP_"))])


def _number(value: int) -> bytes:
    """As scripts hold numbers: little-endian, the highest bit the sign."""
    size = (abs(value).bit_length() + 8) // 8 if value else 0
    data = bytearray(abs(value).to_bytes(size, "little"))
    if value < 0:
        data[-1] |= 0x80
    return bytes(data)


def _push_text(data: bytes) -> bytes:
    """Core's plain push: text of one byte is pushed as data, never as an operation."""
    if len(data) < 0x4C:
        return bytes([len(data)]) + data
    return push(data)


def _opcode(name: str) -> int:
    if name in _NEWER_NAMES:
        return _NEWER_NAMES[name]
    opcode = int(OPCODES_BY_NAME[f"OP_{name}"])
    if opcode < _FIRST_NAMED and name != "RESERVED":
        raise KeyError(name)
    return opcode


def taproot_witness(items: list[str]) -> tuple[tuple[bytes, ...], bytes]:
    """A witness with `#SCRIPT# words` and `#CONTROLBLOCK#` in it, and the output key that it is for."""
    [leaf] = [script(item.removeprefix("#SCRIPT#")) for item in items if item.startswith("#SCRIPT#")]
    key, parity = output_key(NUMS, tapleaf_hash(leaf))
    made = {"#CONTROLBLOCK#": control_block(NUMS, parity, [])}
    return tuple(leaf if item.startswith("#SCRIPT#") else made.get(item) or bytes.fromhex(item) for item in items), key
