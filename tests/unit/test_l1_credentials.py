"""Credentials: where they come from, and that they show nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.l1.connection import L1Connection
from bridge.l1.credentials import CookieAuth, PasswordAuth, PasswordFileAuth
from bridge.l1.errors import L1Reason, L1Unavailable

PASSWORD = "correct horse"


def test_cookie_is_read_afresh(tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    path.write_text("__cookie__:first\n")
    auth = CookieAuth(path)
    assert auth.read() == ("__cookie__", "first")
    path.write_text("__cookie__:a:b")
    assert auth.read() == ("__cookie__", "a:b")


def test_cookie_that_is_absent_is_missing(tmp_path: Path) -> None:
    with pytest.raises(L1Unavailable) as caught:
        CookieAuth(tmp_path / ".cookie").read()
    assert caught.value.reason == L1Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff:\xff"])
def test_cookie_that_is_no_cookie_is_missing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".cookie").write_bytes(content)
    with pytest.raises(L1Unavailable) as caught:
        CookieAuth(tmp_path / ".cookie").read()
    assert caught.value.reason == L1Reason.CREDENTIALS_MISSING


def test_cookie_path_that_is_a_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(L1Unavailable) as caught:
        CookieAuth(tmp_path).read()
    assert caught.value.reason == L1Reason.CREDENTIALS_MISSING


def test_password_file_is_read_afresh_and_shows_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\nsecond line\n")
    auth = PasswordFileAuth("user", path)
    assert auth.read() == ("user", PASSWORD)
    assert PASSWORD not in f"{auth!r} {auth}"
    path.write_text("another")
    assert auth.read() == ("user", "another")


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe"])
def test_password_file_without_a_password_is_missing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(L1Unavailable) as caught:
        PasswordFileAuth("user", path).read()
    assert caught.value.reason is L1Reason.CREDENTIALS_MISSING


def test_password_shows_in_no_representation() -> None:
    auth = PasswordAuth("user", PASSWORD)
    assert auth.read() == ("user", PASSWORD)
    assert PASSWORD not in f"{auth!r} {auth}"


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8332", "ftp://host", "http://", "http://u:p@host:1", "http://host/wallet/x", "http://[::"]
)
def test_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(L1Unavailable) as caught:
        L1Connection(url, PasswordAuth("u", PASSWORD), 1)
    assert caught.value.reason == L1Reason.BAD_URL
    assert "u:p" not in str(caught.value)


async def test_url_is_shown_without_a_trailing_surprise() -> None:
    async with L1Connection("http://127.0.0.1:18443", PasswordAuth("u", PASSWORD), 1) as connection:
        assert connection.url == "http://127.0.0.1:18443"
