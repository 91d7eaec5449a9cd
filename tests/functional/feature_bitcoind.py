"""Starting, finding again and ending a real bitcoind on a private chain."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
import trio

from bridge.l1.regtest import RegtestMiner
from pegnode import bitcoind
from pegnode.bitcoind import BitcoindError, BitcoindProgram, BitcoindReason, RegtestBitcoind, start_regtest
from pegnode.ports import free_ports


async def _mine(node: RegtestBitcoind, blocks: int) -> tuple[int, bytes]:
    async with node.client() as client:
        miner = await RegtestMiner.create(client)
        await miner.generate(blocks)
        return await client.tip()


async def _reaches(node: RegtestBitcoind, tip: tuple[int, bytes]) -> None:
    with trio.fail_after(30):
        while await _tip(node) != tip:
            await trio.sleep(0.1)


async def _tip(node: RegtestBitcoind) -> tuple[int, bytes]:
    async with node.client() as client:
        return await client.tip()


def test_detached_node_is_found_and_ended_through_its_directory(
    tmp_path: Path, bitcoind_binary: BitcoindProgram
) -> None:
    datadir = tmp_path / "node"
    with start_regtest(datadir, bitcoind_binary, detached=True) as node:
        attached = RegtestBitcoind.attach(datadir)
        pid = attached.pid
        assert pid is not None
        assert (pid, attached.url) == (node.pid, node.url)
        attached.stop()
        assert node.pid is None
        assert not node.cookie_path.exists()
        attached.stop()


def test_restarted_node_keeps_its_chain_and_ports(tmp_path: Path, bitcoind_binary: BitcoindProgram) -> None:
    with start_regtest(tmp_path / "node", bitcoind_binary, listen=True) as node:
        tip = trio.run(_mine, node, 3)
        ports = (node.rpc_port, node.p2p_port)
    assert tip[0] == 3
    with start_regtest(tmp_path / "node", bitcoind_binary, listen=True) as again:
        assert (again.rpc_port, again.p2p_port) == ports
        assert trio.run(_tip, again) == tip


def test_second_start_in_one_directory_is_refused(tmp_path: Path, bitcoind_binary: BitcoindProgram) -> None:
    with start_regtest(tmp_path / "node", bitcoind_binary) as node:
        with pytest.raises(BitcoindError) as caught:
            start_regtest(tmp_path / "node", bitcoind_binary)
        assert caught.value.reason == BitcoindReason.ALREADY_RUNNING
        assert node.pid is not None


def test_setting_that_bitcoind_refuses_fails_the_start_in_its_own_words(
    tmp_path: Path, bitcoind_binary: BitcoindProgram
) -> None:
    with pytest.raises(BitcoindError, match="Prune mode is incompatible") as caught:
        start_regtest(tmp_path / "node", bitcoind_binary, settings={"prune": "550"})
    assert caught.value.reason == BitcoindReason.START_FAILED
    with start_regtest(tmp_path / "node", bitcoind_binary) as node:  # the refused setting wasn't kept
        assert node.pid is not None


@pytest.mark.parametrize("taken_port", [0, 1], ids=["rpc", "p2p"])
def test_port_that_was_taken_meanwhile_is_replaced(
    tmp_path: Path, bitcoind_binary: BitcoindProgram, monkeypatch: pytest.MonkeyPatch, taken_port: int
) -> None:
    asked: list[list[int]] = []
    with socket.create_server(("127.0.0.1", 0)) as other:

        def first_a_taken_one(count: int) -> tuple[int, ...]:
            asked.append(list(free_ports(count)))
            if len(asked) == 1:
                asked[0][taken_port] = other.getsockname()[1]
            return tuple(asked[-1])

        monkeypatch.setattr(bitcoind, "free_ports", first_a_taken_one)
        with start_regtest(tmp_path / "node", bitcoind_binary, listen=True) as node:
            assert [node.rpc_port, node.p2p_port] == asked[1]


def test_directory_of_a_node_is_private_to_its_user(tmp_path: Path, bitcoind_binary: BitcoindProgram) -> None:
    with start_regtest(tmp_path / "node", bitcoind_binary) as node:
        assert stat.S_IMODE(node.datadir.stat().st_mode) == 0o700
        assert stat.S_IMODE(node.cookie_path.stat().st_mode) == 0o600


def test_nodes_that_listen_become_peers(tmp_path: Path, bitcoind_binary: BitcoindProgram) -> None:
    with start_regtest(tmp_path / "one", bitcoind_binary, listen=True) as one:
        peer = {"connect": f"127.0.0.1:{one.p2p_port}"}
        with start_regtest(tmp_path / "two", bitcoind_binary, settings=peer) as two:
            assert two.p2p_port is None
            trio.run(_reaches, two, trio.run(_mine, one, 2))
