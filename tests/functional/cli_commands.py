"""Every command of `peg`, as people and scripts run it: what it prints, how it refuses, and what it keeps to itself."""

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network
from bridge.bitcoin.identifiers import Script, hash_to_hex
from bridge.custody import CoinKind, reserve_script
from federation.keystore import SecretKind, read_member_secrets, read_secret
from pegnode.folders import PASSPHRASE_FILE
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation
from pegnode.passphrase import read_passphrase_file, write_random_passphrase
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.results import DepositReply, PegInfoReply, StatusReply, WithdrawalReply
from tests.support.command_line import Peg
from tests.support.federation import (
    CONFIRMATIONS,
    SIDECHAIN,
    eventually,
    fresh_address,
)

L1_ADDRESS = encode_address(Script(b"\x00\x14" + bytes(19) + b"\x01"), l1_network("regtest"))
UNKNOWN_TXID = "11" * 32
OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


@pytest.fixture(scope="module")
def peg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peg]:
    """A federation of four that `peg up` made, with a wallet that has coins."""
    peg = Peg(tmp_path_factory.mktemp("cli") / "federation")
    try:
        made = peg.ok("up")
        assert "made a federation of 4 members" in made
        assert "started: bitcoind, alice, bob, carol, dave\n" in made
        assert "3 of 4 members are needed" in made
        peg.new_wallet("default")
        address = peg.json("deposit", "address")["address"]
        peg.ok("l1", "fund", address, "0.5")
        peg.ok("l1", "mine", str(CONFIRMATIONS))
        eventually(
            lambda: [item["status"] for item in peg.json("deposit", "list")] == ["claimed"], "the deposit is claimed"
        )
        yield peg
    finally:
        LocalFederation.open(peg.directory).down()


def test_up_starts_only_what_does_not_run(peg: Peg) -> None:
    before = [peg.federation.local.process(name) for name in peg.federation.local.member_names]
    assert peg.ok("up").startswith("running already: bitcoind, alice, bob, carol, dave\n3 of 4 members")
    assert [peg.federation.local.process(name) for name in peg.federation.local.member_names] == before


def test_status_shows_every_member_and_the_equality(peg: Peg) -> None:
    lines = peg.ok("status", "--peers").splitlines()
    names = ["alice", "bob", "carol", "dave"]
    assert re.match(r"block \d+ became final \d:\d\d:\d\d ago; (alice|bob|carol|dave) leads view \d+", lines[0])
    assert [line.split()[:2] for line in lines[2:6]] == [[name, "running"] for name in names]
    assert re.fullmatch(r"votes  (none heard yet|newest in views? .+); journals kept; no proof of guilt", lines[7])
    assert re.fullmatch(r"links  (no round trip measured yet|round trips of .+ ms); all run pegnode/[^;]+", lines[8])
    assert lines[11].split() == ["to", "0", "1", "2", "3"]
    assert [line.split()[:2] for line in lines[12:16]] == [[name, str(index)] for index, name in enumerate(names)]
    assert lines[-3] == "reserves + deficit = supply + unsettled + fund"
    assert lines[-1].startswith("--node NAME shows")
    shown = peg.json("status")
    members = msgspec.convert(shown["members"], dict[str, StatusReply])
    assert [reply.member for reply in members.values()] == [0, 1, 2, 3]
    assert msgspec.convert(shown["peg"], PegInfoReply).equality


def test_status_of_one_node_needs_its_configuration_alone(peg: Peg) -> None:
    path = str(peg.federation.local.member_config_path("bob"))
    shown = peg.json("status", "--node", path)
    assert {name: reply["member"] for name, reply in shown["members"].items()} == {"bob": 1}
    assert msgspec.convert(shown["peg"], PegInfoReply).equality
    lines = peg.ok("status", "--node", path).splitlines()
    assert lines[2].split()[:2] == ["bob", "running"]
    assert [line.split()[0] for line in lines[5:9]] == ["alice", "bob", "carol", "dave"]
    assert any(line.startswith("journal  kept; ") for line in lines)
    assert lines[-1] == "reserves + deficit = supply + unsettled + fund"


