"""Evidence that begins as valid, changed in any field or byte, with what one's own node says of its block changed too.

What must hold:
    only `Rejected` escapes, twice the same, and the state is as it was;
    bytes that decode are given back;
    what is accepted is of a transaction that L1 holds, with the one proof that it has, at its height, and opens only
    outputs that pay the reserve under the script that the opening names.
"""

from dataclasses import replace
from functools import cache

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptType
from bridge.custody import CoinKind, reserve_script
from bridge.errors import MalformedError, Rejected
from bridge.evidence import HEADER_SIZE, Evidence, L1BlockFact, Opening
from bridge.ledger import advance_anchor
from pegnode.chain.execution import enter_evidence
from pegnode.chain.state import ChainState
from tests.fuzz.chooser import Chooser
from tests.fuzz.decoders import Finding
from tests.fuzz.scene import ALICE, BOB, scene, snapshot
from tests.support.fake_l1 import FakeBlock, merkle_block
from tests.support.merkle import encode_proof, node_hash, partial_tree, tree_height

MAX_CHANGES = 5


def check(data: bytes) -> bool:
    """Raise Finding unless all of it holds; whether the evidence was accepted."""
    choose = Chooser(data)
    raw = fuzzed(choose).encode()
    for _ in range(choose.below(3)):
        raw = choose.edited(raw)
    try:
        evidence = Evidence.decode(raw)
    except MalformedError:
        return False
    if evidence.encode() != raw:
        raise Finding(f"{raw.hex()} decodes, and encodes to {evidence.encode().hex()}")
    fact = scene().chain.l1.fact(evidence.l1_block_hash) or _made_up_fact(evidence, choose)
    first, second = _entered(evidence, fact), _entered(evidence, fact)
    if first != second and repr(first) != repr(second):
        raise Finding(f"{raw.hex()}: {first!r}, then {second!r}")
    if isinstance(first, Rejected):
        return False
    _check_accepted(evidence)
    return True


def fuzzed(choose: Chooser) -> Evidence:
    """A piece of evidence with some changes."""
    evidence = choose.pick(_origins())
    for _ in range(choose.below(MAX_CHANGES + 1)):
        evidence = _changed(evidence, choose)
    return evidence


def seeds() -> list[bytes]:
    """Each origin as it is, and each kind of change."""
    count = len(_origins())
    plain = [bytes([index, 0, 0]) for index in range(count)]
    changes = [
        bytes([index, 1, kind, *values])
        for index in range(count)
        for kind in range(9)
        for values in (b"\x00\x00\x00", b"\x01\x00\x01\x02", b"\x02\x28\x04\x05", b"\x04\x24\x01\x07\x08")
    ]
    trees = [bytes([1, 1, 7, *(flags >> bit & 1 for bit in range(8)), 0, 0]) for flags in range(64)]
    more = [bytes([1, 1, 8, second, leaf, kind]) for second in range(2) for leaf in range(4) for kind in range(4)]
    return [*plain, *changes, *trees, *more]


@cache
def _origins() -> tuple[Evidence, ...]:
    """The scene's; of a stranger's payment and a coinbase, which nothing opens rightly; and two that entered before."""
    l1 = scene().chain.l1
    busy = max(l1.blocks, key=lambda block: len(block.transactions))
    opening = Opening(0, CoinKind.DEPOSIT, 0, ALICE.script())
    strangers = tuple(l1.evidence(item, opening) for item in (busy.transactions[0], busy.transactions[2]))
    return (*scene().evidence, *strangers, *scene().chain.blocks[0].body.evidence[:2])


def _made_up_fact(evidence: Evidence, choose: Chooser) -> L1BlockFact:
    """As if L1 held any header: no proof of work is checked here, since one's own node is asked for the block."""
    count = int.from_bytes(evidence.proof[HEADER_SIZE : HEADER_SIZE + 4], "little")
    return L1BlockFact(evidence.l1_height, choose.pick((count, 1, 2, 7, 8)))


def _entered(evidence: Evidence, fact: L1BlockFact) -> object:
    """What the state holds after the evidence; or the refusal."""
    rules = scene().chain.rules
    state = ChainState(scene().chain.state, scene().block.header)
    advance_anchor(state.ledger, scene().block.header.anchor, rules.params)
    before = snapshot(state)
    try:
        enter_evidence(state, evidence, fact, rules)
    except Rejected as rejected:
        if before != snapshot(state):
            raise Finding(f"{evidence.encode().hex()} was refused, and left traces") from rejected
        return rejected
    state.ledger.totals.require_equality()
    return snapshot(state)


