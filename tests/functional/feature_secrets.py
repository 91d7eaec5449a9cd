"""A federation lives, signs, errs and crashes, and then everything it said and wrote is searched for secrets."""

import hashlib
import hmac
import json
import os
import resource
import secrets as system
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import Script
from federation.keystore import SecretKind, read_member_secrets, read_secret
from pegnode.bitcoind import find_bitcoind, start_regtest
from pegnode.config import FunctionaryConfig, L1Config, LogLevel
from pegnode.local_federation import LocalFederation, client_of
from pegnode.options.rendering import render
from pegnode.passphrase import VARIABLE, read_passphrase_file
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.cookie import Credentials
from tests.support.crashing_member import LAST_WORDS
from tests.support.federation import FederationUnderTest, eventually
from tests.support.secret_search import key_spellings, mnemonic_spellings, search, search_files, text_spellings
from tests.support.users import User, user_of

ROOT: Final = Path(__file__).resolve().parents[2]
DEADLINE_S: Final = 120.0
L1_ADDRESS: Final = encode_address(Script(b"\x00\x14" + bytes(19) + b"\x01"), l1_network("regtest"))
BATCH: Final = 5
"""Withdrawals that make a payout due, as in configs/local.toml."""

Spellings = dict[str, dict[str, bytes]]


@dataclass
class Life:
    """What is known of a federation that lived. said: whatever any process printed or answered, by who said it."""

    directory: Path
    bitcoind_password: str = field(default_factory=lambda: system.token_hex(16))
    said: dict[str, bytes] = field(default_factory=dict)
    secrets: Spellings = field(default_factory=dict)
    own_places: set[Path] = field(default_factory=set)
    """Files that hold secrets by design."""

    @property
    def local(self) -> LocalFederation:
        return LocalFederation.open(self.directory)

    def run(self, *arguments: str, expected: int = 0, **environment: str) -> bytes:
        """What one command of `peg` says, which ends with the expected status."""
        return self.python("pegnode.cli.main", *arguments, expected=expected, **environment)

    def python(self, module: str, *arguments: str, expected: int, **environment: str) -> bytes:
        """What one Python process says."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
            cwd=ROOT,
            env=os.environ | {"PEGNODE_DIR": str(self.directory)} | environment,
        )
        said = done.stdout + done.stderr
        self.said[f"{len(self.said)} {' '.join(arguments)}"] = said
        assert done.returncode == expected, said
        return said

    def change_config(self, name: str, **changes: object) -> None:
        """Write a member's configuration anew."""
        path = self.local.member_config_path(name)
        path.write_text(render(msgspec.structs.replace(FunctionaryConfig.load(path), **changes), path.parent))

    def know_password(self, name: str, text: str, place: Path | None = None) -> None:
        """Search for this text from now on, but not in its own place."""
        self.secrets[name] = text_spellings(text)
        if place is not None:
            self.own_places.add(place)

    def know_wallet(self, name: str, words: str) -> None:
        """Search for a wallet's words and for its seed. Source: BIP39."""
        normal = unicodedata.normalize("NFKD", words).encode()
        self.secrets[f"{name}'s words"] = mnemonic_spellings(words)
        self.secrets[f"{name}'s seed"] = key_spellings(hashlib.pbkdf2_hmac("sha512", normal, b"mnemonic", 2048))

    def know_keys(self) -> None:
        """Search for every key of the members and every recovery key, and for what opens them."""
        passphrase = read_passphrase_file(self.local.passphrase_path)
        self.know_password("passphrase", passphrase.reveal().decode(), self.local.passphrase_path)
        for path in sorted(self.directory.rglob("member.key")):
            keys = read_member_secrets(path.parent, passphrase)
            for kind in ("vote", "custody", "transport"):
                self.secrets[f"{kind} key of {path.parent.parent.name}"] = key_spellings(getattr(keys, kind))
        for path in sorted(self.directory.rglob("recovery.key")):
            key = read_secret(path.parent, SecretKind.RECOVERY, passphrase)
            self.secrets[f"recovery key {path.parent.name}"] = key_spellings(key)

    def know_cookies(self) -> None:
        """Search for the logins of the RPC servers as they are now; each start makes new ones."""
        for path in self.directory.rglob(".cookie"):
            password = path.read_text().strip().partition(":")[2]
            self.know_password(f"cookie {path.parent.name} {password[:4]}", password, path)


