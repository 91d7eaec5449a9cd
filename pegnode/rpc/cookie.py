"""The password that a node leaves in its data directory for those who may read it, as bitcoind does."""

import base64
import binascii
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Self

from bridge.errors import Reason
from pegnode.errors import ReasonedError

COOKIE_NAME = ".cookie"
COOKIE_USER = "__cookie__"
SECRET_BYTES = 32
MAX_COOKIE_BYTES = 256


class CookieReason(Reason):
    """Why there is no usable cookie."""

    MISSING = "cookie-missing"
    """There is no such file: no node runs on this directory."""
    UNREADABLE = "cookie-unreadable"  # The file can't be read or written.
    MALFORMED = "cookie-malformed"  # The file holds no cookie.


class CookieError(ReasonedError):
    """The cookie can't be read or written."""

    reason: CookieReason


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password of hexadecimal digits. It shows no password, and is neither pickled nor copied."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Fresh ones, of 256 random bits."""
        return cls(COOKIE_USER, secrets.token_hex(SECRET_BYTES))

    def allow(self, authorization: str) -> bool:
        """Whether the value of an Authorization header names these, compared in constant time. Source: RFC 7617."""
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip().encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return False
        return hmac.compare_digest(given, self._text.encode()) and scheme.lower() == "basic"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a login is neither pickled nor copied")

    @property
    def _text(self) -> str:
        return f"{self.user}:{self.password}"

    def write(self, path: Path) -> None:
        """Replace the file at `path`, readable by its owner alone. Raises CookieError."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self._text)
            temporary.replace(path)
        except OSError as error:
            raise CookieError(CookieReason.UNREADABLE, f"can't write {path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a running node wrote to `path`. Raises CookieError."""
        try:
            with path.open("rb") as file:
                text = file.read(MAX_COOKIE_BYTES).decode("ascii")
        except FileNotFoundError as error:
            raise CookieError(CookieReason.MISSING, f"no node runs on {path.parent}") from error
        except UnicodeDecodeError as error:
            raise CookieError(CookieReason.MALFORMED, f"{path} is not a cookie") from error
        except OSError as error:
            raise CookieError(CookieReason.UNREADABLE, f"can't read {path}: {error.strerror}") from error
        user, colon, password = text.strip().partition(":")
        if not (user and colon and password):
            raise CookieError(CookieReason.MALFORMED, f"{path} is not a cookie")
        return cls(user, password)

    def remove(self, path: Path) -> None:
        """Remove the file at `path`, unless another node has put its own there since."""
        try:
            if type(self).read(path) == self:
                path.unlink(missing_ok=True)
        except CookieError:
            return
