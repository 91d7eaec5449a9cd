"""L1 reorganises, by blocks of another Bitcoin node: shallow, which nobody notices, and deep, with the way back."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from bridge.bitcoin.amounts import format_btc
from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.l1.jsonrpc import Call, JsonValue
from bridge.l1.regtest import RegtestMiner
from pegnode.bitcoind import RegtestBitcoind, start_regtest
from pegnode.cli.commands import command_line
from pegnode.local_federation import client_of
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.results import AnchorReply, ListedRecordReply, StatusReply
from tests.functional.feature_full_node import FullNode, run_node
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, fresh_address, running_federation
from tests.support.users import User, user_of

RUN = CliRunner()
WALLET = "/wallet/miner"
EVERYBODY = ("alice", "bob", "carol", "dave")
QUORUM = EVERYBODY[:3]
CLAIM_ADDRESS = fresh_address()
"""Of the deposit that is double-spent."""
DEPOSIT_SATS = 2_000_000
HALT_WITHIN_S = 120.0
"""A minute of suspicion, on a busy machine."""


@dataclass
class Branches:
    """A federation on one Bitcoin node, and another node that can mine a branch of its own.

    survived: the depths of the reorganisations so far.  left: the anchor that one of them took.  conflict: in hex, a
    transaction that spends what a deposit spent.
    """

    federation: FederationUnderTest
    user: User
    miner: RegtestBitcoind
    survived: list[int] = field(default_factory=list)
    left: AnchorReply = field(init=False)
    conflict: str = ""

    @property
    def own(self) -> RegtestBitcoind:
        """The federation's node."""
        return self.federation.local.bitcoind

    def tip_height(self, node: RegtestBitcoind) -> int:
        """How far a node has come."""
        height = ask(node, "getblockcount")
        assert isinstance(height, int)
        return height

    def join(self) -> None:
        """Connect the two, and wait until they have one tip."""
        ask(self.miner, "setnetworkactive", True)

        def have_one_tip() -> bool:
            if ask(self.miner, "getconnectioncount") == 0:  # one try may come before the last connection's end
                ask(self.own, "addnode", f"127.0.0.1:{self.miner.p2p_port}", "onetry")
            return ask(self.own, "getbestblockhash") == ask(self.miner, "getbestblockhash")

        eventually(have_one_tip, "the nodes have one tip")

    @contextmanager
    def parted(self) -> Iterator[None]:
        """Part the two; what the federation's node mines meanwhile, a longer branch then takes the place of."""
        fork = self.tip_height(self.own)
        self.part()
        yield
        self.overtake(fork)

    def part(self) -> None:
        """Cut the other node off."""
        ask(self.miner, "setnetworkactive", False)
        eventually(lambda: ask(self.own, "getconnectioncount") == 0, "the nodes are parted")

    def overtake(self, fork: int, *transactions: str) -> None:
        """A branch above this height that is longer by a block takes the place of the federation's node's.

        transactions: in hex, for the branch's first block; its blocks hold nothing else.
        """
        if self.tip_height(self.miner) > fork:
            self.part()
            ask(self.miner, "invalidateblock", ask(self.miner, "getblockhash", fork + 1))
        depth = self.tip_height(self.own) - fork
        self.mine_elsewhere(list(transactions))
        for _ in range(depth):
            self.mine_elsewhere([])
        self.join()
        assert self.tip_height(self.own) == fork + depth + 1
        self.survived.append(depth)

    def mine_elsewhere(self, transactions: list[str]) -> None:
        """One block of the other node."""
        address = self.federation.on_l1(_mining_address)
        ask(self.miner, "generateblock", address, transactions)

    def await_read(self, *names: str) -> None:
        """Wait until these members have read L1's newest block."""
        height = self.tip_height(self.own)
        for name in names:
            eventually(lambda name=name: self.status(name).l1.height == height, f"{name} has read L1")  # type: ignore[misc]

    def status(self, name: str) -> StatusReply:
        """A member's."""
        return self.federation.status(name)

    def pay(self, *names: str) -> None:
        """A transfer that becomes final at these members."""
        eventually(lambda: self.user.pending_sats() == 0, "nothing of the wallet's waits")
        self.federation.await_final(self.user.send(fresh_address(), 10_000), names)

    def await_anchor(self, *names: str) -> None:
        """Transfers until these members' chain refers to the newest L1 block that may be."""
        deepest = self.tip_height(self.own) - CONFIRMATIONS + 1

        def is_there() -> bool:
            self.pay(*names)
            return {self.status(name).anchor.height for name in names} == {deepest}

        eventually(is_there, "the anchor is as high as it can be")

    def await_clean(self, *names: str) -> None:
        """Wait until these members lack nothing, have not halted, and agree."""
        for name in names:
            eventually(
                lambda name=name: (status := self.status(name)).waiting_for == [] and not status.halted,  # type: ignore[misc]
                f"{name} lacks nothing",
            )
        self.federation.agreement(names)

    def await_halted(self, anchor_hash: str, *names: str) -> None:
        """Wait until these members have halted, each for its own reasons, and name the L1 block that was left."""
        for name in names:

            def has_halted(name: str = name) -> bool:
                status = self.status(name)
                return status.halted and any(anchor_hash in item for item in status.halt_findings)

            eventually(has_halted, f"{name} has halted", HALT_WITHIN_S)

    def resume(self, *arguments: str, node: str = "", status: int = 0) -> str:
        """What `peg federation resume` prints."""
        chosen = ["--dir", str(self.federation.local.directory), "--node", node] if node else []
        result = RUN.invoke(command_line(), ["federation", "resume", *arguments, *chosen])
        assert result.exit_code == status, result.output
        return result.output

    def sign_and_submit(self, plan: Path, *names: str) -> None:
        """Each member signs a copy of its own; the copies are combined, shown and handed in."""
        copies = [plan.with_name(f"{name}.json") for name in names]
        for name, copy in zip(names, copies, strict=True):
            copy.write_bytes(plan.read_bytes())
            assert f"signed by {name}: 2 more for a quorum" in self.resume("sign", str(copy), "--yes", node=name)
        genesis = str(self.federation.local.genesis_path)
        whole = plan.with_name("whole.json")
        self.resume("combine", *map(str, copies), "--out", str(whole), "--genesis", genesis)
        assert f"signed by {', '.join(names)}: a quorum is 3" in self.resume("show", str(whole), "--genesis", genesis)
        assert "endorsement-too-few" in self.resume("submit", str(copies[0]), node=names[0], status=1)
        assert "is final" in self.resume("submit", str(whole), node=names[0])
        assert "is final" in self.resume("submit", str(whole), node=names[-1])  # again, and elsewhere

    def show_that_money_moves(self) -> None:
        """A deposit is credited, and a withdrawal paid and settled."""
        self.user.fund(1_000_000)
        burn = self.user.withdraw(self.l1_address(), 500_000)
        self.federation.await_stage(burn, {"broadcast"})
        self.federation.mine(CONFIRMATIONS)
        self.federation.await_stage(burn, {"settled"})

    def l1_address(self) -> str:
        """A new one."""
        address = ask(self.own, "getnewaddress", path=WALLET)
        assert isinstance(address, str)
        return address

    def donate(self, value_sats: int) -> None:
        """A gift that is deep enough to enter."""
        command = ["fund", "donate", format_btc(value_sats), "--dir", str(self.federation.local.directory)]
        result = RUN.invoke(command_line(), command)
        assert result.exit_code == 0, result.output
        self.federation.mine(CONFIRMATIONS)

    def two_payments(self, address: str, value_sats: int) -> tuple[str, str]:
        """Two signed transactions in hex that spend one coin: to this address, and to somebody else."""
        coins = ask(self.own, "listunspent", 1, path=WALLET)
        assert isinstance(coins, list)
        coin = next(item for item in coins if isinstance(item, dict) and to_sats(item["amount"]) > 2 * value_sats)
        spent = [{"txid": coin["txid"], "vout": coin["vout"]}]
        rest_sats = to_sats(coin["amount"]) - value_sats - 10_000

        def signed(target: str) -> str:
            outputs = {target: format_btc(value_sats), self.l1_address(): format_btc(rest_sats)}
            unsigned = ask(self.own, "createrawtransaction", spent, outputs)
            result = ask(self.own, "signrawtransactionwithwallet", unsigned, path=WALLET)
            assert isinstance(result, dict)
            assert isinstance(result["hex"], str)
            return result["hex"]

        return signed(address), signed(self.l1_address())

    def double_spent(self) -> OutPoint:
        """What the deposit and the transaction in its way spend."""
        [spent] = Transaction.parse(bytes.fromhex(self.conflict)).inputs
        return spent.outpoint