def test_deposit_commands_show_where_to_pay_and_what_came(peg: Peg) -> None:
    words = peg.ok("deposit", "address")
    assert words.startswith("bcrt1p")
    assert "after         6 confirmations" in words
    assert peg.ok("deposit", "list").startswith("0.50000000  claimed\n")
    [deposit] = msgspec.convert(peg.json("deposit", "list"), list[DepositReply])
    assert (deposit.value_sats, deposit.status) == (50_000_000, "claimed")
    chosen = fresh_address()
    assert peg.json("deposit", "address", "--to", chosen)["claim_address"] == chosen


def test_deposit_is_claimed_by_hand(peg: Peg) -> None:
    policy = Genesis.load(peg.federation.local.genesis_path).rules().custody.newest
    claim_address = fresh_address()
    claim_script = decode_address(claim_address, SIDECHAIN)
    script = reserve_script(policy, CoinKind.DEPOSIT, claim_script).script
    txid_hex = peg.json("l1", "fund", encode_address(script, l1_network("regtest")), "0.01")["txid"]
    height = peg.json("l1", "mine", "6")["height"]
    eventually(lambda: peg.federation.status("alice").l1.height == height, "alice saw the blocks")
    [seen] = peg.federation.deposits([claim_address])
    [claim] = peg.json("deposit", "claim", txid_hex, "--claim-script", claim_script.hex())
    assert claim == {"outpoint": seen.outpoint, "claim_txid": seen.claim_txid, "credited_sats": 999_000}
    peg.federation.await_claimed([claim_address], 1)
    assert "claimed already" in peg.refused("deposit", "claim", txid_hex, "--claim-address", claim_address)
    refused = peg.refused("deposit", "claim", txid_hex)
    assert "none of its outputs pays the deposit address" in refused
    assert "it pays the deposit address of another claim script" in refused


def test_wallet_pays_another_and_keeps_a_history(peg: Peg) -> None:
    peg.new_wallet("other")
    assert peg.ok("wallet", "balance").splitlines()[0] == "final    0.49999000"
    before_sats = peg.json("wallet", "balance")["confirmed_sats"]
    address = peg.ok("wallet", "address", "-w", "other").strip()
    txid_hex = peg.ok("wallet", "send", address, "0.1").strip()
    peg.federation.await_final(txid_hex, peg.federation.local.member_names)
    assert peg.json("wallet", "balance", "-w", "other") == {"confirmed_sats": 10_000_000, "pending_sats": 0}
    assert 0 < before_sats - 10_000_000 - peg.json("wallet", "balance", "--node", "dave")["confirmed_sats"] < 1_000
    items = peg.json("wallet", "history")
    assert [(item["kind"], item["txid"] == txid_hex) for item in items] == [("payment", True), ("deposit", False)]
    assert txid_hex in peg.ok("wallet", "history", "-w", "other")


def test_wallet_is_restored_from_its_words(peg: Peg) -> None:
    shown = peg.ok("wallet", "restore", "-w", "restored", typed=peg.words[0] + "\n")
    assert not any(word in shown.split() for word in peg.words[0].split())
    assert peg.json("wallet", "words", "-w", "restored")["words"] == peg.words[0]
    assert peg.json("wallet", "balance", "-w", "restored") == peg.json("wallet", "balance")


def test_restored_wallet_finds_a_deposit_under_way(peg: Peg) -> None:
    """At an address that the sidechain has never seen, behind others that nobody paid."""
    peg.new_wallet("lost")
    for _ in range(3):
        peg.ok("wallet", "address", "-w", "lost")
    paid = peg.json("deposit", "address", "-w", "lost")
    peg.ok("l1", "fund", paid["address"], "0.003")
    eventually(lambda: len(peg.json("deposit", "list", "-w", "lost")) == 1, "the mempool was read")
    shown = peg.ok("wallet", "restore", "-w", "found", typed=peg.words[-1] + "\n")
    assert shown.splitlines()[-1] == "deposits  1"
    [deposit] = msgspec.convert(peg.json("deposit", "list", "-w", "found"), list[DepositReply])
    assert (deposit.status, deposit.claim_address) == ("unconfirmed", paid["claim_address"])
    listed = peg.ok("deposit", "list", "-w", "found").splitlines()
    assert listed[0] == "0.00300000  unconfirmed"
    assert [line.split()[0] for line in listed[1:]] == ["paid", "to", "will", "state", "next"]
    peg.ok("l1", "mine", str(CONFIRMATIONS))
    peg.federation.await_claimed([paid["claim_address"]], 1)
    assert peg.json("wallet", "balance", "-w", "found") == {"confirmed_sats": 299_000, "pending_sats": 0}


