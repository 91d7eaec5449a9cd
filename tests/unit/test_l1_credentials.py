"""Credentials: where they come from, and that they show nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.l1.connection import L1Connection
from bridge.l1.credentials import CookieAuth, PasswordAuth
from bridge.l1.errors import L1Reason, L1Unavailable

PASSWORD = "correct horse"


def test_cookie_is_read_afresh(tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    path.write_text("__cookie__:first\n")
    auth = CookieAuth(path)
    assert auth.read() == ("__cookie__", "first")
    path.write_text("__cookie__:a:b")
    assert auth.read() == ("__cookie__", "a:b")


def test_cookie_that_is_absent_means_no_node(tmp_path: Path) -> None:
    with pytest.raises(L1Unavailable) as caught:
        CookieAuth(tmp_path / ".cookie").read()
    assert caught.value.reason == L1Reason.UNREACHABLE


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff:\xff"])
def test_cookie_that_is_no_cookie_means_no_access(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".cookie").write_bytes(content)
    with pytest.raises(L1Unavailable) as caught:
        CookieAuth(tmp_path / ".cookie").read()
    assert caught.value.reason == L1Reason.UNAUTHORIZED


def test_cookie_path_that_is_a_folder_means_no_access(tmp_path: Path) -> None:
    with pytest.raises(L1Unavailable) as caught:
        CookieAuth(tmp_path).read()
    assert caught.value.reason == L1Reason.UNAUTHORIZED


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
