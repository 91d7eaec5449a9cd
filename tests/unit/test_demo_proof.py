"""The proof of the payouts, against a Bitcoin node that shows something else than the sidechain says."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.l1.answers import L1Header, L1TxOut, ScannedOutput, TxOutSetScan
from bridge.l1.client import L1Client
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.demo.proof import Burned, payout_on_l1, prove_payouts
from pegnode.rpc.results import WithdrawalReply

REGTEST = l1_network("regtest")

SCRIPTS = {
    ScriptType.P2WPKH: Script(b"\x00\x14" + b"\x01" * 20),
    ScriptType.P2TR: Script(b"\x51\x20" + b"\x02" * 32),
}
COIN = Transaction(2, (TxIn(OutPoint(Txid(b"\x07" * 32), 0)),), (TxOut(100_000, Script(b"\x51\x20" + b"\x03" * 32)),))
SIGNED = (b"\x01" * 64, b"", b"\x02" * 64, b"\x03" * 64, b"script", b"\xc0" + b"\x04" * 32)
PAYOUT = Transaction(
    2,
    (TxIn(COIN.outpoint(0), witness=SIGNED),),
    (TxOut(29_900, SCRIPTS[ScriptType.P2WPKH]), TxOut(39_900, SCRIPTS[ScriptType.P2TR]), TxOut(30_000, Script(b"x"))),
)
BURNS = [
    Burned("ann", kind, encode_address(script, REGTEST), sats, 150, OutPoint(Txid(bytes([index]) * 32), 0))
    for index, (kind, script, sats) in enumerate(
        [(ScriptType.P2WPKH, SCRIPTS[ScriptType.P2WPKH], 30_000), (ScriptType.P2TR, SCRIPTS[ScriptType.P2TR], 40_000)]
    )
]
BLOCK = BlockHash(b"\x0b" * 32)


def withdrawal_reply(index: int, **changed: object) -> WithdrawalReply:
    """What the sidechain says of a burn."""
    named: dict[str, Any] = dict.fromkeys(WithdrawalReply.__struct_fields__, 0)
    told = {
        "burn": str(BURNS[index].burn),
        "status": "settled",
        "payout": str(PAYOUT.outpoint(index)),
        "paid_sats": PAYOUT.outputs[index].value_sats,
    }
    return WithdrawalReply(**named | told | changed)


@dataclass
class FakeNode:
    """A Bitcoin node that has the payout in a block, and its outputs unspent."""

    confirmations: int = 6
    txouts: dict[OutPoint, TxOut] = field(
        default_factory=lambda: {PAYOUT.outpoint(index): output for index, output in enumerate(PAYOUT.outputs[:2])}
    )
    extra: tuple[ScannedOutput, ...] = ()
    known: tuple[Transaction, ...] = (COIN, PAYOUT)

    async def raw_transaction(self, txid: Txid) -> bytes | None:
        return next((item.serialize() for item in self.known if item.txid == txid), None)

    async def transaction_block(self, _: Txid) -> BlockHash | None:
        return BLOCK if self.confirmations else None

    async def block_header(self, _: BlockHash) -> L1Header:
        return L1Header(BLOCK, 108, self.confirmations, 2, bytes(32), 0, None)

    async def txout(self, outpoint: OutPoint, include_mempool: bool) -> L1TxOut | None:
        assert include_mempool
        found = self.txouts.get(outpoint)
        return None if found is None else L1TxOut(found.value_sats, found.script, self.confirmations, False, BLOCK)

    async def scan_txoutset(self, _: Sequence[str]) -> TxOutSetScan:
        outputs = [
            ScannedOutput(outpoint, out.value_sats, out.script, 108, False) for outpoint, out in self.txouts.items()
        ]
        return TxOutSetScan(113, BLOCK, (*outputs, *self.extra))


async def proven_on(
    node: FakeNode, replies: Sequence[WithdrawalReply] | None = None, burns: Sequence[Burned] = BURNS
) -> list[int]:
    """The fee shares that are proven."""
    client = cast(L1Client, node)
    payout = await payout_on_l1(client, PAYOUT.txid)
    assert payout is not None
    replies = [withdrawal_reply(0), withdrawal_reply(1)] if replies is None else replies
    return [item.fee_share_sats for item in await prove_payouts(client, payout, burns, replies, 6)]


async def test_payout_is_read_from_the_bitcoin_node() -> None:
    payout = await payout_on_l1(cast(L1Client, FakeNode(confirmations=3)), PAYOUT.txid)
    assert payout is not None
    assert (payout.fee_sats, payout.confirmations, payout.signatures) == (200, 3, 3)
    waiting = await payout_on_l1(cast(L1Client, FakeNode(confirmations=0)), PAYOUT.txid)
    assert waiting is not None
    assert waiting.confirmations == 0
    assert await payout_on_l1(cast(L1Client, FakeNode(known=())), PAYOUT.txid) is None


async def test_payouts_are_proven_with_their_fee_shares() -> None:
    assert await proven_on(FakeNode()) == [100, 100]


def txouts(first: TxOut, second: TxOut = PAYOUT.outputs[1]) -> dict[OutPoint, TxOut]:
    """The payout's outputs, as a node that lies or errs has them."""
    return {PAYOUT.outpoint(0): first, PAYOUT.outpoint(1): second}


