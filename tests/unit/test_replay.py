"""The chain carried out again for an audit: what a node says must be what its certified blocks lead to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from bridge.bitcoin.identifiers import hash_to_hex
from federation.certificate import VoteKind
from pegnode.audit.replay import NodeBlocks, Replay, replay
from pegnode.folders import CHAIN_FOLDER
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.client import RpcClient
from pegnode.storage.store import ChainStore
from tests.support.final_chains import DataDirectory, certificate, grown_chain


@dataclass
class Node:
    """A node that answers from a sound chain, but for what a test changes."""

    data: DataDirectory
    store: ChainStore
    blocks: dict[int, bytes | None] = field(default_factory=dict)
    certificates: dict[int, bytes | None] = field(default_factory=dict)

    def block(self, height: int) -> bytes | None:
        return self.blocks[height] if height in self.blocks else self.store.block_at(height)

    def certificate(self, height: int) -> bytes | None:
        return self.certificates[height] if height in self.certificates else self.store.certificate_at(height)

    def answer(self, **changes: Any) -> AuditReply:
        """What it says to `audit`, as far as a replay looks at it."""
        tip, totals = self.store.tip, self.store.ledger.totals
        true = {
            "chain_id": self.data.rules.chain_id.hex(),
            "height": tip.header.height,
            "block_hash": hash_to_hex(tip.hash),
            "ledger_root": tip.header.ledger_root.hex(),
            "reserves_sats": totals.reserves_sats,
            "deficit_sats": totals.deficit_sats,
            "supply_sats": totals.supply_sats,
            "unsettled_sats": totals.unsettled_sats,
            "fund_sats": totals.fund_sats,
            "coins": 1,
            "counted_supply_sats": totals.supply_sats,
        }
        named: dict[str, Any] = dict.fromkeys(AuditReply.__struct_fields__, 0)
        return AuditReply(**named | true | changes)

    def replay(self, scratch: Path, **changes: Any) -> Replay:
        """Carry it out, and compare with what it says."""
        scratch.mkdir()
        return replay(self, self.answer(**changes), self.data.rules, scratch, lambda *_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    return grown_chain(tmp_path_factory.mktemp("data"), empty_blocks=3)


@pytest.fixture
def node(data: DataDirectory) -> Iterator[Node]:
    store = ChainStore.look(data.path / CHAIN_FOLDER, data.rules)
    yield Node(data, store)
    store.close()


def test_sound_chain_leads_to_what_the_node_says(node: Node, tmp_path: Path) -> None:
    done = node.replay(tmp_path / "scratch")
    assert done.findings == []
    heights = range(1, node.store.tip.header.height + 1)
    transactions = sum(len(list(node.store.index.transactions_at(height))) for height in heights)
    assert (done.reply.blocks, done.reply.transactions) == (len(heights), transactions)
    assert done.reply.certificates == sum(node.certificate(height) is not None for height in heights)
    assert 0 < done.reply.certificates < len(heights)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reserves_sats", 1),
        ("supply_sats", 1),
        ("unsettled_sats", 0),
        ("fund_sats", 1),
        ("deficit_sats", 1),
        ("coins", 2),
        ("counted_supply_sats", 1),
        ("ledger_root", "00" * 32),
        ("block_hash", "00" * 32),
        ("chain_id", "00" * 32),
    ],
)
def test_answer_that_the_blocks_do_not_lead_to_is_found(node: Node, tmp_path: Path, name: str, value: object) -> None:
    [finding] = node.replay(tmp_path / "scratch", **{name: value}).findings
    assert finding.startswith(f"replay: {name}: the node says {value}, its blocks lead to ")


def test_block_that_breaks_a_rule_is_found(node: Node, tmp_path: Path) -> None:
    sound = node.store.block_at(2)
    assert sound is not None
    for number, data in enumerate((None, b"", sound[:-1], node.store.block_at(3), bytes([sound[0] ^ 1]) + sound[1:])):
        node.blocks[2] = data
        done = node.replay(tmp_path / f"{number}")
        assert [finding.partition(": block 2")[0] for finding in done.findings] == ["replay: check-wrong-block"]
        assert done.reply.blocks < 2


def test_block_without_a_quorum_is_found(node: Node, tmp_path: Path) -> None:
    last = node.store.tip.header.height
    wrong_kind = certificate(node.data.rules, node.data.chain.blocks[last - 1], VoteKind.NOTARIZE).encode()
    for number, data in enumerate((None, b"", wrong_kind, node.store.certificate_at(2))):
        node.certificates[last] = data
        [finding] = node.replay(tmp_path / f"{number}").findings
        assert finding.startswith(f"replay: check-wrong-certificate: the certificate of block {last}")


def test_blocks_are_asked_of_a_running_node() -> None:
    class Client:
        def ask(self, _: object, method: str, *params: object) -> str:
            assert (method, params) in {("getblockhash", (7,)): 1, ("getblock", ("the hash", 0)): 1}
            return "the hash" if method == "getblockhash" else "00ff"

        def call(self, method: str, *params: object) -> str | None:
            assert method == "getblockcertificate"
            return {7: "0102", 8: None, 9: "no hex"}[cast(int, params[0])]

    blocks = NodeBlocks(cast(RpcClient, Client()))
    assert blocks.block(7) == b"\x00\xff"
    assert [blocks.certificate(height) for height in (7, 8, 9)] == [b"\x01\x02", None, b""]
