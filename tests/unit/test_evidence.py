"""Proofs of L1 transactions: the one valid form, and each attack on it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import sha256, sha256d
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.codec import Writer, decode_whole
from bridge.custody import CoinKind
from bridge.errors import MalformedError, Rejected
from bridge.evidence import (
    EVIDENCE_FRAME_SIZE,
    MAX_OPENINGS,
    MAX_PROOF_SIZE,
    MAX_TRANSACTION_SIZE,
    OPENING_SIZE,
    Evidence,
    EvidenceReason,
    L1BlockFact,
    MerkleProof,
    Opening,
    check_inclusion,
)
from tests.support.merkle import encode_proof, header_of, merkle_proof, node_hash, partial_tree, tree_height
from tests.support.transactions import TRANSACTIONS, U32

HEIGHT = 840_000
OPENINGS = st.lists(st.builds(Opening, U32, st.sampled_from(CoinKind), U32, st.binary(max_size=34)), max_size=4).map(
    tuple
)
EVIDENCE = st.builds(Evidence, st.binary(max_size=200), st.binary(max_size=200), U32, OPENINGS)


def _transaction(number: int) -> Transaction:
    return Transaction(
        2, (TxIn(OutPoint(Txid(sha256(b"%d" % number)), 0)),), (TxOut(number, Script(b"\x51\x20" + bytes(32))),)
    )


BLOCK = [_transaction(number) for number in range(7)]
TXIDS = [transaction.txid for transaction in BLOCK]
ROOT = node_hash(TXIDS, 3, 0)
FACT = L1BlockFact(HEIGHT, len(BLOCK))
OURS = 4
GOOD = Evidence(BLOCK[OURS].serialize(), merkle_proof(TXIDS, OURS), HEIGHT, ())


def _reason(evidence: Evidence, fact: L1BlockFact = FACT) -> EvidenceReason:
    with pytest.raises(Rejected) as rejection:
        check_inclusion(evidence, fact)
    assert isinstance(rejection.value.reason, EvidenceReason)
    return rejection.value.reason


def _with_tree(hashes: list[bytes], flags: list[bool], count: int = len(BLOCK), root: bytes = ROOT) -> Evidence:
    return replace(GOOD, proof=encode_proof(header_of(root), count, hashes, flags))


@given(EVIDENCE)
def test_evidence_round_trips(evidence: Evidence) -> None:
    assert Evidence.decode(evidence.encode()) == evidence


@given(EVIDENCE, st.data())
def test_evidence_is_refused_when_cut_or_extended(evidence: Evidence, data: st.DataObject) -> None:
    encoded = evidence.encode()
    for wrong in (encoded[: data.draw(st.integers(0, len(encoded) - 1))], encoded + b"\x00"):
        with pytest.raises(MalformedError):
            Evidence.decode(wrong)


@given(st.binary(max_size=300))
def test_bytes_that_decode_are_the_encoding(data: bytes) -> None:
    try:
        evidence = Evidence.decode(data)
    except MalformedError:
        return
    assert evidence.encode() == data


@pytest.mark.parametrize("kind", [0, 4, 255])
def test_opening_is_refused_with_an_unknown_kind(kind: int) -> None:
    writer = Writer().u32(0).u8(kind).u32(0).variable(b"")
    with pytest.raises(MalformedError, match="is no CoinKind"):
        decode_whole(writer.finish(), Opening.read)


def test_encoding_is_refused_over_its_limits() -> None:
    opening = Opening(0, CoinKind.DEPOSIT, 0, bytes(34))
    largest = Evidence(bytes(MAX_TRANSACTION_SIZE), bytes(MAX_PROOF_SIZE), 0, (opening,) * MAX_OPENINGS)
    size = MAX_TRANSACTION_SIZE + MAX_PROOF_SIZE + MAX_OPENINGS * OPENING_SIZE + EVIDENCE_FRAME_SIZE
    assert len(largest.encode()) == size
    assert Evidence.decode(largest.encode()) == largest
    for too_large in (
        replace(largest, transaction=largest.transaction + b"\x00"),
        replace(largest, proof=largest.proof + b"\x00"),
        replace(largest, openings=(*largest.openings, opening)),
        replace(largest, openings=(replace(opening, claim_script=bytes(35)),)),
    ):
        with pytest.raises(MalformedError, match="over its limit"):
            Evidence.decode(too_large.encode())


@given(st.integers(1, 40), st.data())
def test_proof_is_accepted_for_every_place_in_every_block(count: int, data: st.DataObject) -> None:
    block = [_transaction(number) for number in range(count)]
    txids = [transaction.txid for transaction in block]
    place = data.draw(st.integers(0, count - 1))
    evidence = Evidence(block[place].serialize(), merkle_proof(txids, place), HEIGHT, ())
    assert check_inclusion(evidence, L1BlockFact(HEIGHT, count)) == block[place]
    assert evidence.l1_block_hash == sha256d(evidence.proof[:80])


@given(TRANSACTIONS)
def test_any_transaction_is_proven_by_its_stripped_form(transaction: Transaction) -> None:
    stripped = transaction.serialize_stripped()
    evidence = Evidence(stripped, merkle_proof([transaction.txid], 0), HEIGHT, ())
    if len(stripped) == 64:
        assert _reason(evidence, L1BlockFact(HEIGHT, 1)) is EvidenceReason.TRANSACTION_SIZE_64
    else:
        assert check_inclusion(evidence, L1BlockFact(HEIGHT, 1)).txid == transaction.txid


def test_proof_is_refused_with_any_bit_changed() -> None:
    for bit in range(len(GOOD.proof) * 8):
        spoiled = bytearray(GOOD.proof)
        spoiled[bit // 8] ^= 1 << bit % 8
        evidence = replace(GOOD, proof=bytes(spoiled))
        if bit // 8 < 36 or 68 <= bit // 8 < 80:  # the header but for its root: another block, which nobody knows
            assert evidence.l1_block_hash != GOOD.l1_block_hash
        else:
            _reason(evidence)


@given(st.integers(0, len(GOOD.proof) - 1), st.booleans())
def test_proof_is_refused_when_cut_or_extended(size: int, extend: bool) -> None:
    proof = GOOD.proof + GOOD.proof[:size] + b"\x00" if extend else GOOD.proof[:size]
    assert _reason(replace(GOOD, proof=proof)) is EvidenceReason.BAD_PROOF


def test_height_is_refused_when_the_block_is_elsewhere() -> None:
    assert _reason(replace(GOOD, l1_height=HEIGHT + 1)) is EvidenceReason.WRONG_HEIGHT


def test_transaction_is_refused_with_a_witness() -> None:
    with_witness = BLOCK[OURS].with_witnesses([(b"x",)])
    assert with_witness.txid == TXIDS[OURS]
    assert _reason(replace(GOOD, transaction=with_witness.serialize())) is EvidenceReason.NOT_STRIPPED


@pytest.mark.parametrize("data", [b"", b"\x00", GOOD.transaction[:-1], GOOD.transaction + b"\x00"])
def test_transaction_is_refused_when_malformed(data: bytes) -> None:
    assert _reason(replace(GOOD, transaction=data)) is EvidenceReason.MALFORMED


def test_transaction_of_64_bytes_is_refused_though_it_is_in_the_block() -> None:
    """CVE-2017-12842: it could be an inner node, whose halves somebody chose to be the txid of a payment to us."""
    small = Transaction(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (TxOut(0, Script(bytes(4))),))
    assert len(small.serialize()) == 64
    evidence = Evidence(small.serialize(), merkle_proof([small.txid], 0), HEIGHT, ())
    assert _reason(evidence, L1BlockFact(HEIGHT, 1)) is EvidenceReason.TRANSACTION_SIZE_64


def test_inner_node_is_refused_as_a_transaction() -> None:
    """CVE-2017-12842, the other way: a tree that says it ends one row above the leaves, at the pair that holds ours."""
    pairs = [node_hash(TXIDS, 1, position) for position in range(4)]
    assert node_hash(pairs, 2, 0) == ROOT
    shallow = replace(GOOD, proof=encode_proof(header_of(ROOT), 4, *partial_tree(pairs, [2])))
    assert _reason(shallow) is EvidenceReason.PROOF_COUNT_MISMATCH


def test_deeper_tree_is_refused_by_the_count_of_our_node() -> None:
    """CVE-2017-12842: leaves that hang below a real transaction of 64 bytes."""
    forged = _transaction(1000)
    small = forged.txid + TXIDS[0]  # 64 bytes that a miner was made to include as a transaction
    leaves = [sha256d(small), TXIDS[1]]
    root = node_hash(leaves, 1, 0)
    hashes, flags = [forged.txid, TXIDS[0], TXIDS[1]], [True, True, True, False, False]
    deeper = Evidence(forged.serialize(), encode_proof(header_of(root), 4, hashes, flags), HEIGHT, ())
    assert decode_whole(deeper.proof, MerkleProof.read).walk()[0] == root, "the forged tree has the block's root"
    assert _reason(deeper, L1BlockFact(HEIGHT, 2)) is EvidenceReason.PROOF_COUNT_MISMATCH


def test_equal_children_are_refused() -> None:
    """CVE-2012-2459: seven leaves and the same seven with the last one twice have one root."""
    doubled = [*TXIDS, TXIDS[-1]]
    assert node_hash(doubled, 3, 0) == ROOT
    evidence = replace(GOOD, proof=merkle_proof(doubled, OURS))
    assert _reason(evidence) is EvidenceReason.PROOF_COUNT_MISMATCH
    last = Evidence(BLOCK[-1].serialize(), merkle_proof(doubled, 7), HEIGHT, ())
    assert _reason(last, L1BlockFact(HEIGHT, 8)) is EvidenceReason.DUPLICATED_HASHES


def test_count_of_none_is_refused() -> None:
    """A node says so of a block of which it has only the header; a tree of no leaves could be given one."""
    root = sha256d(TXIDS[OURS] * 2)
    forged = _with_tree([TXIDS[OURS]], [True, True], count=0, root=root)
    assert _reason(forged, L1BlockFact(HEIGHT, 0)) is EvidenceReason.BAD_PROOF


def test_root_is_refused_when_the_header_has_another() -> None:
    hashes, flags = partial_tree(TXIDS, [OURS])
    assert _reason(_with_tree(hashes, flags, root=sha256(b""))) is EvidenceReason.WRONG_MERKLE_ROOT
    hashes[0] = sha256(b"")
    assert _reason(_with_tree(hashes, flags)) is EvidenceReason.WRONG_MERKLE_ROOT


@pytest.mark.parametrize("opened", [(), (3, 4), (0, 1, 2, 3, 4, 5, 6)])
def test_match_is_refused_unless_it_is_the_only_one(opened: tuple[int, ...]) -> None:
    assert _reason(replace(GOOD, proof=merkle_proof(TXIDS, *opened))) is EvidenceReason.NOT_EXACTLY_ONE_MATCH


def test_proof_is_refused_for_another_transaction() -> None:
    assert _reason(replace(GOOD, proof=merkle_proof(TXIDS, 3))) is EvidenceReason.WRONG_TRANSACTION


def test_padding_is_refused_with_a_bit_set() -> None:
    _, flags = partial_tree(TXIDS, [OURS])
    assert len(flags) % 8, "there is padding"
    for bit in range(len(flags) % 8, 8):
        proof = GOOD.proof[:-1] + bytes([GOOD.proof[-1] | 1 << bit])
        assert _reason(replace(GOOD, proof=proof)) is EvidenceReason.PADDING_BITS


def test_opened_branch_is_refused_without_a_match() -> None:
    """The same match proven in two ways would make two different blocks of one deposit."""
    hashes, flags = partial_tree(TXIDS, [OURS])
    assert (hashes[0], flags[1]) == (node_hash(TXIDS, 2, 0), False)
    needless = [node_hash(TXIDS, 1, 0), node_hash(TXIDS, 1, 1), *hashes[1:]]
    evidence = _with_tree(needless, [flags[0], True, False, False, *flags[2:]])
    assert _reason(evidence) is EvidenceReason.NEEDLESS_BRANCH


def test_tree_is_refused_when_truncated_or_padded() -> None:
    hashes, flags = partial_tree(TXIDS, [OURS])
    more_hashes, more_flags = [*hashes, sha256(b"")], [*flags, *[False] * 8]
    assert check_inclusion(_with_tree(hashes, flags), FACT) == BLOCK[OURS]
    for truncated in ((hashes[:-1], flags), (hashes, []), ([], flags)):
        assert _reason(_with_tree(*truncated)) is EvidenceReason.PROOF_TRUNCATED
    for padded in ((more_hashes, flags), (hashes, more_flags)):
        assert _reason(_with_tree(*padded)) is EvidenceReason.PROOF_LEFTOVER


@pytest.mark.parametrize(
    "count", [b"\xfd\x04\x00", b"\xfe\x04\x00\x00\x00", b"\xff\x04\x00\x00\x00\x00\x00\x00\x00", b"\xff" * 9]
)
def test_count_of_hashes_is_refused_unless_it_is_the_shortest(count: bytes) -> None:
    place = 80 + 4
    assert GOOD.proof[place] == 4
    assert (
        _reason(replace(GOOD, proof=GOOD.proof[:place] + count + GOOD.proof[place + 1 :])) is EvidenceReason.BAD_PROOF
    )


@pytest.mark.parametrize("count", [252, 253, 300])
def test_long_counts_are_read_where_they_belong(count: int) -> None:
    hashes = [sha256(b"%d" % number) for number in range(count)]
    proof = decode_whole(encode_proof(header_of(ROOT), count, hashes, [False]), MerkleProof.read)
    assert proof.hashes == tuple(hashes)
    assert proof.merkle_root == ROOT


def test_proof_of_the_largest_block_fits_its_limit() -> None:
    count = 2**15  # more transactions than four million weight units hold
    hashes = 1 + tree_height(count)
    flags = 1 + 2 * tree_height(count)
    assert 80 + 4 + 1 + 32 * hashes + 1 + (flags + 7) // 8 <= MAX_PROOF_SIZE
