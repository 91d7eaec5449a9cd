"""Users who deposit, pay one another and burn; one who cheats; and the miner of L1.

What an honest user handed in must become final in the end, for it spends each of its coins once, and only what is
final. A member that crashed may have forgotten it: so it is handed in again from time to time, at some honest member
that runs. The cheat pays two people with one coin, at two members: one of both payments counts, and nobody waits for
it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from types import MappingProxyType

import trio

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Rejected
from bridge.refunds import expires_at
from bridge.state import WithdrawalStatus
from bridge.withdrawals import Burn, encode_burn
from tests.sim.l1_index import L1Index
from tests.sim.seams import Violation, World
from tests.support.memory_member import Member
from tests.support.mini_wallet import Coin, MiniWallet

PEG: Mapping[str, int] = MappingProxyType(
    {
        "confirmations": 3,
        "max_anchor_step": 12,
        "batch_min_payouts": 2,
        "batch_max_wait_anchors": 2,
        "replacement_interval_anchors": 2,
        "withdrawal_expiry_anchors": 16,
    }
)
"""Parameters of a peg on which much happens in the few seconds of a simulation."""
USERS = 3
CHEAT = "sim cheat"
PAUSE_S = 0.2
"""Between two deeds of the users, in the mean."""
FIRST_DEPOSITS = 4
"""Buried on L1 before the members start, the cheat's among them."""
BLOCK_S = 0.6
"""Between two blocks of L1, in the mean, as long as the time is bad."""
RARE_BLOCK_S = 10.0
"""For so long a block of L1 waits for the chain, when everything is healed."""
LOOK_S = 0.1
REMIND_S = 3.0
FIRST_REMINDER_S = 0.3
FEE_SATS = 1_000
MAX_FEES_SATS = (0, 150, 5_000, 5_000, 5_000)
"""What burns offer for their payout: the least are below any share, and refunded when they expire."""
AMPLE_FEE_SATS = 5_000


@cache
def user_wallet(name: str) -> MiniWallet:
    """A user's keys, the same in every simulation."""
    return MiniWallet(name)


@dataclass(frozen=True, slots=True)
class Handed:
    """A transaction that a user handed in. burn: the output that burns, if one does, and its greatest fee."""

    transaction: Transaction
    burn: OutPoint | None = None
    max_fee_sats: int = 0


