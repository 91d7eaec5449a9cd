"""A rehearsal of the way out, on regtest: coins, a federation that dies, the time lock, two holders, a new address.

A new federation with a short time lock is made for it in a temporary directory. Or it is rehearsed on a copy of a local
federation's Bitcoin chain, with that federation's ledger, genesis and recovery keys. Nothing of these is changed: on
the copy, its members are dead.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from bridge.bitcoin import curve
from bridge.bitcoin.addresses import decode_address, encode_address, l1_network, sidechain_network
from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.identifiers import Script, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, reserve_script
from bridge.l1.client import L1Client
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import COINBASE_MATURITY, RegtestMiner
from bridge.recovery import RecoveryReason
from bridge.recovery_signing import RecoveryRequest, RecoveryTerms, combined
from federation.passphrase import Passphrase
from pegnode.bitcoind import start_regtest
from pegnode.demo.narration import Narrator
from pegnode.demo.stage import Stage
from pegnode.folders import RECOVERY_FOLDER
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation, template_text, with_timelock
from pegnode.passphrase import read_passphrase_file
from pegnode.recovery.drill_checks import (
    DrillFailed,
    DrillReason,
    eventually,
    refused,
    require_node_refuses,
    require_recovered,
    require_same_coins,
)
from pegnode.recovery.files import read_psbt, write_psbt
from pegnode.recovery.keys import open_recovery_key, recovery_key_of
from pegnode.recovery.known import KnownReserve, known_on_disk, known_to_node
from pegnode.recovery.plan import broadcast, plan_recovery, terms_of
from pegnode.recovery.survey import CoinState, Survey, coins_in_words, survey
from pegnode.rpc.results import CoinReply, DepositAddressReply

TIMELOCK_BLOCKS: Final = 72
"""Of the federation that is made for a drill: the least that the genesis's rules allow with configs/local.toml."""
CLAIM_DEADLINE_S: Final = 60.0
BLOCKS_AT_ONCE: Final = 500
FEERATE_SAT_KVB: Final = 2_000
DEPOSITS_SATS: Final = (100_000_000, 25_000_000)
LATE_DEPOSIT_SATS: Final = 10_000_000
DONATION_SATS: Final = 5_000_000
REGTEST: Final = l1_network("regtest")
NOBODY: Final = encode_address(Script(b"\x51\x20" + curve.NUMS), REGTEST)
"""Whom thousands of blocks pay: a wallet would be slow with as many coins."""


class DrillReport(msgspec.Struct, frozen=True):
    """What `peg recovery drill --json` prints. Amounts are sums of all coins and transactions."""

    chain_id: str
    timelock_blocks: int
    coins: int
    reserve_sats: int
    recovered_sats: int
    fee_sats: int
    txids: list[str]
    held: list[str]


@dataclass(frozen=True, slots=True)
class Scene:
    """A dead federation and a Bitcoin node of one's own. keys: where each holder's key lies."""

    genesis: Genesis
    known: KnownReserve
    keys: tuple[Path, ...]
    passphrase: Passphrase
    client: L1Client
    miner: RegtestMiner
    directory: Path

    @property
    def terms(self) -> RecoveryTerms:
        """Of the federation's genesis."""
        return terms_of(self.genesis)

    async def look(self) -> Survey:
        """What there is to recover."""
        return await survey(self.client, self.genesis, self.terms.custody, self.known)

    async def mine_up_to(self, height: int) -> None:
        """Mine until the newest block has this height."""
        tip_height, _ = await self.client.tip()
        while tip_height < height:
            count = min(BLOCKS_AT_ONCE, height - tip_height)
            await self.miner.generate(count, NOBODY)
            tip_height += count


async def drill_on_new(stage: Stage, narrator: Narrator, members: int) -> DrillReport:
    """Make a federation on `stage`, let it die, and recover its coins. Raises DrillFailed, or what any step raises."""
    narrator.chapter(1, "A federation, and coins in its reserve")
    template = with_timelock(template_text(), TIMELOCK_BLOCKS)
    create = LocalFederation.create
    federation = await trio.to_thread.run_sync(create, stage.directory, members, template)
    await trio.to_thread.run_sync(federation.up)
    running = "a member runs" if members == 1 else f"{members} members run"
    narrator.tell(f"{running}; the time lock is {TIMELOCK_BLOCKS} blocks, where a real federation has some thousands")
    async with federation.bitcoind.client() as client:
        miner = await RegtestMiner.create(client)
        await miner.generate(COINBASE_MATURITY + 1)
        told = await _deposit(federation, client, miner, narrator)
        narrator.chapter(2, "The federation dies")
        for name in federation.member_names:
            await trio.to_thread.run_sync(federation.kill_member, name)
        narrator.tell("every member was killed; what is left are their disks, the recovery keys and the Bitcoin node")
        scene = _scene(federation, told, client, miner, stage.directory)
        await _pay_the_dead(scene, narrator)
        on_disk = _known_on_disk(federation, scene.genesis)
        require_same_coins(told, on_disk)
        narrator.hold(
            f"a dead member's disk knows the {coins_in_words(len(on_disk.coins))} that it told while it lived"
        )
        return await _recover(scene, narrator)


