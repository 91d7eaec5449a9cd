"""Restarts in the midst of things: nothing final is lost, nobody contradicts itself, a payout is paid exactly once."""

import re
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.l1.answers import TxOutSetScan
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import find_bitcoind, start_regtest
from pegnode.local_federation import LocalFederation
from tests.soak.run import BROKEN_PROMISES, Soak
from tests.support.federation import (
    CONFIRMATIONS,
    DEADLINE_S,
    FederationUnderTest,
    eventually,
    fresh_address,
    running_federation,
)
from tests.support.users import User, user_of

KILLS = 10
SEED = 20_261_121


@dataclass(frozen=True)
class Setting:
    """A federation of four, and a user of alice's node, which is not restarted under load."""

    federation: FederationUnderTest
    user: User

    def logs(self) -> dict[str, str]:
        """What every member has said so far."""
        return {name: self.federation.local.log_path(name).read_text() for name in self.federation.local.member_names}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with (
        running_federation(tmp_path_factory.mktemp("restart") / "federation") as federation,
        user_of(federation, "alice") as user,
    ):
        user.fund(80_000_000, deposits=8)
        yield Setting(federation, user)


def test_members_killed_under_load_lose_nothing_that_was_final(tmp_path: Path) -> None:
    # Ten of the two hundred of `make soak`, by the same code.
    with running_federation(tmp_path / "federation") as federation:
        summary = Soak(federation, SEED, print).run(KILLS, deposits=2)
    assert summary.kills == KILLS


def test_payout_is_paid_once_when_every_process_is_restarted_before_it_confirms(setting: Setting) -> None:
    federation, user = setting.federation, setting.user

    async def new_address(_: L1Client, miner: RegtestMiner) -> str:
        return await miner.new_address()

    addresses = [federation.on_l1(new_address) for _ in range(5)]
    user.wallet.sync(user.url)
    burns = [user.withdraw(address, 1_000_000) for address in addresses]
    federation.await_stage(burns[0], ("batched", "signed", "broadcast"))
    for name in federation.local.member_names:
        federation.local.kill_member(name)
    bitcoind = federation.local.bitcoind
    bitcoind.stop()
    # What the Bitcoin node knew of the payout, if it did, is gone as after a crash.
    (bitcoind.datadir / "regtest" / "mempool.dat").unlink(missing_ok=True)
    start_regtest(bitcoind.datadir, find_bitcoind(), detached=True)
    federation.local.up()

    [payout] = federation.await_stage(burns[0], ("broadcast",)).payouts
    federation.mine(CONFIRMATIONS)
    settled = [federation.await_stage(burn, ("settled",)) for burn in burns]
    assert {(reply.payout or "").partition(":")[0] for reply in settled} == {payout.txid}
    federation.mine(CONFIRMATIONS)

    async def received(client: L1Client, _: RegtestMiner) -> TxOutSetScan:
        return await client.scan_txoutset([f"addr({address})" for address in addresses])

    scan = federation.on_l1(received)
    assert sorted(item.value_sats for item in scan.outputs) == sorted(reply.paid_sats or 0 for reply in settled)
    federation.agreement()
    for name, log in setting.logs().items():
        assert [words for words in BROKEN_PROMISES if words in log] == [], name


def test_member_on_a_full_disk_stops_in_order_and_goes_on_once_there_is_room(setting: Setting) -> None:
    # A limit on the size of files is met in the same way as a full disk. Its words go to a pipe, which has no size.
    federation, local = setting.federation, setting.federation.local
    local.stop_member("dave")
    with subprocess.Popen(local.member_command("dave"), stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: is_connected(local, "dave"), "dave is back")
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            setting.user.wallet.sync(setting.user.url)
            txid = setting.user.send(fresh_address(), 10_000)
            _, said = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode == 1
    *_, line = said.splitlines()
    # Whichever write comes first: that of its vote, or that of a block which became final without it.
    assert re.match(r"error: (journal|storage)-no-space: no room for ", line)
    assert "Make room and start again: nothing that was " in line
    assert "Traceback" not in said
    local.start_member("dave")
    local.wait_until_answering("dave")
    federation.await_final(txid, ("alice", "dave"))


def is_connected(local: LocalFederation, name: str) -> bool:
    """Whether a member answers, and is connected to all others."""
    reply = local.status(name)
    return reply is not None and all(member.connected for member in reply.members)
