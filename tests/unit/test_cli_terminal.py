"""What is printed shows another's words as they are, whatever is in them."""

from pathlib import Path

import pytest
import typer

from pegnode.cli.terminal import errors_as_one_line, fail, out, print_fields, print_items, print_table

CLEAR = "\x1b[2J\x1b[H"
HIDDEN = ("\x1b", "\x9b", "\r", "\u202e")
TEXT = f"good{CLEAR}\x9b2J\rbad\u202etxt.exe"
SHOWN = r"good\x1b[2J\x1b[H\x9b2J\rbad\u202etxt.exe"


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    out.print(TEXT, markup=False)
    print_fields({"name": TEXT})
    print_items([(TEXT, {"name": TEXT})], "")
    print_table(("name",), [(TEXT,)], "")
    printed = capsys.readouterr().out
    assert printed.count(SHOWN) == 5
    assert not any(character in printed for character in HIDDEN)


def test_control_characters_of_an_error_are_shown_on_its_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(f"{CLEAR}a\nb\x07")
    assert capsys.readouterr().err == "error: \\x1b[2J\\x1b[Ha b\\x07\n"


def test_brackets_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("members",), [("[alice] [bold]bob[/bold]",)], "")
    assert "[alice] [bold]bob[/bold]" in capsys.readouterr().out


def test_path_that_the_system_refuses_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), errors_as_one_line():
        Path("x" * 300).stat()
    assert capsys.readouterr().err == f"error: file-unreadable: {'x' * 300}: File name too long\n"


def test_failure_of_the_system_that_is_about_no_path_keeps_its_traceback() -> None:
    with pytest.raises(OSError, match="disk"), errors_as_one_line():
        raise OSError("disk on fire")
