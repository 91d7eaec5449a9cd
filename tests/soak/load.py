"""Load on a federation whose processes come and go: deposits, transfers, burns, batches and L1 blocks, all at once.

Two threads, one for the sidechain and one for L1, so that either goes on while the other can't.
"""

import threading
from collections.abc import Callable
from random import Random
from typing import Final

from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import RegtestMiner
from pegnode.genesis import Genesis
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import WithdrawalReply
from tests.soak.purses import Purse, Record
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually

DEPOSIT_SATS: Final = 3_000_000
TURN_S: Final = 0.5
L1_BLOCK_S: Final = 2.0
BLOCKS_BETWEEN_DEPOSITS: Final = 6
MAX_PURSES: Final = 10
LISTED: Final = 100
"""Withdrawals asked about in one call."""


class Load:
    """What users and miners do, until `stop`. record: what they know to have happened."""

    def __init__(self, federation: FederationUnderTest, random: Random) -> None:
        self.record = Record()
        self._federation = federation
        self._random = random
        self._names = federation.local.member_names
        self._l1_genesis_hash = Genesis.load(federation.local.genesis_path).l1_genesis_hash
        self._claim_fee_sats = federation.peg().claim_fee_sats
        self._purses: list[Purse] = []
        self._failures: list[BaseException] = []
        self._blocks = 0
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, deposits: int, deadline_s: float) -> None:
        """Begin, and return when the first payment has become final."""
        for _ in range(deposits):
            self._deposit(self._names[0])
        self._federation.mine(CONFIRMATIONS)
        for pause_s, work in ((TURN_S, self._pay), (L1_BLOCK_S, self._drive_l1)):
            self._threads.append(threading.Thread(target=self._repeat, args=(pause_s, work)))
            self._threads[-1].start()
        eventually(lambda: len(self.record.final) > deposits or bool(self._failures), "payments flow", deadline_s)

    def stop(self) -> None:
        """End, and return when nothing of it is under way. Raises what went wrong."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def settle(self, deadline_s: float) -> None:
        """After `stop`, with all members up: wait until every deposit is claimed and every burn is paid out on L1."""
        self._federation.mine(CONFIRMATIONS)
        with self._federation.client() as client:

            def claimed() -> bool:
                for purse in self._purses:
                    if not purse.is_filled:
                        purse.take_turn(client, self.record)
                return all(purse.is_filled for purse in self._purses)

            def settled() -> bool:
                self._federation.mine(1)
                return all(reply.status == "settled" for reply in self._withdrawals())

            eventually(claimed, "every deposit claimed", deadline_s)
            eventually(settled, "every burn paid out", deadline_s)

    @property
    def deposits(self) -> int:
        """How many purses a deposit has filled."""
        return sum(purse.is_filled for purse in self._purses)

    def _withdrawals(self) -> list[WithdrawalReply]:
        replies: list[WithdrawalReply] = []
        burns = [str(burn) for burn in self.record.burns]
        with self._federation.client() as client:
            for first in range(0, len(burns), LISTED):
                part = burns[first : first + LISTED]
                replies += client.ask(list[WithdrawalReply], "listwithdrawals", burns=part)
        assert len(replies) == len(burns), "a burn that was final is unknown"
        return replies

    def _repeat(self, pause_s: float, work: Callable[[], None]) -> None:
        while not self._stopping.wait(pause_s):
            try:
                work()
            except (RpcClientError, L1Error):  # who should answer was killed, or has only just started
                continue
            except BaseException as failure:  # noqa: BLE001 -- raised again by `stop`
                self._failures.append(failure)
                return

    def _pay(self) -> None:
        """One step with each purse, through a member drawn anew each time."""
        with self._federation.client(self._random.choice(self._names)) as client:
            for purse in self._random.sample(self._purses, len(self._purses)):
                purse.take_turn(client, self.record)

    def _drive_l1(self) -> None:
        """Mine a block, and pay a deposit now and then."""

        async def mine(client: L1Client, miner: RegtestMiner) -> None:
            await miner.generate(1)
            # Counting the outputs makes the node write its state: a killed one would otherwise lose an hour of blocks.
            await client.connection.call(Call("gettxoutsetinfo", ("none",)))

        self._federation.on_l1(mine)
        self._blocks += 1
        in_use = sum(not purse.is_spent for purse in self._purses)
        if self._blocks % BLOCKS_BETWEEN_DEPOSITS == 0 and in_use < MAX_PURSES:
            self._deposit(self._random.choice(self._names))

    def _deposit(self, name: str) -> None:
        """A new purse, whose deposit one member is told of."""
        number = len(self._purses)
        purse = Purse(f"purse {number}", self._random, self._l1_genesis_hash, self._claim_fee_sats)
        self._federation.pay({self._federation.deposit_address(purse.claim_address, name): DEPOSIT_SATS})
        self._purses.append(purse)
