"""A member that was away for a thousand blocks: it catches up while the others go on, and then takes part again."""

import trio

from bridge.bitcoin.script import ScriptType
from pegnode.consensus.blocks import MAX_FINAL_BODIES
from tests.support.members import Member, MemoryFederation
from tests.support.memory_disk import Disk
from tests.support.mini_wallet import Coin, MiniWallet, coins_of

BLOCKS = 1_000
LATE = 3
ONE_WAY_S = 0.2
"""To and from the late member, so that the others make blocks while it asks for theirs."""
SUBMIT_S = 0.2


def write_history(federation: MemoryFederation) -> tuple[MiniWallet, Coin]:
    """A thousand blocks on the disks of all but the late member; and something to transfer."""
    maker = Member(federation, None, federation.disks[0], federation.nodes[0])
    wallet = MiniWallet("history")
    coin = federation.fund_by_hand(maker, wallet, 100_000_000)
    while maker.height < BLOCKS:
        federation.commit_block(maker)
    families = federation.disks[0].database.families_in_memory
    for index in (1, 2):
        disk = Disk()
        disk.database.families_in_memory = {name: dict(family) for name, family in families.items()}
        federation.disks[index] = disk
    return wallet, coin


async def transfer_for_ever(federation: MemoryFederation, wallet: MiniWallet, coin: Coin) -> None:
    """Work for every block."""
    while True:
        transfer = wallet.pay(coin, wallet.script(ScriptType.P2TR), fee_sats=200)
        federation.members[0].relay.submit_transaction(transfer.serialize())
        [coin] = coins_of(transfer)
        await trio.sleep(SUBMIT_S)


async def test_member_a_thousand_blocks_behind_catches_up_while_the_others_go_on(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with trio.open_nursery() as nursery:
        federation = MemoryFederation(nursery)
        nursery.start_soon(federation.network.run)
        wallet, coin = write_history(federation)
        await federation.start(0, 1, 2)
        await federation.until(lambda: all(member.own_memory.may_sign for member in federation.members.values()))
        nursery.start_soon(transfer_for_ever, federation, wallet, coin)
        front = federation.members[0]
        await federation.until(lambda: front.height >= BLOCKS + 20)
        for other in (0, 1, 2):
            for source, destination in ((other, LATE), (LATE, other)):
                ends = federation.peer_id(source), federation.peer_id(destination)
                federation.network.set_delay(*ends, (ONE_WAY_S, ONE_WAY_S))

        began, height = trio.current_time(), front.height
        await federation.start(LATE)
        late = federation.members[LATE]
        assert late.driver is not None
        kept, longest_s, since = 0, 0.0, trio.current_time()
        while late.height < front.height - 1:
            await trio.sleep(0.05)
            kept = max(kept, len(late.driver._bodies))
            if front.height > height:
                longest_s, height, since = (
                    max(longest_s, trio.current_time() - since),
                    front.height,
                    trio.current_time(),
                )
        took_s = trio.current_time() - began

        assert took_s < 20
        assert front.height > BLOCKS + 20 + took_s / 2  # at half of their usual pace, at least
        assert longest_s < 2.5
        assert kept <= MAX_FINAL_BODIES + federation.rules.membership.size
        await federation.until(lambda: front.store.tip.header.leader == LATE, seconds=10)
        assert front.driver is not None
        seen = front.driver.watch.last_vote(LATE)
        assert seen is not None
        assert seen.view >= front.store.tip.header.view - 4
        assert not any(member.dropped for member in federation.members.values())
        nursery.cancel_scope.cancel()
