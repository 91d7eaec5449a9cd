"""Both ways out of the reserve, on a real Bitcoin node: it derives our scripts, relays our spends, keeps the lock."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.curve import schnorr_sign, x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import script_path_sighash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import (
    CoinKind,
    CustodyPolicy,
    ReserveScript,
    quorum_input_weight,
    quorum_witness,
    recovery_witness,
    reserve_script,
)
from bridge.errors import Rejected
from bridge.evidence import Evidence, L1BlockFact, check_inclusion
from tests.support.bitcoind import Regtest

REGTEST = l1_network("regtest")
TIMELOCK_BLOCKS = 12
CLAIM_SCRIPT = b"\x00\x14" + bytes(range(20))
VALUE_SATS = 1_000_000
FEE_SATS = 20_000
SIZES = pytest.mark.parametrize("size", [4, 15, 19], ids=["3-of-4", "11-of-15", "13-of-19"])
"""The demonstration's, the federation's, and the largest whose spends every node relays."""


@pytest.fixture
def regtest(shared_regtest: Regtest) -> Regtest:
    """One node for all of these tests."""
    return shared_regtest


@dataclass(frozen=True)
class Reserve:
    """A policy with every secret behind it, and one script of each kind."""

    policy: CustodyPolicy
    members: tuple[bytes, ...]
    recovery: tuple[bytes, ...]

    @property
    def scripts(self) -> list[ReserveScript]:
        """One of each kind."""
        return [
            reserve_script(self.policy, CoinKind.DEPOSIT, CLAIM_SCRIPT),
            reserve_script(self.policy, CoinKind.CHANGE),
            reserve_script(self.policy, CoinKind.DONATION),
        ]


def reserve_of(size: int) -> Reserve:
    """A federation of `size` members with a short timelock, and two of three recovery keys."""
    members = tuple(sha256(b"member %d" % index) for index in range(size))
    recovery = tuple(sha256(b"recovery %d" % index) for index in range(3))
    policy = CustodyPolicy(
        chain_id=sha256(b"chain"),
        epoch=7,
        quorum=size - (size - 1) // 3,
        member_keys=tuple(map(x_only, members)),
        recovery_keys=tuple(map(x_only, recovery)),
        recovery_quorum=2,
        recovery_timelock_blocks=TIMELOCK_BLOCKS,
    )
    return Reserve(policy, members, recovery)


@dataclass(frozen=True)
class Funded:
    """A confirmed L1 transaction that pays each reserve script once. coins: in the order of `Reserve.scripts`."""

    transaction: Transaction
    coins: tuple[OutPoint, ...]
    height: int

    def prevouts(self) -> list[TxOut]:
        """What the coins hold."""
        return [self.transaction.outputs[coin.vout] for coin in self.coins]

    def spend(self, script: Script, sequence: int) -> Transaction:
        """All coins to one output, unsigned."""
        inputs = tuple(TxIn(coin, sequence=sequence) for coin in self.coins)
        return Transaction(2, inputs, (TxOut(VALUE_SATS * len(inputs) - FEE_SATS, script),))


async def fund(regtest: Regtest, reserve: Reserve) -> Funded:
    """Pay every reserve script in one transaction, and confirm it."""
    scripts = [one.script for one in reserve.scripts]
    txid = await regtest.miner.send_many({encode_address(script, REGTEST): VALUE_SATS for script in scripts})
    data = await regtest.client.raw_transaction(txid)
    assert data is not None
    await regtest.miner.generate(1)
    transaction = Transaction.parse(data)
    paid = [output.script for output in transaction.outputs]
    coins = tuple(transaction.outpoint(paid.index(script)) for script in scripts)
    return Funded(transaction, coins, (await regtest.client.tip())[0])


def sign(
    transaction: Transaction, index: int, prevouts: list[TxOut], leaf: bytes, secrets: Sequence[bytes]
) -> list[bytes]:
    """One signature for each secret."""
    digest = script_path_sighash(transaction, index, prevouts, leaf)
    return [schnorr_sign(secret, digest, bytes(32)) for secret in secrets]


def signed_by_quorum(transaction: Transaction, reserve: Reserve, prevouts: list[TxOut]) -> Transaction:
    """Signed by the last members: those whose signatures are missing come first."""
    absent = len(reserve.members) - reserve.policy.quorum
    witnesses = []
    for index, one in enumerate(reserve.scripts):
        given = sign(transaction, index, prevouts, one.quorum_leaf_hash, reserve.members[absent:])
        witnesses.append(quorum_witness(one, [*[None] * absent, *given]))
    return transaction.with_witnesses(witnesses)


def signed_for_recovery(transaction: Transaction, reserve: Reserve, prevouts: list[TxOut]) -> Transaction:
    """Signed by the first and the last recovery key."""
    witnesses = []
    for index, one in enumerate(reserve.scripts):
        first, last = sign(transaction, index, prevouts, one.recovery_leaf_hash, reserve.recovery[::2])
        witnesses.append(recovery_witness(one, [first, None, last]))
    return transaction.with_witnesses(witnesses)


async def require_mined(regtest: Regtest, transaction: Transaction) -> None:
    """Send it, mine it, and find its output."""
    assert await regtest.client.send_raw_transaction(transaction.serialize()) == transaction.txid
    await regtest.miner.generate(1)
    found = await regtest.client.txout(transaction.outpoint(0), include_mempool=False)
    assert found is not None
    assert found.confirmations == 1


@SIZES
async def test_descriptor_gives_our_address_on_the_node(regtest: Regtest, size: int) -> None:
    for one in reserve_of(size).scripts:
        info = await regtest.client.descriptor_info(one.descriptor)
        assert info.is_solvable
        assert not info.is_range
        assert info.descriptor == f"{one.descriptor}#{info.checksum}", "ours is the canonical form"
        assert await regtest.client.derive_addresses(one.descriptor) == (encode_address(one.script, REGTEST),)


async def test_node_under_test_refuses_what_is_not_standard(regtest: Regtest) -> None:
    reserve = reserve_of(4)
    funded = await fund(regtest, reserve)
    odd = funded.spend(Script(b"\x51"), sequence=0xFFFFFFFD)
    verdict = await regtest.client.test_mempool_accept(signed_by_quorum(odd, reserve, funded.prevouts()).serialize())
    assert verdict.reject_reason == "scriptpubkey"


@SIZES
async def test_quorum_path_is_relayed_and_mined_at_the_predicted_weight(regtest: Regtest, size: int) -> None:
    reserve = reserve_of(size)
    funded = await fund(regtest, reserve)
    prevouts = funded.prevouts()
    unsigned = funded.spend(Script(CLAIM_SCRIPT), sequence=0xFFFFFFFD)
    signed = signed_by_quorum(unsigned, reserve, prevouts)

    inputs_weight = quorum_input_weight(reserve.policy) * len(funded.coins)
    bare_weight = 4 * (unsigned.stripped_size - 41 * len(funded.coins)) + 2
    assert signed.weight == bare_weight + inputs_weight
    verify_scripts(signed, prevouts)
    verdict = await regtest.client.test_mempool_accept(signed.serialize())
    assert verdict.reject_reason == ""
    assert verdict.vsize_vbytes == signed.vsize_vbytes == -(-(bare_weight + inputs_weight) // 4)
    assert verdict.fee_sats == FEE_SATS
    await require_mined(regtest, signed)


async def test_quorum_path_is_refused_with_a_signature_too_few_or_too_many(regtest: Regtest) -> None:
    reserve = reserve_of(4)
    funded = await fund(regtest, reserve)
    prevouts = funded.prevouts()
    unsigned = funded.spend(Script(CLAIM_SCRIPT), sequence=0xFFFFFFFD)
    for count in (2, 4):
        witnesses = []
        for index, one in enumerate(reserve.scripts):
            given = sign(unsigned, index, prevouts, one.quorum_leaf_hash, reserve.members[:count])
            stack = [*reversed(given + [b""] * (4 - count)), one.quorum_leaf, one.quorum_control_block]
            witnesses.append(tuple(stack))
        signed = unsigned.with_witnesses(witnesses)
        with pytest.raises(Rejected, match="script-failed: input 0"):
            verify_scripts(signed, prevouts)
        assert not (await regtest.client.test_mempool_accept(signed.serialize())).allowed


@SIZES
async def test_recovery_path_opens_when_the_timelock_has_passed(regtest: Regtest, size: int) -> None:
    reserve = reserve_of(size)
    funded = await fund(regtest, reserve)
    spend = funded.spend(Script(CLAIM_SCRIPT), sequence=TIMELOCK_BLOCKS)
    signed = signed_for_recovery(spend, reserve, funded.prevouts())

    # The next block may hold it once that block is the coin's height plus the lock: here it is one short.
    await regtest.miner.generate(TIMELOCK_BLOCKS - 2)
    assert (await regtest.client.tip())[0] + 1 == funded.height + TIMELOCK_BLOCKS - 1
    early = await regtest.client.test_mempool_accept(signed.serialize())
    assert early.reject_reason == "non-BIP68-final"

    await regtest.miner.generate(1)
    verdict = await regtest.client.test_mempool_accept(signed.serialize())
    assert verdict.reject_reason == ""
    assert verdict.vsize_vbytes == signed.vsize_vbytes
    await require_mined(regtest, signed)


async def test_recovery_path_is_refused_without_the_timelock_in_the_input(regtest: Regtest) -> None:
    reserve = reserve_of(4)
    funded = await fund(regtest, reserve)
    await regtest.miner.generate(TIMELOCK_BLOCKS)
    hasty = funded.spend(Script(CLAIM_SCRIPT), sequence=TIMELOCK_BLOCKS - 1)
    signed = signed_for_recovery(hasty, reserve, funded.prevouts())
    with pytest.raises(Rejected, match="script-failed: input 0"):
        verify_scripts(signed, funded.prevouts())
    verdict = await regtest.client.test_mempool_accept(signed.serialize())
    assert "Locktime requirement not satisfied" in verdict.reject_reason


async def test_proof_by_the_node_is_accepted_as_evidence(regtest: Regtest) -> None:
    for _ in range(4):  # so that the block has a tree of some depth
        await regtest.miner.send_to_address(regtest.miner.mining_address, VALUE_SATS)
    funded = await fund(regtest, reserve_of(4))
    block_hash = await regtest.client.block_hash(funded.height)
    assert block_hash is not None
    header = await regtest.client.block_header(block_hash)
    assert header is not None
    assert header.n_tx == 6
    proof = await regtest.client.tx_out_proof([funded.transaction.txid], block_hash)
    evidence = Evidence(funded.transaction.serialize_stripped(), proof, funded.height, ())
    assert evidence.l1_block_hash == block_hash
    proven = check_inclusion(evidence, L1BlockFact(header.height, header.n_tx))
    assert proven.txid == funded.transaction.txid
