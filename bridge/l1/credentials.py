"""How this program proves to its Bitcoin node that it may ask. Nothing here shows a secret in `repr` or an error."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bridge.l1.errors import L1Reason, L1Unavailable


class Credentials(Protocol):
    """Where user and password come from."""

    def read(self) -> tuple[str, str]:
        """Return user and password, read afresh; raises L1Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class CookieAuth:
    """The cookie file that bitcoind writes at each start and removes when it stops."""

    path: Path

    def read(self) -> tuple[str, str]:
        """Return the cookie's user and password; raises L1Unavailable(CREDENTIALS_MISSING)."""
        user, colon, password = _read(self.path, "cookie").strip().partition(":")
        if not colon:  # the node has created the file, and not yet filled it
            raise L1Unavailable(L1Reason.CREDENTIALS_MISSING, "the cookie file holds no user and password")
        return user, password


@dataclass(frozen=True, slots=True)
class PasswordFileAuth:
    """A user and password set by `rpcauth` or `rpcpassword`. The password is the first line of a file."""

    user: str
    path: Path

    def read(self) -> tuple[str, str]:
        """Return user and password; raises L1Unavailable(CREDENTIALS_MISSING)."""
        password = _read(self.path, "password").partition("\n")[0].strip()
        if not password:
            raise L1Unavailable(L1Reason.CREDENTIALS_MISSING, "the password file holds no password")
        return self.user, password


@dataclass(frozen=True, slots=True)
class PasswordAuth:
    """A user and password that are known already."""

    user: str
    password: str = field(repr=False)

    def read(self) -> tuple[str, str]:
        """Return user and password."""
        return self.user, self.password


def _read(path: Path, kind: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise L1Unavailable(L1Reason.CREDENTIALS_MISSING, f"there is no {kind} file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise L1Unavailable(L1Reason.CREDENTIALS_MISSING, f"the {kind} file {path} can't be read") from error
