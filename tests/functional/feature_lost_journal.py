"""A member loses its journal, gets an older copy of it, and loses its database: what it says, and how it returns."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from federation.journal_entries import open_journal
from federation.journal_header import JournalIdentity
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.rpc.results import JournalReply
from tests.support.federation import FederationUnderTest, eventually, running_federation

LOSER = "dave"
FAST = {"heartbeat_ms": 1_000}
"""So that views pass while nobody pays."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationUnderTest]:
    with running_federation(tmp_path_factory.mktemp("journal") / "federation", parameters=FAST) as federation:
        yield federation


class Member:
    """Dave's process and folder."""

    def __init__(self, federation: FederationUnderTest) -> None:
        self.federation = federation
        self.local = federation.local
        self.config = self.local.member_config_path(LOSER)
        self.data = self.local.member_config(LOSER).data_dir
        self.journal = self.data / JOURNAL_FOLDER
        rules = Genesis.load(self.local.genesis_path).rules()
        self.identity = JournalIdentity(rules.chain_id, 0, self.local.member_names.index(LOSER))

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pegnode.cli.main", *words, "--config", str(self.config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def refusal(self) -> str:
        """The line with which it does not start, or ends soon after its start."""
        ended = self.command("functionary", "run")
        assert ended.returncode == 1
        return ended.stderr.splitlines()[-1]

    def status(self) -> JournalReply:
        found = self.federation.status(LOSER).journal
        assert found is not None
        return found

    def votes_above(self, view: int) -> bool:
        newest = self.status().newest_vote_view
        return newest is not None and newest > view

    def newest_vote_in(self, journal: Path) -> int:
        """The view of the newest vote that a journal holds; 0 without any."""
        opened = open_journal(journal, self.identity)
        try:
            return max((vote.view for vote in opened.contents().votes), default=0)
        finally:
            opened.close()

    @contextmanager
    def standing_chain(self) -> Iterator[None]:
        """Meanwhile nothing becomes final: two others stand still. A journal keeps votes until a later block is."""
        others = [self.local.process(name) for name in self.local.member_names if name != LOSER][:2]
        stopped = [process for process in others if process is not None]
        assert len(stopped) == 2
        try:
            for process in stopped:
                process.suspend()
            yield
        finally:
            for process in stopped:
                process.resume()

    def start(self) -> None:
        self.local.start_member(LOSER)
        self.local.wait_until_answering(LOSER)


def test_member_comes_back_after_each_loss(federation: FederationUnderTest, tmp_path: Path) -> None:
    member = Member(federation)
    eventually(lambda: member.votes_above(2), "dave votes")

    # Lost: it does not start, and says what to do. Put back at once, it is as good as it was, and dave votes on.
    with member.standing_chain():
        eventually(lambda: member.votes_above(member.status().floor_view), "a vote of dave's stays in his journal")
        member.local.stop_member(LOSER)
    copy = member.journal.rename(tmp_path / "older")
    voted = member.newest_vote_in(copy)
    assert voted > 2
    said = member.refusal()
    assert said.startswith(f"error: journal-missing: there is no journal in {member.journal}")
    assert "peg journal renew --config FILE" in said
    shutil.copytree(copy, member.journal)
    member.start()
    eventually(lambda: member.votes_above(voted), "dave votes above what the copy has")

    # The same copy is an older one by now, and there is no database, which would know better: the others do.
    member.local.stop_member(LOSER)
    shutil.rmtree(member.journal)
    shutil.copytree(copy, member.journal)
    shutil.rmtree(member.data / CHAIN_FOLDER)
    said = member.refusal()
    assert said.startswith("error: journal-behind: it lacks the vote to ")
    assert "peg journal renew --config FILE" in said

    # Renewed, and without its database, it follows, hears the others, and votes above what it may have signed.
    renewed = member.command("journal", "renew", "--yes")
    assert renewed.returncode == 0, renewed.stderr
    assert "made a journal that has forgotten" in renewed.stdout
    member.start()
    eventually(lambda: member.status().state == "kept", "dave's journal is renewed")
    floor = member.status().floor_view
    assert floor > voted
    eventually(lambda: member.votes_above(floor), "dave votes above the floor")

    # Its database alone: fetched again.
    member.local.stop_member(LOSER)
    shutil.rmtree(member.data / CHAIN_FOLDER)
    member.start()
    height, floor = federation.height(), member.status().floor_view
    eventually(lambda: federation.height(LOSER) > height, "dave has the chain again")
    eventually(lambda: member.votes_above(floor), "dave votes on")