async def drill_on_copy(stage: Stage, narrator: Narrator, federation: LocalFederation) -> DrillReport:
    """Copy a local federation's Bitcoin chain to `stage`, and recover its coins there. Raises as `drill_on_new`."""
    narrator.chapter(1, f"A copy of what {federation.directory} has")
    genesis = Genesis.load(federation.genesis_path)
    known = await trio.to_thread.run_sync(_known, federation, genesis)
    if federation.bitcoind.pid is None:
        detail = f"start the Bitcoin node of {federation.directory} with: peg up"
        raise DrillFailed(DrillReason.BITCOIND_STOPPED, detail)
    node = await trio.to_thread.run_sync(start_regtest, stage.directory / "bitcoind")
    async with federation.bitcoind.client() as source, node.client() as client:
        height = await _copy_blocks(source, client)
        narrator.tell(
            f"its chain of {height} blocks is on a Bitcoin node of our own, and its ledger is read: {known.source}"
        )
        miner = await RegtestMiner.create(client)
        scene = _scene(federation, known, client, miner, stage.directory)
        narrator.chapter(2, "On the copy, the federation is dead")
        narrator.tell("no member knows of the copy: nothing of what follows happens to the federation")
        return await _recover(scene, narrator)


async def _deposit(
    federation: LocalFederation, client: L1Client, miner: RegtestMiner, narrator: Narrator
) -> KnownReserve:
    """Two users deposit. Returns what a member then tells of the reserve."""
    genesis = Genesis.load(federation.genesis_path)
    name = federation.member_names[0]
    payments = {}
    for value_sats in DEPOSITS_SATS:
        claim = encode_address(
            Script(b"\x51\x20" + curve.x_only(secrets.token_bytes(32))), sidechain_network("regtest")
        )
        with federation.client(name) as member:
            payments[member.ask(DepositAddressReply, "getdepositaddress", claim).address] = value_sats
    await miner.send_many(payments)
    await miner.generate(genesis.peg.confirmations + 1)
    narrator.tell(f"two users deposit {' and '.join(format_btc(value) for value in payments.values())}")

    def coins() -> int:
        with federation.client(name) as member:
            return len(member.ask(list[CoinReply], "listreservecoins"))

    async def claimed() -> bool:
        return await trio.to_thread.run_sync(coins) == len(payments)

    await eventually(claimed, "both deposits in the ledger", CLAIM_DEADLINE_S)
    with federation.client(name) as member:
        told = known_to_node(member, genesis.rules(), sidechain_network("regtest"))
    narrator.hold(f"the ledger has {coins_in_words(len(told.coins))} of {format_btc(sum(DEPOSITS_SATS))}")
    return told


async def _pay_the_dead(scene: Scene, narrator: Narrator) -> None:
    """Somebody deposits again at an old address, and somebody donates; no ledger will ever know."""
    policy = scene.genesis.rules().custody.newest
    again = scene.known.coins[0].origin.reserve(scene.genesis.rules().custody)
    donation = reserve_script(policy, CoinKind.DONATION)
    late = {again.script: LATE_DEPOSIT_SATS, donation.script: DONATION_SATS}
    await scene.miner.send_many({encode_address(script, REGTEST): value for script, value in late.items()})
    await scene.miner.generate(1)
    narrator.tell(f"a late deposit of {format_btc(LATE_DEPOSIT_SATS)} and a donation of {format_btc(DONATION_SATS)}")


async def _recover(scene: Scene, narrator: Narrator) -> DrillReport:
    """Everything from the first look to the coins at their new address."""
    narrator.chapter(3, "The time lock")
    payee = decode_address(await scene.miner.new_address(), REGTEST)
    found = await scene.look()
    coins = [item for item in found.coins if item.state is not CoinState.GONE]
    reserve_sats = sum(item.coin.value_sats for item in coins)
    known = sum(item.in_ledger for item in coins)
    narrator.hold(
        f"the Bitcoin node has {coins_in_words(len(coins))} of {format_btc(reserve_sats)}, {known} of the ledger's"
    )
    requests = await _wait_until_one_too_early(scene, found, payee, narrator)
    narrator.chapter(4, "The holders sign")
    final = _sign(scene, requests, payee, narrator)
    narrator.chapter(5, "The coins are safe")
    await _send(scene, requests, final, payee, narrator)
    recovered_sats = sum(output.value_sats for transaction in final for output in transaction.outputs)
    return DrillReport(
        chain_id=scene.genesis.chain_id.hex(),
        timelock_blocks=scene.genesis.peg.recovery_timelock_blocks,
        coins=len(coins),
        reserve_sats=reserve_sats,
        recovered_sats=recovered_sats,
        fee_sats=reserve_sats - recovered_sats,
        txids=[hash_to_hex(transaction.txid) for transaction in final],
        held=[],
    )