def test_wallet_with_a_passphrase_of_its_own_spends_with_nothing_else(peg: Peg, tmp_path: Path) -> None:
    files = []
    for number in range(2):
        files.append(str(tmp_path / f"passphrase-{number}"))
        write_random_passphrase(Path(files[-1]), os.urandom)
    peg.words.append(peg.json("wallet", "create", "-w", "own", "--passphrase-file", files[0])["words"])
    address = peg.ok("wallet", "address", "-w", "own").strip()
    peg.ok("wallet", "send", address, "0.01")
    eventually(
        lambda: peg.json("wallet", "balance", "-w", "own")["confirmed_sats"] == 1_000_000, "the payment is final"
    )
    pay_back = ("wallet", "send", "-w", "own", fresh_address(), "0.001")
    assert "keystore-wrong-passphrase" in peg.refused(*pay_back)
    peg.ok("wallet", "change-passphrase", "-w", "own", "--passphrase-file", files[0], "--new-passphrase-file", files[1])
    assert "keystore-wrong-passphrase" in peg.refused(*pay_back, "--passphrase-file", files[0])
    peg.ok(*pay_back, "--passphrase-file", files[1])


def test_withdrawal_is_burned_and_listed(peg: Peg) -> None:
    burn = peg.json("withdraw", L1_ADDRESS, "0.02")
    eventually(lambda: peg.json("withdraw", "list") != [], "the burn is final")
    listed = msgspec.convert(peg.json("withdraw", "list"), list[WithdrawalReply])
    assert [(item.burn, item.value_sats, item.l1_address) for item in listed] == [(burn["burn"], 2_000_000, L1_ADDRESS)]
    assert "waiting: 0.02000000 burned" in peg.ok("withdraw", "list")
    assert f"to {L1_ADDRESS}, with the next batch" in peg.ok("withdraw", L1_ADDRESS, "0.01", "--max-fee", "5000")
    assert burn["burn"] in [item["burn"] for item in peg.json("withdraw", "list", "-w", "default")]
    peg.new_wallet("idle")
    assert peg.json("withdraw", "list", "-w", "idle") == []
    assert "there is no wallet in" in peg.refused("withdraw", "list", "-w", "absent")


def test_audit_recounts_every_term(peg: Peg) -> None:
    assert peg.ok("audit").endswith("no findings: every satoshi is explained\n")
    reply = msgspec.convert(peg.json("audit"), AuditReply)
    assert (reply.ok, reply.l1_held_sats) == (True, reply.reserves_sats)


def test_donation_goes_to_the_fund(peg: Peg) -> None:
    before = peg.json("fund", "show")
    assert before["deficit_sats"] == 0
    assert before["free_sats"] <= before["fund_sats"]
    assert "open to recovery at 4032" in peg.ok("fund", "show")
    address = peg.json("fund", "address")["address"]
    assert peg.ok("fund", "address").splitlines()[0] == address
    assert len(peg.json("fund", "donate", "0.0005")["txid"]) == 64
    peg.ok("l1", "mine", str(CONFIRMATIONS))
    eventually(lambda: peg.json("fund", "show")["fund_sats"] >= before["fund_sats"] + 50_000, "the fund has it")
    assert peg.json("audit")["ok"]


def test_node_is_chosen_by_name_or_by_file(peg: Peg) -> None:
    member = peg.federation.local.member_config_path("bob")
    assert peg.json("audit", "--node", str(member))["ok"]
    assert peg.json("audit", "--node", "bob")["ok"]


def test_l1_address_is_of_the_type_asked_for(peg: Peg) -> None:
    assert peg.ok("l1", "address").startswith("bcrt1q")
    assert peg.json("l1", "address", "--type", "bech32m")["address"].startswith("bcrt1p")
    assert peg.ok("l1", "address", "--type", "legacy")[0] in "mn"


