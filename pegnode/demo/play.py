"""What the chapters of the story share: who takes part, what was burned, and the checks that come again and again."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec
import trio

from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.identifiers import Txid, hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.demo.cast import Members, User, until
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.demo.narration import Narrator
from pegnode.demo.proof import Burned
from pegnode.demo.scene import Terms, look

LOOK_S: Final = 0.4
"""How often the scene is looked at."""

T = TypeVar("T")


class _FinalTransaction(msgspec.Struct):
    """What getrawtransaction tells of a final transaction, and of a waiting one not. blockhash: reversed hex."""

    blockhash: str = ""


class _Header(msgspec.Struct):
    """What getblockheader tells."""

    height: int


@dataclass(slots=True)
class Play:
    """The running demonstration."""

    narrator: Narrator
    members: Members
    users: tuple[User, ...]
    client: L1Client
    miner: RegtestMiner
    confirmations: int
    """How many the peg wants of L1."""
    claim_fee_sats: int
    burns: list[Burned] = field(default_factory=list)

    def user(self, name: str) -> User:
        """The user of that name."""
        return next(user for user in self.users if user.name == name)

    async def until(self, answer: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Ask until there is an answer, and show meanwhile what is awaited. Raises DemoFailed (TOO_SLOW)."""
        self.narrator.wait(what)
        found = await until(answer, what)
        self.narrator.wait("")
        return found

    async def mine_block(self) -> int:
        """Mine one block on L1; its height."""
        await self.miner.generate(1)
        return (await self.client.tip())[0]

    async def check_equality(self) -> Terms:
        """Ask a member, each time another, for the five terms, and add them up. Raises DemoFailed (EQUALITY)."""
        name = self.members.next_running()
        peg = await self.members.peg(name)
        terms = Terms.of(peg)
        if not terms.hold or not peg.equality:
            raise DemoFailed(DemoReason.EQUALITY, f"{name} at block {peg.height}: {equation(terms, '!=')}")
        self.narrator.hold(f"{equation(terms, '=')}  ({name}, block {peg.height})")
        return terms

    async def check_supply(self) -> None:
        """The wallets together hold the supply, to the satoshi. Raises DemoFailed (TOO_SLOW)."""

        async def balanced() -> int | None:
            held_sats = 0
            for user in self.users:
                balance = await user.sync()
                held_sats += balance.confirmed_sats if balance.pending_sats == 0 else 0
            supply_sats = (await self.members.peg(self.members.next_running())).supply_sats
            return held_sats if held_sats == supply_sats else None

        held_sats = await self.until(balanced, "the wallets hold the supply")
        each = " + ".join(f"{user.name} {format_btc(user.balance_sats)}" for user in self.users)
        self.narrator.hold(f"{each} = {format_btc(held_sats)} L-BTC, the whole supply")

    async def final_height(self, name: str, txid: Txid) -> int | None:
        """In which block a member has a transaction; None while it waits."""
        found = await self.members.ask(name, _FinalTransaction, "getrawtransaction", hash_to_hex(txid), 1)
        if not found.blockhash:
            return None
        return (await self.members.ask(name, _Header, "getblockheader", found.blockhash)).height


def equation(terms: Terms, sign: str) -> str:
    """The equality in words; the deficit only when there is one."""
    deficit = f" + deficit {format_btc(terms.deficit_sats)}" if terms.deficit_sats else ""
    left = f"reserves {format_btc(terms.reserves_sats)}{deficit}"
    right = (("supply", terms.supply_sats), ("unsettled", terms.unsettled_sats), ("fund", terms.fund_sats))
    return f"{left} {sign} " + " + ".join(f"{name} {format_btc(sats)}" for name, sats in right)


async def watch(narrator: Narrator, members: Members, users: Sequence[User], client: L1Client) -> None:
    """Show how things stand, again and again, until cancelled. Raises DemoFailed (ENDED)."""
    while True:
        members.check_alive()
        narrator.show(await look(members, users, client))
        await trio.sleep(LOOK_S)
