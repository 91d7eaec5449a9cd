"""Why a secret on disk, or the passphrase to it, is refused."""

from bridge.errors import Reason
from federation.errors import Refused


class KeystoreReason(Reason):
    """Why a secret can't be read or written."""

    MISSING = "keystore-missing"
    """There is no such file or directory."""
    EXISTS = "keystore-exists"
    """A secret would be overwritten."""
    NOT_A_FILE = "keystore-not-a-file"
    """A directory, link, device or pipe where a file belongs, or a file where a directory does."""
    TOO_OPEN = "keystore-too-open"
    """Others than the owner may read, write or enter it."""
    FOREIGN_OWNER = "keystore-foreign-owner"
    """It belongs to another user."""
    UNREADABLE = "keystore-unreadable"
    """The operating system can't read or write it: its own words follow."""
    WRONG_SIZE = "keystore-wrong-size"
    """An empty or oversized file, or a sealed secret of another length."""
    MALFORMED = "keystore-malformed"
    """Not a file of this format, or one that an editor has touched."""
    DAMAGED = "keystore-damaged"
    """A file of this format whose checksum does not fit its content."""
    UNKNOWN_VERSION = "keystore-unknown-version"
    """A file of another release."""
    WRONG_KIND = "keystore-wrong-kind"
    """A file with keys for another purpose."""
    COST = "keystore-cost"
    """A cost of scrypt outside what this program accepts, or beyond this machine's memory."""
    BAD_PASSPHRASE = "keystore-bad-passphrase"
    """Empty, too short, too long, or of characters that can't be typed again with certainty."""
    WRONG_PASSPHRASE = "keystore-wrong-passphrase"
    """The seal does not open: another passphrase, or a file that was altered by intent."""
    NO_PASSPHRASE = "keystore-no-passphrase"
    """No file, environment variable or terminal gave one."""
    INVALID_SCALAR = "keystore-invalid-scalar"
    """Not a secret key: 32 bytes that name a number from 1 to the curve's order - 1."""
    WRONG_PUBLIC_KEY = "keystore-wrong-public-key"
    """The public keys in clear are not those of the sealed secrets."""
    REUSED_KEY = "keystore-reused-key"
    """One secret serves two purposes."""


class KeystoreRefused(Refused):
    """A secret that is not accepted, and what to do about it. reason: KeystoreReason."""
