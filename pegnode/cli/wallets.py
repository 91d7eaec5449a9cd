"""`peg wallet`: a user's wallet on the sidechain, and what other commands need of one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bridge.bitcoin.amounts import parse_btc
from bridge.bitcoin.identifiers import hash_to_hex
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N, STRONG_LOG_N
from pegnode.cli.deposit_search import restore_deposits
from pegnode.cli.home import (
    DirectoryOption,
    Home,
    NewPassphraseFileOption,
    NodeOption,
    PassphraseFileOption,
    rpc_url,
)
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, out, print_fields, print_items, print_json
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.passphrase import find_passphrase
from pegnode.wallet.seed import change_seed_passphrase, require_no_seed
from pegnode.wallet.signer import WalletSigner, fresh_mnemonic
from pegnode.wallet.wallet import SEED_FILE, HistoryItem, Wallet, WalletChain
from pegnode.wording import time_text

WalletOption = Annotated[str, typer.Option("--wallet", "-w", envvar="PEGNODE_WALLET", help="The wallet's name.")]
AmountArgument = Annotated[str, typer.Argument(help="In bitcoin, such as 0.5.")]
DEFAULT_WALLET = "default"

wallet_app = typer.Typer(
    no_args_is_help=True, help="A wallet on the sidechain, kept by BDK: BIP39 words, encrypted, and BIP86 addresses."
)


def wallet_chain(home: Home) -> WalletChain:
    """The chain of the node that `home` names."""
    genesis = home.genesis()
    sidechain, l1 = home.networks()
    return WalletChain(
        network=sidechain, genesis_hash=genesis.header().hash, l1_network=l1, l1_genesis_hash=genesis.l1_genesis_hash
    )


def wallet_directory(home: Home, name: str) -> Path:
    """Where a wallet lies. Raises typer.BadParameter for a name that is no file name."""
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise typer.BadParameter("a wallet's name has letters, digits, - and _ only", param_hint="--wallet")
    return home.directory / "wallets" / name


@contextmanager
def open_wallet(home: Home, name: str, *, synced: bool = True) -> Iterator[Wallet]:
    """An existing wallet that watches, brought up to date first."""
    with Wallet.load(wallet_directory(home, name), wallet_chain(home)) as wallet:
        if synced:
            wallet.sync(rpc_url(home.config()))
        yield wallet


@contextmanager
def open_spending_wallet(home: Home, name: str, passphrase_file: Path | None) -> Iterator[Wallet]:
    """An existing wallet that can spend, brought up to date first."""
    forbid_memory_dumps()
    with open_wallet(home, name) as wallet:
        wallet.unlock(_passphrase(home, name, passphrase_file))
        yield wallet


def _passphrase(home: Home, name: str, file: Path | None, *, new: bool = False) -> Passphrase:
    return find_passphrase(file or home.local_passphrase_file(), new=new, what=f"wallet {name}")


def _create(home: Home, name: str, file: Path | None, words: str | None) -> Wallet:
    """A new wallet. The random passphrase of a local federation needs no stretching."""
    path = wallet_directory(home, name)
    require_no_seed(path / SEED_FILE)
    is_local = file is None and home.local_passphrase_file() is not None
    passphrase = _passphrase(home, name, file, new=True)
    return Wallet.create(
        path, wallet_chain(home), passphrase, words, scrypt_log_n=LEAST_LOG_N if is_local else STRONG_LOG_N
    )


@wallet_app.command("create")
def create(
    directory: DirectoryOption,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a wallet, and show the words from which it can be restored. Write them down."""
    with errors_as_one_line():
        forbid_memory_dumps()
        home = Home(directory, node)
        words = fresh_mnemonic()
        _create(home, name, passphrase_file, words).close()
        _print_wallet(home, name, json, {"words": words})
        if not json:
            out.print("Who has these words has the coins, without any passphrase. Keep them on paper.", markup=False)


