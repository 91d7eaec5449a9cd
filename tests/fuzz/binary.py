"""The decoders of what is hashed, signed, stored or sent between nodes."""

from dataclasses import replace
from functools import cache
from typing import Any

from bridge.batch import Batch
from bridge.bitcoin.block import parse_block, parse_block_spends, parse_block_transaction
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import parse_pushes, push
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.codec import decode_whole
from bridge.custody import CoinKind
from bridge.errors import MalformedError, Rejected
from bridge.evidence import Evidence, MerkleProof, Opening
from bridge.records import AbandonedBlock, Deficit, Finding, LostCoin, Rebase, Record, Resume
from bridge.state import Anchor, BatchVersion, Coin, Lineage, Totals, WindowEntry, Withdrawal, WithdrawalStatus
from bridge.withdrawals import encode_burn, parse_burn
from federation.certificate import Certificate, Vote, VoteKind
from federation.cosign import CosignShare
from federation.equivocation import Equivocation
from federation.record import SignedRecord
from federation.statement import BlockTerms, SignedStatement, SolvencyStatement
from pegnode.chain.block import Block, Body
from pegnode.chain.header import Header
from pegnode.chain.state import TransactionKind, Utxo
from pegnode.chain.transactions import parse_transaction
from pegnode.halts import LatchedFinding
from pegnode.storage import tables
from pegnode.storage.indexes import FinalTransaction, Spender
from pegnode.storage.keys import (
    Place,
    height_from_key,
    height_key,
    history_key,
    outpoint_from_key,
    place_from_history_key,
    txid_from_key,
)
from tests.fuzz.decoders import Decoder
from tests.fuzz.journal import journal_decoders
from tests.fuzz.recovery import recovery_decoders
from tests.fuzz.scene import certificate, scene, settled_lineage, signed_statement, vote
from tests.fuzz.signing import signing_decoders
from tests.fuzz.wire import wire_decoders
from tests.support.equivocations import equivocation
from tests.support.fake_l1 import FakeBlock

MALFORMED = (MalformedError,)
PLACE = Place(7, 1)


@cache
def binary_decoders() -> tuple[Decoder, ...]:
    """All of them, with samples from the scene."""
    return (
        *_bitcoin(),
        *_burns(),
        *_evidence(),
        *_ledger(),
        *_votes(),
        *_chain(),
        *_stored(),
        *journal_decoders(),
        *wire_decoders(),
        *recovery_decoders(),
        *signing_decoders(),
    )


def _bitcoin() -> tuple[Decoder, ...]:
    payments = scene().payments
    raw = tuple(payment.serialize() for payment in payments)
    stripped = tuple(payment.serialize_stripped() for payment in payments)
    return (
        Decoder("bridge.bitcoin.transaction:Transaction.parse", Transaction.parse, (Rejected,), raw, _serialized),
        Decoder(
            "bridge.bitcoin.transaction:Transaction.parse_stripped",
            Transaction.parse_stripped,
            (Rejected,),
            stripped,
            Transaction.serialize_stripped,
        ),
        Decoder("pegnode.chain.transactions:parse_transaction", parse_transaction, (Rejected,), raw, _serialized),
        Decoder(
            "bridge.bitcoin.block:parse_block", parse_block, MALFORMED, tuple(block.serialize() for block in _mined())
        ),
        Decoder(
            "bridge.bitcoin.block:parse_block_spends",
            parse_block_spends,
            MALFORMED,
            tuple(block.serialize() for block in _mined()),
        ),
        Decoder(
            "bridge.bitcoin.block:parse_block_transaction",
            parse_block_transaction,
            MALFORMED,
            tuple(map(_serialized, payments)),
        ),
    )


def _burns() -> tuple[Decoder, ...]:
    burn = scene().payments[0].outputs[1].script
    l1_genesis = scene().chain.rules.l1_genesis_hash

    def read_burn(data: bytes) -> Any:
        return parse_burn(TxOut(1, Script(data)), l1_genesis)

    def pushes(data: bytes) -> list[bytes]:
        items = parse_pushes(data)
        if items is None:
            raise MalformedError("not shortest pushes alone")
        return items

    return (
        Decoder(
            "bridge.bitcoin.script:parse_pushes",
            pushes,
            MALFORMED,
            (burn[1:], b"\x51\x4f\x00\x02ab"),
            lambda items: b"".join(map(push, items)),
        ),
        Decoder(
            "bridge.withdrawals:parse_burn",
            read_burn,
            (Rejected,),
            (burn,),
            lambda found: encode_burn(l1_genesis, found),
        ),
    )


