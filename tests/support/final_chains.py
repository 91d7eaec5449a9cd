"""A member's data directory with a whole small chain in it: real blocks, certificates and votes."""

from dataclasses import dataclass
from pathlib import Path

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash
from bridge.bitcoin.transaction import TxOut
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from federation.journal import Journal
from federation.journal_entries import create_journal
from federation.journal_header import JournalIdentity
from pegnode.chain.block import Block
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainState
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.chain import MemoryChain, vote_secrets
from tests.support.mini_wallet import MiniWallet

MEMBER = 1
SIGNERS = (0, 1, 2)
EXPIRY_ANCHORS = 16
STEP_ANCHORS = 12
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


def signature(rules: ChainRules, member: int, kind: VoteKind, view: int, block_hash: BlockHash) -> bytes:
    """A member's genuine signature of a vote."""
    digest = vote_digest(rules.chain_id, rules.membership.epoch, kind, view, block_hash)
    return schnorr_sign(vote_secrets()[member], digest, bytes(32))


def certificate(rules: ChainRules, block: Block, kind: VoteKind = VoteKind.FINALIZE) -> Certificate:
    """A genuine certificate of members 0, 1 and 2."""
    view, block_hash = block.header.view, block.header.hash
    signatures = tuple((member, signature(rules, member, kind, view, block_hash)) for member in SIGNERS)
    return Certificate(kind, rules.membership.epoch, view, block_hash, signatures)


def own_vote(rules: ChainRules, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> Vote:
    """A genuine vote of member 1."""
    named = block_hash if kind.names_block else NO_BLOCK
    return Vote(kind, rules.membership.epoch, view, named, MEMBER, signature(rules, MEMBER, kind, view, named))


@dataclass(frozen=True)
class DataDirectory:
    """chain: what its blocks are.  path: of the data directory."""

    path: Path
    chain: MemoryChain

    @property
    def rules(self) -> ChainRules:
        """The chain's."""
        return self.chain.rules

    @property
    def identity(self) -> JournalIdentity:
        """Whose journal it is."""
        return JournalIdentity(self.rules.chain_id, self.rules.membership.epoch, MEMBER)


def grown_chain(path: Path, empty_blocks: int = 0) -> DataDirectory:
    """A deposit, a transfer with two burns, the batch of one and the refund of the other, and empty blocks.

    Every third block has no certificate of its own. The member remembers its votes for the last block, and
    has pruned all before.
    """
    expiry = {"withdrawal_expiry_anchors": EXPIRY_ANCHORS, "max_anchor_step": STEP_ANCHORS}
    chain = MemoryChain(peg={"batch_min_payouts": 1, **expiry})
    states: list[ChainState] = []

    def note() -> None:
        assert isinstance(chain.state, ChainState)
        states.append(chain.state)

    [coin] = chain.fund(ALICE.script())
    note()
    burn = chain.burn_output(2_000_000, BOB.script(), ALICE.script())
    mean_burn = chain.burn_output(500_000, BOB.script(), ALICE.script(), max_fee_sats=0)
    change = TxOut(coin[1].value_sats - 3_501_000, ALICE.script())
    outputs = [TxOut(1_000_000, BOB.script()), burn, mean_burn, change]
    chain.extend(ALICE.spend([coin], outputs))
    note()
    chain.l1.mine_empty(STEP_ANCHORS)
    chain.extend()
    note()
    chain.l1.mine_empty(EXPIRY_ANCHORS - STEP_ANCHORS)
    assert chain.extend().block.body.refunds
    note()
    for _ in range(empty_blocks):
        chain.extend()
        note()
    finals = [
        FinalBlock(state, block.encode(), None if height % 3 == 1 else certificate(chain.rules, block).encode())
        for height, (state, block) in enumerate(zip(states, chain.blocks, strict=True), start=1)
    ]
    store = ChainStore.open(path / CHAIN_FOLDER, chain.rules)
    store.commit([*finals[:-1], FinalBlock(finals[-1].state, finals[-1].block, _last(chain).encode())])
    store.close()
    data = DataDirectory(path, chain)
    journal = create_journal(path / JOURNAL_FOLDER, data.identity, chain.header.view - 1)
    _remember(journal, chain)
    journal.close()
    return data


def _last(chain: MemoryChain) -> Certificate:
    return certificate(chain.rules, chain.blocks[-1])


def _remember(journal: Journal, chain: MemoryChain) -> None:
    """What a member writes down on the way to its newest final block."""
    block = chain.blocks[-1]
    view = block.header.view
    journal.record_vote(own_vote(chain.rules, VoteKind.NOTARIZE, view, block.header.hash), block.encode())
    journal.record_certificate(certificate(chain.rules, block, VoteKind.NOTARIZE))
    journal.record_vote(own_vote(chain.rules, VoteKind.FINALIZE, view, block.header.hash))
