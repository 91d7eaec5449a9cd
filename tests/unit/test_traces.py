"""What became of coins that L1 abandoned: by the blocks of both branches."""

import pytest

from bridge.bitcoin.block import parse_block_spends
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.errors import MalformedError
from bridge.state import Anchor
from pegnode.resume.traces import BlockSpends, Fate, Traces
from tests.support.fake_l1 import FakeL1


def txid(name: str) -> Txid:
    return Txid(sha256(name.encode()))


def out(name: str, vout: int = 0) -> OutPoint:
    return OutPoint(txid(name), vout)


def active(height: int) -> Anchor:
    return Anchor(height, BlockHash(sha256(b"active %d" % height)))


def block(*spends: tuple[str, tuple[OutPoint, ...]]) -> BlockSpends:
    """A block: its coinbase, which everybody forgets, and these."""
    return ((txid("coinbase"), ()), *((txid(name), spent) for name, spent in spends))


def fates(coin: OutPoint, abandoned: dict[int, BlockSpends], chain: dict[int, BlockSpends]) -> Fate | None:
    """The fate of one coin. abandoned, chain: by height."""
    traces = Traces([coin])
    for height in sorted(abandoned, reverse=True):
        traces.read_abandoned(height, abandoned[height])
    for height, spends in chain.items():
        traces.read_active(active(height), spends)
    return traces.fates().get(coin)


def test_coin_whose_inputs_nobody_spent_may_come_back() -> None:
    assert fates(out("deposit"), {10: block(("deposit", (out("purse"),)))}, {10: block(), 11: block()}) is None


def test_coin_that_is_on_the_active_chain_again_has_no_fate() -> None:
    deposit = ("deposit", (out("purse"),))
    assert fates(out("deposit"), {10: block(deposit)}, {11: block(deposit)}) is None


def test_double_spend_of_what_a_coin_came_from_is_its_fate() -> None:
    spent = fates(out("deposit"), {10: block(("deposit", (out("purse"),)))}, {11: block(("other", (out("purse"),)))})
    assert spent == Fate(active(11), out("purse"), txid("other"))


def test_double_spend_of_an_ancestor_is_its_fate_whatever_lies_between() -> None:
    abandoned = {
        9: block(("first", (out("purse", 3),)), ("second", (out("first"), out("elsewhere")))),
        10: block(("deposit", (out("second", 1),))),
    }
    chain = {9: block(("other", (out("purse", 3),))), 10: block()}
    assert fates(out("deposit", 2), abandoned, chain) == Fate(active(9), out("purse", 3), txid("other"))


def test_deepest_of_several_ways_is_told() -> None:
    abandoned = {10: block(("deposit", (out("purse"), out("pocket"))))}
    chain = {12: block(("late", (out("purse"),))), 11: block(("early", (out("pocket"),)))}
    assert fates(out("deposit"), abandoned, chain) == Fate(active(11), out("pocket"), txid("early"))


def test_abandoned_coinbase_loses_its_place() -> None:
    coinbase = ((txid("deposit"), ()),)
    assert fates(out("deposit"), {10: coinbase}, {10: block(), 11: block()}) == Fate(active(10), None, None)
    assert fates(out("deposit"), {10: coinbase}, {9: block()}) is None


def test_coin_that_is_spent_itself_was_taken() -> None:
    stolen = fates(out("deposit"), {}, {20: block(("theft", (out("deposit"),)))})
    assert stolen == Fate(active(20), out("deposit"), txid("theft"))


def test_other_output_of_the_same_transaction_says_nothing() -> None:
    assert fates(out("deposit"), {}, {20: block(("payment", (out("deposit", 1),)))}) is None


def test_only_transactions_of_abandoned_blocks_are_abandoned() -> None:
    traces = Traces([out("deposit"), out("below")])
    traces.read_abandoned(10, block(("deposit", (out("purse"),))))
    assert [traces.is_abandoned(coin) for coin in (out("deposit"), out("below"))] == [True, False]


def test_block_tells_what_each_transaction_spends() -> None:
    chain = FakeL1()
    payment = chain.payment()
    mined = chain.mine(payment)
    coinbase, other = parse_block_spends(mined.serialize())
    assert coinbase == (mined.transactions[0].txid, ())
    assert other == (payment.txid, (payment.inputs[0].outpoint,))


def test_bytes_that_are_no_block_tell_nothing() -> None:
    with pytest.raises(MalformedError):
        parse_block_spends(FakeL1().mine().serialize()[:-1])
