"""A member whose keys are in a process of their own: a round trip, and either process killed, and nothing is lost."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from federation.journal_errors import JournalReason
from pegnode.config import SignerConfig, SignerLink
from pegnode.doctor.findings import Outcome
from pegnode.doctor.keys import signer as look_at_signer
from pegnode.local_federation import LocalFederation
from pegnode.options.rendering import render
from pegnode.signing.setup import SIGNER_FILE, create_signer
from tests.support.configs import own_keys
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, template_of
from tests.support.users import User, user_of

MEMBER = "alice"
RUNNING = ("alice", "bob", "carol")
"""A quorum of four and nobody more, so that every block and every payout needs the member with the signer."""


@dataclass
class SignerProcess:
    """The signer of MEMBER. log: what it says."""

    config: SignerConfig
    config_path: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as words:
            command = [sys.executable, "-m", "pegnode.cli.main", "signer", "run", "--config", str(self.config_path)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        eventually(lambda: look_at_signer(self.config.socket).outcome is Outcome.OK, "the signer listens")

    def kill(self) -> None:
        """As a power failure would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
            self.process = None


@dataclass
class Setting:
    """Three running members of four, and a user of one that has its keys itself."""

    federation: FederationUnderTest
    signer: SignerProcess
    user: User

    def paid_out(self) -> None:
        """A withdrawal from its burn to its settlement; only with the signer's votes and its signature."""

        async def new_address(_: L1Client, miner: RegtestMiner) -> str:
            return await miner.new_address()

        federation = self.federation
        self.user.wallet.sync(self.user.url)
        burn = self.user.withdraw(federation.on_l1(new_address), 1_000_000)
        federation.await_stage(burn, ("broadcast",), "bob")
        federation.mine(CONFIRMATIONS)
        federation.await_stage(burn, ("settled",), "bob")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("signer")
    local = LocalFederation.create(folder / "f", 4, template_of({"batch_min_payouts": 1}))
    signer = signer_of(local, folder)
    try:
        signer.start()
        for name in RUNNING:
            local.start_member(name)
        for name in RUNNING:
            local.wait_until_answering(name)
        federation = FederationUnderTest(local)
        federation.mine(101)
        with user_of(federation, "bob") as user:
            user.fund(20_000_000, deposits=2)
            yield Setting(federation, signer, user)
    finally:
        signer.kill()
        local.down()


def signer_of(local: LocalFederation, folder: Path) -> SignerProcess:
    """Take MEMBER's keys from where its functionary could find them."""
    path, before = local.member_config_path(MEMBER), local.member_config(MEMBER)
    made = create_signer(before, folder / "s")
    link = SignerLink(socket=made.socket)
    linked = msgspec.structs.replace(before, keys_dir=None, passphrase_file=None, signer=link)
    path.write_text(render(linked, path.parent))
    hidden = msgspec.structs.replace(made, keys_dir=own_keys(before).rename(folder / "keys"))
    config_path = folder / "s" / SIGNER_FILE
    config_path.write_text(render(hidden, config_path.parent))
    return SignerProcess(hidden, config_path, folder / "signer.log")


def test_round_trip_needs_no_key_beside_the_functionary(setting: Setting) -> None:
    socket = setting.signer.config.socket
    assert (socket.stat().st_mode & 0o777, socket.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    setting.paid_out()


def test_killed_signer_comes_back_and_its_member_goes_on(setting: Setting) -> None:
    federation = setting.federation
    setting.signer.kill()
    eventually(
        lambda: any("signer" in item for item in federation.status(MEMBER).waiting_for), "the member misses its signer"
    )
    process = federation.local.process(MEMBER)
    setting.signer.start()
    eventually(lambda: not federation.status(MEMBER).waiting_for, "nothing is missing any more")
    assert federation.local.process(MEMBER) == process, "the member itself was not restarted"
    setting.paid_out()


def test_killed_functionary_comes_back_to_its_signer(setting: Setting) -> None:
    federation = setting.federation
    federation.local.kill_member(MEMBER)
    federation.local.start_member(MEMBER)
    federation.local.wait_until_answering(MEMBER)
    assert setting.signer.process is not None
    assert setting.signer.process.poll() is None
    setting.paid_out()
    federation.agreement(RUNNING)


def test_member_with_a_signer_does_not_start_with_its_keys_again(setting: Setting) -> None:
    local = setting.federation.local
    local.stop_member(MEMBER)
    path, linked = local.member_config_path(MEMBER), local.member_config(MEMBER)
    keys = setting.signer.config
    returned = msgspec.structs.replace(
        linked, keys_dir=keys.keys_dir, passphrase_file=keys.passphrase_file, signer=None
    )
    path.write_text(render(returned, path.parent))
    command = [sys.executable, "-m", "pegnode.cli.main", "functionary", "run", "--config", str(path)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert JournalReason.KEYS_ELSEWHERE.value in ended.stderr
