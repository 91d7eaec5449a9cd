"""From a file to the values of its options: what is unknown, missing or of another type is refused with its line."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from pegnode.input_file import read_input_text
from pegnode.options.errors import ConfigReason, ConfigRefused, locating, refuse_any
from pegnode.options.toml_document import OptionPath, TomlDocument, TomlError
from pegnode.options.wording import explained, suggestion

MAX_FILE_BYTES = 100_000
"""Several times what a federation of the greatest size needs."""


if TYPE_CHECKING:
    from pegnode.config import ProcessConfig

C = TypeVar("C", bound="ProcessConfig")


def load_document(path: Path) -> TomlDocument:
    """The TOML document in a file. Raises FileRefused and ConfigRefused."""
    return parse_document(read_input_text(path, MAX_FILE_BYTES), str(path))


def parse_document(text: str, file: str = "") -> TomlDocument:
    """The TOML document in `text`. Raises ConfigRefused: NOT_TOML, DUPLICATE_OPTION."""
    try:
        return TomlDocument.parse(text)
    except TomlError as error:
        reason = ConfigReason.DUPLICATE_OPTION if error.option else ConfigReason.NOT_TOML
        options = (error.option,)
        raise ConfigRefused(reason, error.what, options, lines=(error.line,), file=file) from error


def configuration(document: TomlDocument, kind: type[C], directory: Path, file: str = "") -> C:
    """The configuration of that kind, with relative paths under `directory`. Raises ConfigRefused with the line."""
    with locating(document, file):
        sections = list(_sections(document.table, kind, ()))
        refuse_any(_unknown(sections))  # first, since one of them may be meant for what is missing
        refuse_any(_missing(sections))
        config = _converted(document.table, kind, directory.resolve())
        config.validate()
    return config


def _converted(table: Mapping[str, object], kind: type[C], base: Path) -> C:
    def decode_path(_: type, value: object) -> Path:
        """Of all types in a configuration, Path is the one that the library does not know."""
        if not isinstance(value, str) or not value:
            raise ValueError("Expected a path")
        return (base / value).resolve()

    try:
        return msgspec.convert(table, kind, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        what, option = explained(error)
        raise ConfigRefused(ConfigReason.WRONG_VALUE, what, (option,)) from error


_Section = tuple[OptionPath, Mapping[str, object], type[msgspec.Struct]]
"""Where a section is, what it gives, and the kind that it should be."""


def _sections(table: Mapping[str, object], kind: type[msgspec.Struct], section: OptionPath) -> Iterator[_Section]:
    """A section, and those within it."""
    yield section, table, kind
    for field in msgspec.structs.fields(kind):
        value, wanted, option = table.get(field.name), required_type(field.type), (*section, field.name)
        if isinstance(value, dict) and is_section(wanted):
            yield from _sections(value, wanted, option)
        if isinstance(value, list) and is_section(element := element_type(wanted)):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _sections(item, element, (*option, index))


def _unknown(sections: Iterable[_Section]) -> Iterator[ConfigRefused]:
    for section, table, kind in sections:
        for name in table:
            if name not in kind.__struct_fields__:
                yield ConfigRefused(ConfigReason.UNKNOWN_OPTION, _suggestion(name, kind), ((*section, name),))


def _missing(sections: Iterable[_Section]) -> Iterator[ConfigRefused]:
    for section, table, kind in sections:
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in table:
                what = f"missing: {description(field)}"
                yield ConfigRefused(ConfigReason.MISSING_OPTION, what, ((*section, field.name),))


def _suggestion(name: str, kind: type[msgspec.Struct]) -> str:
    for other in kind.__subclasses__():
        if name in other.__struct_fields__:
            return f"an option of a {other.__name__.removesuffix('Config').lower()}, which this process isn't"
    return suggestion(name, [field.name for field in msgspec.structs.fields(kind)])


def is_section(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    """Whether a value of this type is a table of options."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def bare_type(kind: object) -> object:
    """A type without the words that were attached to it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def required_type(kind: object) -> object:
    """A type without the words that were attached to it, and without the None that stands for an option left out."""
    kinds = [one for one in get_args(bare_type(kind)) if one is not NoneType]
    union = get_origin(bare_type(kind)) is UnionType and len(kinds) == 1
    return kinds[0] if union else bare_type(kind)


def element_type(kind: object) -> object:
    """What a tuple of any length consists of; None for another type."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def description(field: msgspec.structs.FieldInfo) -> str:
    """What an option means, in one line, without a full stop: attached to its type. Raises TypeError without one."""
    for word in getattr(field.type, "__metadata__", ()):
        if isinstance(word, msgspec.Meta) and word.description:
            return word.description
    raise TypeError(f"the option {field.name} has no description")
