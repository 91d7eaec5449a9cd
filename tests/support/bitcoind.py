"""A real Bitcoin node for a test: fresh, funded, and ended when the test ends, however that is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from bridge.l1.client import L1Client
from bridge.l1.regtest import COINBASE_MATURITY, RegtestMiner
from pegnode.bitcoind import BitcoindProgram, RegtestBitcoind, find_bitcoind, start_regtest


@dataclass
class Regtest:
    """A running regtest node with its client, and a wallet that owns one mature coinbase of 50 bitcoin."""

    node: RegtestBitcoind
    client: L1Client
    miner: RegtestMiner

    @property
    def url(self) -> str:
        return self.node.url

    @property
    def cookie_path(self) -> Path:
        return self.node.cookie_path

    async def restart(self) -> None:
        """Stop the node and start it again: a new cookie, the same ports and chain, an empty mempool."""
        await trio.to_thread.run_sync(self.node.stop)
        (self.node.datadir / "regtest" / "mempool.dat").unlink(missing_ok=True)
        self.node = await trio.to_thread.run_sync(lambda: start_regtest(self.node.datadir))


@pytest.fixture(scope="session")
def bitcoind_binary() -> BitcoindProgram:
    """The bitcoind under test; without one, tests that need it fail and say how to get it."""
    return find_bitcoind()


@pytest.fixture
async def fresh_regtest(bitcoind_binary: BitcoindProgram, tmp_path: Path) -> AsyncIterator[Regtest]:
    """A fresh node of 101 blocks."""
    node = await trio.to_thread.run_sync(lambda: start_regtest(tmp_path / "bitcoind", bitcoind_binary))
    try:
        await _mine_first_blocks(node)
        async with node.client() as client:
            yield Regtest(node, client, await RegtestMiner.open(client))
    finally:
        with trio.CancelScope(shield=True):
            # By its directory, not by `node`: the test may have started it again.
            await trio.to_thread.run_sync(RegtestBitcoind.attach(node.datadir).stop)


@pytest.fixture
def regtest(fresh_regtest: Regtest) -> Regtest:
    """The node of a test: a fresh one, unless its module says otherwise."""
    return fresh_regtest


@pytest.fixture(scope="module")
def bitcoind_of_module(
    bitcoind_binary: BitcoindProgram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegtestBitcoind]:
    """One node for all tests of a module."""
    with start_regtest(tmp_path_factory.mktemp("bitcoind") / "node", bitcoind_binary) as node:
        trio.run(_mine_first_blocks, node)
        yield node


@pytest.fixture
async def shared_regtest(bitcoind_of_module: RegtestBitcoind) -> AsyncIterator[Regtest]:
    """The module's node, with whatever earlier tests left in its chain, and nothing in its mempool."""
    async with bitcoind_of_module.client() as client:
        miner = await RegtestMiner.open(client)
        await miner.generate(1)
        yield Regtest(bitcoind_of_module, client, miner)


async def _mine_first_blocks(node: RegtestBitcoind) -> None:
    async with node.client() as client:
        await (await RegtestMiner.create(client)).generate(COINBASE_MATURITY + 1)
