"""Why options are refused, and where in their file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, Self

from bridge.errors import Reason
from pegnode.errors import ReasonedError
from pegnode.options.toml_document import OptionPath, TomlDocument, spelt

MAX_NAMED: Final = 10
"""Flaws that one refusal names."""


class ConfigReason(Reason):
    """Why a configuration is refused."""

    NOT_TOML = "config-not-toml"
    """The text breaks TOML's grammar."""
    DUPLICATE_OPTION = "config-duplicate-option"
    """An option or a section is given twice."""
    UNKNOWN_OPTION = "config-unknown-option"
    """No option of this kind of process has that name."""
    MISSING_OPTION = "config-missing-option"
    """An option without a default is not given."""
    WRONG_VALUE = "config-wrong-value"
    """A value of another type, or one that the option doesn't have."""
    CONTRADICTION = "config-contradiction"
    """Options that exclude each other."""
    NOT_LOOPBACK = "config-not-loopback"
    """The RPC would be reachable from outside this machine."""
    BAD_ADDRESS = "config-bad-address"
    """No address of the kind that the option wants."""
    BAD_URL = "config-bad-url"
    """Not the URL of a Bitcoin node's RPC."""
    DUPLICATE_PEER = "config-duplicate-peer"
    """One peer is named twice, or two have one address."""
    UNKNOWN_PEER = "config-unknown-peer"
    """A peer is named that is no member in the genesis."""
    NOT_A_MEMBER = "config-not-a-member"
    """The functionary's own name is no member's in the genesis."""


class OptionRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """Something in a file of options that this program won't run with.

    what: what is wrong and what to do.  options: those that it is about, the first of all first.
    lines: of each option, from 1, as far as known.  others: what else is wrong.  The detail is
    `FILE:LINE: option: what`, of which FILE and LINE are left out while they aren't known; then the same of the others.
    """

    def __init__(
        self,
        reason: Reason,
        what: str,
        options: Sequence[OptionPath] = (),
        *,
        lines: Sequence[int | None] = (),
        file: str = "",
        others: Sequence["OptionRefused"] = (),
    ) -> None:
        flaws = [_detail(what, options, lines, file), *(item.detail for item in others)]
        super().__init__(reason, "; and ".join(flaws))
        self.what = what
        self.options = tuple(options)
        self.lines = tuple(lines)
        self.others = tuple(others)

    def located(self, document: TomlDocument, file: str) -> Self:
        """The same, with the lines of its options in a document. file: what to call it, empty for nothing."""
        lines, others = document.lines_of(self.options), [item.located(document, "") for item in self.others]
        return type(self)(self.reason, self.what, self.options, lines=lines, file=file, others=others)


class ConfigRefused(OptionRefused):
    """A configuration that this program won't run with. reason: ConfigReason."""


def refuse_any(flaws: Iterable[OptionRefused]) -> None:
    """Raise the first of these, if there is one, with the others: the next ones, if they are very many."""
    found = list(islice(flaws, MAX_NAMED))
    if found:
        first, *others = found
        raise type(first)(first.reason, first.what, first.options, others=others)


def flaws(checks: Iterable[Callable[[], None]]) -> Iterator[OptionRefused]:
    """What each of these finds first."""
    for check in checks:
        try:
            check()
        except OptionRefused as flaw:
            yield flaw


@contextmanager
def locating(document: TomlDocument, file: str = "") -> Iterator[None]:
    """Give what is refused within the lines of its options in the document, and the file's name."""
    try:
        yield
    except OptionRefused as error:
        raise error.located(document, file) from error


def _detail(what: str, options: Sequence[OptionPath], lines: Sequence[int | None], file: str) -> str:
    line = lines[0] if lines else None
    if file:
        place = f"{file}:{line}" if line else file
    else:
        place = f"line {line}" if line else ""
    parts = [part for part in (place, spelt(options[0]) if options else "", what) if part]
    others = zip(options[1:], lines[1:], strict=False)
    related = ", ".join(f"{spelt(option)} is on line {line}" for option, line in others if line)
    return ": ".join(parts) + (f" ({related})" if related else "")
