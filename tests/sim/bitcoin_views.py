"""The members' Bitcoin nodes: behind, still, out, slow, of another opinion, or on another branch for a while.

A branch is as long as the real chain and forks from it less than `confirmations` deep, so nothing that the sidechain
may rely on is on one side alone. Deeper ones happen too, but only to as many members as the federation can do without:
beside the Byzantine ones, `fault_tolerance` in all.
"""

from collections.abc import Callable
from random import Random

import trio

from bridge.custody import CoinKind, reserve_script
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable, RpcCode
from tests.sim.bitcoin_node import ANSWER_S, FEERATE_SAT_KVB, BitcoinNode
from tests.sim.l1_index import L1Index
from tests.sim.seams import World

PAUSE_S = 0.8
"""Between two ailments, in the mean."""
LASTS_S = 2.0
"""An ailment, in the mean."""
FEERATES_SAT_KVB = (None, 900, 1_000, 3_000, 4_500, 12_000)
DEEP_CHANCE = 0.05
METHODS = ("block", "txouts", "tx_out_proof", "raw_transaction", "send_raw_transaction", "estimate_feerate")


Ailment = tuple[str, Callable[[BitcoinNode], Callable[[], None]]]


class BitcoinViews:
    """Every member's node, and what befalls it."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.index = L1Index(world.l1)
        policy = world.rules.custody.newest
        published = [reserve_script(policy, kind) for kind in (CoinKind.CHANGE, CoinKind.DONATION)]
        descriptors = {item.descriptor: item.script for item in published}
        members = world.rules.membership
        self.nodes = [BitcoinNode(self.index, descriptors) for _ in range(members.size)]
        honest = [index for index in range(members.size) if index not in world.byzantine]
        spare = members.fault_tolerance - len(world.byzantine)
        self.may_fork_deeply = frozenset(rng.sample(honest, max(0, spare)))
        self.carried_out: set[str] = set()
        self._is_healed = False

    def client(self, index: int) -> BitcoinNode:
        """A member's."""
        return self.nodes[index]

    async def run(self) -> None:
        """Ailments until healed. Which node, what and for how long is drawn; each ends by itself."""
        async with trio.open_nursery() as nursery:
            while not self._is_healed:
                await trio.sleep(self._rng.expovariate(1 / PAUSE_S))
                if not self._is_healed:
                    self._befall(self._rng.randrange(len(self.nodes)), nursery)

    def heal(self) -> None:
        """All nodes are well, and stay so, but for those without which the chain has to go on."""
        self._is_healed = True
        for node in self.nodes:
            node.recover()
        for index in sorted(self._world.incurable):
            name, begin = self._rng.choice(self._lasting)
            begin(self.nodes[index])
            self._world.note(f"bitcoin {index}", f"{name} for good")

    def _befall(self, index: int, nursery: trio.Nursery) -> None:
        node, rng = self.nodes[index], self._rng
        passing: list[Ailment] = [("misses transactions", self._miss_transactions), ("is on a branch", self._fork)]
        name, begin = rng.choice([*self._lasting, *passing])
        if rng.random() < DEEP_CHANCE and index in self.may_fork_deeply:
            name, begin = "is on a deep branch", self._fork_deeply
        if name.endswith("branch") and not (node.is_plain and node.seen_height is None):
            return
        self.carried_out.add(name)
        end, lasts_s = begin(node), rng.expovariate(1 / LASTS_S)
        self._world.note(f"bitcoin {index}", f"{name} for {lasts_s:.1f} s")

        async def pass_by() -> None:
            await trio.sleep(lasts_s)
            if not self._is_healed:
                end()

        nursery.start_soon(pass_by)

    @property
    def _lasting(self) -> list[Ailment]:
        """What a member may also have for good."""
        return [
            ("lags", self._lag),
            ("stands still", self._stand_still),
            ("is out", self._be_out),
            ("is slow", self._be_slow),
            ("has another feerate", self._change_feerate),
            ("refuses a method", self._refuse),
        ]

    def _lag(self, node: BitcoinNode) -> Callable[[], None]:
        node.seen_height = max(0, node.length - 1 - self._rng.randint(1, 4))
        return lambda: setattr(node, "seen_height", None)

    def _stand_still(self, node: BitcoinNode) -> Callable[[], None]:
        node.seen_height = node.length - 1
        return lambda: setattr(node, "seen_height", None)

    def _be_out(self, node: BitcoinNode) -> Callable[[], None]:
        node.outage = True
        return lambda: setattr(node, "outage", False)

    def _be_slow(self, node: BitcoinNode) -> Callable[[], None]:
        node.answer_s = self._rng.choice((0.03, 0.2, 0.7, 1.6))
        return lambda: setattr(node, "answer_s", ANSWER_S)

    def _change_feerate(self, node: BitcoinNode) -> Callable[[], None]:
        node.feerate_sat_kvb = self._rng.choice(FEERATES_SAT_KVB)
        return lambda: setattr(node, "feerate_sat_kvb", FEERATE_SAT_KVB)

    def _refuse(self, node: BitcoinNode) -> Callable[[], None]:
        method = self._rng.choice(METHODS)
        errors = (L1Unavailable(L1Reason.FAILING, "drawn"), L1RpcError(method, RpcCode.BLOCK_ABSENT, "drawn"))
        node.refusals[method] = self._rng.choice(errors)
        return node.refusals.clear

    def _miss_transactions(self, node: BitcoinNode) -> Callable[[], None]:
        waiting = list(self._world.l1.mempool)
        node.seen_mempool.unseen |= set(self._rng.sample(waiting, (len(waiting) + 1) // 2))
        return node.seen_mempool.unseen.clear

    def _fork(self, node: BitcoinNode) -> Callable[[], None]:
        return self._leave(node, self._rng.randint(1, self._world.rules.params.confirmations - 1))

    def _fork_deeply(self, node: BitcoinNode) -> Callable[[], None]:
        return self._leave(node, self._world.rules.params.confirmations + self._rng.randint(0, 3))

    def _leave(self, node: BitcoinNode, depth: int) -> Callable[[], None]:
        genesis_anchor = self._world.genesis.anchor.height
        fork_height = max(genesis_anchor, node.length - 1 - depth)
        node.fork(fork_height, keeps_transactions=self._rng.random() < 0.5)
        return node.rejoin


def l1_views_of(world: World, rng: Random) -> BitcoinViews:
    """The Bitcoin nodes of a simulated federation."""
    return BitcoinViews(world, rng)