def begin(directory: Path) -> Life:
    """A federation whose members log all they can, and of which bob logs in to bitcoind by password."""
    life = Life(directory)
    salt = system.token_hex(16)
    digest = hmac.new(salt.encode(), life.bitcoind_password.encode(), hashlib.sha256).hexdigest()
    start_regtest(directory / "bitcoind", find_bitcoind(), detached=True, settings={"rpcauth": f"bob:{salt}${digest}"})
    local = LocalFederation.create(directory, 4)
    for name in local.member_names:
        life.change_config(name, log_level=LogLevel.DEBUG)
    password_file = directory / "bitcoind-password"
    password_file.touch(0o600)
    password_file.write_text(life.bitcoind_password + "\n")
    life.know_password("password of bitcoind", life.bitcoind_password, password_file)
    life.change_config("bob", l1=L1Config(url=local.bitcoind.url, user="bob", password_file=password_file))
    life.know_keys()
    return life


def start_alice(life: Life) -> "subprocess.Popen[bytes]":
    """A member with its passphrase in the environment, in a shell that allows cores of any size."""
    passphrase = read_passphrase_file(life.local.passphrase_path).reveal().decode()
    life.change_config("alice", passphrase_file=None)
    (life.directory / "cores").mkdir()
    hard_limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    with (life.directory / "alice-by-hand.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pegnode.cli.main", "functionary", "run", "--config",
             str(life.local.member_config_path("alice"))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=life.directory / "cores",
            env=os.environ | {VARIABLE: passphrase},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard_limit, hard_limit)),  # noqa: PLW1509
        )  # fmt: skip


def use(life: Life) -> None:
    """Deposits, and withdrawals that all members sign for."""
    federation = FederationUnderTest(life.local)
    federation.mine(101)
    with user_of(federation, "dave") as user:
        life.know_wallet("dave", user.wallet.mnemonic(read_passphrase_file(life.local.passphrase_path)))
        user.fund(50_000_000)
        burns = [user.withdraw(L1_ADDRESS, 1_000_000 + number) for number in range(BATCH)]
        federation.await_stage(burns[0], ("broadcast",), name="dave")
        _err(life, user)


def _err(life: Life, user: User) -> None:
    """Ask each method of the RPC for nothing, with nonsense, and as a stranger."""
    config = life.local.member_config("dave")
    credentials = Credentials.read(config.cookie_path)
    with client_of(config) as client:
        methods = ["getstatus", "getpeginfo", "listwithdrawals", "listpeers", "getblockchaininfo", "audit", "no-such"]
        for method in methods:
            nonsense: tuple[object, ...] = ("nonsense", -1, {"a": []})
            for parameters in ((), nonsense):
                try:
                    answer = json.dumps(client.call(method, *parameters), default=repr)
                except RpcClientError as error:
                    answer = repr(error)
                life.said[f"rpc {method} {parameters}"] = answer.encode()
    for login in (None, ("__cookie__", "guessed"), (credentials.user, credentials.password)):
        for body in (b"", b"nonsense", b'{"method": 5}', b"[" * 10_000):
            reply = httpx.post(user.url, content=body, auth=login, trust_env=False, timeout=DEADLINE_S)
            life.said[f"http {login is None} {body[:10]!r} {reply.status_code}"] = (
                reply.content + repr(reply.headers).encode()
            )


