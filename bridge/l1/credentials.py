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
        """Return the cookie's user and password; raises L1Unavailable(UNREACHABLE) when there is none."""
        try:
            cookie = self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise L1Unavailable(L1Reason.UNREACHABLE, "no cookie file: the node isn't running") from error
        except (OSError, UnicodeDecodeError) as error:
            raise L1Unavailable(L1Reason.UNAUTHORIZED, "the cookie file can't be read") from error
        user, colon, password = cookie.strip().partition(":")
        if not colon:  # the node has created the file, and not yet filled it
            raise L1Unavailable(L1Reason.UNAUTHORIZED, "the cookie file holds no user and password")
        return user, password


@dataclass(frozen=True, slots=True)
class PasswordAuth:
    """A user and password set by `rpcauth` or `rpcpassword`."""

    user: str
    password: str = field(repr=False)

    def read(self) -> tuple[str, str]:
        """Return user and password."""
        return self.user, self.password
