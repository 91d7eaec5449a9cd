"""Federations of any size for tests: members whose secrets are known, their custody, and a payout that is due."""

from dataclasses import dataclass
from functools import lru_cache

from bridge.batch import build_batch
from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import TxOut
from bridge.custody import CoinKind, Custody, CustodyPolicy, reserve_script
from bridge.ledger import Ledger, LedgerView, advance_anchor, enter_coin, record_burn
from bridge.lineages import record_batch
from bridge.params import PegParams
from bridge.state import BatchKind, BatchVersion
from federation.keystore import MemberSecrets
from federation.membership import Member, Membership
from federation.reserve_law import ReserveFacts
from federation.signer import Signer
from tests.support.peg import ALICE, PARAMS, anchor, coin, new_ledger, outpoint, p2tr

CHAIN_ID = sha256(b"the chain of these tests")
AUX = bytes(32)


@dataclass(frozen=True)
class Federation:
    """Members, in the order of their index, with everything they hold."""

    secrets: tuple[MemberSecrets, ...]
    membership: Membership
    custody: Custody

    @property
    def policy(self) -> CustodyPolicy:
        """The one custody policy."""
        return self.custody.newest

    def signer(self, index: int) -> Signer:
        """The signer of one member; its auxiliary randomness is fixed."""
        return Signer(self.secrets[index], self.membership, index, CHAIN_ID, lambda size: AUX[:size])


@lru_cache
def federation(size: int, name: str = "") -> Federation:
    """A federation of that size in epoch 0; the same keys for the same arguments."""
    secrets = tuple(
        MemberSecrets(*(sha256(f"{what} of {index} {name}".encode()) for what in ("vote", "custody", "transport")))
        for index in range(size)
    )
    members = tuple(
        Member(index, f"member-{index}", x_only(one.vote), x_only(one.custody), f"peer-{index}")
        for index, one in enumerate(secrets)
    )
    membership = Membership(0, members)
    membership.validate()
    policy = CustodyPolicy(
        chain_id=CHAIN_ID,
        epoch=0,
        quorum=membership.quorum,
        member_keys=tuple(member.custody_key32 for member in members),
        recovery_keys=tuple(x_only(sha256(b"recovery %d" % index)) for index in range(3)),
        recovery_quorum=PARAMS.recovery_quorum,
        recovery_timelock_blocks=PARAMS.recovery_timelock_blocks,
    )
    return Federation(secrets, membership, Custody({0: policy}))


def ledger_with_payout(
    members: Federation, params: PegParams = PARAMS, feerate_sat_kvb: int = 2_000
) -> tuple[Ledger, BatchVersion]:
    """A ledger with five coins in which a payout to three is recorded: it locks some of the coins."""
    ledger = new_ledger()
    for number in range(4):
        enter_coin(ledger, coin(number, 1_000_000 + number), 30_000)
    enter_coin(ledger, coin(4, 50_000_000), 30_000)
    for number in range(3):
        record_burn(
            ledger,
            outpoint(100 + number),
            value_sats=17_500_000 + number,
            max_fee_sats=20_000,
            l1_script=p2tr(f"payee {number}"),
            refund_script=ALICE,
        )
    advance_anchor(ledger, anchor(ledger.totals.anchor.height + 1), params)
    planned = build_batch(ledger, BatchKind.PAYOUT, None, feerate_sat_kvb, members.custody, params)
    assert planned is not None
    record_batch(ledger, planned)
    return ledger, planned.version


def honest_facts(view: LedgerView, custody: Custody) -> ReserveFacts:
    """What an honest and synchronous Bitcoin node says: every coin is there."""
    return ReserveFacts(
        l1_height=view.totals.anchor.height + PARAMS.confirmations,
        halted=False,
        spenders={},
        unspent={
            outpoint: TxOut(
                entry.value_sats, reserve_script(custody.policy(entry.epoch), entry.kind, entry.claim_script).script
            )
            for outpoint, entry in view.coins.items()
        },
    )


def change_script_of(members: Federation) -> Script:
    """Where that federation's change goes."""
    return reserve_script(members.policy, CoinKind.CHANGE).script