def ask(life: Life) -> None:
    """What a person at the command line sees, in both forms."""
    for arguments in (("status",), ("logs", "dave"), ("withdraw", "list"), ("wallet", "history", "-w", "dave")):
        life.run(*arguments)
    life.run("status", "--json")
    life.run("keys", "show", str(life.local.member_config("alice").keys_dir), "--json")


def fail_to_start(life: Life) -> None:
    """A member with a wrong passphrase, with none, and one that crashes after it has opened its keys."""
    config = str(life.local.member_config_path("alice"))
    wrong = system.token_hex(16)
    life.know_password("wrong passphrase", wrong)
    member = ("functionary", "run", "--config", config)
    assert b"keystore-wrong-passphrase" in life.run(*member, expected=1, **{VARIABLE: wrong})
    assert b"keystore-no-passphrase" in life.run(*member, expected=1)
    life.change_config("alice", passphrase_file=life.local.passphrase_path)
    folder = life.directory / "crash"
    folder.mkdir()
    crash = life.python("tests.support.crashing_member", config, str(folder), expected=1)
    assert LAST_WORDS.encode() in crash
    kinds = crash.partition(b"kinds:")[2].partition(b"\n")[0].split()
    assert {b"Signer", b"MemberSecrets", b"Passphrase", b"FunctionaryConfig", b"CookieAuth", b"Credentials"} <= set(
        kinds
    )


def look_from_outside(life: Life, alice: int) -> None:
    """What the system shows of the members' processes; root sees all of it, their owner less."""
    others = (life.local.process(name) for name in ("bob", "carol", "dave"))
    for number in (alice, *(process.pid for process in others if process is not None)):
        for shown in ("environ", "cmdline"):
            path = Path(f"/proc/{number}/{shown}")
            with suppress(PermissionError):
                life.said[str(path)] = path.read_bytes()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """From the first start to the last crash."""
    directory = tmp_path_factory.mktemp("secrets") / "federation"
    alice = None
    try:
        life = begin(directory)
        alice = start_alice(life)
        for name in ("bob", "carol", "dave"):
            life.local.start_member(name)
        for name in ("bob", "carol", "dave"):
            life.local.wait_until_answering(name)
        eventually(lambda: life.local.status("alice") is not None, "alice answers")
        life.know_cookies()
        use(life)
        ask(life)
        look_from_outside(life, alice.pid)
        alice.send_signal(signal.SIGABRT)
        assert alice.wait(DEADLINE_S) == -signal.SIGABRT
        fail_to_start(life)
        life.know_cookies()
        life.local.down()  # their last words are searched too, and no file goes while it is read
        yield life
    finally:
        if alice is not None:
            alice.kill()
            alice.wait()
        LocalFederation.open(directory).down()


def test_every_secret_is_searched_for(life: Life) -> None:
    """Or else there was nothing to find: keys, passphrases, a wallet's words and seed, cookies of four and of L1."""
    assert len(life.secrets) >= 4 * 3 + 3 + 2 + 2 + 6 + 1
    assert len(life.said) > 30


def test_nothing_said_tells_a_secret(life: Life) -> None:
    assert [found for place, content in life.said.items() for found in search(place, content, life.secrets)] == []


def test_no_file_tells_a_secret(life: Life) -> None:
    chain = life.directory / "bitcoind" / "regtest"  # bitcoind's own: its blocks, and the wallet that mines
    passed_over = [*life.own_places, *(chain / name for name in ("blocks", "chainstate", "wallets", "indexes"))]
    assert list(search_files(life.directory, life.secrets, passed_over)) == []


def test_aborted_member_leaves_no_core(life: Life) -> None:
    assert list((life.directory / "cores").iterdir()) == []


def test_secret_in_a_log_would_be_found(life: Life) -> None:
    folder = life.directory / "planted"
    folder.mkdir()
    for name, spellings in life.secrets.items():
        for pattern in spellings.values():
            (folder / "log").write_bytes(b"level=info event=" + pattern + b" and more")
            assert name in [found.secret for found in search_files(folder, life.secrets, life.own_places)]
    (folder / "log").unlink()
