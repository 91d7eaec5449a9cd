"""Who takes part: the federation's members, and users with a wallet each."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Self, TypeVar

import trio

from bridge.bitcoin.addresses import l1_network, sidechain_network
from bridge.bitcoin.identifiers import OutPoint, Txid
from federation.sealed_box import LEAST_LOG_N
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation
from pegnode.passphrase import read_passphrase_file
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import PegInfoReply, StatusReply
from pegnode.wallet.wallet import Balance, Wallet, WalletChain

DEADLINE_S: Final = 60.0
"""For what takes a second or two on an idle machine."""
POLL_S: Final = 0.05

T = TypeVar("T")


async def until(answer: Callable[[], Awaitable[T | None]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Ask until there is an answer, which is returned. Raises DemoFailed (TOO_SLOW)."""
    with trio.move_on_after(deadline_s):
        while True:
            found = await answer()
            if found is not None:
                return found
            await trio.sleep(POLL_S)
    raise DemoFailed(DemoReason.TOO_SLOW, f"not within {deadline_s:.0f} s: {what}")


class Members:
    """The federation's members, asked over RPC. Questions raise RpcClientError."""

    def __init__(self, federation: LocalFederation) -> None:
        self.federation = federation
        self.names = federation.member_names
        self.killed: set[str] = set()
        self._started: set[str] = set()
        self._clients = {name: federation.client(name) for name in self.names}
        self._turn = 0

    async def ask(self, name: str, reply: type[T], method: str, /, *params: object, **named: object) -> T:
        """What a member answers."""
        return await trio.to_thread.run_sync(partial(self._clients[name].ask, reply, method, *params, **named))

    async def status(self, name: str) -> StatusReply | None:
        """What a member says of itself; None when it does not answer."""
        try:
            return await self.ask(name, StatusReply, "getstatus")
        except RpcClientError:
            return None

    async def peg(self, name: str) -> PegInfoReply:
        """The peg as a member has it."""
        return await self.ask(name, PegInfoReply, "getpeginfo")

    def is_running(self, name: str) -> bool:
        """Whether a member's process runs."""
        return self.federation.is_running(name)

    def running(self) -> list[str]:
        """The members whose processes run."""
        return [name for name in self.names if self.is_running(name)]

    def next_running(self) -> str:
        """A member whose process runs: each time another. Raises DemoFailed (TOO_SLOW) when none does."""
        running = self.running()
        if not running:
            raise DemoFailed(DemoReason.TOO_SLOW, "no member runs any more")
        self._turn += 1
        return running[self._turn % len(running)]

    async def start(self, name: str) -> None:
        """Start a member's process, and return when it answers. Raises LocalFederationError (START_FAILED)."""
        await trio.to_thread.run_sync(self.federation.start_member, name)
        self.killed.discard(name)

        async def answered_or_ended() -> bool | None:
            return True if await self.status(name) or not self.is_running(name) else None

        await until(answered_or_ended, f"{name} answers")
        # One that ended instead is reported with its last words.
        await trio.to_thread.run_sync(self.federation.wait_until_answering, name)
        self._started.add(name)

    async def kill(self, name: str) -> None:
        """End a member's process as a power failure would."""
        self.killed.add(name)
        self._started.discard(name)
        await trio.to_thread.run_sync(self.federation.kill_member, name)

    def check_alive(self) -> None:
        """Raise DemoFailed (ENDED) when a process has ended that nobody killed: a member's, or the Bitcoin node's."""
        ended = [name for name in self.names if name in self._started and not self.is_running(name)]
        if self.federation.bitcoind.pid is None:
            ended.append("the Bitcoin node")
        if ended:
            raise DemoFailed(DemoReason.ENDED, f"{', '.join(ended)} ended unasked")

    def close(self) -> None:
        """Give the connections back."""
        for client in self._clients.values():
            client.close()


class User:
    """A person with a wallet, who asks one member. Raises WalletError. balance_sats: as of the last look or payment."""

    def __init__(self, name: str, member: str, url: str, wallet: Wallet) -> None:
        self.name = name
        self.member = member
        self.balance_sats = 0
        self._url = url
        self._wallet = wallet

    @classmethod
    async def arrive(cls, name: str, member: str, federation: LocalFederation) -> Self:
        """A user with a new wallet."""
        genesis = await trio.to_thread.run_sync(Genesis.load, federation.genesis_path)
        wallet_chain = WalletChain(
            network=sidechain_network(genesis.l1.network),
            genesis_hash=genesis.rules().genesis_header.hash,
            l1_network=l1_network(genesis.l1.network),
            l1_genesis_hash=genesis.l1_genesis_hash,
        )
        passphrase = await trio.to_thread.run_sync(read_passphrase_file, federation.passphrase_path)
        create = partial(Wallet.create, scrypt_log_n=LEAST_LOG_N)
        wallet = await trio.to_thread.run_sync(create, federation.wallets / name, wallet_chain, passphrase)
        return cls(name, member, f"http://{federation.member_config(member).rpc.bind}", wallet)

    async def new_address(self) -> str:
        """A fresh sidechain address."""
        return await trio.to_thread.run_sync(self._wallet.new_address)

    async def sync(self) -> Balance:
        """Learn what happened, and return what the wallet has."""
        await trio.to_thread.run_sync(self._wallet.sync, self._url)
        return self._balance()

    async def pay(self, address: str, amount_sats: int) -> Txid:
        """Pay a sidechain address."""
        txid = await trio.to_thread.run_sync(self._wallet.send, self._url, address, amount_sats)
        self._balance()
        return txid

    async def withdraw(self, l1_address: str, amount_sats: int, max_fee_sats: int) -> OutPoint:
        """Burn an amount for an L1 address; the burn's outpoint."""
        withdraw = partial(self._wallet.withdraw, self._url, l1_address, amount_sats, max_fee_sats)
        burn = await trio.to_thread.run_sync(withdraw)
        self._balance()
        return burn

    def leave(self) -> None:
        """Close the wallet."""
        self._wallet.close()

    def _balance(self) -> Balance:
        balance = self._wallet.balance()
        self.balance_sats = balance.confirmed_sats + balance.pending_sats
        return balance
