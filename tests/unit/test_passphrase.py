"""Passphrases: what is accepted, where they are looked for, and that they show themselves to nobody."""

import copy
import getpass
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import MAX_BYTES, MIN_CHARACTERS, Passphrase
from pegnode import passphrase as passphrase_module
from pegnode.passphrase import VARIABLE, find_passphrase, read_passphrase_file, write_random_passphrase

TEXT = "correct horse battery staple"


def _refusal(action: Callable[[], object], unsaid: str = TEXT) -> KeystoreRefused:
    with pytest.raises(KeystoreRefused) as caught:
        action()
    for error in (caught.value, caught.value.__cause__, caught.value.__context__):
        assert unsaid not in repr(error)
    return caught.value


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither environment nor terminal."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)


def _file(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


def _typing(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[str]:
    """A terminal at which these are typed; returns the prompts to come."""
    answers, prompts = iter(texts), []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return next(answers)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", answer)
    return prompts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("x" * (MIN_CHARACTERS - 1), "fewer than 12 characters"),
        ("é" * (MAX_BYTES // 2) + "e", "longer than 1024 bytes"),
        (" " + TEXT, "blank"),
        (TEXT + " ", "blank"),
        (TEXT + "\u00a0", "blank"),
        ("tab\tin the middle", "control character"),
        ("nul\0in the middle", "control character"),
        ("escape \x1b[A typed in", "control character"),
        ("zero\u200bwidth space", "control character"),
        ("a lone \ud800 surrogate", "control character"),
    ],
)
def test_unfit_passphrase_is_refused(text: str, words: str) -> None:
    refused = _refusal(lambda: Passphrase(text), unsaid=text or "nothing")
    assert refused.reason is KeystoreReason.BAD_PASSPHRASE
    assert words in refused.detail


@pytest.mark.parametrize("text", ["x" * MIN_CHARACTERS, "é" * (MAX_BYTES // 2), "пароль из шести слов", "密码" * 6])
def test_fit_passphrase_is_taken(text: str) -> None:
    assert Passphrase(text).reveal() == text.encode()


def test_passphrase_typed_in_two_ways_is_one() -> None:
    composed, decomposed, wide = (
        "caf\u00e9 au lait noir",
        "cafe\u0301 au lait noir",
        "cafe\u0301\u00a0au lait \uff4e\uff4f\uff49\uff52",
    )
    assert Passphrase(composed) == Passphrase(decomposed) == Passphrase(wide)
    assert Passphrase(composed) != Passphrase("cafe au lait noir")


def test_passphrase_shows_itself_to_nobody() -> None:
    passphrase = Passphrase(TEXT)
    assert f"{passphrase} {passphrase!r} {[passphrase]}" == "Passphrase(hidden) Passphrase(hidden) [Passphrase(hidden)]"
    for action in (copy.copy, copy.deepcopy, pickle.dumps, hash, vars):
        with pytest.raises(TypeError):
            action(passphrase)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\nanother line\n"])
def test_first_line_of_the_file_is_the_passphrase(tmp_path: Path, ending: bytes) -> None:
    path = _file(tmp_path / "passphrase", TEXT.encode() + ending)
    assert read_passphrase_file(path) == Passphrase(TEXT)


def test_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "passphrase", TEXT.encode())
    path.chmod(0o640)
    refused = _refusal(lambda: find_passphrase(path))
    assert refused.reason is KeystoreReason.TOO_OPEN
    assert f"chmod 600 {path}" in refused.detail


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n" + TEXT.encode(), KeystoreReason.BAD_PASSPHRASE),
        (b"short\n", KeystoreReason.BAD_PASSPHRASE),
        (TEXT.encode() + b" \n", KeystoreReason.BAD_PASSPHRASE),
        (b"\xff" * 20, KeystoreReason.BAD_PASSPHRASE),
        (b"", KeystoreReason.WRONG_SIZE),
        (b"x" * 5_000, KeystoreReason.WRONG_SIZE),
    ],
)
def test_file_without_a_passphrase_is_refused(tmp_path: Path, content: bytes, reason: KeystoreReason) -> None:
    path = _file(tmp_path / "passphrase", content)
    refused = _refusal(lambda: find_passphrase(path))
    assert refused.reason is reason
    assert str(path) in refused.detail


def test_file_goes_before_the_environment_and_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "of the environment")
    prompts = _typing(monkeypatch)
    assert find_passphrase(_file(tmp_path / "passphrase", TEXT.encode())) == Passphrase(TEXT)
    assert VARIABLE not in os.environ
    assert prompts == []


def test_environment_goes_before_the_terminal_and_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TEXT)
    prompts = _typing(monkeypatch)
    assert find_passphrase(None) == Passphrase(TEXT)
    assert VARIABLE not in os.environ
    assert prompts == []


def test_unfit_passphrase_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "short")
    refused = _refusal(lambda: find_passphrase(None), unsaid="short")
    assert refused.reason is KeystoreReason.BAD_PASSPHRASE
    assert VARIABLE in refused.detail


def test_without_any_source_all_three_are_named() -> None:
    refused = _refusal(lambda: find_passphrase(None))
    assert refused.reason is KeystoreReason.NO_PASSPHRASE
    for source in ("passphrase_file", "--passphrase-file", VARIABLE, "terminal"):
        assert source in refused.detail


def test_person_is_asked_once_for_what_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = _typing(monkeypatch, TEXT)
    assert find_passphrase(None, what="alice's keys") == Passphrase(TEXT)
    assert prompts == ["passphrase for alice's keys: "]


def test_person_types_a_new_passphrase_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    _typing(monkeypatch, TEXT, TEXT)
    assert find_passphrase(None, new=True) == Passphrase(TEXT)
    prompts = _typing(monkeypatch, TEXT, TEXT + "!")
    refused = _refusal(lambda: find_passphrase(None, new=True))
    assert (refused.reason, len(prompts)) == (KeystoreReason.BAD_PASSPHRASE, 2)
    assert "differ" in refused.detail


def test_end_of_input_at_the_prompt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: str) -> str:
        raise EOFError

    _typing(monkeypatch)
    monkeypatch.setattr(getpass, "getpass", end)
    assert _refusal(lambda: find_passphrase(None)).reason is KeystoreReason.NO_PASSPHRASE


def test_terminal_that_would_echo_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(_: str) -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return TEXT

    _typing(monkeypatch)
    monkeypatch.setattr(getpass, "getpass", echo)
    assert _refusal(lambda: find_passphrase(None)).reason is KeystoreReason.NO_PASSPHRASE


def test_random_passphrase_is_long_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    passphrase = write_random_passphrase(path, os.urandom)
    assert read_passphrase_file(path) == passphrase
    assert len(passphrase.reveal()) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert _refusal(lambda: write_random_passphrase(path, os.urandom)).reason is KeystoreReason.EXISTS


@pytest.fixture
def child() -> "Iterator[subprocess.Popen[str]]":
    """A process that reads its passphrase from the environment, and then waits."""
    code = "from pegnode.passphrase import find_passphrase; find_passphrase(None); print('read', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {VARIABLE: TEXT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(passphrase_module.__file__).parents[1],
    ) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_environment_of_the_process_no_longer_shows_it(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "read\n"
    shown = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert VARIABLE.encode() in shown  # the name is left: the block was read
    assert TEXT.encode() not in shown
