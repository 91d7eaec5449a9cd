"""Restarts in the midst of things: nothing final is lost, nobody contradicts itself, a payout is paid exactly once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.l1.answers import TxOutSetScan
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import find_bitcoind, start_regtest
from tests.soak.run import BROKEN_PROMISES, Soak
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, running_federation
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
