"""What was said in one place, said again in another: on the other chain, by another federation, as another vote.

A payment that is valid on two chains is made twice: that befell the users of Ethereum's two chains in 2016. Source on
pegs: Back et al., "Enabling Blockchain Innovations with Pegged Sidechains", 2014.
"""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.bitcoin.transaction import TxOut
from bridge.deposits import CLAIM_FLAG
from bridge.errors import Rejected
from bridge.evidence import EvidenceReason
from bridge.withdrawals import BurnReason
from federation.certificate import (
    Certificate,
    VoteKind,
    VoteReason,
    VoteRejected,
    verify_certificate,
    vote_digest,
)
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason, HeaderReason
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.net.messages import CertificatesMessage
from pegnode.net.transport import PeerRole
from tests.support.chain import MemoryChain, vote_secrets
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.verdicts import evidence_refusal, refusal, rejected, transaction_refusal

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
BLOCK = BlockHash(b"\x07" * 32)
OTHER_CHAIN = b"\x01" * 32
L1_MAX_OUTPUTS = 1_000_000 // 9
"""No transaction of L1 has more: each output takes nine bytes, outside the witness, of four million weight units."""


def test_payment_on_l1_is_none_on_the_sidechain() -> None:
    chain = MemoryChain()
    chain.fund(ALICE.script())
    deposit, _ = chain.pay_reserve(ALICE.script(), 50_000)
    spends_l1 = ALICE.spend([(deposit.outpoint(0), deposit.outputs[0])], [TxOut(1_000, BOB.script())])
    assert transaction_refusal(chain, spends_l1) is TransactionRule.MISSING_INPUT
    assert transaction_refusal(chain, deposit) is TransactionRule.MISSING_INPUT


def test_payment_on_the_sidechain_descends_from_what_l1_can_not_have() -> None:
    """Every coin of the sidechain comes from a claim, whose input names an output that no transaction of L1 has."""
    chain = MemoryChain()
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    [claim] = chain.extend(evidence=[evidence]).state.transactions
    [txin] = claim.transaction.inputs
    assert txin.outpoint.vout & CLAIM_FLAG
    assert txin.outpoint.vout > L1_MAX_OUTPUTS


def test_burn_for_one_network_burns_nothing_on_another() -> None:
    chain = MemoryChain()
    [coin] = chain.fund(ALICE.script())
    burn = chain.burn_output(coin[1].value_sats, BOB.script(), ALICE.script())
    elsewhere = Script(burn.script.replace(chain.rules.l1_genesis_hash, chain.rules.l1_genesis_hash[::-1]))
    assert (
        transaction_refusal(chain, ALICE.spend([coin], [replace(burn, script=elsewhere)])) is BurnReason.WRONG_GENESIS
    )


def test_deposit_of_another_federation_credits_nobody() -> None:
    """The same members under another genesis: the reserve's scripts commit to the chain id."""
    ours, theirs = MemoryChain(), MemoryChain(peg={"batch_max_wait_anchors": 4})
    assert ours.rules.membership.members == theirs.rules.membership.members
    assert ours.deposit_script(ALICE.script()) != theirs.deposit_script(ALICE.script())


def test_evidence_of_another_federation_enters_nothing_here() -> None:
    """One L1, two federations of the same members: what was true and final on one is told to the other."""
    ours, theirs = MemoryChain(), MemoryChain(peg={"batch_max_wait_anchors": 4})
    theirs.l1 = ours.l1
    payment, evidence = theirs.pay_reserve(ALICE.script(), 50_000)
    ours.bury()
    built = theirs.extend(evidence=[evidence])
    [claim] = built.state.transactions
    assert evidence_refusal(ours, evidence) is EvidenceReason.WRONG_SCRIPT
    fact = ours.l1.fact(evidence.l1_block_hash)
    assert fact is not None
    pool = EvidencePool(EvidencePoolLimits())
    with pytest.raises(Rejected) as caught:
        pool.add(evidence, fact, ours.state, ours.rules, 0)
    assert (caught.value.reason, len(pool)) == (EvidenceReason.WRONG_SCRIPT, 0)
    assert transaction_refusal(ours, claim.transaction) is TransactionRule.RESERVED_INDEX
    assert rejected(ours, built.block).reason is HeaderReason.WRONG_CHAIN
    renamed = replace(built.block.header, chain_id=ours.rules.chain_id, parent=ours.header.hash)
    assert refusal(ours, replace(built.block, header=renamed)) == (
        BodyReason.BAD_EVIDENCE,
        EvidenceReason.WRONG_SCRIPT,
    )
    assert payment.outpoint(0) not in ours.state.ledger.entered
    assert ours.state.ledger.totals.reserves_sats == 0


