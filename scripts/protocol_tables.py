"""Writes the generated parts of docs/protocol.md: tables of reasons, tags and parameters, and the worked examples.

    python scripts/protocol_tables.py           writes them
    python scripts/protocol_tables.py --check   exits with 1 when the document is not what would be written

Either way it exits with 1 when a reason has no meaning, or no test that asserts it, and says which.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Reasons and tags are read from the syntax
trees of the packages, so that nothing is left out because nobody imported it. Each reason has a meaning, its docstring
or comment, and a test that asserts it, found in the syntax trees of the tests; the test that the document names stays
named for as long as it asserts the reason.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bridge.custody import CoinKind  # noqa: E402 -- the line above lets this file run as a script
from bridge.params import _RANGES, PegParams  # noqa: E402
from federation.certificate import VoteKind  # noqa: E402
from pegnode.chain.block import Body  # noqa: E402
from pegnode.chain.parameters import ChainParams  # noqa: E402
from pegnode.consensus.parameters import ConsensusParams  # noqa: E402
from scripts import asserting_tests  # noqa: E402
from scripts import protocol_vectors as vectors  # noqa: E402

DOCUMENT = ROOT / "docs" / "protocol.md"
PACKAGES = ("bridge", "federation", "pegnode")
TEMPLATES = ("local", "federation-15")
REASON_ROOT = "Reason"
HASH_FUNCTIONS = {"tagged_hash": 0, "tagged_list": 0, "chain_hash": 0, "_close": 1}
"""Functions that take a tag, and at which place."""

_PART = re.compile(r"<!-- generated: (?P<name>[a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)
_REASON_ROW = re.compile(r"^\| `(?P<reason>[a-z0-9-]+)` \| .*? \| `(?P<test>test_\w+)` \|$", re.MULTILINE)
_OWN_TAG = re.compile(r"pegnode/[a-z-]+(/[a-z-]+)*")

TAG_PLACES = {
    "pegnode/chain-id": "canonical genesis",
    "pegnode/template": "agreed values of a genesis template, as JSON with sorted keys",
    "pegnode/block": "encoded header",
    "pegnode/body": "roots of the five sections",
    "pegnode/body/{}": "encoded items of a section",
    "pegnode/ledger": "encoded totals, roots of the four live tables",
    "pegnode/ledger/coins": "encoded coins",
    "pegnode/ledger/lost": "encoded lost coins",
    "pegnode/ledger/withdrawals": "encoded open withdrawals",
    "pegnode/ledger/lineages": "encoded open lineages",
    "pegnode/entered": "chain so far, outpoint, anchor height u32",
    "pegnode/closed-withdrawal": "chain so far, encoded withdrawal",
    "pegnode/closed-lineage": "chain so far, encoded lineage",
    "pegnode/utxo-delta": "chain so far, outputs spent and created",
    "pegnode/vote/{}": "chain id, epoch u32, view u64, block hash (variable)",
    "pegnode/record": "encoded record",
    "pegnode/solvency-statement": "encoded statement of solvency, 228 bytes",
    "pegnode/custody/{}": "NUMS, chain id, epoch u32, claim script (variable)",
    "pegnode/member-card": "version u32, name (variable), vote key, custody key, peer id, address (both variable)",
    "pegnode/recovery-card": "version u32, name (variable), recovery key",
    "pegnode/self-test": "public key of a published vector, or nothing; never of the protocol",
    "TapLeaf": "BIP341",
    "TapBranch": "BIP341",
    "TapTweak": "BIP341",
    "TapSighash": "BIP341",
    "BIP0340/challenge": "BIP340",
}
"""What each tag hashes. `{}` stands for each of TAG_VARIANTS."""
TAG_VARIANTS = {
    "pegnode/body/{}": tuple(field.name for field in fields(Body)),
    "pegnode/vote/{}": tuple(kind.name.lower() for kind in VoteKind),
    "pegnode/custody/{}": tuple(kind.name.lower() for kind in CoinKind),
}


class StaleTable(Exception):  # noqa: N818 -- a verdict on this script's own tables
    """The code holds something that a table here does not describe, or the reverse."""


@dataclass(frozen=True, slots=True)
class ReasonEntry:
    """One member of an enumeration of reasons.

    member: its name there.  purpose: the enumeration's docstring.  meaning: the member's docstring or comment, empty if
    it has neither.
    """

    value: str
    enumeration: str
    member: str
    path: str
    purpose: str
    meaning: str


def sources() -> dict[str, str]:
    """The text of every module, by its path relative to the root."""
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def reasons(modules: Mapping[str, str]) -> list[ReasonEntry]:
    """Every reason, in the order of the modules and of their definition."""
    found: list[ReasonEntry] = []
    for path, text in modules.items():
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and REASON_ROOT in (getattr(base, "id", "") for base in node.bases):
                purpose = _docstring(node.body[0])
                found += (
                    ReasonEntry(value, node.name, member, path, purpose, meaning)
                    for member, value, meaning in _members(node, lines)
                )
    return found


def repeated(entries: list[ReasonEntry]) -> dict[str, list[str]]:
    """Values that more than one enumeration has, with these enumerations."""
    by_value: dict[str, list[str]] = {}
    for entry in entries:
        by_value.setdefault(entry.value, []).append(f"{entry.path}: {entry.enumeration}")
    return {value: places for value, places in by_value.items() if len(places) > 1}


def _members(enumeration: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Name, value and meaning of each member."""
    for statement, following in zip(enumeration.body, [*enumeration.body[1:], None], strict=True):
        match statement:
            case ast.Assign(targets=[ast.Name(id=member)], value=ast.Constant(value=value)):
                yield member, str(value), _docstring(following) or _comment(lines[statement.lineno - 1])


