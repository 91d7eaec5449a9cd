"""The story: bitcoin goes to the sidechain, changes hands, and comes home while a member of the federation is lost.

Each chapter is a function, and ends with the peg's equality as a member tells it, added up here. What is awaited has a
deadline; what does not hold ends the story with DemoFailed.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.identifiers import Txid, hash_from_hex
from bridge.bitcoin.script import ScriptType
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.demo.bitcoin import fresh_address, funded_miner
from pegnode.demo.cast import Members, User, until
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.demo.narration import Narrator
from pegnode.demo.play import Play, watch
from pegnode.demo.proof import Burned, PayoutOnL1, payout_on_l1, prove_payouts, txid_hex
from pegnode.demo.scene import look
from pegnode.demo.stage import Stage
from pegnode.local_federation import LocalFederation
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.client import RpcRefused
from pegnode.rpc.node_api import UnavailableReason
from pegnode.rpc.results import DepositAddressReply, DepositReply, WithdrawalEstimateReply, WithdrawalReply

MEMBER_COUNT: Final = 4
HOSTS: Final = {"ann": "alice", "ben": "bob", "cho": "carol"}
"""The users, and which member each one's wallet asks."""
LOST: Final = "dave"
"""The member that is killed."""

DEPOSITS_SATS: Final = (("ann", 200_000_000), ("ben", 150_000_000), ("cho", 30_000_000), ("cho", 40_000_000))
PAYMENTS_SATS: Final = (("ann", "ben", 25_000_000), ("ben", "cho", 10_000_000), ("cho", "ann", 5_000_000))
WITHDRAWALS_SATS: Final = (
    ("ann", ScriptType.P2PKH, 30_000_000),
    ("ben", ScriptType.P2SH, 20_000_000),
    ("cho", ScriptType.P2WPKH, 10_000_000),
    ("ann", ScriptType.P2WSH, 40_000_000),
    ("ben", ScriptType.P2TR, 50_000_000),
)
"""As many as make a payout due at once."""


async def tell(stage: Stage, narrator: Narrator) -> list[tuple[str, float]]:
    """The whole story, on processes that stay for `stage` to end; how many seconds each chapter took, by title.

    Raises DemoFailed, and what the parts raise.
    """
    seconds: list[tuple[str, float]] = []
    narrator.chapter(1, FIRST_CHAPTER)
    federation = await trio.to_thread.run_sync(LocalFederation.create, stage.directory, MEMBER_COUNT)
    members, users = Members(federation), list[User]()
    try:
        async with federation.bitcoind.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(watch, narrator, members, users, client)
            play = await set_up(narrator, members, users, client)
            seconds.append((FIRST_CHAPTER, narrator.elapsed_s))
            for number, (title, chapter) in enumerate(CHAPTERS, start=2):
                began_s = narrator.elapsed_s
                narrator.chapter(number, title)
                await chapter(play)
                seconds.append((title, narrator.elapsed_s - began_s))
            narrator.show(await look(members, users, client))
            nursery.cancel_scope.cancel()
    finally:
        # Only now has the last question of `watch` been answered: it is asked in a thread, which nothing interrupts.
        for user in users:
            user.leave()
        members.close()
    return seconds


async def set_up(narrator: Narrator, members: Members, users: list[User], client: L1Client) -> Play:
    """Start the members, mine what can be spent, and give the users wallets."""
    miners: list[RegtestMiner] = []

    async def mine() -> None:
        miners.append(await funded_miner(client))

    version = (await client.network_info()).subversion.strip("/")
    narrator.tell(f"one Bitcoin node ({version}, regtest), and {len(members.names)} members that start")
    narrator.wait("the members start")
    async with trio.open_nursery() as nursery:
        for name in members.names:
            nursery.start_soon(members.start, name)
        nursery.start_soon(mine)
    await _connected(narrator, members)
    peg = await members.peg(members.names[0])
    quorum = len(members.names) - (len(members.names) - 1) // 3
    narrator.tell(f"{', '.join(members.names)} are connected; {quorum} of {len(members.names)} make blocks and sign")
    for name, host in HOSTS.items():
        users.append(await User.arrive(name, host, members.federation))
    narrator.tell("; ".join(f"{user.name} has a wallet and asks {user.member}" for user in users))
    play = Play(narrator, members, tuple(users), client, miners[0], peg.confirmations, peg.claim_fee_sats)
    await play.check_equality()
    return play


