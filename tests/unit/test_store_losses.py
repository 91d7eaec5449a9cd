"""Lost coins on disk: booked, read back, come back, and checked with the rest."""

from pathlib import Path

import pytest

from bridge.ledger import ledger_root
from bridge.records import Deficit, LostCoin
from pegnode.chain.builder import BuiltBlock
from pegnode.storage.check import CheckReason, WrongRecord, check_chain
from pegnode.storage.database import Changes, Database
from pegnode.storage.store import FAMILIES, ChainStore, FinalBlock
from pegnode.storage.tables import LOST
from tests.support.chain import MemoryChain
from tests.support.final_chains import certificate
from tests.support.mini_wallet import MiniWallet
from tests.support.records import carried_out, record_of, signed

ALICE = MiniWallet("alice")
DEPOSIT_SATS = 1_000_000


class Losses:
    """A store in which a deposit was claimed and then booked as lost."""

    def __init__(self, path: Path) -> None:
        self.path, self.scratch = path / "chain", path / "scratch"
        self.scratch.mkdir()
        self.chain = MemoryChain()
        self.payment, self.evidence = self.chain.pay_reserve(ALICE.script(), DEPOSIT_SATS)
        self.chain.bury()
        lost = Deficit.of((LostCoin(self.payment.outpoint(0), DEPOSIT_SATS),))
        self.add(self.chain.extend(evidence=[self.evidence]))
        self.add(carried_out(self.chain, signed(record_of(self.chain.rules, lost))))

    def add(self, built: BuiltBlock) -> None:
        """Make the block final in the store."""
        store = ChainStore.open(self.path, self.chain.rules)
        proof = certificate(self.chain.rules, built.block).encode()
        store.commit([FinalBlock(built.state, built.block.encode(), proof)])
        store.close()

    def state(self) -> tuple[int, int, bool]:
        """Coins and lost coins that a process finds which starts on it, and whether its ledger is the last block's."""
        store = ChainStore.look(self.path, self.chain.rules)
        try:
            ledger = store.ledger
            is_whole = ledger_root(ledger) == store.tip.header.ledger_root
            return sum(1 for _ in ledger.coins.items()), sum(1 for _ in ledger.lost.items()), is_whole
        finally:
            store.close()

    def check(self) -> None:
        """As `peg db check` does."""
        check_chain(self.path, self.chain.rules, self.scratch, lambda *_: None)


@pytest.fixture
def losses(tmp_path: Path) -> Losses:
    return Losses(tmp_path)


def test_lost_coin_survives_a_restart_and_the_check(losses: Losses) -> None:
    assert losses.state() == (0, 1, True)
    losses.check()


def test_restored_coin_survives_a_restart_and_the_check(losses: Losses) -> None:
    losses.chain.bury()
    losses.add(losses.chain.extend(evidence=[losses.evidence]))
    assert losses.state() == (1, 0, True)
    losses.check()


def test_lost_coin_that_is_not_there_any_more_is_found(losses: Losses) -> None:
    key = losses.payment.outpoint(0).encode()
    database = Database.open(losses.path, FAMILIES)
    changes = Changes()
    changes.delete(LOST.family, key)
    database.write(changes)
    database.close()
    with pytest.raises(WrongRecord) as caught:
        losses.check()
    assert (caught.value.reason, caught.value.record) == (CheckReason.STATE, f"{LOST.family} {key.hex()}")
