"""Why a journal is not used, or takes no vote, and what an operator does about it."""

from bridge.errors import Reason
from federation.certificate import Vote
from federation.errors import Refused

RENEW = "peg journal renew --config FILE"
"""What an operator does about a journal that is lost, damaged or behind."""


class JournalReason(Reason):
    """Why a journal can't be used, or why it does not take a vote."""

    MISSING = "journal-missing"
    """There is none: it was lost, or never made."""
    EXISTS = "journal-exists"
    """A second journal could sign against the first."""
    DAMAGED = "journal-damaged"
    """It is not what this program writes: what was signed is not known."""
    NEWER = "journal-newer"
    """A later release wrote it."""
    LOCKED = "journal-locked"
    """Another process of the same member has it open."""
    NO_SPACE = "journal-no-space"
    """The disk is full, or a quota or a limit on the size of files is reached."""
    READ_ONLY = "journal-read-only"
    """The disk or the directory can't be written."""
    UNUSABLE = "journal-unusable"
    """The path can't be used for another reason, or the journal was closed."""
    FOREIGN = "journal-foreign"
    """It is another member's, another epoch's or another chain's."""
    BEHIND = "journal-behind"
    """It lacks a vote that this member's key signed: an older copy of it was put back, or the key is used elsewhere."""
    FORGOTTEN = "journal-forgotten"
    """It was made in place of a lost one, and has yet to learn how far this member may have signed."""
    KEYS_ELSEWHERE = "journal-keys-elsewhere"
    """A signer in a process of its own was made for this member: only that one's journal knows every vote."""
    NOT_OWN = "journal-not-own"
    """A vote of another member, or of another epoch."""
    PASSED = "journal-passed"
    """A vote in a view that is pruned."""
    CONFLICT = "journal-conflict"
    """A vote against this member's own earlier word."""
    CONTRADICTED = "journal-contradicted"
    """Two certificates were seen that can't both be while at most f members are faulty: nothing is signed any more."""
    BODY_MISSING = "journal-body-missing"
    """A vote to notarize without the block."""


class JournalRefused(Refused):
    """The journal stands against it. reason: JournalReason."""


def lacking(vote: Vote) -> JournalRefused:
    """What to say of a checked vote by this member's key that its journal lacks."""
    return behind(f"it lacks the vote to {vote.kind.name} in view {vote.view}, which others have")


def behind(what: str) -> JournalRefused:
    """What happened, for people, with what to do about it."""
    detail = f"{what}: an older copy was put back, or the keys are in use elsewhere. End that use; then: {RENEW}"
    return JournalRefused(JournalReason.BEHIND, detail)