async def _connected(narrator: Narrator, members: Members) -> None:
    """Wait until every member has a connection to every other one."""

    async def all_see_all() -> bool | None:
        statuses = [await members.status(name) for name in members.names]
        see_all = [status is not None and all(peer.connected for peer in status.members) for status in statuses]
        return True if all(see_all) else None

    narrator.wait("the members find each other")
    await until(all_see_all, "the members are connected to each other")
    narrator.wait("")


async def deposit(play: Play) -> None:
    """Pay deposit addresses on L1, one of them twice, and see the users credited unasked."""
    narrator = play.narrator
    claims = {user.name: await user.new_address() for user in play.users}
    for user in play.users:
        reply = await play.members.ask(user.member, DepositAddressReply, "getdepositaddress", claims[user.name])
        narrator.tell(f"{user.name} gets a deposit address of {user.member}: {reply.address}")
        for sats in (sats for name, sats in DEPOSITS_SATS if name == user.name):
            await play.miner.send_to_address(reply.address, sats)
            narrator.tell(f"{user.name} pays {format_btc(sats)} BTC to it")
    for count in range(1, play.confirmations + 1):
        height = await play.mine_block()
        for user in play.users:
            seen = partial(_seen, play, user, claims[user.name], count)
            await play.until(seen, f"{user.name} sees Bitcoin block {height}")
        narrator.tell(f"Bitcoin block {height}: {count} of {play.confirmations} confirmations")
    for user in play.users:
        await check_credited(play, user)
    await play.check_equality()
    await play.check_supply()


async def _seen(play: Play, user: User, claim_address: str, count: int) -> bool | None:
    """Whether a user's own member shows every deposit to an address with so many confirmations."""
    deposits = await play.members.ask(user.member, list[DepositReply], "listdeposits", [claim_address])
    expected = sum(name == user.name for name, _ in DEPOSITS_SATS)
    return True if [item.confirmations >= count for item in deposits] == [True] * expected else None


async def check_credited(play: Play, user: User) -> None:
    """The wallet finds what was paid, less the claim fees, by doing nothing but looking. Raises DemoFailed (CREDIT)."""
    paid = [sats for name, sats in DEPOSITS_SATS if name == user.name]
    expected_sats = sum(paid) - len(paid) * play.claim_fee_sats

    async def credited_sats() -> int | None:
        found_sats = (await user.sync()).confirmed_sats
        return found_sats if found_sats >= expected_sats else None

    found_sats = await play.until(credited_sats, f"{user.name} is credited {format_btc(expected_sats)}")
    if found_sats != expected_sats:
        detail = f"{user.name} has {found_sats} sats, and should have {expected_sats}"
        raise DemoFailed(DemoReason.CREDIT, detail)
    play.narrator.hold(
        f"{user.name} has {format_btc(found_sats)} L-BTC without doing anything more:"
        f" {' + '.join(map(format_btc, paid))} - {len(paid) * play.claim_fee_sats} sats"
    )


async def pay_each_other(play: Play) -> None:
    """Pay on the sidechain, and time each payment from its making to its being final."""
    for payer_name, payee_name, sats in PAYMENTS_SATS:
        payer, payee = play.user(payer_name), play.user(payee_name)
        address = await payee.new_address()
        began_s = time.monotonic()
        txid = await payer.pay(address, sats)
        height = await play.until(partial(play.final_height, payer.member, txid), f"{payer_name}'s payment is final")
        seconds = time.monotonic() - began_s
        play.narrator.tell(
            f"{payer_name} pays {payee_name} {format_btc(sats)} L-BTC: final in block {height} after {seconds:.2f} s"
        )
    await play.check_equality()
    await play.check_supply()


