"""What is said about an option that is unknown or of the wrong type. (pure)"""

import difflib
import re
from collections.abc import Sequence

import msgspec

from pegnode.options.toml_document import OptionPath

_STEP = re.compile(r"\.(?P<key>[A-Za-z0-9_]+)|\[(?P<index>[0-9]+)\]")
_WORDS = {
    "`str`": "a text in quotes",
    "`array`": "a list",
    "`object`": "a section",
    "`int`": "a whole number",
    "`float`": "a number with a fraction",
    "`bool`": "true or false",
    "`null`": "null",
}


def explained(error: msgspec.ValidationError) -> tuple[str, OptionPath]:
    """What the library says in words of our own, and the option that it says this about."""
    words, _, place = str(error).partition(" - at `$")
    for theirs, ours in _WORDS.items():
        words = words.replace(theirs, ours)
    option = tuple(int(step["index"]) if step["index"] else step["key"] for step in _STEP.finditer(place))
    return words[:1].lower() + words[1:], option


def suggestion(name: str, known: Sequence[str]) -> str:
    """What may have been meant by an unknown option. known: the options that there are in its place."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown option; did you mean {near[0]}?"
    return f"unknown option; here there are {', '.join(known)}"
