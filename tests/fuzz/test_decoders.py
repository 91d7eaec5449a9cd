"""The fuzzers' properties, for a moment each and on every machine; and that no decoder is left out of them."""

import ast
import importlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.binary import binary_decoders
from tests.fuzz.chooser import Chooser
from tests.fuzz.decoders import Decoder, Finding, check_decoder
from tests.fuzz.documents import document_decoders
from tests.fuzz.replies import reply_decoders
from tests.fuzz.requests import request_decoders
from tests.fuzz.targets import NAMES, load

ROOT = Path(__file__).parents[2]
DECODERS = (*binary_decoders(), *document_decoders(), *reply_decoders(), *request_decoders())
EXAMPLES = 25
MEMORY_PER_BYTE, MEMORY_BYTES = 400, 1_000_000
"""What decoding may allocate: for each byte of the input, and besides."""

ODD_JSON = (b"null", b"true", b"-1", b"18446744073709551616", b"1e99999999999", b'""', b'"\\ud800"', b"[[]]", b"{}")
"""Values that a field's own type would not suggest."""
JsonPath = tuple[str | int, ...]

NAMES_OF_DECODERS = ("decode", "parse", "read", "load", "deserialize", "unpack")
DECODING_CALLS = (
    "decode_whole",
    "json.decode",
    "json.loads",
    "tomllib.loads",
    "msgpack.decode",
    "Reader",
    "CBlock.deserialize",
    "CTransaction.deserialize",
)

_WITH_ITS_CALLERS = "with L1Client's questions"
_THROUGH_FILES = "with what is read by it from a file"
_NO_FORMAT = "takes bytes as they are"
THROUGH = {
    "bridge.codec:Encoded.decode": "abstract: with each subclass",
    "bridge.codec:Encoded.read": "abstract: with each subclass",
    "bridge.codec:decode_whole": "with every canonical encoding",
    "bridge.evidence:check_inclusion": "by the target `evidence`",
    "bridge.state:read_optional": "with every canonical encoding",
    "bridge.state:read_outpoint": "with every canonical encoding",
    **dict.fromkeys(
        (
            *(
                f"bridge.l1.answers:{name}.parse"
                for name in (
                    *("ChainInfo", "DescriptorInfo", "L1Header", "L1TxOut", "MempoolVerdict"),
                    *("NetworkInfo", "ScannedOutput", "TxOutSetScan"),
                )
            ),
            "bridge.l1.jsonrpc:decode_batch",
            "bridge.l1.jsonrpc:decode_result",
        ),
        _WITH_ITS_CALLERS,
    ),
    "bridge.l1.credentials:Credentials.read": "a protocol",
    "bridge.l1.credentials:PasswordAuth.read": "reads nothing",
    "federation.endorsement:read_signatures": "with SignedRecord.decode and SignedStatement.decode",
    "federation.journal_entries:read_journal": "the entries of a folder, with Journal.open",
    "federation.keystore:read_secret": "as read_member_secrets, of one key",
    "federation.keystore:read_box": "with read_member_secrets",
    "federation.private_files:read_private_file": _THROUGH_FILES,
    "federation.private_files:read_small_file": _THROUGH_FILES,
    "pegnode.config:ProcessConfig.load": "with NodeConfig.load",
    "pegnode.config:ProcessConfig.parse": "with NodeConfig.load",
    "pegnode.config:load_config": "chooses between the two kinds, which are listed",
    "pegnode.config:load_process_config": "chooses between kinds, as load_config",
    "pegnode.genesis:Genesis.load": "a bounded file for Genesis.decode",
    "pegnode.genesis:parse_template": "with Genesis.from_template",
    "pegnode.input_file:read_input": _THROUGH_FILES,
    "pegnode.input_file:read_input_text": _THROUGH_FILES,
    "pegnode.json_document:parse_json": "with parse_accusation, parse_document and parse_plan",
    "pegnode.local_federation:LocalFederation.process": "a file of its own process ids",
    "pegnode.halts:LatchedFinding.read": "with LatchedFinding.decode",
    "pegnode.net.connection:ByteStream.read": _NO_FORMAT,
    "pegnode.net.libp2p_link:MuxedStream.read": _NO_FORMAT,
    "pegnode.net.libp2p_link:PacedSession.read": _NO_FORMAT,
    "pegnode.net.libp2p_link:SocketConnection.read": _NO_FORMAT,
    "pegnode.options.reading:load_document": "with NodeConfig.load",
    "pegnode.options.reading:parse_document": "with NodeConfig.load",
    "pegnode.options.toml_document:TomlDocument.parse": "with NodeConfig.load",
    "pegnode.recovery.files:read_psbt": "a bounded file for Psbt.decode, or base 64 of it",
    "pegnode.recovery.files:read_transaction": "a bounded file for Transaction.parse, in hex",
    "pegnode.resume.traces:Traces.read_abandoned": "takes what a block's parser gives",
    "pegnode.resume.traces:Traces.read_active": "takes what a block's parser gives",
    "pegnode.signing.follower:Follower.take": "with Block.decode_whole, Certificate.decode and Header.decode",
    "pegnode.rpc.body:read_body": _NO_FORMAT,
    "pegnode.setup.folder:read_card_file": _THROUGH_FILES,
    "pegnode.setup.inputs:read_card": "a bounded file for decode_card",
    "pegnode.wallet.seed:read_seed": "a SealedBox",
    "pegnode.wallet.wallet:Wallet.load": "the wallet library's own files",
}
"""Public functions that decode, and are no entry of their own: through which one they are fuzzed, or why not at all."""