async def withdraw(play: Play) -> None:
    """Burn for all but one of the addresses: one short of what makes a payout due."""
    for name, kind, sats in WITHDRAWALS_SATS[:-1]:
        await _burn(play, play.user(name), kind, sats)
    await play.until(partial(_all_burns_are, play, ("waiting",)), "the burns are final")
    await play.check_equality()


async def _burn(play: Play, user: User, kind: ScriptType, sats: int) -> None:
    """Burn coins of a user for a fresh L1 address, for at most the fee that the user's member suggests."""
    address = await fresh_address(play.client, play.miner, kind)
    estimate = await play.members.ask(
        user.member, WithdrawalEstimateReply, "estimatewithdrawal", l1_address=address, amount_sats=sats
    )
    max_fee_sats = estimate.suggested_max_fee_sats
    burn = await user.withdraw(address, sats, max_fee_sats)
    play.burns.append(Burned(user.name, kind, address, sats, max_fee_sats, burn))
    play.narrator.tell(
        f"{user.name} burns {format_btc(sats)} L-BTC, fee at most {max_fee_sats} sats, for {kind.value} {address}"
    )


async def _withdrawals(play: Play, name: str) -> list[WithdrawalReply]:
    """What a member says of the burns."""
    burns = [str(burned.burn) for burned in play.burns]
    return await play.members.ask(name, list[WithdrawalReply], "listwithdrawals", burns=burns)


async def _all_burns_are(play: Play, stages: Sequence[str]) -> list[WithdrawalReply] | None:
    """The burns, if each is at one of these stages."""
    replies = await _withdrawals(play, play.members.running()[0])
    arrived = len(replies) == len(play.burns) and all(reply.stage in stages for reply in replies)
    return replies if arrived else None


async def pay_out(play: Play) -> None:
    """Make the last burn, kill a member in the same moment, and see the others pay all five in one transaction."""
    on_l1 = ("broadcast", "confirmed", "settled")
    name, kind, sats = WITHDRAWALS_SATS[-1]
    await _burn(play, play.user(name), kind, sats)
    burned_s = time.monotonic()
    await play.members.kill(LOST)
    replies = await _withdrawals(play, play.members.running()[0])
    paid = sum(reply.stage in on_l1 for reply in replies)
    play.narrator.tell(f"{LOST} is killed (SIGKILL), with five burns made and {paid or 'none'} paid")
    replies = await play.until(partial(_all_burns_are, play, on_l1), "the payout is signed and broadcast")
    txids = {reply.payouts[-1].txid for reply in replies}
    if len(txids) != 1:
        raise DemoFailed(DemoReason.PAYOUT, f"{len(txids)} payouts for the five burns")
    payout = await _payout(play, txids.pop())
    play.narrator.tell(f"the payout is in Bitcoin's mempool {time.monotonic() - burned_s:.1f} s after the last burn")
    play.narrator.tell(f"txid {txid_hex(payout)}")
    play.narrator.tell(
        f"{payout.transaction.vsize_vbytes} vbytes, fee {payout.fee_sats} sats, five payees;"
        f" {payout.signatures} signatures in each input"
    )
    await play.check_equality()
    await _settle(play)
    await play.check_equality()


async def _payout(play: Play, payout_hex: str) -> PayoutOnL1:
    """The payout as the Bitcoin node has it now."""
    txid = Txid(hash_from_hex(payout_hex))
    return await play.until(partial(payout_on_l1, play.client, txid), "the Bitcoin node has the payout")


