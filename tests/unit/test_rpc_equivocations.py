"""`listequivocations`: what a node knows of members who signed twice, as anybody can check it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pegnode.guilt.document import Accusation, AccusationDocument, parse_accusation
from tests.support.equivocations import CONFLICTS, equivocation
from tests.support.rpc_node import FakeNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    yield fake
    fake.close()


async def test_listequivocations_gives_what_proves_itself_by_member_and_view(node: FakeNode) -> None:
    assert (await node.ask("listequivocations")).result == []
    known = [equivocation(node.rules, 1, 9, CONFLICTS[0]), equivocation(node.rules, 1, 12, CONFLICTS[1])]
    for item in reversed(known):
        node.store.keep_equivocation(item)
    documents = msgspec.convert((await node.ask("listequivocations")).result, list[AccusationDocument])
    assert [document.accusation().equivocation for document in documents] == known
    for document in documents:
        accusation = parse_accusation(msgspec.json.encode(document))
        assert accusation == Accusation.of(accusation.equivocation, node.rules)
        accusation.verify()
        accusation.require_member(node.rules)
