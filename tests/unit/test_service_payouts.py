"""Payouts from a final batch to a signed L1 transaction: shares that come early, late, false, or never."""

from dataclasses import replace

import pytest
import trio
from structlog.testing import capture_logs

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import TxOut
from bridge.l1.errors import L1RpcError, RpcCode
from federation.cosign import CosignShare
from pegnode.net.messages import SharesMessage, SignedPayoutMessage
from pegnode.net.transport import DropReason, PeerRole
from pegnode.service import payouts as payouts_module
from tests.support.halts import gone
from tests.support.lone_payout import ALICE, FAULTY, ONE_IS_ENOUGH, PAYEE, lone_member
from tests.support.members import Member, MemoryFederation, memory_federation

ALL = (0, 1, 2, 3)
HONEST = (0, 2, 3)


async def burn_some(federation: MemoryFederation, member: Member) -> Txid:
    """A deposit and a burn, both final; the txid of the payout that follows."""
    coin = await federation.fund(ALICE)
    burn = federation.burn_output(1_000_000, PAYEE, ALICE.script())
    change = TxOut(coin[1].value_sats - 1_001_000, ALICE.script())
    member.relay.submit_transaction(ALICE.spend([coin], [burn, change]).serialize())
    await federation.until(lambda: list(member.store.ledger.versions.items()))
    [(txid, _)] = member.store.ledger.versions.items()
    return txid