def _check_accepted(evidence: Evidence) -> None:
    block = scene().chain.l1.block_of(evidence.l1_block_hash)
    if block is None:
        return  # under a header that was made up; what it proves is then as true as the header
    found = [item for item in block.transactions if item.serialize_stripped() == evidence.transaction]
    if not found or not _is_canonical(evidence, block) or evidence.l1_height != block.height:
        raise Finding(f"{evidence.encode().hex()} is accepted, and L1 says otherwise")
    custody = scene().chain.rules.custody
    for opening in evidence.openings:
        if found[0].outpoint(opening.vout) in scene().chain.state.ledger.entered:
            raise Finding(f"{evidence.encode().hex()} is accepted, and enters output {opening.vout} again")
        policy = custody.policy(opening.epoch)
        script = reserve_script(policy, opening.kind, opening.claim_script).script
        if found[0].outputs[opening.vout].script != script:
            raise Finding(f"{evidence.encode().hex()} is accepted, and opens another's output {opening.vout}")


def _is_canonical(evidence: Evidence, block: FakeBlock) -> bool:
    """Whether the proof is the one that a Bitcoin node gives."""
    [transaction] = [item for item in block.transactions if item.serialize_stripped() == evidence.transaction]
    return evidence.proof == merkle_block(block, transaction.txid)


# Changes


def _changed(evidence: Evidence, choose: Chooser) -> Evidence:
    match choose.below(9):
        case 0:
            return replace(evidence, transaction=choose.edited(evidence.transaction))
        case 1 | 2:
            return replace(evidence, proof=choose.edited(evidence.proof)[:1_000])
        case 3:
            return replace(evidence, l1_height=choose.number(evidence.l1_height, 4))
        case 4:
            return replace(evidence, openings=(*evidence.openings, _opening(choose))[choose.below(2) :])
        case 5:
            other = choose.pick(_origins())
            return (
                replace(evidence, proof=other.proof) if choose.below(2) else replace(evidence, openings=other.openings)
            )
        case 6:
            return _opening_changed(evidence, choose)
        case 7:
            return _proven_otherwise(evidence, choose)
        case _:
            return _proven_with_more(evidence, choose)


def _proven_otherwise(evidence: Evidence, choose: Chooser) -> Evidence:
    """Under the same header, a tree of true hashes that is opened anywhere: its root is right, whatever it proves."""
    block = scene().chain.l1.block_of(evidence.l1_block_hash)
    if block is None:
        return evidence
    txids = [item.txid for item in block.transactions]
    hashes: list[bytes] = []
    flags: list[bool] = []

    def visit(height: int, position: int) -> None:
        flags.append(bool(choose.below(2)))
        if height == 0 or not flags[-1]:
            hashes.append(node_hash(txids, height, position))
            return
        visit(height - 1, 2 * position)
        if (2 * position + 1) << (height - 1) < len(txids):
            visit(height - 1, 2 * position + 1)

    visit(tree_height(len(txids)), 0)
    count = choose.pick((len(txids), len(txids), len(txids) + 1, (len(txids) + 1) // 2))
    shown = choose.pick(block.transactions).serialize_stripped() if choose.below(2) else evidence.transaction
    return replace(evidence, transaction=shown, proof=encode_proof(block.header, count, hashes, flags))


def _proven_with_more(evidence: Evidence, choose: Chooser) -> Evidence:
    """The right proof, and in it a second match, a flag or a hash that nothing asks for."""
    block = scene().chain.l1.block_of(evidence.l1_block_hash)
    if block is None:
        return evidence
    txids = [item.txid for item in block.transactions]
    opened = {
        txids.index(item.txid) for item in block.transactions if evidence.transaction == item.serialize_stripped()
    }
    hashes, flags = partial_tree(txids, opened | {choose.below(len(txids)) for _ in range(choose.below(3))})
    match choose.below(4):
        case 0:
            flags.append(True)
        case 1:
            hashes.append(hashes[-1])
        case 2:
            flags += [False] * 8
    return replace(evidence, proof=encode_proof(block.header, len(txids), hashes, flags))


def _opening(choose: Chooser) -> Opening:
    claim_script = choose.pick((b"", ALICE.script(), BOB.script(ScriptType.P2TR), Script(b"\x6a")))
    return Opening(choose.number(0, 4), choose.pick(tuple(CoinKind)), choose.below(2), claim_script)


def _opening_changed(evidence: Evidence, choose: Chooser) -> Evidence:
    if not evidence.openings:
        return evidence
    openings = list(evidence.openings)
    index = choose.below(len(openings))
    opening = openings[index]
    match choose.below(5):
        case 0:
            opening = replace(opening, vout=choose.number(opening.vout, 4))
        case 1:
            opening = replace(opening, kind=choose.pick(tuple(CoinKind)))
        case 2:
            opening = replace(opening, epoch=choose.number(opening.epoch, 4))
        case 3:
            opening = replace(opening, claim_script=choose.edited(opening.claim_script)[:34])
        case _:
            openings.append(opening)
    openings[index] = opening
    return replace(evidence, openings=tuple(openings))