async def _mining_address(_: object, miner: RegtestMiner) -> str:
    return miner.mining_address


def ask(node: RegtestBitcoind, method: str, *parameters: object, path: str = "/") -> JsonValue:
    """One call to a Bitcoin node."""

    async def call() -> JsonValue:
        async with node.client() as client:
            return await client.connection.call(Call(method, parameters), path=path)

    return trio.run(call)


def to_sats(amount: Decimal) -> int:
    """Bitcoin in satoshis."""
    return int(amount * 100_000_000)


@contextmanager
def _full_node(federation: FederationUnderTest, l1: RegtestBitcoind) -> Iterator[FullNode]:
    """A full node with a Bitcoin node of its own, ended with the block."""
    path = federation.local.node_config_path
    text = re.sub(r"^url = .*$", f'url = "{l1.url}"', path.read_text(), count=1, flags=re.MULTILINE)
    path.write_text(
        re.sub(r"^cookie_file = .*$", f'cookie_file = "{l1.cookie_path}"', text, count=1, flags=re.MULTILINE)
    )
    node = run_node(federation)
    try:
        yield node
    finally:
        node.process.kill()
        node.process.wait()


@contextmanager
def _ended(node: RegtestBitcoind) -> Iterator[RegtestBitcoind]:
    try:
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branches]:
    directory = tmp_path_factory.mktemp("reorg")
    with (
        _ended(start_regtest(directory / "miner", listen=True)) as miner,
        running_federation(directory / "federation", parameters={"batch_min_payouts": 1}) as federation,
        user_of(federation, "alice") as user,
    ):
        found = Branches(federation, user, miner)
        found.join()
        user.fund(40_000_000, deposits=4)
        yield found


