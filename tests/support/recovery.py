"""Coins of a small reserve and the recovery keys behind it."""

from collections.abc import Sequence

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.custody import CoinKind, Custody, CustodyPolicy
from bridge.psbt import Psbt
from bridge.recovery import Origin, RecoveryInput, plan_transactions, recovery_psbt
from bridge.recovery_signing import RecoveryRequest, RecoveryTerms
from tests.support.peg import ALICE, BOB

MEMBERS = tuple(sha256(b"member %d" % index) for index in range(4))
HOLDERS = tuple(sha256(b"recovery %d" % index) for index in range(3))
TIMELOCK_BLOCKS = 24
FEERATE_SAT_KVB = 2_000
CEILING_SAT_KVB = 5_000


def policy(epoch: int = 0, chain: bytes = b"chain") -> CustodyPolicy:
    """Three of four members, two of three holders."""
    return CustodyPolicy(
        chain_id=sha256(chain),
        epoch=epoch,
        quorum=3,
        member_keys=tuple(map(x_only, MEMBERS)),
        recovery_keys=tuple(map(x_only, HOLDERS)),
        recovery_quorum=2,
        recovery_timelock_blocks=TIMELOCK_BLOCKS,
    )


POLICY = policy()
TERMS = RecoveryTerms(POLICY.chain_id, Custody({0: POLICY}), CEILING_SAT_KVB)
FOREIGN = RecoveryTerms(sha256(b"another"), Custody({0: policy(chain=b"another")}), CEILING_SAT_KVB)
ORIGINS = (Origin(CoinKind.DEPOSIT, 0, ALICE), Origin(CoinKind.CHANGE, 0), Origin(CoinKind.DONATION, 0))


def coin(number: int, value_sats: int = 1_000_000, terms: RecoveryTerms = TERMS) -> RecoveryInput:
    """The coin of that number, of each kind in turn."""
    origin = ORIGINS[number % 3]
    outpoint = OutPoint(Txid(sha256(b"L1 transaction %d" % number)), number % 2)
    return RecoveryInput(outpoint, value_sats, origin, origin.reserve(terms.custody))


def planned(coins: Sequence[RecoveryInput], payees: Sequence[Script] = (BOB,), terms: RecoveryTerms = TERMS) -> Psbt:
    """The one PSBT that recovers all of them."""
    [(chosen, transaction)] = plan_transactions(coins, payees, FEERATE_SAT_KVB)
    return recovery_psbt(terms.chain_id, chosen, transaction)


def fixed_bytes(size: int) -> bytes:
    """For signatures that are the same in every run."""
    return bytes(size)


def signed(psbt: Psbt, *holders: int) -> RecoveryRequest:
    """The PSBT with the signatures of these holders."""
    request = RecoveryRequest.read(psbt, TERMS)
    for holder in holders:
        request = request.signed(HOLDERS[holder], fixed_bytes)
    return request