every_decoder = pytest.mark.parametrize("decoder", DECODERS, ids=[decoder.name for decoder in DECODERS])


@every_decoder
def test_decoder_accepts_its_samples_and_refuses_the_others(decoder: Decoder) -> None:
    assert decoder.samples
    assert [check_decoder(decoder, data) for data in decoder.samples] == [True] * len(decoder.samples)
    assert [check_decoder(decoder, data) for data in decoder.refused] == [False] * len(decoder.refused)


@every_decoder
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_properties_hold_for_changed_samples_and_for_any_bytes(decoder: Decoder, data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from((*decoder.samples, *decoder.refused)))
    choose = Chooser(data.draw(st.binary(max_size=60)))
    for _ in range(data.draw(st.integers(1, 4))):
        sample = choose.edited(sample)
    check_decoder(decoder, sample)
    check_decoder(decoder, data.draw(st.binary(max_size=200)))


@every_decoder
def test_memory_is_bounded_by_the_input(decoder: Decoder) -> None:
    for sample in decoder.samples:
        for data in (sample, *(sample[:place] + b"\xff\xff\xff\x7f" + sample[place + 4 :] for place in (0, 1, 4, 40))):
            check_decoder(decoder, data)  # whatever is made once and kept is made now
            tracemalloc.start()
            check_decoder(decoder, data)
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak_bytes < MEMORY_BYTES + MEMORY_PER_BYTE * len(data)


@every_decoder
def test_properties_hold_with_any_value_in_json_replaced(decoder: Decoder) -> None:
    sample = decoder.samples[0]
    prefix = sample[:1] if sample[:1] == b"\x00" else b""  # the choice of an HTTP status
    try:
        document = json.loads(sample[len(prefix) :])
    except ValueError:
        return
    for place in _places(document):
        text = json.dumps(_replaced(document, place)).encode()
        for value in ODD_JSON:
            check_decoder(decoder, prefix + text.replace(b'"here"', value))


def _places(value: Any, path: JsonPath = ()) -> Iterator[JsonPath]:
    """The ways to everything within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _replaced(value: Any, place: JsonPath) -> Any:
    """The value with a mark at that place."""
    if not place:
        return "here"
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = _replaced(value[place[0]], place[1:])
    return changed


@pytest.mark.parametrize("name", NAMES)
def test_corpus_finds_nothing(name: str) -> None:
    target = load(name)
    corpus = target.corpus()
    accepted = [target.check(data) for data in corpus]
    assert 0 < sum(accepted) < len(corpus)
    assert all(len(data) <= target.max_bytes for data in corpus)


@pytest.mark.parametrize("name", ["transactions", "evidence", "blocks"])
@settings(max_examples=100)
@given(data=st.binary(min_size=2, max_size=60))
def test_properties_hold_for_any_changes_to_what_is_valid(name: str, data: bytes) -> None:
    load(name).check(data)


# The properties themselves


def _faulty(decode: object = bytes, encode: object = bytes) -> Decoder:
    return Decoder("a decoder", decode, (ValueError,), (b"a",), encode)  # type: ignore[arg-type]


def test_decoder_that_loses_a_byte_is_found() -> None:
    with pytest.raises(Finding, match="encodes to"):
        check_decoder(_faulty(encode=lambda value: value[:1]), b"ab")


def test_decoder_that_changes_its_mind_is_found() -> None:
    answers = iter((b"a", b"b"))
    with pytest.raises(Finding, match="then"):
        check_decoder(_faulty(decode=lambda _: next(answers)), b"a")


def test_error_of_another_layer_is_found() -> None:
    with pytest.raises(KeyError):
        check_decoder(_faulty(decode={}.__getitem__), b"a")


# That none is left out


def _functions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every function of a module, and the decoder that a subclass of Encoded inherits."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def visit(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                if any(isinstance(base, ast.Name) and base.id == "Encoded" for base in child.bases):
                    yield f"{module}:{prefix}{child.name}.decode", child
                yield from visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}:{prefix}{child.name}", child

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), "")


def _decodes(name: str, function: ast.AST) -> bool:
    """Whether a function that others may call turns bytes or text into values, by its name or by what it calls."""
    parts = name.rpartition(":")[2].split(".")
    if any(part.startswith("_") for part in parts):
        return False
    if any(parts[-1] == word or parts[-1].startswith(f"{word}_") for word in NAMES_OF_DECODERS):
        return True
    called = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(call == known or call.endswith(f".{known}") for call in called for known in DECODING_CALLS)


def _found() -> set[str]:
    paths = [path for package in ("bridge", "federation", "pegnode") for path in (ROOT / package).rglob("*.py")]
    return {name for path in paths for name, function in _functions(path) if _decodes(name, function)}


def test_every_decoder_is_fuzzed() -> None:
    listed = {decoder.name for decoder in DECODERS}
    parts = {f"{name.rpartition('.')[0]}.read" for name in listed if name.endswith(".decode")}
    missing = _found() - listed - parts - THROUGH.keys()
    assert not missing, f"list these in tests/fuzz, or say in THROUGH how they are fuzzed: {sorted(missing)}"
    assert THROUGH.keys() <= _found(), f"no longer there: {sorted(THROUGH.keys() - _found())}"


def test_every_entry_names_what_exists() -> None:
    for decoder in DECODERS:
        module, _, path = decoder.name.partition(":")
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