def _docstring(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def _comment(line: str) -> str:
    return line.partition("  # ")[2].strip()


def tags(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Every tag with the modules that name it; a tag with a variable part is written with `{}`."""
    found: dict[str, set[str]] = {}
    for path, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            for tag in _tags_in(node):
                found.setdefault(tag, set()).add(path)
    return found


def _tags_in(node: ast.AST) -> Iterator[str]:
    """Our own tags wherever they are assigned, returned or passed; those of Bitcoin where they are hashed with."""
    values: list[ast.expr | None] = []
    if isinstance(node, ast.Call):
        values += node.args
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = HASH_FUNCTIONS.get(name)
        if place is not None and isinstance(node.args[place], ast.Constant):
            yield str(node.args[place].value)  # type: ignore[attr-defined]
            return
    if isinstance(node, ast.Assign | ast.Return):
        values.append(node.value)
    for value in values:
        text = _pattern(value)
        if text is not None and _OWN_TAG.fullmatch(text.replace("{}", "x")):
            yield text


def _pattern(value: ast.expr | None) -> str | None:
    """The text of a string, `{}` for each part that is only known when it runs."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in value.values)
    return None


def reasons_table(modules: Mapping[str, str], tests: Mapping[str, str], document: str) -> str:
    """One table for each enumeration: its values, their meaning, and a test that asserts each.

    document: as it stands; the tests that it names are preferred. Raises StaleTable when two have one value.
    """
    entries = reasons(modules)
    if twice := repeated(entries):
        raise StaleTable(f"reasons that occur twice: {twice}")
    named = {row["reason"]: row["test"] for row in _REASON_ROW.finditer(document)}
    asserting = asserting_names(entries, tests)
    groups: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for item in entries:
        names = asserting[item.value]
        test = named[item.value] if named.get(item.value) in names else next(iter(names), None)
        row = (f"`{item.value}`", item.meaning, f"`{test}`" if test else "")
        groups.setdefault((item.path, item.enumeration, item.purpose), []).append(row)
    parts = [
        f"**`{enumeration}`** (`{path}`): {purpose}\n\n{_table(('reason', 'meaning', 'test'), rows)}"
        for (path, enumeration, purpose), rows in groups.items()
    ]
    return "\n\n".join(parts)


def asserting_names(entries: Sequence[ReasonEntry], tests: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The names of the tests that assert each reason; those that assert the fewest others first."""
    keys = [(entry.value, entry.enumeration, entry.member) for entry in entries]
    return asserting_tests.names_by_reason(keys, asserting_tests.asserting_tests(tests))


def gaps(modules: Mapping[str, str], tests: Mapping[str, str]) -> list[str]:
    """What is missing: a complaint for each reason without a meaning, and for each that no test asserts."""
    entries = reasons(modules)
    asserting = asserting_names(entries, tests)
    blank = [
        f"{item.path}: {item.enumeration}.{item.member} does not say what it means"
        for item in entries
        if not item.meaning
    ]
    return blank + [
        f"no test asserts {item.enumeration}.{item.member}" for item in entries if not asserting[item.value]
    ]


def tags_table(modules: Mapping[str, str]) -> str:
    """Every tag, what it hashes, and where. Raises StaleTable for a tag that is not described, or not used."""
    found = {tag: paths for tag, paths in tags(modules).items() if not tag.startswith("pegnode/{}")}
    if found.keys() != TAG_PLACES.keys():
        raise StaleTable(f"tags in code or table only: {sorted(found.keys() ^ TAG_PLACES.keys())}")
    rows = [
        (f"`{tag.replace('{}', variant)}`", hashed, ", ".join(f"`{path}`" for path in sorted(found[tag])))
        for tag, hashed in TAG_PLACES.items()
        for variant in TAG_VARIANTS.get(tag, ("",))
    ]
    return _table(("tag", "what is hashed", "module"), rows)


def parameters_table() -> str:
    """Every parameter of a genesis template with its value in each template."""
    templates = [tomllib.loads((ROOT / "configs" / f"{name}.toml").read_text("utf-8")) for name in TEMPLATES]
    rows = [(f"`{name}`", "", *(str(template[name]) for template in templates)) for name in ("network", "member_count")]
    for section, params in (("peg", PegParams), ("chain", ChainParams), ("consensus", ConsensusParams)):
        for field in fields(params):
            values = (f"{template[section][field.name]:,}" for template in templates)
            rows.append((f"`{section}.{field.name}`", _allowed(field.name), *values))
    return _table(("parameter", "allowed", *(f"`{name}.toml`" for name in TEMPLATES)), rows)


def _allowed(name: str) -> str:
    return "{:,} to {:,}".format(*_RANGES[name]) if name in _RANGES else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))
    return "\n".join(line.replace("|  |", "| |") for line in lines)


def _listing(rows: vectors.Rows) -> str:
    """An example as a block of text: each value on a line of its own under its name."""
    return "```text\n" + "\n".join(f"{name}\n    {value}" for name, value in rows) + "\n```"


def generated_parts(document: str) -> dict[str, str]:
    """Every generated part by its name. document: as it stands. Raises StaleTable."""
    modules, example = sources(), vectors.Example()
    examples: dict[str, Callable[[vectors.Example], vectors.Rows]] = {
        "example-genesis": vectors.genesis_rows,
        "example-custody": vectors.custody_rows,
        "example-deposit": vectors.deposit_rows,
        "example-votes": vectors.vote_rows,
        "example-burn": vectors.burn_rows,
        "example-refund": vectors.refund_rows,
        "example-batch": vectors.batch_rows,
    }
    tables = {
        "reasons": reasons_table(modules, asserting_tests.sources(ROOT), document),
        "tags": tags_table(modules),
        "parameters": parameters_table(),
    }
    return tables | {name: _listing(rows(example)) for name, rows in examples.items()}


def filled(document: str, parts: Mapping[str, str]) -> str:
    """The document with every part in its place. Raises StaleTable unless each part has exactly one place."""
    places = [match["name"] for match in _PART.finditer(document)]
    if sorted(places) != sorted(parts):
        raise StaleTable(f"the document has places for {sorted(places)}, generated are {sorted(parts)}")
    return _PART.sub(
        lambda match: f"<!-- generated: {match['name']} -->\n{parts[match['name']]}\n<!-- end -->", document
    )


def main(arguments: list[str]) -> int:
    """Write the document, or with `--check` only compare; the exit status."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: protocol_tables.py [--check]\n")
        return 2
    document = DOCUMENT.read_text(encoding="utf-8")
    fresh = filled(document, generated_parts(document))
    missing = gaps(sources(), asserting_tests.sources(ROOT))
    sys.stderr.writelines(f"{complaint}\n" for complaint in missing)
    if not arguments:
        DOCUMENT.write_text(fresh, encoding="utf-8")
    elif fresh != document:
        sys.stderr.write("docs/protocol.md is stale; run: python scripts/protocol_tables.py\n")
        return 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