def test_shallow_reorganisation_delays_and_halts_nobody(branches: Branches) -> None:
    federation = branches.federation
    branches.await_anchor(*EVERYBODY)
    claim_address = fresh_address()
    deposit_address = federation.deposit_address(claim_address)
    burn = branches.user.withdraw(branches.l1_address(), 3_000_000)
    federation.await_stage(burn, {"broadcast"})
    anchor = branches.status("alice").anchor
    with branches.parted():
        federation.pay({deposit_address: DEPOSIT_SATS})
        federation.mine(CONFIRMATIONS - 1)
        federation.await_stage(burn, {"confirmed"})
        branches.await_read(*EVERYBODY)
    branches.await_read(*EVERYBODY)
    [deposit] = federation.deposits([claim_address])
    assert (deposit.status, deposit.confirmations) == ("unconfirmed", 0)
    withdrawal = federation.withdrawal(burn)
    assert withdrawal is not None
    assert withdrawal.stage == "broadcast"
    federation.mine(CONFIRMATIONS)
    federation.await_claimed([claim_address], 1)
    federation.await_stage(burn, {"settled"})
    assert branches.status("alice").anchor.height > anchor.height
    branches.await_clean(*EVERYBODY)


def test_reorganisation_as_deep_as_the_anchor_halts_every_member(branches: Branches, tmp_path: Path) -> None:
    federation = branches.federation
    payment, branches.conflict = branches.two_payments(federation.deposit_address(CLAIM_ADDRESS), DEPOSIT_SATS)
    with branches.parted():
        ask(branches.own, "sendrawtransaction", payment)
        federation.mine(CONFIRMATIONS)
        federation.await_claimed([CLAIM_ADDRESS], 1)
        branches.await_anchor(*EVERYBODY)
        branches.left = branches.status("alice").anchor
        federation.local.stop_member("dave")
    branches.await_halted(branches.left.hash, *QUORUM)
    branches.pay(*QUORUM)
    plan = tmp_path / "plan.json"
    assert "its transaction waits in the mempool" in branches.resume("--plan", str(plan), node="bob", status=1)
    assert not plan.exists()


