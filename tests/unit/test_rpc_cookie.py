"""The cookie: private, exact, and gone with the node that wrote it."""

import base64
import copy
import pickle
from pathlib import Path

import pytest

from pegnode.rpc.cookie import COOKIE_USER, CookieError, CookieReason, Credentials


def header(text: str, scheme: str = "Basic") -> str:
    """An Authorization header."""
    return f"{scheme} {base64.b64encode(text.encode()).decode()}"


def read_reason(path: Path) -> CookieReason:
    """Why the cookie can't be read."""
    with pytest.raises(CookieError) as caught:
        Credentials.read(path)
    return caught.value.reason


def test_written_cookie_is_read_back_and_private(tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    credentials = Credentials.generate()
    credentials.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("__cookie__:")
    assert len(path.read_text()) == len("__cookie__:") + 64
    assert Credentials.read(path) == credentials
    assert list(tmp_path.iterdir()) == [path]


def test_cookies_differ_and_hide_themselves() -> None:
    first, second = Credentials.generate(), Credentials.generate()
    assert first.password != second.password
    assert first.password not in repr(first)
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            action(first)


def test_writing_replaces_a_cookie_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    path.write_text("old:one")
    path.chmod(0o644)
    credentials = Credentials.generate()
    credentials.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Credentials.read(path) == credentials


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_allow_accepts_the_right_pair(scheme: str) -> None:
    assert Credentials("user", "secret").allow(header("user:secret", scheme))


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic é",
        header("user:secret", "Bearer"),
        header("user:secret2"),
        header("user:secre"),
        header("user2:secret"),
        header("usersecret"),
        header(""),
        header("user:secret") + "AA",
        "user:secret",
    ],
)
def test_allow_refuses_anything_else(authorization: str) -> None:
    assert not Credentials("user", "secret").allow(authorization)


def test_remove_deletes_the_own_cookie(tmp_path: Path) -> None:
    credentials = Credentials.generate()
    credentials.write(tmp_path / ".cookie")
    credentials.remove(tmp_path / ".cookie")
    assert not (tmp_path / ".cookie").exists()
    credentials.remove(tmp_path / ".cookie")


def test_remove_leaves_another_nodes_cookie(tmp_path: Path) -> None:
    other = Credentials.generate()
    other.write(tmp_path / ".cookie")
    Credentials.generate().remove(tmp_path / ".cookie")
    assert Credentials.read(tmp_path / ".cookie") == other


def test_read_names_a_missing_cookie(tmp_path: Path) -> None:
    assert read_reason(tmp_path / ".cookie") is CookieReason.MISSING


@pytest.mark.parametrize("content", [b"", b"no colon", b":password", b"user:", b"\xff\xfe:x"])
def test_read_refuses_a_malformed_cookie(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".cookie").write_bytes(content)
    assert read_reason(tmp_path / ".cookie") is CookieReason.MALFORMED


def test_read_names_an_unreadable_cookie(tmp_path: Path) -> None:
    assert read_reason(tmp_path) is CookieReason.UNREADABLE


def test_write_names_an_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(CookieError) as caught:
        Credentials(COOKIE_USER, "x").write(tmp_path / "absent" / ".cookie")
    assert caught.value.reason is CookieReason.UNREADABLE
