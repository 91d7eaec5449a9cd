"""A TOML document that can say on which line an option stands. (pure)

Theory of operation. The standard library parses TOML and forgets where it read what. A document is a sequence of
statements, each on lines of its own: a table's header, or a key with its value. So a document that was accepted as a
whole is cut into the shortest runs of lines that the same parser accepts alone, and what it makes of a run says which
option the run sets. Nothing here reads TOML by itself, and positions serve for messages only.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pegnode.errors import PegnodeError

OptionPath = tuple[str | int, ...]
"""The keys that lead to an option from the top; a number is an element's place in an array."""

MAX_LINE_CHARACTERS = 5_000
"""A key stands on one line, and the library takes time by the square of its parts: for 60,000 characters 14 s."""
MAX_DEPTH = 16
"""Tables and arrays within each other; an option lies four deep at most."""
MAX_STATEMENT_LINES = 200
"""A longer statement isn't looked through: from there on, lines are unknown."""
_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class TomlError(PegnodeError):
    """What is no TOML document. line: where, from 1.  option: what is set a second time, empty for wrong syntax."""

    def __init__(self, what: str, line: int | None, option: OptionPath = ()) -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.option = option


@dataclass(frozen=True, slots=True)
class TomlDocument:
    """text: the document.  table: its values."""

    text: str
    table: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "TomlDocument":
        """The document that `text` is. Raises TomlError."""
        for number, line in enumerate(text.split("\n"), start=1):
            if len(line) > MAX_LINE_CHARACTERS:
                raise TomlError(f"a line of more than {MAX_LINE_CHARACTERS} characters", number)
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _explained(text, str(error)) from error
        except RecursionError as error:
            raise TomlError("tables or brackets are nested too deeply", None) from error
        except ValueError as error:  # not TOML's verdict but Python's: a number of thousands of digits
            raise TomlError("a number has too many digits", None) from error
        if _is_deep(table):
            raise TomlError("tables or brackets are nested too deeply", None)
        return cls(text, table)

    def lines_of(self, options: Sequence[OptionPath]) -> list[int | None]:
        """The line, from 1, on which each option is set; where an absent one would belong, that of its section."""
        lines = _Lines()
        for statement in _statements(self.text):
            lines.add(statement)
        return [lines.nearest(option) for option in options]


def spelt(option: OptionPath) -> str:
    """An option as people write it: `p2p.peers[1].name`."""
    text = ""
    for key in option:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            bare = key if _BARE_KEY.fullmatch(key) else repr(key)
            text += f".{bare}" if text else bare
    return text


@dataclass(frozen=True, slots=True)
class _Statement:
    """first, last: its lines, from 1.  is_header: of a table.  table: what it says alone."""

    first: int
    last: int
    is_header: bool
    table: dict[str, Any]


class _Lines:
    """Where each option was first set, while statements are added in order."""

    def __init__(self) -> None:
        self._first: dict[OptionPath, int] = {}
        self._sizes: dict[OptionPath, int] = {}
        """How many elements each array of tables has so far."""
        self._section: OptionPath = ()

    def add(self, statement: _Statement) -> None:
        """Enter what a statement sets."""
        for option in self.resolved(statement):
            self._first.setdefault(option, statement.first)

    def resolved(self, statement: _Statement) -> list[OptionPath]:
        """Every option that a statement sets or lies within, outermost first. A header also opens its section."""
        if not statement.is_header:
            return [self._section + option for option in _paths(statement.table)]
        options: list[OptionPath] = []
        path: OptionPath = ()
        value: Any = statement.table
        while isinstance(value, dict) and value:
            [(key, value)] = value.items()
            path = (*path, key)
            options.append(path)
            if isinstance(value, list):
                self._sizes[path] = self._sizes.get(path, 0) + 1
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
                options.append(path)
        self._section = path
        return options

    def nearest(self, option: OptionPath) -> int | None:
        """The line of an option, or of the innermost section around it that is there."""
        while option and option not in self._first:
            option = option[:-1]
        return self._first.get(option)

    def known(self, options: list[OptionPath]) -> tuple[OptionPath, int] | None:
        """The innermost of these that was set before, and where."""
        found = [option for option in options if option in self._first and isinstance(option[-1], str)]
        return (found[-1], self._first[found[-1]]) if found else None


def _statements(text: str) -> Iterator[_Statement]:
    """Statement by statement, blank lines and comments left out; ends early where one is wrong, or too long."""
    lines = text.replace("\r\n", "\n").split("\n")
    start = 0
    while start < len(lines):
        for end in range(start + 1, min(start + MAX_STATEMENT_LINES, len(lines)) + 1):
            try:
                table = tomllib.loads("\n".join(lines[start:end]))
            except (ValueError, RecursionError):
                continue
            if _is_deep(table):
                return
            if table:
                yield _Statement(start + 1, end, lines[start].lstrip().startswith("["), table)
            break
        else:
            return
        start = end


def _is_deep(table: dict[str, Any]) -> bool:
    """Whether something lies more than MAX_DEPTH deep."""
    level: list[object] = [table]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
    return bool(level)


def _paths(value: object, path: OptionPath = ()) -> Iterator[OptionPath]:
    """The paths to everything within a value, outermost first."""
    items: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for key, item in items:
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _explained(text: str, message: str) -> TomlError:
    """The library's verdict, with its line as a number, and for something that is set twice with the first place."""
    position = _POSITION.search(message)
    what = message[: position.start()] if position else message
    what = what[:1].lower() + what[1:]
    if position and position["line"]:
        line = int(position["line"])
    else:
        line = text.rstrip().count("\n") + 1
    before = _Lines()
    for statement in _statements(text):
        if statement.first <= line <= statement.last:  # right in itself, so wrong beside what came before
            earlier = before.known(before.resolved(statement))
            if earlier is not None:
                option, first = earlier
                return TomlError(f"set before on line {first}; keep one of them", statement.first, option)
            break
        before.add(statement)
    return TomlError(what, line)
