"""The architecture as rules over the syntax trees: direction, purity, and who may use which library.

Every rule is a function from the parsed modules to findings. The first test applies them all to this project; the
others feed each rule a module that breaks it, so that a rule which can't fail is noticed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bridge", "federation", "pegnode")  # each may import those before it, and itself

PURE = (
    "bridge/bitcoin/*",
    *(f"bridge/{name}{tail}" for tail in (".py", "/*") for name in (
        "codec", "custody", "evidence", "deposits", "withdrawals", "batch", "ledger", "state", "params", "psbt",
        "recovery", "recovery_signing",
    )),
    *(f"federation/{name}{tail}" for tail in (".py", "/*") for name in (
        "membership", "certificate", "equivocation", "vote_memory",
        "approval", "refusal", "recorded_batch", "batch_law", "reserve_law", "cosign", "signing_plan",
        "passphrase", "sealed_box", "keystore_errors", "statement", "statement_law",
    )),
    "pegnode/chain/*",
    "pegnode/consensus/*",
    "pegnode/mempool/*",
    "pegnode/audit/reserve.py", "pegnode/audit/ages.py", "pegnode/halts.py", "pegnode/service/stall.py",
    "pegnode/status.py", "pegnode/wording.py",
    "pegnode/resume/traces.py", "pegnode/resume/words.py", "pegnode/resume/outlook.py", "pegnode/resume/document.py",
)  # fmt: skip

# What the outside world enters through: concurrency, network, files, clock, randomness, logs, dynamic imports.
IMPURE_LIBRARIES = frozenset({
    "trio", "anyio", "asyncio", "threading", "multiprocessing", "concurrent", "subprocess", "signal", "sched",
    "libp2p", "socket", "ssl", "select", "selectors", "http", "urllib", "httpx", "requests", "fastapi", "hypercorn",
    "rocksdict", "sqlite3", "dbm", "shelve", "os", "pathlib", "shutil", "tempfile", "glob", "fileinput", "mmap",
    "time", "random", "secrets", "uuid", "nacl",
    "logging", "structlog", "warnings", "prometheus_client", "typer", "rich", "bdkpython",
    "importlib", "runpy",
})  # fmt: skip
IMPURE_BUILTINS = frozenset({"open", "print", "input", "exec", "eval", "__import__", "breakpoint"})
# A C callback finds its buffer by thread: what comes out depends on the arguments alone.
IMPURE_LIBRARIES_ALLOWED = {"bridge/bitcoin/kernel.py": frozenset({"threading"})}
CLOCK_READINGS = frozenset({"now", "utcnow", "today"})

# library -> the only modules that may import it
OWNERS = {
    "pbk": ("bridge/bitcoin/script_engine.py", "bridge/bitcoin/kernel.py"),
    "coincurve": (
        "bridge/bitcoin/*", "federation/signer.py", "federation/keystore.py", "federation/self_test.py",
    ),
    "ecdsa": ("federation/self_test.py",),
    "bitcoin": ("bridge/bitcoin/*", "bridge/custody.py", "bridge/withdrawals.py"),  # opcode names
    "libp2p": ("pegnode/net/*",),
    "bdkpython": ("pegnode/wallet/*",),
}  # fmt: skip

Modules = Mapping[str, ast.Module]  # path relative to the root -> syntax tree


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: the rule's name, the module's path, and what it does there."""

    rule: str
    path: str
    detail: str


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of everything imported, names taken from a module included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _top(name: str) -> str:
    return name.partition(".")[0]


def direction(modules: Modules) -> Iterator[Finding]:
    """Yield imports against the direction bridge <- federation <- pegnode, or of code that isn't shipped."""
    for path, tree in modules.items():
        allowed = PACKAGES[: PACKAGES.index(_top(path.replace("/", "."))) + 1]
        for name in sorted({_top(name) for name in _imports(tree)}):
            if name in (*PACKAGES, "tests", "bench", "") and name not in allowed:
                yield Finding("direction", path, f"imports {name or 'relatively'}")


def _project_imports(modules: Modules) -> dict[str, set[str]]:
    """Return, for each module's path, the paths of the project's modules that importing it runs."""
    paths = {_module_name(path): path for path in modules}
    edges: dict[str, set[str]] = {}
    for path, tree in modules.items():
        edges[path] = set()
        for name in [*_imports(tree), _module_name(path)]:
            parts = name.split(".")
            prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
            edges[path] |= {paths[prefix] for prefix in prefixes if prefix in paths} - {path}
    return edges


def purity(modules: Modules) -> Iterator[Finding]:
    """Yield what lets the outside world into a pure module, by itself or through the modules it imports."""
    edges = _project_imports(modules)
    for path in modules:
        if not _matches(path, PURE):
            continue
        reached, waiting = {path}, [path]
        while waiting:
            new = edges[waiting.pop()] - reached
            reached |= new
            waiting += new
        for source in sorted(reached):
            via = "" if source == path else f" through {source}"
            libraries = {_top(name) for name in _imports(modules[source])} & IMPURE_LIBRARIES
            libraries -= IMPURE_LIBRARIES_ALLOWED.get(source, frozenset())
            yield from (Finding("purity", path, f"imports {name}{via}") for name in sorted(libraries))
        yield from (Finding("purity", path, f"calls {name}") for name in _impure_calls(modules[path]))