async def _wait_until_one_too_early(
    scene: Scene, found: Survey, payee: Script, narrator: Narrator
) -> list[RecoveryRequest]:
    """Mine until one more block is missing for the youngest coin, and plan what that block will allow."""
    next_height = found.tip_height + 1
    maturities = [item.matures_at for item in found.coins if item.state is CoinState.IMMATURE]
    if maturities and len(maturities) == len(found.coins):
        with refused(RecoveryReason.IMMATURE, "a plan before the time lock") as refusal:
            plan_recovery(found, scene.terms, [payee], FEERATE_SAT_KVB, next_height)
        narrator.hold(f"too early to plan anything: {refusal.words}")
    matures_at = max(maturities, default=next_height)
    await scene.mine_up_to(matures_at - 2)
    narrator.tell(f"L1 is at block {matures_at - 2}; the youngest coin can be recovered in block {matures_at}")
    return plan_recovery(await scene.look(), scene.terms, [payee], FEERATE_SAT_KVB, matures_at)


def _sign(scene: Scene, requests: list[RecoveryRequest], payee: Script, narrator: Narrator) -> list[Transaction]:
    """The first and the last holder sign files; one of them alone is not enough."""
    final = []
    for number, planned in enumerate(requests, start=1):
        path = scene.directory / f"recovery-{number}.psbt"
        write_psbt(path, planned.psbt)
        signed = [_signed(scene, path, key, payee) for key in (scene.keys[0], scene.keys[-1])]
        with refused(RecoveryReason.TOO_FEW_SIGNATURES, "one signature") as refusal:
            signed[0].finalized()
        narrator.hold(f"one holder alone makes no transaction: {refusal.words}")
        final.append(combined(signed).finalized())
        narrator.hold(
            f"two of {len(scene.keys)} holders do, of {coins_in_words(len(planned.coins))}; every script was run"
        )
    return final


def _signed(scene: Scene, path: Path, key: Path, payee: Script) -> RecoveryRequest:
    """What one holder makes of the file, by its own key and genesis, in a file of its own."""
    request = RecoveryRequest.read(read_psbt(path), scene.terms)
    request.require_payees([payee])
    public = recovery_key_of(key, scene.terms.custody)
    signed = request.signed(open_recovery_key(key, scene.passphrase), secrets.token_bytes)
    write_psbt(path.with_name(f"{path.stem}.{public.hex()[:8]}.psbt"), signed.psbt)
    return signed


async def _send(
    scene: Scene, requests: list[RecoveryRequest], final: list[Transaction], payee: Script, narrator: Narrator
) -> None:
    """Too early, then with one signature, then for good."""
    found = await scene.look()
    if any(item.state is CoinState.IMMATURE for item in found.coins):
        with refused(RecoveryReason.IMMATURE, "a recovery one block too early") as refusal:
            for transaction in final:
                await broadcast(scene.client, transaction)
        narrator.hold(f"one block too early: {refusal.words}")
        await scene.miner.generate(1)
    words = await require_node_refuses(scene.client, _by_one_key(final[0]), "one signature")
    narrator.hold(f"the Bitcoin node refuses one signature in place of two: {words}")
    for transaction in final:
        narrator.tell(f"sent: {hash_to_hex(await broadcast(scene.client, transaction))}")
    await scene.miner.generate(1)
    await require_recovered(scene.client, await scene.look(), requests, payee)
    paid_sats = sum(output.value_sats for transaction in final for output in transaction.outputs)
    narrator.hold(f"the Bitcoin node shows {format_btc(paid_sats)} at the new address, and nothing in the reserve")


def _by_one_key(transaction: Transaction) -> Transaction:
    """The transaction as somebody would send it who has the last holder's key only: the other signatures are empty."""
    witnesses = []
    for txin in transaction.inputs:
        *stack, leaf, control_block = txin.witness
        one = next(index for index, signature in enumerate(stack) if signature)
        witnesses.append((*(item if index == one else b"" for index, item in enumerate(stack)), leaf, control_block))
    return transaction.with_witnesses(witnesses)


def _scene(
    federation: LocalFederation, known: KnownReserve, client: L1Client, miner: RegtestMiner, directory: Path
) -> Scene:
    keys = tuple(sorted((federation.passphrase_path.parent / RECOVERY_FOLDER).iterdir()))
    passphrase = read_passphrase_file(federation.passphrase_path)
    return Scene(Genesis.load(federation.genesis_path), known, keys, passphrase, client, miner, directory)


def _known(federation: LocalFederation, genesis: Genesis) -> KnownReserve:
    """From a member that runs, else from the first one's disk."""
    for name in federation.running():
        with federation.client(name) as member:
            return known_to_node(member, genesis.rules(), sidechain_network("regtest"))
    return _known_on_disk(federation, genesis)


def _known_on_disk(federation: LocalFederation, genesis: Genesis) -> KnownReserve:
    config = federation.member_config(federation.member_names[0])
    return known_on_disk(config.data_dir, genesis.rules()) or KnownReserve.nothing()


async def _copy_blocks(source: L1Client, target: L1Client) -> int:
    """Hand one node's active chain to another; its height."""
    tip_height, _ = await source.tip()
    for height in range(1, tip_height + 1):
        block_hash = await source.block_hash(height)
        if block_hash is not None:
            data = await source.block(block_hash)
            await target.connection.call(Call("submitblock", (data.hex(),)))
    return tip_height
