"""Writes a configuration as a file in which every option that exists is explained, given or not."""

import enum
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import msgspec

from pegnode.config import ProcessConfig
from pegnode.options.reading import bare_type, description, element_type, is_section, required_type

MAX_LINE = 120
"""Characters of the longest line of comment."""


def render(config: ProcessConfig, directory: Path) -> str:
    """The commented TOML of `config`, for a file in `directory`; paths below its parent are written relative to it.

    An option that isn't given stands there as a comment, with an example. `type(config).parse(render(config,
    directory), directory)` gives `config` back. Raises TypeError for an option without a description.
    """
    process = type(config).__name__.removesuffix("Config").lower()
    heading = [
        f"# Started with: peg {process} run --config FILE. Checked with: peg doctor --config FILE.",
        "# Relative paths are relative to this file. An option within a comment is an example, and not set.",
    ]
    blocks = [heading, *_section(config, "", directory.resolve())]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _section(section: msgspec.Struct, name: str, base: Path) -> Iterator[list[str]]:
    """The options of a section as a block, then a block for each section within."""
    fields = msgspec.structs.fields(section)
    inner = [field for field in fields if _is_nested(field)]
    yield _options(section, base)
    for field in inner:
        value, header = getattr(section, field.name), f"{name}{field.name}"
        kind = required_type(field.type)
        if value is None and is_section(kind):
            yield [*_comment(field), f"# [{header}]", *_examples(kind, base)]
        elif is_section(kind):
            [first, *rest] = _section(value, f"{header}.", base)
            yield [*_comment(field), f"[{header}]", *first]
            yield from rest
        else:
            yield from _list(field, header, value, base)


def _list(
    field: msgspec.structs.FieldInfo, header: str, items: tuple[msgspec.Struct, ...], base: Path
) -> Iterator[list[str]]:
    """A block for each element, of which the first is explained; an example when there is none."""
    for index, item in enumerate(items):
        lines = _options(item, base)
        if index == 0:
            yield [*_comment(field), f"[[{header}]]", *lines]
        else:
            yield [f"[[{header}]]", *(line for line in lines if not line.startswith("#"))]
    if not items:
        element = element_type(bare_type(field.type))
        lines = _examples(element, base) if is_section(element) else []
        yield [*_comment(field), f"# [[{header}]]", *lines]


def _examples(kind: type[msgspec.Struct], base: Path) -> list[str]:
    """The options of a section that is not there, as comments."""
    options = msgspec.structs.fields(kind)
    return [line for one in options for line in (*_comment(one), f"# {one.name} = {_text(_example(one), base)}")]


def _options(section: msgspec.Struct, base: Path) -> list[str]:
    """Each option that is no section itself: what it means, and its value."""
    lines: list[str] = []
    for field in msgspec.structs.fields(section):
        if _is_nested(field):
            continue
        value = getattr(section, field.name)
        lines += _comment(field)
        if value is None:
            lines.append(f"# {field.name} = {_text(_example(field), base)}")
        else:
            lines.append(f"{field.name} = {_text(value, base)}")
    return lines


def _comment(field: msgspec.structs.FieldInfo) -> list[str]:
    """What an option means, and its default."""
    default = "" if field.required or _is_nested(field) else f" (default: {_default(field.default)})"
    return [f"# {description(field)}{default}"]


def _default(value: object) -> str:
    return "none" if value is None else str(value.value if isinstance(value, enum.Enum) else value)


def _example(field: msgspec.structs.FieldInfo) -> object:
    """A value to show. Raises TypeError for an option that may be left out and shows none."""
    for word in getattr(field.type, "__metadata__", ()):
        if isinstance(word, msgspec.Meta) and word.examples:
            return word.examples[0]
    raise TypeError(f"the option {field.name} has no example")


def _is_nested(field: msgspec.structs.FieldInfo) -> bool:
    kind = required_type(field.type)
    return is_section(kind) or (get_origin(kind) is tuple and is_section(get_args(kind)[0]))


def _text(value: object, base: Path) -> str:
    """A value in TOML. Raises TypeError for a type that no option has."""
    if isinstance(value, Path):
        near = value.is_relative_to(base.parent)
        return _quoted(os.path.relpath(value, base) if near else str(value))
    if isinstance(value, enum.Enum):
        return _quoted(str(value.value))
    if isinstance(value, str):
        return _quoted(value)
    raise TypeError(f"no way to write {type(value).__name__}")


def _quoted(value: str) -> str:
    """A TOML basic string. JSON's is one, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
