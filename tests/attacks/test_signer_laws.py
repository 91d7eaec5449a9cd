"""One member less than a quorum is compromised, and wants one honest signature.

The thieves have their custody keys, sign whatever they like, and what their own Bitcoin nodes say is theirs to choose.
They want some honest member to sign with them: in each case here the honest member's own final ledger, or its own
Bitcoin node, is all that it looks at, and one law refuses. The cases in which the *ledger* is wrong could come about
only by a flaw in the rules of blocks, for it takes a quorum to make a block final: they are made here by hand, and the
signer, who checks all of it again, is the last one to stand in the way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind
from bridge.ledger import enter_donation
from bridge.lineages import settle
from bridge.state import BatchKind, Lineage, WithdrawalStatus
from federation.approval import approve_batch
from federation.cosign import CosignReason, CosignRefused, CosignSession, CosignShare
from federation.refusal import RefusalReason, SigningRefused
from federation.signer import SignerReason, SignerRefused
from federation.signing_plan import SigningPlan, plan_signing
from pegnode.net.messages import SharesMessage
from pegnode.net.transport import PeerRole
from pegnode.service import payouts as payouts_module
from tests.support.approval import Case, shifted, with_output
from tests.support.lone_payout import lone_member
from tests.support.peg import PARAMS, START_HEIGHT, coin, outpoint, p2wpkh
from tests.support.signers import Federation, federation, honest_facts, ledger_with_payout

MALLORY = p2wpkh("mallory")


@dataclass
class Heist(Case):
    """What the honest members see (the case), and a transaction that the thieves want signed."""

    members: Federation
    changes: dict[str, Any]

    @property
    def thieves(self) -> range:
        """One less than a quorum."""
        return range(self.members.membership.quorum - 1)

    @property
    def honest(self) -> range:
        """All the others."""
        return range(len(self.thieves), self.members.membership.size)

    def plan(self) -> SigningPlan:
        """What the thieves sign: the recorded bytes, of whatever coins."""
        transaction = Transaction.parse(self.version.transaction)
        coins = [self.ledger.coins.get(txin.outpoint) or coin(999, 1) for txin in transaction.inputs]
        return plan_signing(transaction, coins, self.members.custody)

    def share(self, index: int) -> CosignShare:
        """A member's signatures, made without any law."""
        plan, secret = self.plan(), self.members.secrets[index].custody
        signatures = tuple(schnorr_sign(secret, planned.digest32, bytes(32)) for planned in plan.inputs)
        return CosignShare(plan.txid, index, signatures)

    def session(self) -> CosignSession:
        """With what the thieves have."""
        session = CosignSession(self.plan(), self.members.membership)
        for index in self.thieves:
            assert session.add_share(self.share(index), index)
        return session

    def ask(self, index: int) -> CosignShare:
        """What an honest member answers, by the one way to its keys. Raises SigningRefused."""
        params = replace(PARAMS, **self.changes)
        approved = approve_batch(self.ledger, self.version.txid, self.facts, self.members.custody, params)
        return self.members.signer(index).cosign(approved)


def heist(size: int = 4) -> Heist:
    """A payout that is as it should be."""
    members = federation(size)
    ledger, version = ledger_with_payout(members)
    return Heist(ledger, version, honest_facts(ledger, members.custody), members, {})


def assert_fails(plot: Heist, reason: RefusalReason) -> None:
    """No honest member signs, for this reason, and what the thieves have is not enough."""
    for index in plot.honest:
        with pytest.raises(SigningRefused) as refused:
            plot.ask(index)
        assert refused.value.reason is reason
    session = plot.session()
    assert not session.is_complete()
    with pytest.raises(CosignRefused) as incomplete:
        session.combine()
    assert incomplete.value.reason is CosignReason.INCOMPLETE


@pytest.mark.parametrize("size", [4, 15])
def test_one_honest_signature_is_all_that_the_thieves_lack(size: int) -> None:
    """So each refusal below is what keeps the money where it is."""
    plot = heist(size)
    session = plot.session()
    assert not session.is_complete()
    session.add_share(plot.ask(plot.honest[0]), plot.honest[0])
    assert session.is_complete()
    assert session.combine().txid == plot.version.txid


# Other bytes than the ledger makes


def _pay(plot: Heist) -> None:
    plot.record(with_output(plot.transaction, 0, script=MALLORY))


def _keep_change(plot: Heist) -> None:
    plot.record(with_output(plot.transaction, 3, script=MALLORY))


def _feed_the_miner(plot: Heist) -> None:
    """A fee far above the feerate, on the fund."""
    change = plot.transaction.outputs[3]
    plot.record(with_output(plot.transaction, 3, value_sats=change.value_sats - 50_000), fund_part_sats=50_000)


def _feed_the_miner_beyond_the_cap(plot: Heist) -> None:
    _feed_the_miner(plot)
    plot.changes = {"lineage_fee_cap_sats": 49_999}


def _grind_the_change(plot: Heist) -> None:
    """Coins so small that they cost more and more to spend."""
    left_sats = plot.transaction.outputs[3].value_sats - PARAMS.coin_floor_sats
    plot.record(shifted(plot.transaction, 3, 4, left_sats))


