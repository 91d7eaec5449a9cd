"""Lines of options, and what a text must be to have any."""

import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegnode.options.toml_document import MAX_STATEMENT_LINES, OptionPath, TomlDocument, TomlError, spelt

TEXT = '''\
# a comment
plain = 1 # another

text = """
[x]
key = 2
"""
array = [
  1, # [y]
  { inner = 3 },
]

[section]
key = "u"
"quo.ted" = 1
dotted.key = 5
[[list.items]]
name = "a"
[[list.items]]
name = "b"
[list.items.sub]
deep = 1
'''


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("plain",), 2),
        (("text",), 4),
        (("array",), 8),
        (("array", 1, "inner"), 8),
        (("section",), 13),
        (("section", "key"), 14),
        (("section", "quo.ted"), 15),
        (("section", "dotted", "key"), 16),
        (("list", "items", 0, "name"), 18),
        (("list", "items", 1), 19),
        (("list", "items", 1, "name"), 20),
        (("list", "items", 1, "sub", "deep"), 22),
        (("section", "absent"), 13),
        (("list", "items", 1, "absent"), 19),
        (("absent",), None),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_option_is_found_on_its_line(option: OptionPath, line: int | None, newline: str) -> None:
    document = TomlDocument.parse(TEXT.replace("\n", newline))
    assert document.table == tomllib.loads(TEXT.replace("\n", newline))
    assert document.lines_of([option]) == [line]


def test_key_within_a_text_or_a_comment_is_no_option() -> None:
    document = TomlDocument.parse(TEXT)
    assert document.lines_of([("x",), ("key",), ("y",)]) == [None, None, None]


_KEYS = st.sampled_from(["a", "b", "c"])
_VALUES = st.sampled_from(["1", '"x"', "[1,\n2]", '"""\n[a]\nb = 1\n"""', "{ a = 1, b = { c = 2 } }"])
_STATEMENTS = st.one_of(
    st.tuples(_KEYS, _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.tuples(_KEYS, _KEYS, _VALUES).map(lambda pair: f"{pair[0]}.{pair[1]} = {pair[2]}"),
    _KEYS.map(lambda key: f"[{key}]"),
    _KEYS.map(lambda key: f"[[{key}]]"),
    st.just("# [a]"),
    st.just(""),
)


def _paths(value: object, path: OptionPath = ()) -> list[OptionPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in [(*path, key), *_paths(item, (*path, key))]]


@given(statements=st.lists(_STATEMENTS, max_size=12))
def test_every_option_of_any_document_has_the_line_that_sets_it(statements: list[str]) -> None:
    """Without the lines up to an option's the option is there, without that line too it isn't."""
    text = "\n".join(statements)
    try:
        document = TomlDocument.parse(text)
    except TomlError:
        return
    for option in _paths(document.table):
        [line] = document.lines_of([option])
        assert line is not None
        before = tomllib.loads("\n".join(text.split("\n")[: line - 1]))
        assert option not in _paths(before)


@pytest.mark.parametrize(
    ("text", "option", "line", "first"),
    [
        ("a = 1\na = 2", "a", 2, 1),
        ("[a]\nx = 1\n[b]\n[a]\n", "a", 4, 1),
        ("a.b = 1\na = 2\n", "a", 2, 1),
        ("a = 1\n[b]\na = 1\na = [\n2]\n", "b.a", 4, 3),
        ("a = [1]\n[[a]]\nb = 1", "a", 2, 1),
        ("a = { b = 1 }\na.c = 2\n", "a", 2, 1),
        ("[[a]]\nx = 1\n[[a]]\nx = 1\nx = 2\n", "a[1].x", 5, 4),
        ("[a]\nb = 1\n[a.b]\n", "a.b", 3, 2),
    ],
)
def test_what_is_set_twice_is_refused_with_both_lines(text: str, option: str, line: int, first: int) -> None:
    with pytest.raises(TomlError) as caught:
        TomlDocument.parse(text)
    error = caught.value
    assert (spelt(error.option), error.line) == (option, line)
    assert f"line {first};" in error.what


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \nc = 3", 2),
        ("a = 1\n[b\n", 2),
        ("a = 'x\ny'", 1),
        ("a = [\n1,\n", 2),
        ("a = {b = 1, b = 2}", 1),
        ("a = 1\x00", 1),
        ("a = " + "1" * 4_500, None),
        ("a = " + "[" * 4_900, None),
    ],
)
def test_wrong_syntax_is_refused_with_the_line(text: str, line: int | None) -> None:
    with pytest.raises(TomlError) as caught:
        TomlDocument.parse(text)
    assert (caught.value.line, caught.value.option) == (line, ())


@given(text=st.text(alphabet="ab.=[]{}\"'#\n ,1", max_size=60))
def test_any_text_is_a_document_or_a_toml_error(text: str) -> None:
    with suppress(TomlError):  # anything else is a defect
        document = TomlDocument.parse(text)
        assert None not in document.lines_of(_paths(document.table))


def test_lines_after_a_very_long_statement_are_unknown() -> None:
    long = "a = [\n" + "1,\n" * MAX_STATEMENT_LINES + "]\nb = 1\n"
    assert TomlDocument.parse(long).lines_of([("b",)]) == [None]
    short = "a = [\n" + "1,\n" * (MAX_STATEMENT_LINES - 2) + "]\nb = 1\n"
    assert TomlDocument.parse(short).lines_of([("b",)]) == [MAX_STATEMENT_LINES + 1]


def test_option_is_spelt_as_toml_writes_it() -> None:
    assert spelt(("p2p", "peers", 1, "name")) == "p2p.peers[1].name"
    assert spelt(("a b", "c")) == "'a b'.c"
    assert spelt(()) == ""