def test_withdrawal_with_a_small_fee_is_said_to_wait(peg: Peg) -> None:
    assert "if a batch costs it 100 sats at most" in peg.ok("withdraw", L1_ADDRESS, "0.01", "--max-fee", "100")


def test_withdrawal_that_no_batch_could_pay_is_refused(peg: Peg) -> None:
    refused = peg.refused("withdraw", L1_ADDRESS, "0.01", "--max-fee", "10")
    assert "no batch costs a payee less than" in refused
    assert "never paid" in refused


def test_logs_of_a_member_are_printed(peg: Peg) -> None:
    assert len(peg.ok("logs", "alice", "-n", "3").splitlines()) == 3
    assert str(peg.federation.local.log_path("dave")) in peg.ok("logs")


def test_program_says_what_it_is_and_which_bitcoind_it_uses(peg: Peg) -> None:
    assert peg.ok("version").strip() == peg.json("status")["members"]["alice"]["version"]
    assert Path(peg.json("bitcoind", "show")["path"]).is_file()
    assert peg.json("bitcoind", "show")["version"] in peg.ok("bitcoind", "install")


REFUSED = [
    ("not a federation", ("status", "--dir", "/nonexistent"), "no local federation in /nonexistent"),
    ("no such member", ("wallet", "balance", "--node", "zoe"), "no member 'zoe'; there are alice, bob, carol, dave"),
    ("no such file", ("audit", "--node", "absent.toml"), "absent.toml"),
    ("no such log", ("logs", "zoe"), "no member 'zoe'"),
    ("wallet exists", ("wallet", "create"), "already holds a wallet"),
    ("no such wallet", ("wallet", "balance", "-w", "absent"), "there is no wallet in"),
    ("no words", ("wallet", "restore", "-w", "absent"), "not the words of a BIP39 mnemonic"),
    ("no address", ("wallet", "send", "nowhere", "0.1"), "wallet-bad-address"),
    ("an L1 address", ("wallet", "send", L1_ADDRESS, "0.1"), "Bitcoin regtest"),
    ("no amount", ("wallet", "send", "SIDECHAIN", "much"), "an amount is written in digits"),
    ("nothing", ("wallet", "send", "SIDECHAIN", "0"), "0 sats"),
    ("too much", ("wallet", "send", "SIDECHAIN", "1000"), "can be spent now"),
    ("credit to L1", ("deposit", "address", "--to", L1_ADDRESS), "Bitcoin regtest"),
    ("no txid", ("deposit", "claim", "zz", "--claim-address", "SIDECHAIN"), "txid"),
    ("unknown deposit", ("deposit", "claim", UNKNOWN_TXID, "--claim-address", "SIDECHAIN"), "is in no known L1 block"),
    ("claim for L1", ("deposit", "claim", UNKNOWN_TXID, "--claim-address", L1_ADDRESS), "Bitcoin regtest"),
    ("a gift", ("wallet", "send", "DONATION", "0.1"), "a script of the L1 reserve"),
    ("withdraw to the sidechain", ("withdraw", "SIDECHAIN", "0.01"), "sidechain"),
    ("withdraw too little", ("withdraw", L1_ADDRESS, "0.00000999"), "the least that may be withdrawn is"),
    ("withdraw for the fee alone", ("withdraw", L1_ADDRESS, "0.00001000"), "too little: with a fee"),
    ("withdraw too much", ("withdraw", L1_ADDRESS, "5"), "can be spent now"),
    ("withdraw how much", ("withdraw", L1_ADDRESS), "how much?"),
    ("donate dust", ("fund", "donate", "0.00000999"), "never enters the ledger"),
    ("fund the sidechain", ("l1", "fund", "SIDECHAIN", "0.5"), "sidechain"),
    ("another size", ("up", "--members", "7"), "has 4 members; use another --dir"),
    ("a file for a directory", ("up", "--dir", "GENESIS"), "can't write to"),
    ("configuration is none", ("node", "run", "--config", "GENESIS"), "config-not-toml"),
    ("configuration of another", ("node", "run", "--config", "FUNCTIONARY"), "config-unknown-option: "),
    ("runs already", ("functionary", "run", "--config", "FUNCTIONARY"), "its other process"),
]


