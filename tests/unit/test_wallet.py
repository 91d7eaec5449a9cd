"""The wallet on disk and before a node that fails: nothing secret where it does not belong, and every call ends."""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.addresses import decode_address, encode_address, l1_network, sidechain_network
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.bitcoin.script import ScriptType, classify
from bridge.errors import Reason
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N, SealedBox, seal
from pegnode.wallet import wallet as wallet_module
from pegnode.wallet.errors import WalletError, WalletReason
from pegnode.wallet.node import NodeConnection
from pegnode.wallet.seed import WatchedSeed, change_seed_passphrase, open_seed, read_seed, write_seed
from pegnode.wallet.wallet import DATABASE_FILE, SEED_FILE, Balance, Wallet, WalletChain
from tests.support.canned_http import canned_server, http_response
from tests.support.peg import p2tr

CHAIN = WalletChain(
    network=sidechain_network("regtest"),
    genesis_hash=BlockHash(sha256(b"the first block")),
    l1_network=l1_network("regtest"),
    l1_genesis_hash=BlockHash(sha256(b"the first block of L1")),
)
MAIN = replace(CHAIN, network=sidechain_network("main"), l1_network=l1_network("main"))
WORDS = "abandon " * 11 + "about"


PASSPHRASE, OTHER = Passphrase("correct horse battery staple"), Passphrase("another passphrase")


def create(directory: Path, chain: WalletChain = CHAIN, words: str | None = None) -> Wallet:
    """A new wallet under PASSPHRASE, cheaply."""
    return Wallet.create(directory, chain, PASSPHRASE, words, scrypt_log_n=LEAST_LOG_N)


def refusal(call: Callable[[], object]) -> Reason:
    """The reason for which a call fails."""
    with pytest.raises((WalletError, KeystoreRefused)) as caught:
        call()
    error = caught.value
    assert isinstance(error, WalletError | KeystoreRefused)
    assert error.detail
    assert "abandon" not in str(error)
    return error.reason


def test_new_wallet_is_empty_and_private(tmp_path: Path) -> None:
    with create(tmp_path / "w") as wallet:
        assert len(wallet.mnemonic(PASSPHRASE).split()) == 12
        assert wallet.balance() == Balance(0, 0)
        assert wallet.history() == []
        assert wallet.addresses() == []
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "w" / SEED_FILE).stat().st_mode & 0o777 == 0o600


def test_wallets_have_different_words(tmp_path: Path) -> None:
    with create(tmp_path / "a") as first, create(tmp_path / "b") as second:
        assert first.mnemonic(PASSPHRASE) != second.mnemonic(PASSPHRASE)


def test_first_address_is_that_of_bip86(tmp_path: Path) -> None:
    with create(tmp_path / "w", MAIN, WORDS) as wallet:
        script = decode_address(wallet.new_address(), MAIN.network)
    # Source: BIP86, test vectors, first receiving address.
    expected = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
    assert encode_address(script, MAIN.l1_network) == expected


def test_addresses_are_taproot_and_new_each_time(tmp_path: Path) -> None:
    with create(tmp_path / "w") as wallet:
        addresses = [wallet.new_address() for _ in range(3)]
        assert wallet.addresses() == addresses
    assert len(set(addresses)) == 3
    assert all(address.startswith("pegrt1p") for address in addresses)
    assert {classify(decode_address(address, CHAIN.network)) for address in addresses} == {ScriptType.P2TR}
    with Wallet.load(tmp_path / "w", CHAIN) as wallet:
        assert wallet.addresses() == addresses


def test_database_holds_no_secret(tmp_path: Path) -> None:
    with create(tmp_path / "w", words=WORDS) as wallet:
        wallet.new_address()
    files = [file for file in (tmp_path / "w").iterdir() if file.name != SEED_FILE]
    assert DATABASE_FILE in [file.name for file in files]
    for file in files:
        data = file.read_bytes()
        assert b"abandon" not in data
        assert b"tprv" not in data
        assert b"xprv" not in data


def test_create_never_overwrites(tmp_path: Path) -> None:
    create(tmp_path, words=WORDS).close()
    before = (tmp_path / SEED_FILE).read_bytes()
    assert refusal(lambda: create(tmp_path)) is WalletReason.EXISTS
    assert (tmp_path / SEED_FILE).read_bytes() == before
    Wallet.load(tmp_path, CHAIN).close()