def said_elsewhere(kind: VoteKind, epoch: int, chain_id: bytes) -> Certificate:
    """A finalization of view 1, of signatures that three members made over something else."""
    digest = vote_digest(chain_id, epoch, kind, 1, BLOCK)
    signatures = tuple((index, schnorr_sign(vote_secrets()[index], digest, bytes(32))) for index in (0, 1, 2))
    return Certificate(VoteKind.FINALIZE, 0, 1, BLOCK, signatures)


def replayed(federation: MemoryFederation) -> dict[str, tuple[Certificate, VoteReason]]:
    """Certificates that name a block final which nobody finalized here, and what is wrong with each."""
    chain_id = federation.rules.chain_id
    sound = said_elsewhere(VoteKind.FINALIZE, 0, chain_id)
    first, second, third = sound.signatures
    return {
        "other chain": (said_elsewhere(VoteKind.FINALIZE, 0, OTHER_CHAIN), VoteReason.BAD_SIGNATURE),
        "wrong tag": (said_elsewhere(VoteKind.NOTARIZE, 0, chain_id), VoteReason.BAD_SIGNATURE),
        "signed in another epoch": (
            said_elsewhere(VoteKind.FINALIZE, 1, chain_id),
            VoteReason.BAD_SIGNATURE,
        ),
        "of another epoch": (replace(sound, epoch=1), VoteReason.WRONG_EPOCH),
        "of another view": (replace(sound, view=2), VoteReason.BAD_SIGNATURE),
        "of another block": (replace(sound, block_hash=BlockHash(b"\x08" * 32)), VoteReason.BAD_SIGNATURE),
        "short": (replace(sound, signatures=(first, second)), VoteReason.QUORUM_SIZE),
        "one too many": (replace(sound, signatures=(first, second, third, (3, third[1]))), VoteReason.QUORUM_SIZE),
        "duplicate signer": (replace(sound, signatures=(first, second, second)), VoteReason.SIGNERS_UNSORTED),
        "out of order": (replace(sound, signatures=(first, third, second)), VoteReason.SIGNERS_UNSORTED),
        "another's signature": (replace(sound, signatures=(first, second, (2, second[1]))), VoteReason.BAD_SIGNATURE),
        "unknown member": (replace(sound, signatures=(first, second, (4, third[1]))), VoteReason.UNKNOWN_MEMBER),
    }


async def test_certificate_from_elsewhere_proves_nothing(autojump_clock: trio.abc.Clock) -> None:
    """Each is refused by its rule; whoever brings it is dropped; and the member stays where it is."""
    async with memory_federation(0) as federation:
        member = federation.members[0]
        cases = replayed(federation)
        verify_certificate(
            said_elsewhere(VoteKind.FINALIZE, 0, federation.rules.chain_id),
            federation.rules.membership,
            federation.rules.chain_id,
        )
        for name, (certificate, reason) in cases.items():
            with pytest.raises(VoteRejected) as caught:
                verify_certificate(certificate, federation.rules.membership, federation.rules.chain_id)
            assert caught.value.reason is reason, name
        stranger = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        for certificate, _ in cases.values():
            await federation.until(lambda: federation.peer_id(0) in stranger.transport.connected(), seconds=600)
            stranger.left.clear()
            stranger.say(federation.peer_id(0), CertificatesMessage((certificate.encode(),)))
            await federation.until(lambda: stranger.left, seconds=1)
        assert [peer for peer, _ in member.dropped] == [federation.peer_id(1)] * len(cases)
        assert member.height == 0
        assert member.core.halt_findings == []