def _impure_calls(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in IMPURE_BUILTINS:
            yield node.id
        elif isinstance(node, ast.Attribute) and node.attr in CLOCK_READINGS:
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in ("datetime", "date"):
                yield f"{owner}.{node.attr}"


def owners(modules: Modules) -> Iterator[Finding]:
    """Yield imports of a library outside the modules that adapt it."""
    for path, tree in modules.items():
        for name in sorted({_top(name) for name in _imports(tree)}):
            if name in OWNERS and not _matches(path, OWNERS[name]):
                yield Finding("owners", path, f"imports {name}")


def global_parameters(modules: Modules) -> Iterator[Finding]:
    """Yield uses of python-bitcoinlib's mutable network parameters: this program lives on two chains at once."""
    for path, tree in modules.items():
        for node in ast.walk(tree):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            imported = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if "SelectParams" in (name, *imported):
                yield Finding("global_parameters", path, "uses SelectParams")


def _is_docstring_or_all(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [getattr(target, "id", None) for target in targets] == ["__all__"]


def re_exports(modules: Modules) -> Iterator[Finding]:
    """Yield modules that hold nothing but other modules' names, and star imports."""
    for path, tree in modules.items():
        rest = [node for node in tree.body if not _is_docstring_or_all(node)]
        if rest and all(isinstance(node, ast.Import | ast.ImportFrom) for node in rest):
            yield Finding("re_exports", path, "only re-exports")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield Finding("re_exports", path, f"imports * from {node.module}")


RULES: tuple[Callable[[Modules], Iterator[Finding]], ...] = (
    direction, purity, owners, global_parameters, re_exports,
)  # fmt: skip


def _findings(modules: Modules) -> list[Finding]:
    return [finding for rule in RULES for finding in rule(modules)]


def _parse(sources: Mapping[str, str]) -> Modules:
    return {path: ast.parse(source, path) for path, source in sources.items()}


def _project() -> Modules:
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return _parse({path.relative_to(ROOT).as_posix(): path.read_text() for path in files})


def test_architecture_holds() -> None:
    modules = _project()
    assert {_top(_module_name(path)) for path in modules} == set(PACKAGES)
    findings = [f"{finding.path}: {finding.detail} ({finding.rule})" for finding in _findings(modules)]
    assert not findings, "\n" + "\n".join(findings)


def test_tests_leave_the_global_parameters_alone() -> None:
    tests = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    assert list(global_parameters(_parse(tests))) == []


@pytest.mark.parametrize(
    ("path", "source", "rule", "detail"),
    [
        ("bridge/x.py", "import federation.signer", "direction", "imports federation"),
        ("federation/x.py", "def f():\n    from pegnode.chain import block", "direction", "imports pegnode"),
        ("pegnode/x.py", "from tests.support import node", "direction", "imports tests"),
        ("pegnode/x.py", "from .chain import block", "direction", "imports relatively"),
        ("bridge/ledger.py", "import os.path", "purity", "imports os"),
        ("bridge/batch/payout.py", "from time import time", "purity", "imports time"),
        ("bridge/bitcoin/taproot.py", "import secrets", "purity", "imports secrets"),
        ("federation/cosign.py", "import trio", "purity", "imports trio"),
        ("pegnode/chain/rules.py", "import structlog", "purity", "imports structlog"),
        ("pegnode/consensus/machine.py", "from random import Random", "purity", "imports random"),
        ("pegnode/mempool/pool.py", "if TYPE_CHECKING:\n    import httpx", "purity", "imports httpx"),
        ("bridge/state.py", "def f():\n    open('x')", "purity", "calls open"),
        ("bridge/state.py", "from datetime import datetime\nx = datetime.now()", "purity", "calls datetime.now"),
        ("bridge/state.py", "import datetime\nx = datetime.datetime.utcnow()", "purity", "calls datetime.utcnow"),
        ("bridge/bitcoin/tx.py", "import pbk", "owners", "imports pbk"),
        ("federation/approval.py", "from coincurve import PrivateKey", "owners", "imports coincurve"),
        ("federation/signer.py", "import ecdsa", "owners", "imports ecdsa"),
        ("pegnode/cli/main.py", "from bitcoin.core import x", "owners", "imports bitcoin"),
        ("pegnode/cli/main.py", "bitcoin.SelectParams('regtest')", "global_parameters", "uses SelectParams"),
        ("pegnode/cli/main.py", "from x import SelectParams", "global_parameters", "uses SelectParams"),
        ("pegnode/net/__init__.py", '"""Doc."""\nfrom x import y\n__all__ = ["y"]', "re_exports", "only re-exports"),
        ("pegnode/net/frame.py", "from x import *\nz = 1", "re_exports", "imports * from x"),
    ],
)
def test_rule_refuses_what_breaks_it(path: str, source: str, rule: str, detail: str) -> None:
    found = _findings(_parse({path: source}))
    assert Finding(rule, path, detail) in found


def test_purity_refuses_an_impure_module_reached_through_others() -> None:
    modules = _parse(
        {
            "bridge/ledger.py": "from bridge import errors\nx = 1",
            "bridge/errors.py": "from bridge.l1.client import C\nx = 1",
            "bridge/l1/__init__.py": "",
            "bridge/l1/client.py": "import trio\nx = 1",
        }
    )
    assert list(purity(modules)) == [Finding("purity", "bridge/ledger.py", "imports trio through bridge/l1/client.py")]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("bridge/bitcoin/script_engine.py", "import pbk\nx = 1"),
        ("bridge/bitcoin/curve.py", "from coincurve import PublicKey\nx = 1"),
        ("federation/self_test.py", "import ecdsa, coincurve\nx = 1"),
        ("bridge/l1/client.py", "import trio, httpx, time\nx = 1"),
        ("pegnode/node.py", "import bridge, federation, pegnode\nx = 1"),
        ("pegnode/net/__init__.py", '"""Only words."""'),
        ("bridge/state.py", "import datetime\nx = datetime.timedelta(1)"),
    ],
)
def test_rules_allow_what_the_design_allows(path: str, source: str) -> None:
    assert _findings(_parse({path: source})) == []