def donation_address(local: LocalFederation) -> str:
    """The federation's donation script, written as an address of the sidechain."""
    policy = Genesis.load(local.genesis_path).rules().custody.newest
    return encode_address(reserve_script(policy, CoinKind.DONATION).script, SIDECHAIN)


@pytest.mark.parametrize(("arguments", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_bad_input_is_refused_in_one_line(peg: Peg, arguments: tuple[str, ...], words: str) -> None:
    local = peg.federation.local
    known = {
        "SIDECHAIN": fresh_address(),
        "GENESIS": str(local.genesis_path),
        "FUNCTIONARY": str(local.member_config_path("alice")),
        "DONATION": donation_address(local),
    }
    assert words in peg.refused(*(known.get(argument, argument) for argument in arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wallet", "balance", "-w", "../other"), "letters, digits"),
        (("deposit", "claim", UNKNOWN_TXID, "--claim-script", "zz"), "five types"),
        (("deposit", "claim", UNKNOWN_TXID, "--claim-address", "a", "--claim-script", "b"), "one of --claim-address"),
        (("l1", "mine", "0"), "greater than or equal to 1"),
        (("up", "--members", "16"), "less than or equal to 15"),
        (("node", "run", "--config", "/nonexistent"), "does not exist"),
        (("no-such-command",), "No such command"),
    ],
)
def test_wrong_command_is_explained(peg: Peg, arguments: tuple[str, ...], words: str) -> None:
    assert words in peg.misused(*arguments)


def test_node_refuses_a_genesis_whose_anchor_l1_does_not_hold(peg: Peg, tmp_path: Path) -> None:
    block_hash = peg.federation.on_l1(lambda client, _: client.block_hash(50))
    assert block_hash is not None
    folder = tmp_path / "node"
    shutil.copytree(peg.federation.local.node_config_path.parent, folder, ignore=shutil.ignore_patterns("data"))
    genesis = json.loads((folder / "genesis.json").read_text())
    genesis["l1"] |= {"anchor_height": 49, "anchor_hash_hex": hash_to_hex(block_hash)}
    (folder / "genesis.json").write_text(json.dumps(genesis))
    done = peg.run("node", "run", "--config", str(folder / "node.toml"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"does not hold the block that the genesis refers to, {hash_to_hex(block_hash)} at height 49" in last


def secrets_of(peg: Peg) -> Iterator[str]:
    """Every secret below the directory: the keys in hex, their passphrase, and the wallets' words."""
    directory = peg.directory / "federation"
    passphrase = read_passphrase_file(directory / PASSPHRASE_FILE)
    yield passphrase.reveal().decode()
    for path in directory.rglob("member.key"):
        keys = read_member_secrets(path.parent, passphrase)
        yield from (key.hex() for key in (keys.vote, keys.custody, keys.transport))
    for path in directory.rglob("recovery.key"):
        yield read_secret(path.parent, SecretKind.RECOVERY, passphrase).hex()
    yield from peg.words


def test_secrets_are_the_owners_alone_and_nowhere_told(peg: Peg) -> None:
    secrets = list(secrets_of(peg))
    assert len(secrets) == 1 + 4 * 3 + 3 + 5
    files = [*peg.directory.rglob("*.key"), *peg.directory.rglob("seed.json"), *peg.directory.rglob(".cookie")]
    assert len(files) == 7 + 7 + 4 + 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {OWNER_ONLY}
    logs = [path for path in (peg.directory / "run").iterdir() if path.suffix == ".log"]
    assert len(logs) == 4
    told = "".join([*peg.said, *(path.read_text() for path in logs)])
    assert not any(secret in told for secret in secrets)


def test_down_stops_everything(peg: Peg) -> None:
    assert peg.ok("down") == "stopped: alice, bob, carol, dave, bitcoind; go on with: peg up\n"
    assert list(peg.federation.local.running()) == []
    assert peg.federation.local.bitcoind.pid is None
    assert peg.ok("down") == "nothing was running; go on with: peg up\n"
    assert "no member runs in" in peg.refused("audit")
    assert "stopped" in peg.ok("status")
    assert "dave does not run; start it with: peg up" in peg.refused("status", "--node", "dave")
    assert not list(peg.directory.rglob(".cookie"))
