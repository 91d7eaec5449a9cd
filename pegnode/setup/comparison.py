"""How two geneses differ: every field, with both values. (pure)"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pegnode.genesis import Genesis


@dataclass(frozen=True, slots=True)
class Difference:
    """A field with two values; None where one side lacks it."""

    field: str
    first: str | None
    second: str | None


def differences(first: Genesis, second: Genesis) -> list[Difference]:
    """Where they differ, in the order of the fields' names; nothing exactly when their chain ids are equal.

    A member's fields are found by its name, so that one that is missing does not make all that follow seem different.
    """
    one, other = dict(_fields(first)), dict(_fields(second))
    return [
        Difference(field, one.get(field), other.get(field))
        for field in sorted(one.keys() | other.keys())
        if one.get(field) != other.get(field)
    ]


def _fields(genesis: Genesis) -> Iterator[tuple[str, str]]:
    tree = msgspec.to_builtins(genesis)
    members = tree.pop("members")
    yield "members", ", ".join(member["name"] for member in members)
    for member in members:
        yield from _flat(member, f"members.{member['name']}")
    for name, value in tree.items():
        yield from _flat(value, name)


def _flat(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}[{index}]")
    else:
        yield path, str(value)
