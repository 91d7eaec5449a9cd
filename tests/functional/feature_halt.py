"""A thief with a quorum's keys spends the reserve on a real Bitcoin node: members halt, say why, find the way out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network
from bridge.bitcoin.identifiers import hash_to_hex, outpoint_from_text
from bridge.custody import CoinKind
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from bridge.state import Coin
from federation.keystore import read_member_secrets
from pegnode.cli.commands import command_line
from pegnode.cli.halt_note import HALT_NOTE
from pegnode.genesis import Genesis
from pegnode.passphrase import read_passphrase_file
from pegnode.rpc.results import CoinReply
from tests.support.federation import (
    CONFIRMATIONS,
    SIDECHAIN,
    FederationUnderTest,
    eventually,
    fresh_address,
    running_federation,
)
from tests.support.peg import p2tr
from tests.support.thieves import stolen
from tests.support.users import user_of

RUN = CliRunner()
EVERYBODY = ("alice", "bob", "carol", "dave")
DEPOSIT_SATS = 20_000_000
HALTED_WITHIN_S = 120.0
"""A minute of suspicion, on a busy machine."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationUnderTest]:
    directory = tmp_path_factory.mktemp("halt") / "federation"
    with running_federation(directory, parameters={"batch_min_payouts": 1}) as running:
        yield running


def the_coin(federation: FederationUnderTest) -> Coin:
    """The reserve's only coin."""
    with federation.client() as client:
        [coin] = client.ask(list[CoinReply], "listreservecoins")
    assert coin.claim_address is not None
    claim_script = decode_address(coin.claim_address, SIDECHAIN)
    return Coin(
        outpoint_from_text(coin.outpoint), coin.value_sats, CoinKind.DEPOSIT, coin.epoch, claim_script, coin.l1_height
    )


def steal(federation: FederationUnderTest, coin: Coin) -> str:
    """Spend the coin with three members' keys; the transaction waits in the mempool."""
    local = federation.local
    passphrase = read_passphrase_file(local.passphrase_path)
    keys = {}
    for index, name in enumerate(EVERYBODY[1:], 1):
        keys_dir = local.member_config(name).keys_dir
        assert keys_dir is not None
        keys[index] = read_member_secrets(keys_dir, passphrase).custody
    theft = stolen([coin], Genesis.load(local.genesis_path).rules().custody, keys, p2tr("thief"))

    async def send(client: L1Client, _: RegtestMiner) -> bytes:
        return await client.send_raw_transaction(theft.serialize())

    return hash_to_hex(federation.on_l1(send))


def peg(federation: FederationUnderTest, *arguments: str, status: int = 0) -> str:
    """What a command prints."""
    result = RUN.invoke(command_line(), [*arguments])
    assert result.exit_code == status, result.output
    return result.output


def test_theft_halts_everybody_until_a_quorum_has_booked_it(federation: FederationUnderTest, tmp_path: Path) -> None:
    directory = ["--dir", str(federation.local.directory)]
    with user_of(federation, "alice") as alice:
        alice.fund(DEPOSIT_SATS)
        coin = the_coin(federation)
        thief = steal(federation, coin)
        words = f"the reserve coin {coin.outpoint} of 0.20000000 BTC is being spent on L1 by {thief}"
        for name in EVERYBODY:
            eventually(lambda name=name: words in str(federation.status(name).waiting_for), f"{name} suspects")  # type: ignore[misc]
        federation.mine(1)
        federation.await_final(alice.send(fresh_address(), 10_000), EVERYBODY)
        burn = alice.withdraw(encode_address(p2tr("payee"), l1_network("regtest")), 1_000_000)
        federation.mine(CONFIRMATIONS)
        for name in EVERYBODY:
            eventually(lambda name=name: federation.status(name).halted, f"{name} has halted", HALTED_WITHIN_S)  # type: ignore[misc]

        said = f"the reserve coin {coin.outpoint} of 0.20000000 BTC was spent on L1 by {thief}"
        shown = peg(federation, "status", *directory)
        for line in (
            "alice, bob, carol and dave HALTED",
            said,
            "coin-gone, found by alice, bob, carol and dave",
            "what to do",
        ):
            assert line in shown
        assert shown.count(said) == 1
        assert said in peg(federation, "doctor", "--config", str(federation.local.member_config_path("bob")), status=1)
        assert HALT_NOTE in peg(federation, "withdraw", "list", *directory)
        withdrawal = federation.withdrawal(burn)
        assert withdrawal is not None
        assert (withdrawal.stage, withdrawal.payouts) == ("waiting", [])

        resume, plan, whole = ("federation", "resume"), tmp_path / "plan.json", tmp_path / "whole.json"
        assert f"{DEPOSIT_SATS:,} sats" in peg(federation, *resume, "--plan", str(plan), *directory, "--node", "bob")
        copies = [tmp_path / f"{name}.json" for name in EVERYBODY[:3]]
        for name, copy in zip(EVERYBODY, copies, strict=False):
            copy.write_bytes(plan.read_bytes())
            peg(federation, *resume, "sign", str(copy), "--yes", *directory, "--node", name)
        genesis = ("--genesis", str(federation.local.genesis_path))
        peg(federation, *resume, "combine", *map(str, copies), "--out", str(whole), *genesis)
        peg(federation, *resume, "submit", str(whole), *directory, "--node", "dave")
        for name in EVERYBODY:
            eventually(lambda name=name: not federation.status(name).halted, f"{name} is halted no more")  # type: ignore[misc]
        assert (federation.peg().reserves_sats, federation.peg().deficit_sats) == (0, DEPOSIT_SATS)
        assert "HALTED" not in peg(federation, "status", *directory)
        alice.fund(DEPOSIT_SATS)
        federation.mine(CONFIRMATIONS)
        federation.await_stage(burn, ("broadcast",))
