"""A federation under load whose members are killed again and again, and what must be so after each time.

After each strike every victim must start on what it left on disk, come back to the height that anybody had reached
before, hold the same blocks there, recount the equality without a finding, and still have what was final. Nobody may
ever have signed against its own word: journals of the dead and certificates of the chain are compared over all time.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from federation.certificate import Certificate
from federation.journal_entries import open_journal
from federation.journal_header import JournalIdentity
from pegnode.bitcoind import find_bitcoind, start_regtest
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import BatchReply
from pegnode.storage.data_check import check_data
from pegnode.storage.store import ChainStore
from tests.soak.load import Load
from tests.soak.purses import is_final
from tests.soak.strikes import Strike, draw_strikes
from tests.soak.votes import VoteBook
from tests.support.federation import FederationUnderTest, eventually

DEADLINE_S: Final = 240.0
"""For a federation to recover, on a machine that is busy with other things."""
CHECKED_WHOLE_BLOCKS: Final = 200
"""Up to this height what a victim left is checked as `peg db check` does; later it would take longer than all else."""
LOOKED_FOR: Final = 20
"""Of the newest final transactions, how many each victim is asked for after a strike."""
BROKEN_PROMISES: Final = (
    "equivocation",
    "a vote under our key that our journal lacks",
    "conflicting certificates",
    "a quorum certified an invalid block",
    "a final block stands on none that is kept here",
    "halted",
    "Traceback",
)
"""What no log may ever say."""


@dataclass(slots=True)
class Summary:
    """What a run did. processes: SIGKILLs sent, by name.  recovery_s: from the last kill of a strike to all checked."""

    kills: int = 0
    during_start: int = 0
    processes: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)
    height: int = 0
    final_transactions: int = 0
    deposits: int = 0
    burns: int = 0
    batches: int = 0
    votes: int = 0
    checked: int = 0

    def lines(self) -> list[str]:
        """For people."""
        recovery_s = sorted(self.recovery_s)
        killed = ", ".join(f"{name} {count}" for name, count in sorted(self.processes.items()))
        return [
            f"kills      {self.kills} moments, {self.during_start} of them during a start ({killed})",
            f"recovery   median {recovery_s[len(recovery_s) // 2]:.1f} s, longest {recovery_s[-1]:.1f} s",
            f"chain      {self.height} blocks, {self.final_transactions} transactions seen final, none lost",
            f"bridge     {self.deposits} deposits claimed, {self.burns} burns paid out in {self.batches} batches",
            f"votes      {self.votes} statements of members compared, none against another",
            f"checked    {self.checked} data directories of the dead, whole",
        ]


class Soak:
    """One run. report: is told what happens, line by line."""

    def __init__(self, federation: FederationUnderTest, seed: int, report: Callable[[str], None]) -> None:
        self._federation = federation
        self._local = federation.local
        self._seed = seed
        self._report = report
        self._load = Load(federation, Random(seed))
        self._rules = Genesis.load(self._local.genesis_path).rules()
        self._book = VoteBook()
        self._certified = 0
        self._read: dict[str, int] = {}
        self.summary = Summary()

    def run(self, kills: int, deposits: int = 4) -> Summary:
        """Strike until `kills` kills are done. Raises AssertionError with what is broken."""
        try:
            self._load.start(deposits, DEADLINE_S)
            for strike in draw_strikes(Random(self._seed), self._local.member_names, kills):
                self._strike(strike)
        finally:
            self._load.stop()
        self._conclude()
        return self.summary

    def _strike(self, strike: Strike) -> None:
        time.sleep(strike.pause_s)  # a random moment is what this is about
        name, height, block_hash = self._newest()
        self._kill(strike)
        started = time.monotonic()
        self._examine_dead(strike.victims, whole=self._certified < CHECKED_WHOLE_BLOCKS)
        self._restart(strike)
        for after_s in strike.again_after_s:
            time.sleep(after_s)
            self._kill(strike)
            self.summary.during_start += 1
            self._restart(strike)
        for victim in strike.victims:
            self._local.wait_until_answering(victim)
        for member in self._local.member_names:
            self._await_height(member, height)
            found = self._federation.block_hash(height, member)
            assert found == block_hash, f"block {height} is {found} at {member}, and was {block_hash} at {name}"
        for victim in strike.victims:
            self._examine_living(victim)
        self._read_logs()
        self.summary.recovery_s.append(time.monotonic() - started)
        words = f"{', '.join(strike.victims)}{' and bitcoind' if strike.bitcoind else ''}"
        again = f", again during the start {len(strike.again_after_s)} times" if strike.again_after_s else ""
        self._report(
            f"{self.summary.kills:>4}  killed {words}{again}; at height {height}, "
            f"{len(self._load.record.final)} final; {self.summary.recovery_s[-1]:.1f} s"
        )

    def _newest(self) -> tuple[str, int, str]:
        """The highest final block that any member tells of: who, its height and its hash."""
        statuses = {name: self._local.status(name) for name in self._local.member_names}
        heights = {name: status for name, status in statuses.items() if status is not None}
        name, status = max(heights.items(), key=lambda item: item[1].height)
        return name, status.height, status.block_hash

    def _kill(self, strike: Strike) -> None:
        for victim in strike.victims:
            self._local.kill_member(victim)
        self.summary.kills += 1
        self.summary.processes.update(strike.victims)
        pid = self._local.bitcoind.pid
        if strike.bitcoind and pid is not None:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: self._local.bitcoind.pid is None, "bitcoind is gone", DEADLINE_S)
            self.summary.processes["bitcoind"] += 1

    def _examine_dead(self, victims: tuple[str, ...], *, whole: bool) -> None:
        """Open a copy of what each victim left, as its next start will, and take down what it signed."""
        for victim in victims:
            config = self._local.member_config(victim)
            copy = self._local.directory / "copy" / victim
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(config.data_dir, copy)
            member = config.member(self._rules.membership).index
            identity = JournalIdentity(self._rules.chain_id, self._rules.membership.epoch, member)
            if whole:
                check_data(copy, self._rules, identity, lambda *_: None)
                self.summary.checked += 1
            self._take_down_votes(identity, copy)

    def _take_down_votes(self, identity: JournalIdentity, data: Path) -> None:
        journal = open_journal(data / JOURNAL_FOLDER, identity)
        self._book.add_journal(journal.contents())
        journal.close()
        store = ChainStore.open(data / CHAIN_FOLDER, self._rules)
        for height in range(self._certified + 1, store.tip.header.height + 1):
            certificate = store.certificate_at(height)
            if certificate is not None:
                self._book.add_certificate(Certificate.decode(certificate))
        self._certified = max(self._certified, store.tip.header.height)
        store.close()

    def _restart(self, strike: Strike) -> None:
        if self._local.bitcoind.pid is None:
            start_regtest(self._local.bitcoind.datadir, find_bitcoind(), detached=True, deadline_s=DEADLINE_S)
        for victim in strike.victims:
            self._local.start_member(victim)

    def _await_height(self, name: str, height: int) -> None:
        def reached() -> bool:
            status = self._local.status(name)
            return status is not None and status.height >= height

        eventually(reached, f"{name} at height {height}", DEADLINE_S)

    def _examine_living(self, victim: str) -> None:
        """The recount of a victim, and what was final before it died."""

        def audited() -> bool:
            try:
                return self._federation.audit(victim).ok
            except RpcClientError:  # the Bitcoin node was only just started, or later blocks are not here yet
                return False

        eventually(audited, f"{victim} recounts the equality", DEADLINE_S)
        self._federation.peg(victim)
        with self._federation.client(victim) as client:
            for txid in self._load.record.final[-LOOKED_FOR:]:
                eventually(lambda txid=txid: is_final(client, txid), f"{txid.hex()} final at {victim}", DEADLINE_S)  # type: ignore[misc]

    def _read_logs(self) -> None:
        for name in self._local.member_names:
            with self._local.log_path(name).open("rb") as log:
                log.seek(self._read.get(name, 0))
                said = log.read()
            self._read[name] = self._read.get(name, 0) + said.rfind(b"\n") + 1
            for line in said.decode("utf-8", "replace").splitlines():
                assert not any(words in line for words in BROKEN_PROMISES), f"{name}: {line}"

    def _conclude(self) -> None:
        """With all at rest: everything is paid out, and all members agree on all of it."""
        self._load.settle(DEADLINE_S)
        reply = self._federation.agreement()
        for name in self._local.member_names:
            with self._federation.client(name) as client:
                lost = [txid.hex() for txid in self._load.record.final if not is_final(client, txid)]
            assert lost == [], f"lost at {name}: {lost}"
        with self._federation.client() as client:
            batches = client.ask(list[BatchReply], "listbatches", 1)
            self.summary.batches = batches[0].number + 1 if batches else 0
        for name in self._local.member_names:
            self._local.stop_member(name)
        self._examine_dead(self._local.member_names, whole=True)
        self._read_logs()
        self.summary.height = reply.height
        self.summary.final_transactions = len(self._load.record.final)
        self.summary.deposits = self._load.deposits
        self.summary.burns = len(self._load.record.burns)
        self.summary.votes = len(self._book)