class Users:
    """All users of one simulation, and the miner."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.wallets = [user_wallet(f"sim user {number}") for number in range(USERS)]
        self._cheat = user_wallet(CHEAT)
        self._by_script = {wallet.script(): wallet for wallet in [*self.wallets, self._cheat]}
        self._index = L1Index(world.l1)
        self._spent: set[OutPoint] = set()
        self._waiting: dict[Txid, Handed] = {}
        self._deposits: dict[OutPoint, Script] = {}
        self._burns: dict[OutPoint, int] = {}
        self._burned = 0
        self._payable_after = 0
        self.counts = {"deposits": 0, "transfers": 0, "burns": 0, "doubles": 0}
        for number in range(FIRST_DEPOSITS):
            self._deposit([*self.wallets, self._cheat][number])
        for _ in range(world.rules.params.confirmations):
            self._mine_block(share=1.0)

    async def run(self) -> None:
        """Everybody does as drawn, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mine)
            nursery.start_soon(self._remind)
            await self._live()

    def chain_goes_on(self, payout_blocks: int) -> None:
        """See `seams.Workload`."""
        self._payable_after = self._world.l1.chain.height + payout_blocks

    def settled(self) -> bool:
        """See `seams.Workload`."""
        honest = self._world.honest
        left_out = self._world.byzantine | self._world.incurable
        if len(honest) < self._world.rules.membership.size - len(left_out):
            return False
        stores = [member.store for member in honest]
        for txid in list(self._waiting):
            if not all(store.index.transaction(txid) is not None for store in stores):
                return False
            handed = self._waiting.pop(txid)
            if handed.burn is not None:
                self._burns[handed.burn] = handed.max_fee_sats
        for outpoint in list(self._deposits):
            if not all(outpoint in store.ledger.entered for store in stores):
                return False
            del self._deposits[outpoint]
        for burn in list(self._burns):
            if not all(self._is_met(burn, member) for member in honest):
                return False
            del self._burns[burn]
        return True

    def unsettled(self) -> str:
        """For people: what is still to come."""
        return (
            f"{len(self._waiting)} transactions, {len(self._deposits)} deposits, {len(self._burns)} burns: "
            + ", ".join(
                [*(txid.hex()[:8] for txid in self._waiting), *map(str, self._deposits), *map(str, self._burns)]
            )
        )

    def _is_met(self, burn: OutPoint, member: Member) -> bool:
        """Whether a burn is paid and settled, or refunded; a stingy one may wait for that. Raises Violation.

        Who offered enough is refunded only if it expired before the chain, going on again, could have paid it.
        """
        is_ample, ledger = self._burns[burn] >= AMPLE_FEE_SATS, member.store.ledger
        withdrawal = ledger.open_withdrawals.get(burn)
        if withdrawal is not None:
            return not is_ample and withdrawal.status is WithdrawalStatus.PENDING
        closed = ledger.closed_withdrawals.get(burn)
        if closed is None:
            return False
        expiry = expires_at(closed, self._world.rules.params)
        if is_ample and closed.status is WithdrawalStatus.REFUNDED and expiry > self._payable_after:
            raise Violation(f"the withdrawal {burn} is refunded, though it offers enough and expires at {expiry} only")
        return True

    # Users

    async def _live(self) -> None:
        while True:
            await trio.sleep(self._rng.expovariate(1 / PAUSE_S))
            if not self._world.is_healed and trio.current_time() < self._world.bad_time_s:
                deeds = (self._deposit, *[self._transfer] * 6, self._burn, self._burn, self._pay_twice)
                self._rng.choice(deeds)()

    def _deposit(self, wallet: MiniWallet | None = None) -> None:
        """A payment to a reserve script, into the mempool of L1."""
        wallet = wallet or self._rng.choice([*self.wallets, *self.wallets, self._cheat])
        script = wallet.script()
        reserve = reserve_script(self._world.rules.custody.newest, CoinKind.DEPOSIT, script).script
        value_sats = self._rng.randint(50_000, 2_000_000)
        payment = self._world.l1.chain.payment(TxOut(value_sats, reserve))
        self._world.l1.mempool[payment.txid] = payment
        self._deposits[payment.outpoint(0)] = script
        self.counts["deposits"] += 1
        self._register(script)
        self._world.note("users", f"deposit {value_sats} in {payment.txid.hex()[:8]}")

    def _register(self, script: Script) -> None:
        member = self._someone()
        if member is not None:
            member.relay.register(script)

    def _transfer(self) -> None:
        coin = self._own_coin(FEE_SATS + 2_000)
        if coin is not None:
            wallet, (outpoint, output) = coin
            part_sats = self._rng.randint(1_000, output.value_sats - FEE_SATS - 1_000)
            outputs = (
                TxOut(part_sats, self._rng.choice(self.wallets).script()),
                TxOut(output.value_sats - FEE_SATS - part_sats, wallet.script()),
            )
            self.counts["transfers"] += 1
            self._hand_in(Handed(wallet.spend([(outpoint, output)], outputs)))

    def _burn(self) -> None:
        coin = self._own_coin(30_000)
        if coin is not None:
            wallet, (outpoint, output) = coin
            self._burned += 1
            # A payee of its own for each burn, so that payments on L1 can be told apart.
            l1_script = Script(b"\x00\x14" + sha256(b"payee %d" % self._burned)[:20])
            max_fee_sats = self._rng.choice(MAX_FEES_SATS)
            value_sats = self._rng.randint(20_000, output.value_sats - FEE_SATS - 1_000)
            burn = encode_burn(self._world.rules.l1_genesis_hash, Burn(l1_script, max_fee_sats, wallet.script()))
            rest = TxOut(output.value_sats - FEE_SATS - value_sats, wallet.script())
            transaction = wallet.spend([(outpoint, output)], (TxOut(value_sats, burn), rest))
            self.counts["burns"] += 1
            self._hand_in(Handed(transaction, transaction.outpoint(0), max_fee_sats))

    def _pay_twice(self) -> None:
        """One coin of the cheat's, two payments, at two members, the Byzantine ones among them."""
        coin = next(self._final_coins([self._cheat], FEE_SATS + 2_000), None)
        if coin is not None:
            wallet, (outpoint, output) = coin
            self._spent.add(outpoint)
            running = list(self._world.members.values())
            for payee in self._rng.sample([*self.wallets, wallet], 2):
                payment = wallet.pay((outpoint, output), payee.script(), fee_sats=FEE_SATS)
                self._submit(self._rng.choice(running), payment)
            self.counts["doubles"] += 1

    def _hand_in(self, handed: Handed) -> None:
        self._spent.update(txin.outpoint for txin in handed.transaction.inputs)
        self._waiting[handed.transaction.txid] = handed
        self._world.note("users", f"hand in {handed.transaction.txid.hex()[:8]}")
        member = self._someone()
        if member is not None:
            self._submit(member, handed.transaction)

    def _submit(self, member: Member, transaction: Transaction) -> None:
        try:
            member.relay.submit_transaction(transaction.serialize())
        except Rejected as rejected:  # it is behind, or has it already in a block
            self._world.note("users", f"{transaction.txid.hex()[:8]} not taken: {rejected.reason}")

    async def _remind(self) -> None:
        """Hand in again what is not final yet, and register again what a disk may have lost."""
        await trio.sleep(FIRST_REMINDER_S)
        while True:
            self._remind_once()
            await trio.sleep(REMIND_S)

    def _remind_once(self) -> None:
        member = self._someone()
        if member is not None:
            for script in dict.fromkeys(self._deposits.values()):
                member.relay.register(script)
            for handed in list(self._waiting.values()):
                if member.store.index.transaction(handed.transaction.txid) is None:
                    self._submit(member, handed.transaction)

    def _someone(self) -> Member | None:
        honest = self._world.honest
        return self._rng.choice(honest) if honest else None

    def _own_coin(self, least_sats: int) -> tuple[MiniWallet, Coin] | None:
        coins = list(self._final_coins(self.wallets, least_sats))
        return self._rng.choice(coins) if coins else None

    def _final_coins(self, wallets: list[MiniWallet], least_sats: int) -> Iterator[tuple[MiniWallet, Coin]]:
        """What these wallets own, and have not spent, by the final chain of some honest member."""
        member = self._someone()
        if member is None:
            return
        for outpoint, utxo in member.store.utxos.items():
            wallet = self._by_script.get(utxo.script)
            if wallet in wallets and utxo.value_sats >= least_sats and outpoint not in self._spent:
                yield wallet, (outpoint, TxOut(utxo.value_sats, utxo.script))

    # The miner

    async def _mine(self) -> None:
        """Blocks at irregular times, now and then several at once; some leave out a part of what waits.

        When everything is healed, they are as rare as blocks of L1 are beside views: the chain has time for each.
        """
        rng, world = self._rng, self._world
        while True:
            await trio.sleep(BLOCK_S if world.is_healed else rng.expovariate(1 / BLOCK_S))
            if world.is_healed:
                with trio.move_on_after(RARE_BLOCK_S):
                    await self._anchored()
            for _ in range(1 if world.is_healed or rng.random() < 0.8 else rng.randint(2, 5)):
                self._mine_block(share=1.0 if world.is_healed else rng.choice((0.0, 0.5, 1.0, 1.0)))

    async def _anchored(self) -> None:
        """Wait until a final block stands on the newest L1 block that is deep enough."""
        world = self._world
        buried_height = world.l1.chain.height - world.rules.params.confirmations + 1
        while all(member.store.tip.header.anchor.height < buried_height for member in world.honest):
            await trio.sleep(LOOK_S)

    def _mine_block(self, share: float) -> None:
        mempool = self._world.l1.mempool
        chosen: list[Transaction] = []
        for txid, transaction in list(mempool.items()):
            if not self._index.may_be_mined(transaction):
                del mempool[txid]
            elif self._rng.random() < share and not _conflicts(transaction, chosen):
                chosen.append(mempool.pop(txid))
        block = self._world.l1.chain.mine(*chosen)
        self._world.note("miner", f"L1 block {block.height} with {len(chosen)}")


def _conflicts(transaction: Transaction, chosen: list[Transaction]) -> bool:
    spent = {txin.outpoint for other in chosen for txin in other.inputs}
    return any(txin.outpoint in spent for txin in transaction.inputs)


def workload_of(world: World, rng: Random) -> Users:
    """The users of a simulated federation, and the miner."""
    return Users(world, rng)
