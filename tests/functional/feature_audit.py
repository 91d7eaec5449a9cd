"""An outsider's audit on real processes: clean, with payments that have not entered, and with a coin that is gone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from bridge.l1.client import L1Client
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import RegtestMiner
from pegnode.cli.commands import command_line
from pegnode.cli.statements import VerifiedReply
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.results import FederationReply
from tests.support.federation import (
    CONFIRMATIONS,
    FederationUnderTest,
    eventually,
    fresh_address,
    running_federation,
)

DEPOSIT_SATS = 3_000_000
DONATION_SATS = 50_000
RUN = CliRunner()


@dataclass(frozen=True)
class Outsider:
    """Somebody with the commands, a genesis, and a folder of their own."""

    federation: FederationUnderTest
    folder: Path

    def run(self, *arguments: str) -> Result:
        """`peg audit`, on the federation."""
        return RUN.invoke(command_line(), ["audit", *arguments])

    def audit(self, *arguments: str, node: str = "bob", status: int = 0) -> AuditReply:
        """The machine form of an audit."""
        result = self.run("--dir", str(self.federation.local.directory), "--node", node, "--json", *arguments)
        assert result.exit_code == status, result.output
        return msgspec.json.decode(result.stdout, type=AuditReply)

    def sign(self, file: Path, node: str, status: int = 0) -> str:
        """Have a member sign."""
        result = self.run("sign", str(file), "--dir", str(self.federation.local.directory), "--node", node)
        assert result.exit_code == status, result.output
        return result.output

    def change_address(self) -> str:
        """Where the reserve's change goes."""
        with self.federation.client() as client:
            return client.ask(FederationReply, "getfederationinfo").change.address


@pytest.fixture(scope="module")
def outsider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outsider]:
    with running_federation(tmp_path_factory.mktemp("audit") / "federation") as federation:
        claim_address = fresh_address()
        federation.pay({federation.deposit_address(claim_address): DEPOSIT_SATS})
        federation.mine(CONFIRMATIONS)
        for name in federation.local.member_names:
            federation.await_claimed([claim_address], 1, name)
        yield Outsider(federation, tmp_path_factory.mktemp("outsider"))


def test_clean_audit_explains_every_satoshi(outsider: Outsider) -> None:
    audit = outsider.audit("--replay")
    assert (audit.ok, audit.scanned, audit.findings, audit.warnings) == (True, True, [], [])
    assert audit.l1_held_sats == audit.reserves_sats == audit.counted_reserves_sats == DEPOSIT_SATS
    assert [(row.status, row.cause, row.value_sats, row.kind) for row in audit.rows] == [
        ("reserve", "held", DEPOSIT_SATS, "deposit")
    ]
    assert audit.replay is not None
    assert (audit.replay.blocks, audit.replay.transactions) == (audit.height, 1)
    assert audit.replay.certificates > 0
    quick = outsider.audit("--no-scan", node="alice")
    assert (quick.ok, quick.scanned, quick.l1_held_sats) == (True, False, DEPOSIT_SATS)
    text = outsider.run("--dir", str(outsider.federation.local.directory), "--replay").output
    assert "3,000,000" in text
    assert "the equality holds" in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.endswith("no findings: every satoshi is explained\n")


def test_quorum_signs_what_each_member_finds(outsider: Outsider) -> None:
    file = outsider.folder / "statement.json"
    assert "signed by alice: 2 more for a quorum" in outsider.sign(file, "alice")
    assert "signed by alice, carol: 1 more for a quorum" in outsider.sign(file, "carol")
    assert "signed by alice, bob, carol: a quorum is 3" in outsider.sign(file, "bob")
    genesis = str(outsider.federation.local.genesis_path)
    result = outsider.run("verify", str(file), "--genesis", genesis, "--max-age", "1", "--json")
    assert result.exit_code == 0, result.output
    reply = msgspec.json.decode(result.stdout, type=VerifiedReply)
    assert (reply.signers, reply.statement.reserves_sats) == (["alice", "bob", "carol"], DEPOSIT_SATS)
    file.write_bytes(file.read_bytes().replace(b'"reserves_sats": 3', b'"reserves_sats": 4'))
    assert "endorsement-bad-signature" in outsider.run("verify", str(file), "--genesis", genesis).output
    assert "endorsement-bad-signature" in outsider.sign(file, "dave", status=1)


def test_foreign_payment_to_a_change_script_is_unclaimed_until_it_enters(outsider: Outsider) -> None:
    federation = outsider.federation
    federation.pay({outsider.change_address(): DONATION_SATS})
    federation.mine(1)
    audit = outsider.audit()
    assert (audit.ok, audit.unclaimed_sats, audit.l1_held_sats) == (True, DONATION_SATS, DEPOSIT_SATS)
    assert [(row.status, row.cause, row.kind) for row in audit.rows] == [
        ("unclaimed", "too-young", "change"),
        ("reserve", "held", "deposit"),
    ]
    federation.mine(CONFIRMATIONS - 1)
    eventually(lambda: federation.peg("bob").reserves_sats == DEPOSIT_SATS + DONATION_SATS, "bob has the donation")
    audit = outsider.audit()
    assert (audit.ok, audit.unclaimed_sats, audit.l1_held_sats) == (True, 0, DEPOSIT_SATS + DONATION_SATS)


def test_coin_that_a_deep_reorganisation_takes_away_is_missing(outsider: Outsider) -> None:
    federation = outsider.federation
    before = outsider.audit("--no-scan")
    [deposit] = [row for row in before.rows if row.kind == "deposit"]

    async def undo(client: L1Client, miner: RegtestMiner) -> None:
        """Take back the deposit's block, and mine as many, without the transactions that it held."""
        height, _ = await client.tip()
        block_hash = await client.block_hash(deposit.l1_height)
        assert block_hash is not None
        await miner.invalidate_block(block_hash)
        for _ in range(height - deposit.l1_height + 2):
            await client.connection.call(Call("generateblock", (miner.mining_address, [])))

    federation.on_l1(undo)
    tip_height = federation.on_l1(lambda client, _: client.tip())[0]
    eventually(lambda: federation.status("bob").l1.height == tip_height, "bob has read the other blocks")
    audit = outsider.audit(status=1)
    assert not audit.ok
    missing = {row.outpoint: row.value_sats for row in audit.rows if row.status == "missing"}
    assert missing[deposit.outpoint] == DEPOSIT_SATS
    assert f"missing: {DEPOSIT_SATS} sats at {deposit.outpoint}: gone" in audit.findings
    assert any("does not hold the anchor" in finding for finding in audit.findings)