def _evidence() -> tuple[Decoder, ...]:
    """And the outpoints that it is about."""
    evidence = scene().evidence

    def walked(data: bytes) -> object:
        return decode_whole(data, MerkleProof.read).walk()

    return (
        Decoder(
            "bridge.bitcoin.identifiers:OutPoint.decode",
            OutPoint.decode,
            MALFORMED,
            (scene().payments[0].outpoint(1).encode(),),
            OutPoint.encode,
        ),
        Decoder(
            "bridge.evidence:Evidence.decode",
            Evidence.decode,
            MALFORMED,
            tuple(item.encode() for item in evidence),
            Evidence.encode,
        ),
        Decoder(
            "bridge.evidence:Opening.decode",
            Opening.decode,
            MALFORMED,
            tuple(opening.encode() for item in evidence for opening in item.openings),
            Opening.encode,
        ),
        Decoder(
            "bridge.evidence:MerkleProof.read",
            walked,
            (MalformedError, Rejected),
            tuple(item.proof for item in evidence),
        ),
    )


def _ledger() -> tuple[Decoder, ...]:
    coin, paid = scene().coins[0][0], scene().coins[1][0]
    script, refund = Script(b"\x00\x14" + bytes(20)), Script(b"\x51\x20" + bytes(range(32)))
    coins = (Coin(coin, 5, CoinKind.DEPOSIT, 0, script, 9, 3), Coin(paid, 2**40, CoinKind.CHANGE, 1, b"", 10))
    withdrawals = (
        Withdrawal(coin, 3, 900_000, 2_000, script, refund, 12),
        Withdrawal(coin, 3, 900_000, 2_000, script, refund, 12, WithdrawalStatus.SETTLED, 1, paid),
    )
    lineage = settled_lineage()
    totals = scene().chain.state.ledger.totals
    batch = scene().block.body.batches[0]
    return (
        Decoder("bridge.batch:Batch.decode", Batch.decode, MALFORMED, (batch.encode(),), Batch.encode),
        Decoder("bridge.state:Anchor.decode", Anchor.decode, MALFORMED, (totals.anchor.encode(),), Anchor.encode),
        Decoder("bridge.state:Coin.decode", Coin.decode, MALFORMED, tuple(map(Coin.encode, coins)), Coin.encode),
        Decoder(
            "bridge.state:Withdrawal.decode",
            Withdrawal.decode,
            MALFORMED,
            tuple(map(Withdrawal.encode, withdrawals)),
            Withdrawal.encode,
        ),
        Decoder(
            "bridge.state:BatchVersion.decode",
            BatchVersion.decode,
            MALFORMED,
            (lineage.versions[0].encode(),),
            BatchVersion.encode,
        ),
        Decoder("bridge.state:Lineage.decode", Lineage.decode, MALFORMED, (lineage.encode(),), Lineage.encode),
        Decoder(
            "bridge.state:WindowEntry.decode",
            WindowEntry.decode,
            MALFORMED,
            (WindowEntry(3, 900).encode(),),
            WindowEntry.encode,
        ),
        Decoder("bridge.state:Totals.decode", Totals.decode, MALFORMED, (totals.encode(),), Totals.encode),
    )


def _votes() -> tuple[Decoder, ...]:
    block_hash = scene().block.hash
    votes = (vote(VoteKind.NOTARIZE, 5, block_hash, 1), vote(VoteKind.NULLIFY, 6, b"", 2))
    certificates = (certificate(VoteKind.FINALIZE, 5, block_hash), certificate(VoteKind.NULLIFY, 6, b""))
    share = CosignShare(Txid(bytes(range(32))), 2, (bytes(64), bytes(range(64))))
    return (
        Decoder(
            "federation.certificate:Vote.decode", Vote.decode, MALFORMED, tuple(map(Vote.encode, votes)), Vote.encode
        ),
        Decoder(
            "federation.equivocation:Equivocation.decode",
            Equivocation.decode,
            MALFORMED,
            tuple(equivocation(scene().chain.rules, member).encode() for member in (0, 1)),
            Equivocation.encode,
        ),
        Decoder(
            "federation.certificate:Certificate.decode",
            Certificate.decode,
            MALFORMED,
            tuple(map(Certificate.encode, certificates)),
            Certificate.encode,
        ),
        Decoder(
            "federation.cosign:CosignShare.decode", CosignShare.decode, MALFORMED, (share.encode(),), CosignShare.encode
        ),
        *_statements(),
        *_records(),
    )


def _records() -> tuple[Decoder, ...]:
    anchor, coin = Anchor(7, BlockHash(bytes(range(32)))), scene().coins[0][0]
    left, gone = Finding.anchor_left(anchor), Finding.coin_gone(coin)
    abandoned = AbandonedBlock(BlockHash(bytes(range(1, 33))), 3)
    rebase = Rebase(
        anchor,
        (abandoned, replace(abandoned, hash=BlockHash(bytes(32)))),
        replace(anchor, height=10, hash=BlockHash(b"\x01" * 32)),
    )
    resume, lost = Resume.of((left, gone), rebase), LostCoin(coin, 900_000)
    deficit = Deficit.of((lost,))
    record = Record(bytes(32), 0, 1, 500, resume)
    values: dict[type[Any], tuple[Any, ...]] = {
        Finding: (left, gone, Finding.second_version(Txid(bytes(32)))),
        AbandonedBlock: (abandoned,),
        Rebase: (rebase,),
        Resume: (resume, Resume.of((gone,))),
        LostCoin: (lost,),
        Deficit: (deficit,),
        Record: (record, replace(record, content=deficit)),
        SignedRecord: (SignedRecord(record, ((0, bytes(64)), (2, bytes(range(64))))),),
        LatchedFinding: (LatchedFinding(left, "blöcke", 0, 5), LatchedFinding(gone, "", 2**64 - 1, 0)),
    }
    return tuple(
        Decoder(
            f"{kind.__module__}:{kind.__name__}.decode",
            kind.decode,
            MALFORMED,
            tuple(value.encode() for value in samples),
            kind.encode,
        )
        for kind, samples in values.items()
    )


