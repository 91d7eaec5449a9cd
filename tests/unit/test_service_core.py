"""What a node's core keeps over a restart."""

from pathlib import Path

from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain
from tests.support.lone_node import lone_core


def test_halt_and_its_findings_survive_a_restart(tmp_path: Path) -> None:
    chain = MemoryChain()
    store = ChainStore.open(tmp_path / "chain", chain.rules)
    core = lone_core(chain, store)
    assert not core.halted
    core.halt("a coin is gone")
    core.halt("the anchor is gone")
    store.close()
    store = ChainStore.open(tmp_path / "chain", chain.rules)
    core = lone_core(chain, store)
    assert core.halted
    assert core.halt_findings == ["a coin is gone", "the anchor is gone"]
    core.halt("a coin is gone")
    assert store.halt_findings() == core.halt_findings == ["a coin is gone", "the anchor is gone"]
    store.close()