@wallet_app.command("restore")
def restore(
    directory: DirectoryOption,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a wallet from the words of an old one, which are asked for, and look for its coins and deposits."""
    with errors_as_one_line():
        forbid_memory_dumps()
        home = Home(directory, node)
        require_no_seed(wallet_directory(home, name) / SEED_FILE)
        words, chain = _ask_for_words(), wallet_chain(home)
        WalletSigner(words, chain.network, chain.genesis_hash)  # refused before any other question
        with _create(home, name, passphrase_file, words) as wallet, home.client() as client:
            wallet.sync(rpc_url(home.config()), full=True)
            deposits = restore_deposits(client, wallet)
        _print_wallet(home, name, json, {"deposits": len(deposits)})


@wallet_app.command("words")
def words(
    directory: DirectoryOption,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show the words from which the wallet can be restored. Who sees them has the coins."""
    with errors_as_one_line():
        forbid_memory_dumps()
        home = Home(directory, node)
        with open_wallet(home, name, synced=False) as wallet:
            shown = wallet.mnemonic(_passphrase(home, name, passphrase_file))
        _print_wallet(home, name, json, {"words": shown})


@wallet_app.command("change-passphrase")
def change_passphrase(
    directory: DirectoryOption,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    passphrase_file: PassphraseFileOption = None,
    new_passphrase_file: NewPassphraseFileOption = None,
) -> None:
    """Encrypt the words anew under another passphrase. The words stay what they are."""
    with errors_as_one_line():
        forbid_memory_dumps()
        home = Home(directory, node)
        with open_wallet(home, name, synced=False) as wallet:
            old = _passphrase(home, name, passphrase_file)
            change_seed_passphrase(
                wallet.directory / SEED_FILE,
                old,
                lambda: find_passphrase(new_passphrase_file, new=True, what=f"wallet {name}"),
            )
        out.print(f"wallet {name} has a new passphrase; its words are the same", markup=False)


def _print_wallet(home: Home, name: str, json: bool, more: dict[str, str | int]) -> None:
    path = wallet_directory(home, name)
    if json:
        print_json({"wallet": name, "directory": str(path), **more})
        return
    out.print(f"wallet {name} in {path}", markup=False)
    if more:
        print_fields(more)


def _ask_for_words() -> str:
    """The words of a wallet, typed unseen, or from a pipe."""
    if sys.stdin.isatty():
        return str(typer.prompt("words", hide_input=True))
    return sys.stdin.readline().strip()


@wallet_app.command("address")
def address(
    directory: DirectoryOption, node: NodeOption = None, name: WalletOption = DEFAULT_WALLET, json: JsonOption = False
) -> None:
    """Show a fresh sidechain address. For deposits from L1, use: peg deposit address."""
    with errors_as_one_line(), open_wallet(Home(directory, node), name, synced=False) as wallet:
        fresh = wallet.new_address()
        if json:
            print_json({"address": fresh})
        else:
            out.print(fresh, markup=False)


@wallet_app.command("balance")
def balance(
    directory: DirectoryOption, node: NodeOption = None, name: WalletOption = DEFAULT_WALLET, json: JsonOption = False
) -> None:
    """Show what the wallet has, in final blocks and waiting for one."""
    with errors_as_one_line(), open_wallet(Home(directory, node), name) as wallet:
        has = wallet.balance()
        if json:
            print_json({"confirmed_sats": has.confirmed_sats, "pending_sats": has.pending_sats})
        else:
            print_fields({"final": coins(has.confirmed_sats), "pending": coins(has.pending_sats)})


@wallet_app.command("send")
def send(
    directory: DirectoryOption,
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="A sidechain address.")],
    amount: AmountArgument,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Pay a sidechain address."""
    with errors_as_one_line():
        home = Home(directory, node)
        amount_sats = parse_btc(amount)
        with open_spending_wallet(home, name, passphrase_file) as wallet:
            txid_hex = hash_to_hex(wallet.send(rpc_url(home.config()), to, amount_sats))
        if json:
            print_json({"txid": txid_hex, "amount_sats": amount_sats})
        else:
            out.print(txid_hex, markup=False)


@wallet_app.command("history")
def history(
    directory: DirectoryOption, node: NodeOption = None, name: WalletOption = DEFAULT_WALLET, json: JsonOption = False
) -> None:
    """List what came in and went out, newest first."""
    with errors_as_one_line(), open_wallet(Home(directory, node), name) as wallet:
        items = wallet.history()
        if json:
            print_json([_item_json(item) for item in items])
            return
        print_items([_headline(item) for item in items], "nothing yet")


def _item_json(item: HistoryItem) -> dict[str, str | int | None]:
    return {
        "txid": hash_to_hex(item.txid),
        "kind": item.kind.value,
        "sent_sats": item.sent_sats,
        "received_sats": item.received_sats,
        "fee_sats": item.fee_sats,
        "height": item.height,
        "time": item.time_seconds,
    }


def _headline(item: HistoryItem) -> tuple[str, dict[str, str]]:
    change_sats = item.received_sats - item.sent_sats
    amount = f"{'-' if change_sats < 0 else '+'}{coins(abs(change_sats))}"
    values = {"txid": hash_to_hex(item.txid), "block": "waiting" if item.height is None else str(item.height)}
    if item.time_seconds is not None:
        values["time"] = time_text(1_000 * item.time_seconds)
    if item.fee_sats is not None and item.sent_sats:  # else somebody else paid it
        values["fee"] = coins(item.fee_sats)
    return f"{amount}  {item.kind.value}", values
