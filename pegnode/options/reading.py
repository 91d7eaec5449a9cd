"""From a file to the values of its options: what is unknown, missing or of another type is refused with its line."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from pegnode.input_file import read_input_text
from pegnode.options.errors import ConfigReason, ConfigRefused, locating
from pegnode.options.toml_document import OptionPath, TomlDocument, TomlError
from pegnode.options.wording import explained, suggestion

MAX_FILE_BYTES = 100_000
"""Several times what a federation of the greatest size needs."""


if TYPE_CHECKING:
    from pegnode.config import NodeConfig

C = TypeVar("C", bound="NodeConfig")


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
        _require_known_options(document.table, kind, ())
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


def _require_known_options(table: Mapping[str, object], kind: type[msgspec.Struct], section: OptionPath) -> None:
    """Raise ConfigRefused for the first option that `kind` lacks, and then for the first that `table` lacks."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name in table:
        if name not in fields:
            raise ConfigRefused(ConfigReason.UNKNOWN_OPTION, _suggestion(name, kind), ((*section, name),))
    for name, field in fields.items():
        option = (*section, name)
        if name not in table:
            if field.required:
                raise ConfigRefused(ConfigReason.MISSING_OPTION, f"missing: {description(field)}", (option,))
            continue
        value, wanted = table[name], bare_type(field.type)
        if isinstance(value, dict) and is_section(wanted):
            _require_known_options(value, wanted, option)
        if isinstance(value, list) and is_section(element := element_type(wanted)):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _require_known_options(item, element, (*option, index))


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


def element_type(kind: object) -> object:
    """What a tuple of any length consists of; None for another type."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def description(field: msgspec.structs.FieldInfo) -> str:
    """What an option means, in one line, without a full stop: attached to its type. Raises TypeError without one."""
    for word in getattr(field.type, "__metadata__", ()):
        if isinstance(word, msgspec.Meta) and word.description:
            return word.description
    raise TypeError(f"the option {field.name} has no description")