@pytest.mark.parametrize("words", ["", "abandon", "abandon " * 12, "nonsense " * 12, WORDS + " about"])
def test_create_refuses_words_that_are_no_mnemonic(tmp_path: Path, words: str) -> None:
    assert refusal(lambda: create(tmp_path / "w", words=words)) is WalletReason.BAD_MNEMONIC
    assert not (tmp_path / "w").exists()


def test_load_finds_no_wallet(tmp_path: Path) -> None:
    assert refusal(lambda: Wallet.load(tmp_path / "absent", CHAIN)) is WalletReason.NOT_FOUND
    assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is WalletReason.NOT_FOUND
    assert list(tmp_path.iterdir()) == []


def test_load_refuses_another_chains_wallet(tmp_path: Path) -> None:
    create(tmp_path).close()
    other = replace(CHAIN, genesis_hash=BlockHash(sha256(b"another first block")))
    assert refusal(lambda: Wallet.load(tmp_path, other)) is WalletReason.WRONG_CHAIN


def test_wallet_is_open_in_one_process_at_a_time(tmp_path: Path) -> None:
    wallet = create(tmp_path)
    assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is WalletReason.IN_USE
    assert refusal(lambda: create(tmp_path)) is WalletReason.IN_USE
    wallet.close()
    wallet.close()
    Wallet.load(tmp_path, CHAIN).close()


def test_refused_load_frees_the_wallet(tmp_path: Path) -> None:
    create(tmp_path).close()
    (tmp_path / SEED_FILE).chmod(0o640)
    assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is KeystoreReason.TOO_OPEN
    (tmp_path / SEED_FILE).chmod(0o600)
    Wallet.load(tmp_path, CHAIN).close()


def forge(path: Path, public: dict[str, str], words: str, kind: str = "wallet") -> None:
    """Put a seed there that opens, whatever is in it."""
    path.write_bytes(seal(kind, public, words.encode(), PASSPHRASE, random_bytes=os.urandom, scrypt_log_n=LEAST_LOG_N))


@pytest.mark.parametrize("content", [b"", b"abandon abandon", b"{}", b"\xff" * 5_000])
def test_load_refuses_a_damaged_seed_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    create(tmp_path).close()
    (tmp_path / SEED_FILE).write_bytes(content)
    reason = refusal(lambda: Wallet.load(tmp_path, CHAIN))
    assert reason in (KeystoreReason.MALFORMED, KeystoreReason.WRONG_SIZE)


def test_load_refuses_a_seed_that_does_not_say_what_to_watch(tmp_path: Path) -> None:
    create(tmp_path, words=WORDS).close()
    path = tmp_path / SEED_FILE
    public = dict(SealedBox.parse(path.read_bytes()).public)
    for changes, reason in (
        ({"receive": "nothing"}, WalletReason.DAMAGED),
        ({"change": ""}, WalletReason.DAMAGED),
    ):
        forge(path, public | changes, WORDS)
        assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is reason
    forge(path, {"genesis_hash": public["genesis_hash"]}, WORDS)
    assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is WalletReason.DAMAGED
    forge(path, public, WORDS, kind="member")
    assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is KeystoreReason.WRONG_KIND


def test_unlock_refuses_words_that_do_not_fit(tmp_path: Path) -> None:
    create(tmp_path, words=WORDS).close()
    path = tmp_path / SEED_FILE
    public = dict(SealedBox.parse(path.read_bytes()).public)
    for words in ("abandon abandon", "zoo " * 11 + "wrong"):
        forge(path, public, words)
        with Wallet.load(tmp_path, CHAIN) as wallet:
            assert refusal(lambda wallet=wallet: wallet.unlock(PASSPHRASE)) is WalletReason.DAMAGED  # type: ignore[misc]


def test_loaded_wallet_watches_until_it_is_unlocked(tmp_path: Path) -> None:
    create(tmp_path).close()
    address = encode_address(p2tr("bob"), CHAIN.network)
    with Wallet.load(tmp_path, CHAIN) as wallet:
        assert wallet.new_address().startswith("pegrt1p")
        assert refusal(lambda: wallet.send("http://127.0.0.1:1", address, 1_000)) is WalletReason.LOCKED
        assert refusal(lambda: wallet.unlock(OTHER)) is KeystoreReason.WRONG_PASSPHRASE
        assert refusal(lambda: wallet.send("http://127.0.0.1:1", address, 1_000)) is WalletReason.LOCKED
        wallet.unlock(PASSPHRASE)
        assert refusal(lambda: wallet.send("http://127.0.0.1:1", address, 1_000)) is WalletReason.INSUFFICIENT_FUNDS


