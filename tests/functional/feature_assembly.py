"""Members that share nothing but public files: each makes its keys, assembles, and has a Bitcoin node of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import Script
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import RegtestBitcoind, start_regtest
from pegnode.folders import NODE_NAME, PASSPHRASE_FILE
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation
from pegnode.ports import free_ports
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, fresh_address
from tests.support.users import user_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("alice", "bob", "carol")
COMMAND_DEADLINE_S = 120.0
BATCH_WAIT = 3
"""Anchors until a lone withdrawal is paid, as in configs/local.toml."""
L1_ADDRESS = encode_address(Script(b"\x00\x14" + bytes(19) + b"\x02"), l1_network("regtest"))


@dataclass(frozen=True)
class Machine:
    """One member's machine: its folder, its Bitcoin node, and what others sent to it, in `mail`."""

    name: str
    folder: Path
    bitcoind: RegtestBitcoind
    mail: Path
    p2p_port: int
    rpc_port: int

    @property
    def genesis(self) -> Path:
        """What it agreed to."""
        return self.folder / "genesis.json"

    @property
    def passphrase_file(self) -> Path:
        """Beside the folder, so that the keys' backups don't hold it."""
        return self.folder.parent / PASSPHRASE_FILE

    @property
    def l1_options(self) -> tuple[str, ...]:
        """Its own Bitcoin node."""
        return ("--l1-url", self.bitcoind.url, "--l1-cookie", str(self.bitcoind.cookie_path))

    def peg(self, *arguments: str, status: int = 0) -> str:
        """What a command prints; on standard error if it must fail."""
        done = subprocess.run(
            [sys.executable, "-m", "pegnode.cli.main", "federation", *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "300"},
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr or done.stdout if status else done.stdout

    def init(self) -> str:
        """Make keys and card."""
        address = f"/ip4/127.0.0.1/tcp/{self.p2p_port}"
        where = (str(self.folder), "--name", self.name, "--address", address)
        return self.peg("init", *where, "--passphrase-file", str(self.passphrase_file))

    def assemble(self, *options: str, status: int = 0, template: str = "template.toml") -> str:
        """Assemble from what came by mail."""
        cards = sorted(str(path) for path in self.mail.glob("*.json"))
        options += ("--template", str(self.mail / template), "--dir", str(self.folder), *self.l1_options)
        own = ("--rpc", f"127.0.0.1:{self.rpc_port}", "--passphrase-file", str(self.passphrase_file))
        return self.peg("assemble", *cards, *options, *own, status=status)


@dataclass(frozen=True)
class Consortium:
    """The machines, and where the first one's `peg up` directory would be. said: what each assembly printed."""

    directory: Path
    machines: tuple[Machine, ...]
    said: tuple[str, ...]

    @property
    def federation(self) -> FederationUnderTest:
        """All of them, as one would look at a local federation."""
        return FederationUnderTest(LocalFederation.open(self.directory))


def start_bitcoinds(directory: Path) -> tuple[RegtestBitcoind, ...]:
    """One for each member, all connected to the first, which mined some blocks."""
    first = start_regtest(directory / "bitcoind", listen=True)
    settings = {"connect": f"127.0.0.1:{first.p2p_port}"}
    others = [start_regtest(directory / f"bitcoind-{name}", settings=settings) for name in NAMES[1:]]
    return (first, *others)


async def tip_height(node: RegtestBitcoind) -> int:
    async with node.client() as client:
        return (await client.tip())[0]


async def mine_first_blocks(node: RegtestBitcoind) -> None:
    async with node.client() as client:
        await (await RegtestMiner.create(client)).generate(101)


def exchange(source: Path, machines: tuple[Machine, ...], name: str) -> None:
    """Send a public file to everybody."""
    for machine in machines:
        shutil.copy(source, machine.mail / name)


def set_up(directory: Path, bitcoinds: tuple[RegtestBitcoind, ...]) -> Consortium:
    """The steps of docs/operating.md."""
    ports = free_ports(2 * len(NAMES))
    machines = tuple(
        Machine(name, directory / "federation" / name, node, directory / f"mail-{name}", *ports[2 * index :][:2])
        for index, (name, node) in enumerate(zip(NAMES, bitcoinds, strict=True))
    )
    (directory / "federation").mkdir(mode=0o700)
    machines[0].passphrase_file.touch(mode=0o600)
    machines[0].passphrase_file.write_text("six words that nobody else knows\n")
    for machine in machines:
        machine.mail.mkdir()
        assert "fingerprint" in machine.init()
    for machine in machines:
        exchange(machine.folder / "card.json", machines, f"{machine.name}.json")
    parameters = directory / "parameters.toml"
    local = (CONFIGS / "local.toml").read_text()
    parameters.write_text(local.replace("member_count = 4", f"member_count = {len(NAMES)}"))
    template = directory / "template.toml"
    recovery = [option for key in RECOVERY_KEYS for option in ("--recovery", key)]
    machines[0].peg("template", str(parameters), "--out", str(template), *recovery, *machines[0].l1_options)
    exchange(template, machines, "template.toml")
    expected = machines[0].assemble("--dry-run").split()[2]
    said = tuple(machine.assemble("--expect", expected) for machine in machines)
    shutil.copytree(machines[0].folder / NODE_NAME, directory / "federation" / NODE_NAME)
    return Consortium(directory, machines, said)


RECOVERY_KEYS = (
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
    "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
)
"""G, 2G and 3G: everybody's keys."""


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    directory = tmp_path_factory.mktemp("consortium")
    bitcoinds: tuple[RegtestBitcoind, ...] = ()
    try:
        bitcoinds = start_bitcoinds(directory)
        trio.run(mine_first_blocks, bitcoinds[0])
        for node in bitcoinds:
            eventually(lambda node=node: trio.run(tip_height, node) == 101, "L1 is the same everywhere")  # type: ignore[misc]
        yield set_up(directory, bitcoinds)
    finally:
        if (directory / "federation" / "alice" / "functionary.toml").exists():
            LocalFederation.open(directory).down()
        for datadir in directory.glob("bitcoind*"):
            RegtestBitcoind.attach(datadir).stop()


def test_members_assemble_the_same_chain_byte_for_byte(consortium: Consortium) -> None:
    documents = {machine.genesis.read_bytes() for machine in consortium.machines}
    assert len(documents) == 1
    chain_id = Genesis.decode(documents.pop()).chain_id.hex()
    for machine, said in zip(consortium.machines, consortium.said, strict=True):
        assert said.startswith(f"chain id     {chain_id}\n")
        assert "14 confirmations on your node" not in said  # of the anchor at 89, on a chain of 101
        assert "13 confirmations on your node" in said
        assert f"peg functionary run --config {machine.folder / 'functionary.toml'}" in said


def test_nobody_was_sent_a_secret(consortium: Consortium) -> None:
    for machine in consortium.machines:
        assert sorted(path.name for path in machine.mail.iterdir()) == [
            *(f"{name}.json" for name in NAMES),
            "template.toml",
        ]
        for path in machine.mail.glob("*.json"):
            assert set(json.loads(path.read_text())) == {
                "format", "version", "name", "vote_key_hex", "custody_key_hex", "peer_id", "address",
                "vote_signature_hex", "custody_signature_hex", "transport_signature_hex",
            }  # fmt: skip


def test_member_with_another_template_is_told_every_difference(consortium: Consortium) -> None:
    bob = consortium.machines[1]
    text = (bob.mail / "template.toml").read_text()
    (bob.mail / "other.toml").write_text(text.replace("confirmations = 6", "confirmations = 7", 1))
    genesis = consortium.machines[0].genesis
    refused = bob.assemble("--dry-run", "--expect", str(genesis), status=1, template="other.toml")
    assert "setup-unexpected" in refused
    assert refused.count("peg.confirmations is 6 there and 7 here") == 1
    refused = bob.assemble(status=1, template="other.toml")
    assert "setup-exists" in refused
    other = json.loads(genesis.read_text())
    other["peg"]["confirmations"] = 7
    (bob.mail / "genesis").write_text(json.dumps(other))
    shown = bob.peg("compare", str(genesis), str(bob.mail / "genesis"), status=1)
    assert [line.split()[0] for line in shown.splitlines()] == ["field", "peg.confirmations", "chain"]
    (bob.mail / "other.toml").unlink()
    (bob.mail / "genesis").unlink()


def test_anchor_that_ones_own_bitcoin_node_contradicts_is_refused(consortium: Consortium) -> None:
    carol = consortium.machines[2]
    text = (carol.mail / "template.toml").read_text()
    height = Genesis.load(carol.genesis).l1.anchor_height
    (carol.mail / "other.toml").write_text(text.replace(f"anchor_height = {height}", f"anchor_height = {height - 1}"))
    assert "setup-anchor-contradicted" in carol.assemble("--dry-run", status=1, template="other.toml")
    unchecked = carol.assemble("--dry-run", "--without-l1-check", template="other.toml")
    assert "not checked on a Bitcoin node" in unchecked
    (carol.mail / "other.toml").unlink()


def test_value_goes_in_and_around_and_comes_home(consortium: Consortium) -> None:
    federation = consortium.federation
    federation.local.up()
    eventually(
        lambda: all(sum(peer.connected for peer in federation.status(name).members) == 3 for name in NAMES),
        "everybody found everybody at the addresses of the cards",
    )
    with user_of(federation, "alice") as alice, user_of(federation, "carol") as carol:
        alice.fund(10_000_000)
        txid_hex = alice.send(fresh_address(), 1_000_000)
        federation.await_final(txid_hex, NAMES)
        carol.fund(5_000_000)
        burn = carol.withdraw(L1_ADDRESS, 2_000_000)
        federation.await_stage(burn, {"waiting"})
        federation.mine(BATCH_WAIT)
        federation.await_stage(burn, {"broadcast"}, "alice")  # to her own Bitcoin node, which mines
        federation.mine(CONFIRMATIONS)
        federation.await_stage(burn, {"settled"}, "carol")
    federation.agreement(NAMES)
