"""The way out on a real Bitcoin node: by files, with another wallet for one of the holders, and as a drill."""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bdkpython as bdk
import pytest
import trio
from base58 import b58encode_check
from typer.testing import CliRunner, Result

from bridge.bitcoin.addresses import encode_address, l1_network, sidechain_network
from bridge.bitcoin.curve import x_only
from bridge.bitcoin.identifiers import BlockHash, hash_from_hex
from bridge.custody import ReserveScript
from bridge.l1.jsonrpc import Call
from bridge.state import Anchor
from federation.keystore import SecretKind, read_secret
from pegnode.cli import recovery as commands
from pegnode.clock import now_ms
from pegnode.config import L1Config
from pegnode.folders import GENESIS_FILE, KEYS_FOLDER, NODE_NAME, PASSPHRASE_FILE, RECOVERY_FOLDER
from pegnode.genesis import Genesis
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX
from pegnode.local_federation import template_text, with_timelock
from pegnode.passphrase import read_passphrase_file
from pegnode.setup.local import create_local_federation
from tests.support.bitcoind import Regtest
from tests.support.peg import ALICE
from tests.support.recovery import ORIGINS

DEADLINE_S = 180.0
TIMELOCK_BLOCKS = 72
VALUE_SATS = 10_000_000
REGTEST = l1_network("regtest")
CLAIM_ADDRESS = encode_address(ALICE, sidechain_network("regtest"))
WIF_TEST_PREFIX = b"\xef"