P2WPKH = SCRIPTS[ScriptType.P2WPKH]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (FakeNode(confirmations=5), "the payout has 5 confirmations"),
        (FakeNode(known=(PAYOUT,)), "does not know what"),
        (FakeNode(txouts={PAYOUT.outpoint(1): PAYOUT.outputs[1]}), "is not unspent"),
        (FakeNode(txouts=txouts(TxOut(29_900, SCRIPTS[ScriptType.P2TR]))), "pays another script"),
        (FakeNode(txouts=txouts(TxOut(30_000, P2WPKH))), "pays 0 sats of fee"),
        (FakeNode(txouts=txouts(TxOut(29_849, P2WPKH))), "pays 151 sats of fee"),
        (FakeNode(txouts=txouts(TxOut(29_901, P2WPKH))), "the sidechain says 29900 sats"),
        (
            FakeNode(extra=(ScannedOutput(COIN.outpoint(0), 1, P2WPKH, 100, False),)),
            "a scan finds 3 outputs at the 2 addresses",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_proof_refuses_what_the_bitcoin_node_does_not_show(node: FakeNode, words: str) -> None:
    with pytest.raises(DemoFailed) as failure:
        await proven_on(node)
    assert failure.value.reason is DemoReason.PAYOUT
    assert words in failure.value.detail


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([withdrawal_reply(0)], "p2tr withdrawal is not settled"),
        ([withdrawal_reply(0), withdrawal_reply(1, status="batched")], "p2tr withdrawal is not settled"),
        ([withdrawal_reply(0), withdrawal_reply(1, payout=None)], "p2tr withdrawal is not settled"),
        ([withdrawal_reply(0, payout=str(COIN.outpoint(0))), withdrawal_reply(1)], "is said to be paid by"),
        ([withdrawal_reply(0, paid_sats=1), withdrawal_reply(1)], "the sidechain says 1 sats"),
    ],
)
async def test_proof_refuses_what_the_sidechain_does_not_say(replies: list[WithdrawalReply], words: str) -> None:
    with pytest.raises(DemoFailed) as failure:
        await proven_on(FakeNode(), replies)
    assert failure.value.reason is DemoReason.PAYOUT
    assert words in failure.value.detail


async def test_proof_refuses_unequal_shares() -> None:
    uneven = txouts(TxOut(29_890, P2WPKH))
    with pytest.raises(DemoFailed) as failure:
        await proven_on(FakeNode(txouts=uneven), [withdrawal_reply(0, paid_sats=29_890), withdrawal_reply(1)])
    assert failure.value.detail == "shares of [100, 110] sats are not equal"


async def test_proof_refuses_shares_that_are_not_the_fee() -> None:
    node = FakeNode(txouts=txouts(TxOut(29_890, P2WPKH), TxOut(39_890, SCRIPTS[ScriptType.P2TR])))
    with pytest.raises(DemoFailed) as failure:
        await proven_on(node, [withdrawal_reply(0, paid_sats=29_890), withdrawal_reply(1, paid_sats=39_890)])
    assert failure.value.detail == "shares of 220 sats make a fee of 200"


async def test_proof_refuses_another_kind_of_address() -> None:
    with pytest.raises(DemoFailed) as failure:
        await proven_on(FakeNode(), burns=[replace(BURNS[0], kind=ScriptType.P2PKH), BURNS[1]])
    assert failure.value.reason is DemoReason.PAYOUT
    assert "is of another kind" in failure.value.detail
