"""Restarts in the midst of things: no member ever contradicts itself, and a payout is paid exactly once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from bridge.l1.answers import TxOutSetScan
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import find_bitcoind, start_regtest
from pegnode.wallet.errors import WalletError, WalletReason
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, fresh_address, running_federation
from tests.support.users import User, user_of

PAYMENT_EVERY_S = 0.2
BROKEN_PROMISES = (
    "equivocation",
    "a vote under our key that our journal lacks",
    "conflicting certificates",
    "a quorum certified an invalid block",
    "Traceback",
)


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


@contextmanager
def payments(user: User) -> Iterator[list[str]]:
    """Payments one after another for as long as this lasts; their txids."""
    txids_hex: list[str] = []
    stop = threading.Event()

    def pay_on() -> None:
        while not stop.is_set():
            try:
                user.wallet.sync(user.url)
                txids_hex.append(user.send(fresh_address(), 10_000))
            except WalletError as error:
                if error.reason is not WalletReason.REJECTED:  # too many wait behind one another
                    raise
            stop.wait(PAYMENT_EVERY_S)

    thread = threading.Thread(target=pay_on)
    thread.start()
    try:
        yield txids_hex
    finally:
        stop.set()
        thread.join()


def test_member_restarted_under_load_never_contradicts_itself(setting: Setting) -> None:
    federation = setting.federation
    with payments(setting.user) as txids_hex:
        for name, kill in (("carol", True), ("dave", False), ("carol", True)):
            seen = len(txids_hex)
            eventually(lambda seen=seen: len(txids_hex) >= seen + 3, "payments go on")  # type: ignore[misc]
            (federation.local.kill_member if kill else federation.local.stop_member)(name)
            federation.local.start_member(name)
            federation.local.wait_until_answering(name)
        height = federation.height()
        eventually(lambda: federation.height("carol") > height, "carol follows under load")
    for txid_hex in txids_hex:
        federation.await_final(txid_hex, federation.local.member_names)
    federation.agreement()
    for name, log in setting.logs().items():
        assert [words for words in BROKEN_PROMISES if words in log] == [], name


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