async def _settle(play: Play) -> None:
    """Bury the payout in L1 blocks until the sidechain has settled it."""
    for count in range(1, play.confirmations + 1):
        height = await play.mine_block()

        async def confirmed(count: int = count) -> bool | None:
            replies = await _withdrawals(play, play.members.running()[0])
            return True if all(reply.payouts[-1].confirmations >= count for reply in replies) else None

        await play.until(confirmed, f"the members see Bitcoin block {height}")
        play.narrator.tell(f"Bitcoin block {height}: the payout has {count} of {play.confirmations} confirmations")
    began_s = time.monotonic()
    await play.until(partial(_all_burns_are, play, ("settled",)), "the sidechain settles the withdrawals")
    waited_s = time.monotonic() - began_s
    play.narrator.hold(f"all five withdrawals are settled, {waited_s:.1f} s later, without {LOST}")


async def return_lost_member(play: Play) -> None:
    """Start the killed member again, and see it come to the same block as the others."""
    members = play.members
    began_s = time.monotonic()
    play.narrator.wait(f"{LOST} starts")
    await members.start(LOST)
    play.narrator.tell(
        f"{LOST} runs again on the disk that it left, {time.monotonic() - began_s:.1f} s after its start"
    )

    async def same_block() -> tuple[int, str] | None:
        statuses = [await members.status(name) for name in members.names]
        tips = {None if status is None else (status.height, status.block_hash) for status in statuses}
        return tips.pop() if len(tips) == 1 else None

    height, block_hash = await play.until(same_block, f"{LOST} catches up")
    for name in members.names:
        found = await members.ask(name, str, "getblockhash", height)
        if found != block_hash:
            raise DemoFailed(DemoReason.DIVERGED, f"{name} has {found} at height {height}, not {block_hash}")
    play.narrator.tell(f"block {height} {block_hash}")
    play.narrator.hold(f"{LOST} has caught up: all four members have this block")
    await play.check_equality()


async def prove(play: Play) -> None:
    """Have every member recount, and prove each payout from the Bitcoin node's own view."""
    for name in play.members.names:
        audit = await play.until(partial(_audit, play, name), f"{name} recounts")
        if audit.findings or not audit.ok:
            raise DemoFailed(DemoReason.AUDIT, f"{name}: {'; '.join(audit.findings)}")
    play.narrator.hold(f"no findings in the audits of {', '.join(play.members.names)}: every satoshi is explained")
    await play.check_equality()
    await play.check_supply()
    replies = await _withdrawals(play, LOST)
    payout = await _payout(play, replies[0].payouts[-1].txid)
    proven = await prove_payouts(play.client, payout, play.burns, replies, play.confirmations)
    for item in proven:
        play.narrator.hold(
            f"{item.burned.user}'s {item.burned.kind.value} address got {format_btc(item.paid_sats)} BTC"
            f" = {format_btc(item.burned.amount_sats)} - {item.fee_share_sats} sats"
            f" at output {item.outpoint.vout}, {item.confirmations} confirmations"
        )
    play.narrator.hold("five payouts proven from the Bitcoin node's unspent outputs, each settled on the sidechain")


async def _audit(play: Play, name: str) -> AuditReply | None:
    """A member's recount; None while it can't make one: it may have to read L1's blocks first."""
    try:
        return await play.members.ask(name, AuditReply, "audit")
    except RpcRefused as refused:
        if refused.refusal in set(UnavailableReason):
            return None
        raise


FIRST_CHAPTER: Final = "A federation of four on a private Bitcoin chain"
CHAPTERS: Final[tuple[tuple[str, Callable[[Play], Awaitable[None]]], ...]] = (
    ("Deposits: bitcoin becomes L-BTC", deposit),
    ("Payments on the sidechain", pay_each_other),
    ("Withdrawals: burns for four kinds of Bitcoin address", withdraw),
    ("A fifth burn, a member killed, and the payout without it", pay_out),
    ("The lost member returns", return_lost_member),
    ("Proofs", prove),
)