@dataclass(frozen=True)
class DeadFederation:
    """Its files, and a Bitcoin node. No ledger is left: one claim address is all that anybody remembers."""

    directory: Path
    regtest: Regtest

    @property
    def genesis_path(self) -> Path:
        return self.directory / "federation" / NODE_NAME / GENESIS_FILE

    @property
    def passphrase_path(self) -> Path:
        return self.directory / "federation" / PASSPHRASE_FILE

    @property
    def genesis(self) -> Genesis:
        return Genesis.load(self.genesis_path)

    def reserves(self) -> list[ReserveScript]:
        """A script of each kind."""
        return [origin.reserve(self.genesis.rules().custody) for origin in ORIGINS]

    def key(self, holder: int) -> Path:
        """Where a holder, from 1, keeps its key."""
        return self.directory / "federation" / RECOVERY_FOLDER / str(holder)

    async def ok(self, *arguments: str | Path) -> Any:
        """What a command answers."""
        done = await self._peg(*arguments, "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        return json.loads(done.stdout)

    async def refusal(self, *arguments: str | Path) -> str:
        """The reason for which a command refuses, in one line."""
        done = await self._peg(*arguments)
        assert done.exit_code == 1
        [line] = done.stderr.splitlines()
        return line.removeprefix("error: ").partition(":")[0]

    async def rpc(self, method: str, *parameters: object) -> Any:
        """What the Bitcoin node says."""
        return await self.regtest.client.connection.call(Call(method, parameters))

    def sources(self) -> Sequence[str | Path]:
        """Where a plan comes from."""
        return ("--genesis", self.genesis_path, "--claim-address", CLAIM_ADDRESS, *self.l1())

    def l1(self) -> Sequence[str | Path]:
        return ("--l1-url", self.regtest.url, "--l1-cookie", self.regtest.cookie_path)

    def signing(self, holder: int) -> Sequence[str | Path]:
        """Whose key, and what opens it."""
        return ("--key", self.key(holder), "--passphrase-file", self.passphrase_path, "--yes")

    async def _peg(self, *arguments: str | Path) -> Result:
        """One command, in this process: a dozen of them would spend most of their time on imports."""
        run = partial(CliRunner().invoke, commands.recovery_app, list(map(str, arguments)), env={"COLUMNS": "200"})
        done = await trio.to_thread.run_sync(run)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done


@pytest.fixture
def dead(regtest: Regtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeadFederation:
    monkeypatch.setattr(commands, "forbid_memory_dumps", lambda: None)  # it changes this process for good
    create_local_federation(
        tmp_path / "federation",
        with_timelock(template_text(), TIMELOCK_BLOCKS),
        l1=L1Config(url=regtest.url, cookie_file=regtest.cookie_path),
        anchor=Anchor(0, BlockHash(hash_from_hex(L1_GENESIS_HASHES_HEX["regtest"]))),
        time_ms=now_ms(),
        random_bytes=secrets.token_bytes,
    )
    return DeadFederation(tmp_path, regtest)


def signed_by_bdk(dead: DeadFederation, psbt: bytes, holder: int) -> bytes:
    """What BDK makes of a PSBT, with the holder's secret key in each coin's descriptor and nothing else of ours."""
    secret = read_secret(dead.key(holder), SecretKind.RECOVERY, read_passphrase_file(dead.passphrase_path))
    secret_text = b58encode_check(WIF_TEST_PREFIX + secret + b"\x01").decode()
    work = bdk.Psbt(base64.b64encode(psbt).decode())
    options = bdk.SignOptions(
        trust_witness_utxo=True,
        assume_height=None,
        allow_all_sighashes=False,
        try_finalize=False,
        sign_with_tap_internal_key=False,
        allow_grinding=False,
    )
    for reserve in dead.reserves():
        descriptor = bdk.Descriptor(reserve.descriptor.replace(x_only(secret).hex(), secret_text), bdk.NetworkKind.TEST)
        wallet = bdk.Wallet.create_single(descriptor, bdk.Network.REGTEST, bdk.Persister.new_in_memory())
        wallet.sign(work, options)
    return base64.b64decode(work.serialize())


async def test_two_holders_recover_by_files_and_one_of_them_with_another_wallet(
    dead: DeadFederation, tmp_path: Path
) -> None:
    miner = dead.regtest.miner
    payee = await miner.new_address()
    agreed = ("--genesis", dead.genesis_path, "--to", payee)
    entry = await plan_one_block_too_early(dead, payee, tmp_path / "plan")
    planned = tmp_path / "plan" / "recovery-1.psbt"
    await assert_bitcoind_reads(dead, planned.read_bytes(), entry)

    # The first holder signs with `peg`, and is asked to sign what was not agreed on.
    elsewhere = ("--genesis", dead.genesis_path, "--to", await miner.new_address())
    assert await dead.refusal("sign", planned, *elsewhere, *dead.signing(1)) == "recovery-other-payees"
    member_keys = dead.directory / "federation" / "alice" / KEYS_FOLDER
    assert await dead.refusal("sign", planned, *agreed, "--key", member_keys) == "keystore-wrong-kind"
    [first] = await dead.ok("sign", planned, *agreed, *dead.signing(1))
    signed = planned.with_name(Path(first["file"]).name)
    assert len(first["signers"]) == 1
    final = tmp_path / "final.hex"
    assert await dead.refusal("finalize", signed, *agreed, "--out", final) == "recovery-too-few-signatures"

    # The third never runs `peg`; the file comes back in base 64.
    third, both = tmp_path / "third.psbt", tmp_path / "both.psbt"
    third.write_bytes(base64.b64encode(signed_by_bdk(dead, planned.read_bytes(), 3)) + b"\n")
    combined = await dead.ok("combine", signed, third, "--genesis", dead.genesis_path, "--out", both)
    assert len(combined["signers"]) == 2
    await dead.ok("finalize", both, *agreed, "--out", final)
    await assert_others_finalize_the_same(dead, [signed.read_bytes(), both.read_bytes()], final.read_text())

    assert await dead.refusal("broadcast", final, *dead.l1()) == "recovery-immature"
    await miner.generate(1)
    assert await dead.ok("broadcast", final, *dead.l1()) == {"txid": entry["txid"]}
    await miner.generate(1)
    assert (await dead.rpc("gettxout", entry["txid"], 0))["scriptPubKey"]["address"] == payee
    assert await dead.ok("broadcast", final, *dead.l1()) == {"txid": entry["txid"]}, "again is no error"
    left = await dead.regtest.client.scan_txoutset([reserve.descriptor for reserve in dead.reserves()])
    assert left.outputs == ()


async def plan_one_block_too_early(dead: DeadFederation, payee: str, out: Path) -> dict[str, Any]:
    """Pay the reserve, wait until one block is missing, and plan for that block; what the plan says of its PSBT."""
    client, miner = dead.regtest.client, dead.regtest.miner
    addresses = [encode_address(reserve.script, REGTEST) for reserve in dead.reserves()]
    await miner.send_many(dict.fromkeys(addresses, VALUE_SATS))
    await miner.generate(1)
    matures_at = (await client.tip())[0] + TIMELOCK_BLOCKS
    wanted = ("--to", payee, "--feerate", "2", "--out", out)
    assert await dead.refusal("plan", *dead.sources(), *wanted) == "recovery-immature"
    await miner.generate(TIMELOCK_BLOCKS - 2)
    plan = await dead.ok("plan", *dead.sources(), *wanted, "--mature-by", str(matures_at))
    found = [(coin["state"], coin["matures_at"], coin["value_sats"]) for coin in plan["coins"]]
    assert found == [("immature", matures_at, VALUE_SATS)] * 3
    assert {coin["address"] for coin in plan["coins"]} == set(addresses)
    for coin in plan["coins"]:
        assert await dead.rpc("deriveaddresses", coin["descriptor"]) == [coin["address"]]
    entry: dict[str, Any]
    [entry] = plan["psbts"]
    assert entry["payments"] == [[payee, 3 * VALUE_SATS - entry["fee_sats"]]]
    return entry


async def assert_bitcoind_reads(dead: DeadFederation, psbt: bytes, entry: dict[str, Any]) -> None:
    """bitcoind sees in a planned PSBT what was put there, field by field, and that signatures are missing."""
    text = base64.b64encode(psbt).decode()
    decoded = await dead.rpc("decodepsbt", text)
    assert decoded["tx"]["txid"] == entry["txid"]
    assert decoded["proprietary"][0]["value"] == dead.genesis.chain_id.hex()
    by_script = {reserve.script.hex(): reserve for reserve in dead.reserves()}
    for given, txin in zip(decoded["inputs"], decoded["tx"]["vin"], strict=True):
        reserve = by_script.pop(given["witness_utxo"]["scriptPubKey"]["hex"])
        assert txin["sequence"] == TIMELOCK_BLOCKS
        assert given["taproot_internal_key"] == reserve.internal_key.hex()
        [leaf] = given["taproot_scripts"]
        assert leaf["script"] == reserve.recovery_leaf.hex()
        assert leaf["leaf_ver"] == 0xC0
        assert leaf["control_blocks"] == [reserve.recovery_control_block.hex()]
        assert "unknown" not in given
        assert len(given["taproot_merkle_root"]) == 64
    assert not by_script
    analysed = await dead.rpc("analyzepsbt", text)
    assert all(given["has_utxo"] and not given["is_final"] for given in analysed["inputs"])
    assert round(analysed["fee"] * 10**8) == entry["fee_sats"]


async def assert_others_finalize_the_same(dead: DeadFederation, psbts: list[bytes], final_hex: str) -> None:
    """bitcoind combines and finalizes to the same bytes as `peg`, and so does BDK."""
    texts = [base64.b64encode(psbt).decode() for psbt in psbts]
    together = await dead.rpc("combinepsbt", texts)
    assert (await dead.rpc("analyzepsbt", together))["next"] == "finalizer"
    by_bitcoind = await dead.rpc("finalizepsbt", together)
    assert by_bitcoind["complete"]
    assert by_bitcoind["hex"] == final_hex.strip()
    by_bdk = bdk.Psbt(together).finalize()
    assert by_bdk.could_finalize
    assert bytes(by_bdk.psbt.extract_tx().serialize()).hex() == final_hex.strip()


def test_drill_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pegnode.cli.main", "recovery", "drill", "--members", "1", "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["timelock_blocks"] == TIMELOCK_BLOCKS
    assert report["coins"] == 4
    assert report["recovered_sats"] + report["fee_sats"] == report["reserve_sats"] == 140_000_000
    assert len(report["txids"]) == 1
    said = " ".join(report["held"])
    for words in ("recovery-immature", "recovery-too-few-signatures", "non-BIP68-final", "refuses one signature"):
        assert words in said
    assert list(tmp_path.iterdir()) == []