def test_quorum_resumes_after_a_deeper_one_with_a_deficit_that_donations_repay(
    branches: Branches, tmp_path: Path
) -> None:
    federation, left = branches.federation, branches.left
    before = federation.peg()
    branches.overtake(left.height - 1, branches.conflict)
    branches.await_read(*QUORUM)
    plan = tmp_path / "plan.json"
    text = branches.resume("--plan", str(plan), node="alice")
    for words in (
        f"{DEPOSIT_SATS:,} sats of the reserve are lost, 1 coin",
        f"spent what it came from ({branches.double_spent()}), {CONFIRMATIONS + 2} deep",
        f"deficit: 0 sats, then {DEPOSIT_SATS:,} sats",
        f"from L1 block {left.height} {left.hash}",
        f"abandoned: L1 block {left.height} {left.hash}, 2 transactions",
    ):
        assert words in text
    same = tmp_path / "same.json"
    branches.resume("--plan", str(same), "--with", str(plan), node="bob")
    assert same.read_bytes() == plan.read_bytes(), "who finds the same draws up the same"
    branches.sign_and_submit(plan, *QUORUM)
    branches.await_clean(*QUORUM)
    after = federation.peg()
    assert after.reserves_sats == before.reserves_sats - DEPOSIT_SATS
    assert (after.deficit_sats, after.supply_sats) == (DEPOSIT_SATS, before.supply_sats)
    assert branches.status("alice").anchor.height > left.height
    audit = RUN.invoke(command_line(), ["audit", "--dir", str(federation.local.directory), "--node", "bob"])
    assert audit.exit_code == 0, audit.output
    assert ["+", "deficit", f"{DEPOSIT_SATS:,}"] in [line.split()[:3] for line in audit.output.splitlines()]
    assert "no findings: every satoshi is explained" in audit.output
    branches.donate(500_000)
    eventually(lambda: federation.peg().deficit_sats == DEPOSIT_SATS - 500_000, "the donation repays a part")
    branches.show_that_money_moves()


def test_member_that_was_off_comes_back_unhalted(branches: Branches) -> None:
    federation = branches.federation
    federation.local.start_member("dave")
    federation.local.wait_until_answering("dave")
    height = federation.height()
    eventually(lambda: federation.height("dave") >= height, "dave has caught up")
    branches.await_clean(*EVERYBODY)
    branches.pay(*EVERYBODY)
    assert "halted" not in federation.local.log_path("dave").read_text().rpartition("event=started")[2]


def test_node_that_only_ever_saw_the_other_branch_syncs_from_the_beginning(branches: Branches, tmp_path: Path) -> None:
    federation = branches.federation
    with _ended(start_regtest(tmp_path / "fresh")) as fresh:
        ask(fresh, "addnode", f"127.0.0.1:{branches.miner.p2p_port}", "onetry")
        eventually(lambda: ask(fresh, "getbestblockhash") == ask(branches.own, "getbestblockhash"), "it has L1")
        with _full_node(federation, fresh) as node:
            height = federation.height()
            eventually(lambda: node.height() >= height, "the node has caught up")
            with client_of(node.config) as client:
                audit = client.ask(AuditReply, "audit")
                assert (audit.findings, audit.warnings) == ([], [])
                assert audit.block_hash == federation.block_hash(audit.height, "alice")
                records = client.ask(list[ListedRecordReply], "listrecords")
            assert [(record.serial, record.final) for record in records] == [(1, True), (2, True)]
            assert branches.survived == [CONFIRMATIONS - 1, CONFIRMATIONS, CONFIRMATIONS + 1]
