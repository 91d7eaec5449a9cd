"""What must not be in the repository: this machine's paths, registries' hosts, unhashed dependencies, torn tables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"

# Spelled in parts, or this file would hold what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        [
            *(rf"(?<![\w.~}}])/{folder}/" for folder in ("home", "root", "work", "opt/py" + "pi", "tmp/p" + "n")),
            *(re.escape(host) for host in ("py" + "pi.org", "python" + "hosted", "npm" + "js.", "deb." + "debian.org")),
            re.escape("registry." + "npm"),
        ]
    )
)
INDEX_OPTION = re.compile(r"^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b|://|^\s*[^#\s].*\s@\s", re.M)
ENTRY = re.compile(r"^[A-Za-z0-9._-]+==[^\s;\\]+( ;[^\\]*)?( \\)?$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _forbidden_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if FORBIDDEN.search(line)]


def _unhashed_entries(lock: str) -> list[str]:
    """Return the entries that carry no hash, and the lines that are neither entry, hash nor comment."""
    faults: list[str] = []
    entry, hashes = "", 1
    for line in lock.splitlines():
        if HASH.match(line):
            hashes += 1
        elif ENTRY.match(line):
            faults += [entry] * (hashes == 0)
            entry, hashes = line, 0
        elif not line.lstrip().startswith("#") and line.strip():
            faults.append(line)
    return faults + [entry] * (hashes == 0)


def _cells(row: str) -> int:
    r"""How many cells a table's row has; `\|` parts none."""
    return row.replace(r"\|", "").strip().removeprefix("|").removesuffix("|").count("|") + 1


def _torn_rows(text: str) -> list[str]:
    """Return the rows of Markdown tables that have more or fewer cells than their table's header."""
    torn: list[str] = []
    cells = 0  # no table
    for line in text.splitlines():
        if not line.lstrip().startswith("|"):
            cells = 0
            continue
        cells = cells or _cells(line)
        torn += [line] * (_cells(line) != cells)
    return torn


def test_repository_holds_no_machine_path_and_no_registry_host() -> None:
    findings = {}
    for path in _tracked_files():
        try:
            lines = _forbidden_lines(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # binary
        if lines:
            findings[path.relative_to(ROOT).as_posix()] = lines
    assert findings == {}


@pytest.mark.parametrize(
    "line",
    [
        "cd /" + "home/someone/x",
        'path = "/' + 'root/.cache"',
        "see /" + "work/main",
        "pip install -i https://py" + "pi.org/simple x",
        "deb http://deb." + "debian.org/debian sid main",
    ],
)
def test_repository_rule_finds_a_planted_line(line: str) -> None:
    assert _forbidden_lines(f"first\n{line}\nlast") == [line]


@pytest.mark.parametrize("line", ["a/home/b", "~/work/x", "the network/work/load", "$ROOT/root/x", "tests/root/x"])
def test_repository_rule_leaves_relative_paths_alone(line: str) -> None:
    assert _forbidden_lines(line.replace("$ROOT", "${ROOT}")) == []


def test_lock_hashes_every_entry_and_names_no_index() -> None:
    lock = LOCK.read_text()
    assert _unhashed_entries(lock) == []
    assert INDEX_OPTION.findall(lock) == []
    assert lock.count("==") > 50


def test_lock_holds_hashes_for_more_than_one_platform() -> None:
    entry = LOCK.read_text().split("\ncoincurve==")[1].split("\n    #")[0]
    assert entry.count("--hash=sha256:") > 10


def test_lock_rule_finds_an_entry_without_hash() -> None:
    digest = "--hash=sha256:" + "0" * 64
    assert _unhashed_entries(f"a==1 \\\n    {digest}\nb==2\nc==3 \\\n    {digest}\n") == ["b==2"]
    assert _unhashed_entries(f"a==1 \\\n    {digest}\nb==2\n") == ["b==2"]
    assert _unhashed_entries("b @ file:x\n") == ["b @ file:x"]


@pytest.mark.parametrize("line", ["--index-url x", "-f wheels", "--extra-index-url y", "a @ https://host/a.whl"])
def test_lock_rule_finds_an_index(line: str) -> None:
    assert INDEX_OPTION.search(f"# comment\n{line}\n")


def test_lock_covers_every_declared_dependency() -> None:
    declared = re.findall(r'^    "([A-Za-z0-9-]+)[><=]', (ROOT / "pyproject.toml").read_text(), re.M)
    locked = {line.partition("==")[0].lower() for line in LOCK.read_text().splitlines() if ENTRY.match(line)}
    assert len(declared) > 15
    assert {name.lower() for name in declared} <= locked


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_has_no_torn_table(document: Path) -> None:
    assert _torn_rows(document.read_text()) == []


def test_table_rule_finds_rows_of_other_lengths() -> None:
    table = [
        "| a | b |",
        "|---|---|",
        "| 1 | |",
        r"| 2\|3 | `x\|y` |",
        "| 4 |",
        "| 5 | 6 | 7 |",
        "",
        "| c |",
        "| - |",
        "| 8 |",
    ]
    assert _torn_rows("\n".join(table)) == ["| 4 |", "| 5 | 6 | 7 |"]