def _favour_a_payee(plot: Heist) -> None:
    plot.record(shifted(plot.transaction, 0, 1, 200))


# Not final, or not due


def _unrecorded(plot: Heist) -> None:
    theft = with_output(plot.transaction, 0, script=MALLORY)
    plot.version = replace(plot.version, transaction=theft.serialize(), txid=theft.txid)


def _not_due(plot: Heist) -> None:
    plot.changes = {"batch_min_payouts": 4, "batch_max_wait_anchors": 6}


def _too_soon(plot: Heist) -> None:
    """A replacement at the same anchor, to drive the fee up."""
    higher = replace(plot.version, fee_sats=plot.version.fee_sats + 10_000)
    plot.ledger.open_lineages.put(0, replace(plot.lineage, versions=(plot.version, higher)))


# A coin or a burn of another lineage


def _with_lineage(plot: Heist, **changes: Any) -> None:
    other = Lineage(7, BatchKind.MAINTENANCE, (outpoint(901),), (), (), 0)
    plot.ledger.open_lineages.put(7, replace(other, **changes))


def _coin_of_another(plot: Heist) -> None:
    _with_lineage(plot, inputs=plot.lineage.inputs[-1:])


def _burn_of_another(plot: Heist) -> None:
    _with_lineage(plot, payees=plot.lineage.payees[-1:])


def _closed_burn(plot: Heist, status: WithdrawalStatus) -> None:
    burn = plot.ledger.open_withdrawals.get(plot.lineage.payees[0])
    assert burn is not None
    plot.ledger.closed_withdrawals.put(burn.burn, replace(burn, status=status))


def _paid_already(plot: Heist) -> None:
    _closed_burn(plot, WithdrawalStatus.SETTLED)


def _refunded_already(plot: Heist) -> None:
    _closed_burn(plot, WithdrawalStatus.REFUNDED)


def _settled_lineage(plot: Heist) -> None:
    settle(plot.ledger, plot.version.txid, START_HEIGHT + 1)
    plot.ledger.coins.put(outpoint(4), coin(4, 50_000_000))


def _disjoint_versions(plot: Heist) -> None:
    """A second version of other coins: both could confirm, and pay twice."""
    other = replace(plot.transaction, inputs=(TxIn(plot.other().outpoint, b"", plot.transaction.inputs[0].sequence),))
    version = replace(plot.version, transaction=other.serialize(), txid=other.txid)
    plot.ledger.open_lineages.put(0, replace(plot.lineage, versions=(plot.version, version)))


# The honest member's own Bitcoin node


def _spent_input(plot: Heist) -> None:
    plot.report(plot.locked().outpoint, None)


def _spent_reserve(plot: Heist) -> None:
    """The thieves' batch is sound, but the rest of the reserve is not there any more."""
    plot.report(plot.other().outpoint, None)


def _spent_in_mempool(plot: Heist) -> None:
    plot.facts = replace(plot.facts, spenders={plot.other().outpoint: Txid(sha256(b"a thief's"))})


def _coin_out_of_nothing(plot: Heist) -> None:
    """A deposit that never was, so large that a batch could pay the thieves from it."""
    forged = coin(950, 10_000_000)
    enter_donation(plot.ledger, replace(forged, kind=CoinKind.DONATION, claim_script=b""))
    plot.report(forged.outpoint, None)


def _halted(plot: Heist) -> None:
    plot.facts = replace(plot.facts, halted=True)


def _node_behind(plot: Heist) -> None:
    plot.facts = replace(plot.facts, l1_height=plot.ledger.totals.anchor.height - 1)


# Caps and sums


def _over_cap(**caps: int) -> Callable[[Heist], None]:
    def change(plot: Heist) -> None:
        plot.changes = caps

    return change


def _drain_the_fund(plot: Heist) -> None:
    """The payees bear nothing of the fee."""
    payees = [plot.ledger.open_withdrawals.get(burn) for burn in plot.lineage.payees]
    outputs = list(plot.transaction.outputs)
    for index, payee in enumerate(payees):
        assert payee is not None
        outputs[index] = replace(outputs[index], value_sats=payee.value_sats)
    outputs[3] = replace(outputs[3], value_sats=outputs[3].value_sats - plot.version.fee_sats)
    plot.record(replace(plot.transaction, outputs=tuple(outputs)), fund_part_sats=plot.version.fee_sats)


def _promise_the_fund_twice(plot: Heist) -> None:
    _with_lineage(plot, reserved_fund_sats=plot.ledger.totals.fund_sats + 1)


def _mint(plot: Heist) -> None:
    plot.ledger.totals = plot.ledger.totals.plus(supply_sats=1_000_000)


def _mint_and_balance(plot: Heist) -> None:
    """The equality holds, by a total that no coins make up."""
    plot.ledger.totals = plot.ledger.totals.plus(supply_sats=1_000_000, reserves_sats=1_000_000)


