"""Which tests assert which reason, read from the tests' syntax trees.

A test asserts `SomeReason.MEMBER` (or its text) if it stands in one of its assert statements, in its `parametrize`, in
what a `with` opens, or as an argument of a function, or of a method called `expect`, that is called for nothing but its
verdict (a statement of its own); or in what a name that stands there was set to, in the test or at the top of its
module. Mentioned anywhere else, such as in what a test hands in, a reason is not asserted.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDERS = ("unit", "attacks", "vectors", "sim", "functional")
"""Of tests, in the order in which a test is looked for."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_HYPHENATED = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class AssertingTest:
    """One test. name: of its function.  members: (enumeration, member) pairs.  words: with a hyphen, in its strings.

    A word without one could mean anything but a reason.
    """

    name: str
    members: frozenset[tuple[str, str]]
    words: frozenset[str]


@dataclass
class _Found:
    members: set[tuple[str, str]] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def sources(root: Path) -> dict[str, str]:
    """The text of every file of tests, by its path relative to `root`."""
    paths = (path for folder in FOLDERS for path in sorted((root / "tests" / folder).glob("*.py")))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def asserting_tests(modules: Mapping[str, str]) -> list[AssertingTest]:
    """Every test of these modules, in their order."""
    return [test for text in modules.values() for test in _tests_in(text)]


def names_by_reason(
    reasons: Iterable[tuple[str, str, str]], tests: Iterable[AssertingTest]
) -> dict[str, tuple[str, ...]]:
    """The names of the tests that assert each reason, those that assert the least else first.

    reasons: (value, enumeration, member).
    """
    known = sorted(tests, key=lambda test: len(test.members))
    return {
        value: tuple(
            dict.fromkeys(test.name for test in known if (enumeration, member) in test.members or value in test.words)
        )
        for value, enumeration, member in reasons
    }


@cache
def _tests_in(text: str) -> tuple[AssertingTest, ...]:
    return tuple(_tests_of(ast.parse(text)))


def _tests_of(module: ast.Module) -> Iterator[AssertingTest]:
    top = _bindings(statement for statement in module.body if not isinstance(statement, _FUNCTIONS))
    for function in (node for node in ast.walk(module) if isinstance(node, _FUNCTIONS)):
        if not function.name.startswith("test_"):
            continue
        bindings = top | _bindings(
            node for node in ast.walk(function) if isinstance(node, ast.stmt | ast.comprehension)
        )
        found = _Found()
        for root in _asserted(function):
            _collect(root, found)
        followed: set[str] = set()
        while names := found.names - followed:
            followed |= names
            for name in names:
                for value in bindings.get(name, ()):
                    _collect(value, found)
        yield AssertingTest(function.name, frozenset(found.members), frozenset(found.words))


def _asserted(function: _Function) -> Iterator[ast.AST]:
    """The parts of a test that say what it expects."""
    yield from (decorator for decorator in function.decorator_list if "parametrize" in ast.unparse(decorator))
    for node in ast.walk(function):
        match node:
            case ast.Assert():
                yield node
            case ast.With() | ast.AsyncWith():
                yield from (item.context_expr for item in node.items)
            case ast.Expr(value=ast.Call(func=called)) | ast.Expr(value=ast.Await(value=ast.Call(func=called))):
                if isinstance(called, ast.Name) or getattr(called, "attr", "") == "expect":
                    yield node


def _bindings(nodes: Iterable[ast.AST]) -> dict[str, list[ast.AST]]:
    """What each name is set to: by an assignment, or by going through something."""
    bound: dict[str, list[ast.AST]] = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = [(target, value) for target in targets]
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                pairs = [(target, value)]
            case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
                pairs = [(target, value)]
            case ast.comprehension(target=target, iter=value):
                pairs = [(target, value)]
            case _:
                continue
        for target, value in pairs:
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    bound.setdefault(name.id, []).append(value)
    return bound


def _collect(root: ast.AST, found: _Found) -> None:
    for node in ast.walk(root):
        match node:
            case ast.Attribute(value=ast.Name(id=enumeration) | ast.Attribute(attr=enumeration), attr=member):
                found.members.add((enumeration, member))
            case ast.Constant(value=str(text)):
                found.words.update(_HYPHENATED.findall(text))
            case ast.Name(id=name, ctx=ast.Load()):
                found.names.add(name)
