"""A real local federation for functional tests: bitcoind on regtest and functionary processes, ended in any case."""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from bridge.bitcoin.addresses import encode_address, sidechain_network
from bridge.bitcoin.curve import x_only
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.l1.client import L1Client
from bridge.l1.errors import L1RpcError
from bridge.l1.regtest import RegtestMiner
from pegnode.local_federation import LocalFederation, template_text
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.client import RpcClient, RpcRefused
from pegnode.rpc.node_api import UnavailableReason
from pegnode.rpc.results import DepositAddressReply, DepositReply, PegInfoReply, StatusReply, WithdrawalReply

DEADLINE_S = 60.0
"""For what takes a second on an idle machine."""
CONFIRMATIONS = 6
"""As in configs/local.toml."""
SIDECHAIN = sidechain_network("regtest")

T = TypeVar("T")


@contextmanager
def running_federation(
    directory: Path, members: int = 4, *, parameters: Mapping[str, int] = {}
) -> Iterator["FederationUnderTest"]:
    """A new federation in `directory`, all of its members running, and L1 with coins to spend.

    parameters: those of configs/local.toml that differ.
    """
    try:
        federation = LocalFederation.create(directory, members, template_of(parameters))
        federation.up()
        under_test = FederationUnderTest(federation)
        under_test.mine(101)
        yield under_test
    finally:
        LocalFederation.open(directory).down()


def template_of(parameters: Mapping[str, int]) -> str:
    """configs/local.toml with these parameters."""
    template = template_text()
    for name, value in parameters.items():
        template, count = re.subn(rf"^{name} = [\d_]+", f"{name} = {value}", template, flags=re.MULTILINE)
        assert count == 1, f"the template has {name} {count} times"
    return template


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until `condition` holds; fail the test when it does not within the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.1)


def fresh_address() -> str:
    """A P2TR sidechain address whose key nobody keeps: enough to be credited."""
    return encode_address(Script(b"\x51\x20" + x_only(secrets.token_bytes(32))), SIDECHAIN)


@dataclass(frozen=True, slots=True)
class FederationUnderTest:
    """What tests ask of a local federation."""

    local: LocalFederation

    def client(self, name: str = "alice") -> RpcClient:
        """A client of a member."""
        return self.local.client(name)

    def on_l1(self, work: Callable[[L1Client, RegtestMiner], Awaitable[T]]) -> T:
        """Run `work` with the Bitcoin node and its miner."""

        async def with_client() -> T:
            async with self.local.bitcoind.client() as client:
                try:
                    miner = await RegtestMiner.open(client)
                except L1RpcError:
                    miner = await RegtestMiner.create(client)
                return await work(client, miner)

        return trio.run(with_client)

    def mine(self, blocks: int) -> int:
        """Mine, and return L1's height."""

        async def work(client: L1Client, miner: RegtestMiner) -> int:
            await miner.generate(blocks)
            return (await client.tip())[0]

        return self.on_l1(work)

    def pay(self, payments: dict[str, int]) -> bytes:
        """One L1 transaction that pays addresses; its txid."""

        async def work(_: L1Client, miner: RegtestMiner) -> bytes:
            return await miner.send_many(payments)

        return self.on_l1(work)

    def deposit_address(self, claim_address: str, name: str = "alice") -> str:
        """The L1 address to pay, registered through a member."""
        with self.client(name) as client:
            return client.ask(DepositAddressReply, "getdepositaddress", claim_address).address

    def deposits(self, claim_addresses: list[str], name: str = "alice") -> list[DepositReply]:
        """The deposits as a member sees them."""
        with self.client(name) as client:
            return client.ask(list[DepositReply], "listdeposits", claim_addresses)

    def await_claimed(self, claim_addresses: list[str], count: int, name: str = "alice") -> list[DepositReply]:
        """Wait until `count` deposits are claimed."""
        eventually(
            lambda: [item.status for item in self.deposits(claim_addresses, name)].count("claimed") == count,
            f"{count} deposits claimed",
        )
        return self.deposits(claim_addresses, name)

    def peg(self, name: str = "alice") -> PegInfoReply:
        """The peg's terms as a member has them; the equality is asserted each time."""
        with self.client(name) as client:
            info = client.ask(PegInfoReply, "getpeginfo")
        assert info.equality
        assert info.reserves_sats + info.deficit_sats == info.supply_sats + info.unsettled_sats + info.fund_sats
        return info

    def audit(self, name: str = "alice") -> AuditReply:
        """A recount by a member, as soon as it has read what that takes; it must find nothing."""
        found: list[AuditReply] = []

        def recounted() -> bool:
            reply = self._recount(name)
            found.extend([] if reply is None else [reply])
            return reply is not None

        eventually(recounted, f"{name} can recount")
        return found[0]

    def _recount(self, name: str) -> AuditReply | None:
        """A recount that finds nothing; None while the member has yet to read blocks, here or on L1."""
        try:
            with self.client(name) as client:
                reply = client.ask(AuditReply, "audit")
        except RpcRefused as refused:
            if refused.refusal not in set(UnavailableReason):
                raise
            return None
        assert reply.findings == [], reply.findings
        return reply

    def status(self, name: str) -> StatusReply:
        """A member's status."""
        reply = self.local.status(name)
        assert reply is not None, f"{name} does not answer"
        return reply

    def height(self, name: str = "alice") -> int:
        """A member's final height."""
        return self.status(name).height

    def is_final(self, txid_hex: str, name: str = "alice") -> bool:
        """Whether a member has a transaction in a final block."""
        with self.client(name) as client:
            try:
                return "confirmations" in client.call("getrawtransaction", txid_hex, 1)
            except RpcRefused:
                return False

    def await_final(self, txid_hex: str, names: Iterable[str] = ("alice",)) -> None:
        """Wait until a transaction is final on these members."""
        for name in names:
            eventually(lambda name=name: self.is_final(txid_hex, name), f"{txid_hex} final on {name}")  # type: ignore[misc]

    def withdrawal(self, burn: OutPoint, name: str = "alice") -> WithdrawalReply | None:
        """A withdrawal, once its burn is in a final block."""
        with self.client(name) as client:
            found = client.ask(list[WithdrawalReply], "listwithdrawals", burns=[str(burn)])
        return found[0] if found else None

    def await_stage(self, burn: OutPoint, stages: Collection[str], name: str = "alice") -> WithdrawalReply:
        """Wait until a withdrawal is in one of these stages."""
        replies: list[WithdrawalReply] = []

        def reached() -> bool:
            reply = self.withdrawal(burn, name)
            replies.extend([reply] if reply is not None and reply.stage in stages else [])
            return bool(replies)

        eventually(reached, f"{burn} {' or '.join(stages)}")
        return replies[0]

    def agreement(self, names: Iterable[str] | None = None) -> AuditReply:
        """Wait until these members, by default all, have one tip and one ledger; a clean recount by one of them."""
        chosen = list(self.local.member_names if names is None else names)
        agreed: list[AuditReply] = []

        def agree() -> bool:
            with ThreadPoolExecutor() as pool:  # all at once: one after the other, blocks come in between
                replies = list(pool.map(self._recount, chosen))
            agreed[:] = [reply for reply in replies if reply is not None]
            tips = {(reply.height, reply.block_hash, reply.ledger_root) for reply in agreed}
            return len(agreed) == len(chosen) and len(tips) == 1

        eventually(agree, f"{', '.join(chosen)} agree")
        return agreed[0]

    def block_hash(self, height: int, name: str) -> str:
        """The hash of a member's final block at a height."""
        with self.client(name) as client:
            return client.ask(str, "getblockhash", height)
