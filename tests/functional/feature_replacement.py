"""An unconfirmed payout is replaced on a real Bitcoin node; then the replacement settles, or the old version does."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import OutPoint, Txid, hash_from_hex, hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from bridge.replacement import STALE_INTERVALS
from pegnode.rpc.results import PayoutReply, WithdrawalReply
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, running_federation
from tests.support.peg import p2tr
from tests.support.users import User, user_of

L1 = l1_network("regtest")
DEPOSIT_SATS = 20_000_000
BURN_SATS = 1_000_000
INTERVAL_ANCHORS = 3
WAIT_ANCHORS = 3
"""replacement_interval_anchors and batch_max_wait_anchors of configs/local.toml."""


@dataclass(frozen=True)
class Payout:
    """A payout that has been replaced once. first: as it was signed."""

    burn: OutPoint
    first: bytes
    versions: tuple[Txid, Txid]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationUnderTest]:
    with running_federation(tmp_path_factory.mktemp("replacement") / "federation") as running:
        yield running


@pytest.fixture(scope="module")
def alice(federation: FederationUnderTest) -> Iterator[User]:
    with user_of(federation, "alice") as user:
        user.fund(DEPOSIT_SATS)
        yield user


def mine_none(federation: FederationUnderTest, blocks: int) -> None:
    """Blocks that leave out whatever waits."""

    async def work(_l1: L1Client, miner: RegtestMiner) -> None:
        for _ in range(blocks):
            await miner.generate_block()

    federation.on_l1(work)


def mempool_has(federation: FederationUnderTest, txids: tuple[Txid, ...]) -> list[bool]:
    """Which of them wait on the Bitcoin node."""

    async def work(client: L1Client, _: RegtestMiner) -> list[bool]:
        return [await client.mempool_contains(txid) for txid in txids]

    return federation.on_l1(work)


def payouts_of(federation: FederationUnderTest, burn: OutPoint) -> list[PayoutReply]:
    """The versions of the batch that pays a burn."""
    reply = federation.withdrawal(burn)
    return [] if reply is None else reply.payouts


def replaced_payout(federation: FederationUnderTest, alice: User) -> Payout:
    """Alice's payout waits on the Bitcoin node, nobody mines it, and the members replace it there."""
    burn = alice.withdraw(encode_address(p2tr("payee"), L1), BURN_SATS)
    eventually(lambda: federation.withdrawal(burn) is not None, "the burn is final")
    mine_none(federation, WAIT_ANCHORS)
    [first] = federation.await_stage(burn, ("broadcast",)).payouts
    txid = Txid(hash_from_hex(first.txid))

    async def raw(client: L1Client, _: RegtestMiner) -> bytes | None:
        return await client.raw_transaction(txid)

    signed = federation.on_l1(raw)
    assert signed is not None
    mine_none(federation, STALE_INTERVALS * INTERVAL_ANCHORS)
    eventually(lambda: len(payouts_of(federation, burn)) == 2, "the payout has been replaced")
    newest = Txid(hash_from_hex(payouts_of(federation, burn)[1].txid))
    eventually(lambda: mempool_has(federation, (txid, newest)) == [False, True], "the Bitcoin node has taken it")
    return Payout(burn, signed, (txid, newest))


def settled(federation: FederationUnderTest, payout: Payout) -> WithdrawalReply:
    """Once its confirmations are there, with all members of one mind."""
    mine_none(federation, CONFIRMATIONS - 1)
    reply = federation.await_stage(payout.burn, ("settled",))
    peg, audit = federation.peg(), federation.agreement()
    assert (peg.unsettled_sats, peg.open_batches, peg.equality) == (0, 0, True)
    assert (audit.l1_held_sats, audit.l1_paid_out_sats) == (peg.reserves_sats, 0)
    return reply


def test_replacement_settles(federation: FederationUnderTest, alice: User) -> None:
    payout = replaced_payout(federation, alice)
    first, newest = payouts_of(federation, payout.burn)
    assert newest.feerate_sat_kvb > first.feerate_sat_kvb
    assert newest.fee_sats > first.fee_sats
    federation.mine(1)
    reply = settled(federation, payout)
    assert reply.payout == f"{hash_to_hex(payout.versions[1])}:0"
    assert reply.paid_sats == BURN_SATS - (newest.fee_sats - newest.fund_part_sats)


def test_old_version_settles_when_a_miner_had_kept_it(federation: FederationUnderTest, alice: User) -> None:
    payout = replaced_payout(federation, alice)
    first, _ = payouts_of(federation, payout.burn)

    async def mine_first(_: L1Client, miner: RegtestMiner) -> None:
        await miner.generate_block([payout.first])

    federation.on_l1(mine_first)
    assert mempool_has(federation, payout.versions) == [False, False]
    reply = settled(federation, payout)
    assert reply.payout == f"{hash_to_hex(payout.versions[0])}:0"
    assert reply.paid_sats == BURN_SATS - (first.fee_sats - first.fund_part_sats)