async def test_share_that_comes_before_its_batch_is_final_is_kept_and_used(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        await lone.say(SharesMessage((lone.share(1).encode(),)))
        assert lone.signatures == 0
        lone.finalize()
        await trio.sleep(0.1)
        assert lone.signatures == 2, "its own, and the early one"
        assert lone.faulty.left == []


async def test_early_share_that_is_false_drops_its_sender_when_it_can_be_judged(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        share = lone.share(1)
        await lone.say(SharesMessage((replace(share, signatures=(bytes(64),) * len(share.signatures)).encode(),)))
        assert lone.faulty.left == []
        lone.finalize()
        await trio.sleep(0.1)
        assert [left.reason for left in lone.faulty.left] == [DropReason.FALSE_SIGNATURE]
        assert lone.signatures == 1


async def test_early_shares_of_one_member_push_out_only_its_own(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        other = await lone.federation.join(lone.federation.peer_id(2), PeerRole.MEMBER)
        await trio.sleep(0.5)
        other.say_all(SharesMessage((lone.share(2).encode(),)))
        await trio.sleep(0.05)
        share = lone.share(1)
        made_up = [replace(share, txid=Txid(bytes([number]) * 32)).encode() for number in range(50)]
        await lone.say(SharesMessage((share.encode(), *made_up)))
        early = lone.member.payouts._early
        assert len(early[1]) == payouts_module.MAX_EARLY_SHARES
        lone.finalize()
        await trio.sleep(0.1)
        assert lone.signatures == 2, "its own and member 2's"


@pytest.mark.parametrize("fault", ["signature", "count", "of another member"])
async def test_false_share_drops_its_sender_and_spoils_nothing(fault: str, autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        lone.finalize()
        await trio.sleep(0.1)
        share = lone.share(1)
        false = {
            "signature": replace(share, signatures=(bytes(64), *share.signatures[1:])),
            "count": replace(share, signatures=(*share.signatures, share.signatures[0])),
            "of another member": lone.share(2),
        }[fault]
        await lone.say(SharesMessage((false.encode(),)))
        assert [left.reason for left in lone.faulty.left] == [DropReason.FALSE_SIGNATURE]
        assert lone.signatures == 1
        await trio.sleep(0.5)
        await lone.say(SharesMessage((share.encode(),)))
        assert lone.signatures == 2
        await lone.say(SharesMessage((share.encode(),)))
        assert lone.signatures == 2


async def test_signed_payout_of_another_member_is_kept_and_broadcast(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        signed = lone.signed()
        await lone.say(SignedPayoutMessage(signed.serialize()))
        assert lone.member.store.signed_payout(lone.txid) is None, "it is not final here"
        lone.finalize()
        await lone.say(SignedPayoutMessage(signed.serialize()))
        assert lone.member.store.signed_payout(lone.txid) == signed.serialize()
        assert lone.txid in lone.federation.l1.mempool
        progress = lone.member.live.payout_progress(lone.txid)
        assert progress is not None
        assert (progress.signed, progress.broadcast, progress.confirmations) == (True, True, 0)
        assert lone.faulty.left == []


async def test_repeated_shares_are_answered_with_the_signed_payout_no_faster_than_a_member_repeats_them(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with lone_member() as lone:
        lone.finalize()
        await lone.say(SignedPayoutMessage(lone.signed().serialize()))
        before = len(lone.faulty.told(SignedPayoutMessage))
        for answers in (1, 2):
            for _ in range(5):
                await lone.say(SharesMessage((lone.share(1).encode(),) * 20))
            assert len(lone.faulty.told(SignedPayoutMessage)) == before + answers
            await trio.sleep(payouts_module.RETRY_S)
        assert lone.faulty.left == []


async def test_false_payout_drops_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        lone.finalize()
        await trio.sleep(0.1)
        signed = lone.signed()
        witness = signed.inputs[0].witness
        cases = [
            (signed.with_witnesses([()] * len(signed.inputs)).serialize(), DropReason.FALSE_SIGNATURE),
            (signed.with_witnesses([(bytes(64), *witness[1:])]).serialize(), DropReason.FALSE_SIGNATURE),
            (b"no transaction", DropReason.GARBLED_MESSAGE),
        ]
        for data, reason in cases:
            lone.faulty.left.clear()
            await lone.say(SignedPayoutMessage(data))
            assert [left.reason for left in lone.faulty.left] == [reason]
            await trio.sleep(0.5)
        assert lone.member.store.signed_payout(lone.txid) is None


async def test_halt_that_comes_about_while_the_node_is_asked_forbids_the_signature(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with lone_member() as lone:
        node = lone.federation.nodes[0]

        def halt(method: str) -> None:
            if method == "txouts":
                lone.member.core.halt(gone(), "the test says so")

        node.on_ask = halt
        lone.finalize()
        await trio.sleep(0.1)
        assert lone.signatures == 0
        assert lone.member.payouts.refusal(lone.txid) == "refusal-halted"


async def test_member_signs_nothing_of_a_reserve_that_its_node_misses(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        [coin] = [outpoint for outpoint, _ in lone.member.store.ledger.coins.items()]
        theft = lone.federation.l1.chain.payment(TxOut(1, PAYEE))
        spent = replace(theft, inputs=(replace(theft.inputs[0], outpoint=coin),))
        lone.federation.l1.chain.mine(spent)
        await trio.sleep(1)
        lone.finalize()
        await trio.sleep(1)
        assert lone.signatures == 0
        assert str(lone.member.payouts.refusal(lone.txid)).startswith("refusal-coin-missing")
        reserve = await lone.member.core.questions.reserve(lone.member.store.ledger)
        assert reserve.missing == (coin,)


async def test_payout_that_the_node_refuses_is_offered_again(autojump_clock: trio.abc.Clock) -> None:
    async with lone_member() as lone:
        node = lone.federation.nodes[0]
        node.refusals["send_raw_transaction"] = L1RpcError("sendrawtransaction", RpcCode.VERIFY_REJECTED, "full")
        lone.finalize()
        await lone.say(SignedPayoutMessage(lone.signed().serialize()))
        await trio.sleep(5 * payouts_module.RETRY_S)
        assert node.asked.count("send_raw_transaction") >= 4
        assert not lone.member.payouts.is_broadcast(lone.txid)
        assert lone.member.payouts._complaints == {lone.txid: "sendrawtransaction: full (-26)"}
        node.refusals.clear()
        await trio.sleep(payouts_module.RETRY_S + 1)
        assert lone.member.payouts.is_broadcast(lone.txid)
        assert lone.member.payouts._complaints == {}


async def test_payout_completes_beside_a_member_that_sends_false_shares(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*HONEST, peg=ONE_IS_ENOUGH) as federation:
        faulty = await federation.join(federation.peer_id(FAULTY), PeerRole.MEMBER)
        txid = await burn_some(federation, federation.members[0])
        faulty.say_all(SharesMessage((CosignShare(txid, FAULTY, (bytes(64),)).encode(),)))
        await federation.until(lambda: txid in federation.l1.mempool)


async def test_member_that_was_away_gets_what_others_have_signed(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=ONE_IS_ENOUGH) as federation:
        await federation.stop(3)
        txid = await burn_some(federation, federation.members[0])
        await federation.until(lambda: txid in federation.l1.mempool)
        await trio.sleep(2 * payouts_module.RETRY_S)
        await federation.start(3)
        late = federation.members[3]
        await federation.until(lambda: late.store.signed_payout(txid) is not None)
        assert late.store.signed_payout(txid) == federation.members[0].store.signed_payout(txid)
        assert late.dropped == []


async def test_payout_is_broadcast_again_after_a_restart_and_forgotten_once_settled(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL, peg=ONE_IS_ENOUGH) as federation:
        txid = await burn_some(federation, federation.members[0])
        await federation.until(lambda: txid in federation.l1.mempool)
        for index in ALL:
            await federation.stop(index)
        federation.l1.mempool.clear()  # as if the Bitcoin nodes had been restarted too
        await federation.start(2)
        await federation.until(lambda: txid in federation.l1.mempool)
        await federation.start(0, 1, 3)
        federation.bury()
        member = federation.members[2]
        await federation.until(lambda: not list(member.store.ledger.open_lineages.items()))
        await trio.sleep(2 * payouts_module.RETRY_S)
        payouts = member.payouts
        assert (payouts._sessions, payouts._shares, payouts._refusals, payouts._complaints) == ({}, {}, {}, {})


async def test_share_of_a_settled_payout_is_let_be(autojump_clock: trio.abc.Clock) -> None:
    """It is from a member that lags: nothing is wrong, and nothing is logged, however often it comes."""
    async with memory_federation(*ALL, peg=ONE_IS_ENOUGH) as federation:
        txid = await burn_some(federation, federation.members[0])
        await federation.until(lambda: txid in federation.l1.mempool)
        federation.bury()
        members = federation.members.values()
        await federation.until(lambda: not any(list(one.store.ledger.open_lineages.items()) for one in members))
        await trio.sleep(2 * payouts_module.RETRY_S)
        share = CosignShare(txid, 1, (bytes(64),))
        with capture_logs() as logged:
            federation.members[1].peers.to_members(SharesMessage((share.encode(),)))
            await trio.sleep(1)
        assert [entry["event"] for entry in logged if entry["log_level"] == "warning"] == []
        assert [one.dropped for one in members] == [[]] * len(ALL)