@pytest.mark.parametrize("content", [b"no database", b""])
def test_load_refuses_a_damaged_database(tmp_path: Path, content: bytes) -> None:
    create(tmp_path).close()
    (tmp_path / DATABASE_FILE).write_bytes(content)
    assert refusal(lambda: Wallet.load(tmp_path, CHAIN)) is WalletReason.DAMAGED


def test_load_refuses_the_database_of_other_words(tmp_path: Path) -> None:
    create(tmp_path / "a").close()
    create(tmp_path / "b").close()
    (tmp_path / "a" / DATABASE_FILE).replace(tmp_path / "b" / DATABASE_FILE)
    assert refusal(lambda: Wallet.load(tmp_path / "b", CHAIN)) is WalletReason.DAMAGED


def test_create_refuses_an_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    assert refusal(lambda: create(tmp_path / "file" / "w")) is WalletReason.UNUSABLE


def test_seed_is_sealed(tmp_path: Path) -> None:
    path, watched = tmp_path / "seed", WatchedSeed("00", "receive", "change")
    write_seed(path, watched, WORDS, PASSPHRASE, scrypt_log_n=LEAST_LOG_N)
    assert b"abandon" not in path.read_bytes()
    assert read_seed(path) == watched
    assert open_seed(path, PASSPHRASE) == WORDS
    assert refusal(lambda: open_seed(path, OTHER)) is KeystoreReason.WRONG_PASSPHRASE
    change_seed_passphrase(path, PASSPHRASE, lambda: OTHER, scrypt_log_n=LEAST_LOG_N)
    assert open_seed(path, OTHER) == WORDS
    assert read_seed(path) == watched
    assert refusal(lambda: open_seed(path, PASSPHRASE)) is KeystoreReason.WRONG_PASSPHRASE


def test_seed_is_written_once(tmp_path: Path) -> None:
    path, watched = tmp_path / "seed", WatchedSeed("00", "receive", "change")

    def write(target: Path) -> None:
        write_seed(target, watched, WORDS, PASSPHRASE, scrypt_log_n=LEAST_LOG_N)

    write(path)
    assert refusal(lambda: write(path)) is WalletReason.EXISTS
    assert refusal(lambda: write(tmp_path / "absent" / "seed")) is KeystoreReason.MISSING
    assert refusal(lambda: read_seed(tmp_path)) is KeystoreReason.NOT_A_FILE
    assert refusal(lambda: read_seed(tmp_path / "none")) is WalletReason.NOT_FOUND


def test_absent_node_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{placeholder.getsockname()[1]}"
        with create(tmp_path) as wallet:
            assert refusal(lambda: wallet.sync(url)) is WalletReason.NODE_UNREACHABLE
            address = encode_address(p2tr("bob"), CHAIN.network)
            assert refusal(lambda: wallet.send(url, address, 1_000)) is WalletReason.INSUFFICIENT_FUNDS


async def test_silent_node_is_given_up(tmp_path: Path) -> None:
    async with canned_server(lambda _request: None) as server:
        node = NodeConnection(server.url, CHAIN.genesis_hash, scan_timeout_seconds=0.1)
        with create(tmp_path):
            reason = await trio.to_thread.run_sync(lambda: refusal(node.check))
    assert reason is WalletReason.NODE_UNREACHABLE


async def test_node_that_falls_silent_during_a_scan_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: bytes) -> bytes | None:
        if b"/block-height/0" in request:
            return http_response(200, hash_to_hex(CHAIN.genesis_hash).encode())
        return None

    def impatient(url: str, genesis_hash: BlockHash) -> NodeConnection:
        return NodeConnection(url, genesis_hash, scan_timeout_seconds=0.3)

    monkeypatch.setattr(wallet_module, "NodeConnection", impatient)
    async with canned_server(answer) as server:
        with create(tmp_path) as wallet:
            reason = await trio.to_thread.run_sync(lambda: refusal(lambda: wallet.sync(server.url)))
    assert reason is WalletReason.NODE_UNREACHABLE


async def test_node_that_answers_nonsense_is_unreachable(tmp_path: Path) -> None:
    def answer(request: bytes) -> bytes:
        if b"/block-height/0" in request:
            return http_response(200, hash_to_hex(CHAIN.genesis_hash).encode())
        return http_response(200, b"nonsense")

    async with canned_server(answer) as server:
        with create(tmp_path) as wallet:
            reason = await trio.to_thread.run_sync(lambda: refusal(lambda: wallet.sync(server.url)))
    assert reason is WalletReason.NODE_UNREACHABLE
