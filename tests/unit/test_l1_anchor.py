"""The anchor on one's own Bitcoin node: chosen deep, and checked by everybody else."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.l1.client import L1Client
from bridge.state import Anchor
from pegnode.genesis import Genesis
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.l1_anchor import check_anchor, choose_anchor
from pegnode.setup.template import Agreed, completed
from tests.support.cards import PARAMETERS, agreed, member_cards, template
from tests.support.fake_l1_client import FakeL1Client, L1World

TIP = 110
"""Its depth is 1; block 105 has the 6 confirmations that the parameters ask."""


REGTEST_FIRST_BLOCK = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"


class _OtherNetwork(FakeL1Client):
    """A node whose first block is not regtest's."""

    async def block_hash(self, height: int) -> BlockHash | None:
        return BlockHash(b"\x01" * 32) if height == 0 else await super().block_hash(height)


def _node(tip: int = TIP, kind: type[FakeL1Client] = FakeL1Client) -> L1Client:
    world = L1World()
    world.mine(tip + 1)
    return cast(L1Client, kind(world))


def _genesis(anchor: Anchor) -> Genesis:
    values = Agreed.of(anchor, [bytes.fromhex(key) for key in agreed().recovery_keys_hex], 1)
    return template(completed(PARAMETERS, values)).compose([card.section for card in member_cards()])


async def _refused(work: Callable[[], Awaitable[Any]]) -> SetupRefused:
    with pytest.raises(SetupRefused) as caught:
        await work()
    return caught.value


async def _anchor(node: L1Client, height: int) -> Anchor:
    block_hash = await node.block_hash(height)
    assert block_hash is not None
    return Anchor(height, block_hash)


async def test_anchor_is_chosen_twice_as_deep_as_it_must_be() -> None:
    node = _node()
    assert await choose_anchor(node, template().parameters) == await _anchor(node, TIP - 12)


@pytest.mark.parametrize("tip", [0, 5, 12])
async def test_young_chain_is_anchored_at_its_first_block(tip: int) -> None:
    anchor = await choose_anchor(_node(tip), template().parameters)
    assert (anchor.height, hash_to_hex(anchor.hash)) == (0, REGTEST_FIRST_BLOCK)


async def test_height_that_was_asked_for_is_taken_if_it_is_deep() -> None:
    node = _node()
    assert await choose_anchor(node, template().parameters, 105) == await _anchor(node, 105)
    shallow = await _refused(lambda: choose_anchor(node, template().parameters, 106))
    assert shallow.reason is SetupReason.ANCHOR_SHALLOW
    assert "has 5 confirmations on your Bitcoin node, and needs 6" in shallow.detail
    beyond = await _refused(lambda: choose_anchor(node, template().parameters, 111))
    assert beyond.reason is SetupReason.ANCHOR_UNKNOWN


async def test_anchor_that_the_node_holds_deep_enough_passes() -> None:
    node = _node()
    assert await check_anchor(node, _genesis(await _anchor(node, 105))) == 6
    assert await check_anchor(node, _genesis(await _anchor(node, 0))) == TIP + 1


async def test_first_block_needs_no_depth() -> None:
    node = _node(0)
    assert await check_anchor(node, _genesis(await _anchor(node, 0))) == 1


async def test_anchor_that_is_not_deep_enough_here_is_refused() -> None:
    node = _node()
    refused = await _refused(lambda: _check(node, 106))
    assert refused.reason is SetupReason.ANCHOR_SHALLOW


async def _check(node: L1Client, height: int) -> None:
    await check_anchor(node, _genesis(await _anchor(node, height)))


async def test_node_that_is_not_as_far_is_told_to_wait() -> None:
    anchor = await _anchor(_node(), 90)
    refused = await _refused(lambda: check_anchor(_node(80), _genesis(anchor)))
    assert refused.reason is SetupReason.ANCHOR_UNKNOWN
    assert "at height 80" in refused.detail


async def test_anchor_that_the_node_contradicts_is_refused_with_both_hashes() -> None:
    node = _node()
    other = Anchor(90, BlockHash(b"\x09" * 32))
    refused = await _refused(lambda: check_anchor(node, _genesis(other)))
    assert refused.reason is SetupReason.ANCHOR_CONTRADICTED
    assert hash_to_hex(other.hash) in refused.detail
    assert hash_to_hex((await _anchor(node, 90)).hash) in refused.detail


async def test_node_of_another_network_is_refused() -> None:
    node = _node(kind=_OtherNetwork)
    for work in (
        lambda: choose_anchor(node, template().parameters),
        lambda: check_anchor(node, _genesis(Anchor(90, BlockHash(b"\x09" * 32)))),
    ):
        assert (await _refused(work)).reason is SetupReason.WRONG_L1