def _statements() -> tuple[Decoder, ...]:
    signed = signed_statement(0, 2)
    statement = signed.statement
    return tuple(
        Decoder(f"federation.statement:{kind.__name__}.decode", kind.decode, MALFORMED, (value.encode(),), kind.encode)
        for kind, value in (
            (BlockTerms, statement.terms),
            (SolvencyStatement, statement),
            (SignedStatement, signed),
        )
    )


def _chain() -> tuple[Decoder, ...]:
    block = scene().block
    utxo = Utxo(5, Script(b"\x00\x14" + bytes(20)), 7, 8)
    return (
        Decoder(
            "pegnode.chain.header:Header.decode", Header.decode, MALFORMED, (block.header.encode(),), Header.encode
        ),
        Decoder("pegnode.chain.block:Body.decode", Body.decode, MALFORMED, (block.body.encode(),), Body.encode),
        Decoder("pegnode.chain.block:Block.decode", Block.decode, MALFORMED, (block.encode(),), Block.encode),
        Decoder(
            "pegnode.chain.block:Block.decode_whole", Block.decode_whole, MALFORMED, (block.encode(),), Block.encode
        ),
        Decoder("pegnode.chain.state:Utxo.decode", Utxo.decode, MALFORMED, (utxo.encode(),), Utxo.encode),
    )


def _stored() -> tuple[Decoder, ...]:
    transaction = scene().payments[0]
    spent = (TxOut(5, Script(b"\x00\x14" + bytes(20))),)
    final = FinalTransaction(transaction.txid, PLACE, TransactionKind.TRANSFER, 9, transaction.serialize(), spent)
    spender = Spender(transaction.txid, 3)
    outpoint = transaction.outpoint(1).encode()

    def history_place(data: bytes) -> tuple[bytes, Place]:
        return data[:32], place_from_history_key(data)

    return (
        Decoder(
            "pegnode.storage.indexes:FinalTransaction.decode",
            lambda data: FinalTransaction.decode(PLACE, data),
            MALFORMED,
            (final.encode(),),
            FinalTransaction.encode,
        ),
        Decoder(
            "pegnode.storage.indexes:Spender.decode", Spender.decode, MALFORMED, (spender.encode(),), Spender.encode
        ),
        Decoder("pegnode.storage.keys:Place.decode", Place.decode, MALFORMED, (PLACE.encode(),), Place.encode),
        Decoder("pegnode.storage.keys:height_from_key", height_from_key, MALFORMED, (height_key(9),), height_key),
        Decoder(
            "pegnode.storage.keys:place_from_history_key",
            history_place,
            MALFORMED,
            (history_key(bytes(32), PLACE),),
            lambda found: history_key(*found),
        ),
        Decoder("pegnode.storage.keys:outpoint_from_key", outpoint_from_key, MALFORMED, (outpoint,), OutPoint.encode),
        Decoder("pegnode.storage.keys:txid_from_key", txid_from_key, MALFORMED, (transaction.txid,), bytes),
        *_tables(),
    )


def _tables() -> tuple[Decoder, ...]:
    """The values of each table; that its codec is the one that the values have is all there is to find."""
    samples: dict[tables.TableCodec[Any, Any], tuple[bytes, ...]] = {
        tables.UTXOS: _chain()[-1].samples,
        tables.COINS: _ledger()[2].samples,
        tables.LOST: _ledger()[2].samples,
        tables.ENTERED: (height_key(3),),
        tables.OPEN_WITHDRAWALS: _ledger()[3].samples,
        tables.CLOSED_WITHDRAWALS: _ledger()[3].samples,
        tables.OPEN_LINEAGES: _ledger()[5].samples,
        tables.CLOSED_LINEAGES: _ledger()[5].samples,
        tables.VERSIONS: (height_key(3),),
    }
    return tuple(
        Decoder(
            f"pegnode.storage.tables:{codec.family.upper()}", codec.decode_value, MALFORMED, items, codec.encode_value
        )
        for codec, items in samples.items()
    )


def _mined() -> list[FakeBlock]:
    return [block for block in scene().chain.l1.blocks if len(block.transactions) > 1][:2]


def _serialized(transaction: Transaction) -> bytes:
    return transaction.serialize()