ATTACKS: dict[str, tuple[Callable[[Heist], None], RefusalReason]] = {
    "pay a thief": (_pay, RefusalReason.PAYEE_SCRIPT),
    "keep the change": (_keep_change, RefusalReason.CHANGE_SCRIPT),
    "feed a miner": (_feed_the_miner, RefusalReason.NOT_AS_REBUILT),
    "grind the change": (_grind_the_change, RefusalReason.NOT_AS_REBUILT),
    "favour a payee": (_favour_a_payee, RefusalReason.NOT_AS_REBUILT),
    "record nothing": (_unrecorded, RefusalReason.NOT_RECORDED),
    "pay before it is due": (_not_due, RefusalReason.NOT_DUE),
    "replace at once": (_too_soon, RefusalReason.NOT_DUE),
    "a coin of another lineage": (_coin_of_another, RefusalReason.INPUT_LOCKED_ELSEWHERE),
    "a burn of another lineage": (_burn_of_another, RefusalReason.PAYEE_ELSEWHERE),
    "a burn that was paid": (_paid_already, RefusalReason.PAYEE_CLOSED),
    "a burn that was refunded": (_refunded_already, RefusalReason.PAYEE_CLOSED),
    "a lineage that settled": (_settled_lineage, RefusalReason.LINEAGE_CLOSED),
    "versions that both confirm": (_disjoint_versions, RefusalReason.NO_SUPERSET),
    "an input that is spent": (_spent_input, RefusalReason.COIN_MISSING),
    "a reserve that is not there": (_spent_reserve, RefusalReason.COIN_MISSING),
    "a reserve being stolen": (_spent_in_mempool, RefusalReason.COIN_SPENT_IN_MEMPOOL),
    "a coin out of nothing": (_coin_out_of_nothing, RefusalReason.COIN_MISSING),
    "a member that halted": (_halted, RefusalReason.HALTED),
    "a node that is behind": (_node_behind, RefusalReason.NODE_BEHIND),
    "a withdrawal over the cap": (_over_cap(max_withdrawal_sats=17_500_001), RefusalReason.WITHDRAWAL_OVER_CAP),
    "burns over the window's cap": (
        _over_cap(max_window_withdrawals_sats=3 * 17_500_000),
        RefusalReason.WINDOW_OVER_CAP,
    ),
    "a peg over its cap": (_over_cap(max_peg_sats=54_000_000), RefusalReason.PEG_OVER_CAP),
    "a feerate over the ceiling": (_over_cap(feerate_ceiling_sat_kvb=1_999), RefusalReason.FEERATE_OUT_OF_RANGE),
    "a fee over the cap": (_feed_the_miner_beyond_the_cap, RefusalReason.FUND_PART_OVER_CAP),
    "the fund promised twice": (_promise_the_fund_twice, RefusalReason.FUND_NOT_RESERVED),
    "the fund for the payees' fee": (_drain_the_fund, RefusalReason.NOT_AS_REBUILT),
    "mint": (_mint, RefusalReason.LEDGER_UNEQUAL),
    "mint, and balance the books": (_mint_and_balance, RefusalReason.LEDGER_UNEQUAL),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_thieves_of_a_quorum_less_one_get_no_honest_signature(attack: str) -> None:
    plot = heist()
    attempt, reason = ATTACKS[attack]
    attempt(plot)
    assert_fails(plot, reason)


def test_signer_has_no_way_around_its_laws() -> None:
    """Whoever controls all but the signer's own object can't hand it a plan of its own."""
    plot = heist()
    forged: Any = SimpleNamespace(plan=plot.plan(), txid=plot.version.txid)
    with pytest.raises(SignerRefused) as refused:
        plot.members.signer(plot.honest[0]).cosign(forged)
    assert refused.value.reason is SignerReason.NOT_APPROVED


# Running members


async def test_running_member_gives_the_thieves_nothing_while_the_reserve_is_being_stolen(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The thieves' nodes say that all is well, and their shares come; the honest node's mempool says otherwise."""
    async with lone_member() as lone:
        accomplice = await lone.federation.join(lone.federation.peer_id(2), PeerRole.MEMBER)
        await trio.sleep(0.5)
        [held] = [outpoint for outpoint, _ in lone.member.store.ledger.coins.items()]
        payment = lone.federation.l1.chain.payment(TxOut(1, MALLORY))
        theft = replace(payment, inputs=(replace(payment.inputs[0], outpoint=held),))
        lone.federation.l1.mempool[theft.txid] = theft
        lone.finalize()
        await lone.say(SharesMessage((lone.share(1).encode(),)))
        accomplice.say(lone.member.transport.peer_id, SharesMessage((lone.share(2).encode(),)))
        await trio.sleep(2 * payouts_module.RETRY_S)
        assert lone.signatures == 2
        assert str(lone.member.payouts.refusal(lone.txid)).startswith("refusal-coin-spent-in-mempool")
        assert lone.member.store.signed_payout(lone.txid) is None
        del lone.federation.l1.mempool[theft.txid]
        await trio.sleep(2 * payouts_module.RETRY_S)
        assert lone.member.store.signed_payout(lone.txid) is not None, "two shares, and the honest one"
