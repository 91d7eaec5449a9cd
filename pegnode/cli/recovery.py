"""`peg recovery`: the way out of a federation that has lost its quorum for good."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console

from bridge.bitcoin.addresses import decode_address, l1_network, sidechain_network
from bridge.bitcoin.identifiers import Script, Txid, hash_to_hex
from bridge.errors import Rejected
from bridge.l1.client import L1Client
from bridge.recovery_signing import RecoveryRequest, RecoveryTerms, combined
from federation.private_files import refuse_existing
from federation.self_test import run_self_test
from pegnode.cli.federation import L1CookieOption, L1PasswordOption, L1UrlOption, L1UserOption
from pegnode.cli.home import PassphraseFileOption
from pegnode.cli.recovery_view import plan_reply, print_request, print_survey, psbt_entry
from pegnode.cli.terminal import JsonOption, errors_as_one_line, fail, out, print_json
from pegnode.config import L1Config, NodeConfig, load_config
from pegnode.genesis import Genesis
from pegnode.local_federation import client_of
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.passphrase import find_passphrase
from pegnode.recovery.files import make_directory, read_psbt, read_transaction, write_psbt, write_transaction
from pegnode.recovery.keys import open_recovery_key, recovery_key_of
from pegnode.recovery.known import KnownReserve, known_on_disk, known_to_node
from pegnode.recovery.plan import broadcast, plan_recovery, terms_of
from pegnode.recovery.survey import Survey, survey

GenesisOption = Annotated[Path, typer.Option("--genesis", help="The federation's genesis.json.")]
AgreedOption = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="ADDRESS", help="An address that was agreed on: refuse any other. Repeat it."),
]
PsbtsArgument = Annotated[list[Path], typer.Argument(metavar="PSBT...", help="PSBT files, as bytes or in base 64.")]
PsbtArgument = Annotated[Path, typer.Argument(metavar="PSBT", help="A PSBT file, as bytes or in base 64.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Sign without asking; takes --to.")]

recovery_app = typer.Typer(
    no_args_is_help=True,
    help="The way out: when a federation is dead, recovery keys spend its reserve once the time lock has passed.",
)


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where a plan comes from. config: of the node whose data it is, if one was named.  data: None without a ledger."""

    genesis: Genesis
    config: NodeConfig | None
    data: Path | None
    l1: L1Config


@recovery_app.command("plan")
def plan(
    config: Annotated[
        Path | None, typer.Option("--config", help="The .toml of a full node or member: its genesis, data and L1.")
    ] = None,
    genesis: Annotated[Path | None, typer.Option("--genesis", help="The genesis.json, without --config.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="A full node's data directory, or a copy, without --config.")
    ] = None,
    claim_address: Annotated[
        list[str] | None,
        typer.Option("--claim-address", help="A sidechain address whose deposits to look for, too. Repeat it."),
    ] = None,
    l1_url: L1UrlOption = None,
    l1_cookie: L1CookieOption = None,
    l1_user: L1UserOption = None,
    l1_password: L1PasswordOption = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="ADDRESS", help="An L1 address to pay; several get equal shares. Repeat it."),
    ] = None,
    feerate: Annotated[int | None, typer.Option("--feerate", min=1, help="In satoshis per virtual byte.")] = None,
    mature_by: Annotated[
        int | None,
        typer.Option("--mature-by", min=1, help="Spend what an L1 block of this height may.", show_default="the next"),
    ] = None,
    output: Annotated[Path | None, typer.Option("--out", help="A new directory, for the PSBT files.")] = None,
    json: JsonOption = False,
) -> None:
    """List every reserve coin and when it can be recovered; with --to, write PSBT files that pay all that can be."""
    with errors_as_one_line():
        if len({bool(to), feerate is not None, output is not None}) > 1:
            fail("PSBT files need all of --to, --feerate and --out")
        sources = _sources(config, genesis, data, _l1(l1_url, l1_cookie, l1_user, l1_password))
        network = sources.genesis.l1.network
        payees = [decode_address(text, l1_network(network)) for text in to or ()]
        claims = [decode_address(text, sidechain_network(network)) for text in claim_address or ()]
        known = _known(sources).with_claim_scripts(claims)
        found = _survey(sources, known)
        if not json:
            print_survey(sources.genesis, known, found)
        files: list[Path] = []
        requests: list[RecoveryRequest] = []
        if payees and feerate is not None and output is not None:
            height = found.tip_height + 1 if mature_by is None else mature_by
            requests = plan_recovery(found, terms_of(sources.genesis), payees, 1_000 * feerate, height)
            files = _write(output, requests)
        if json:
            print_json(plan_reply(sources.genesis, known, found, files, requests))
        for file, request in zip(files, requests, strict=True) if not json else ():
            out.print()
            print_request(file, request, sources.genesis)


@recovery_app.command("sign")
def sign(
    psbts: PsbtsArgument,
    genesis: GenesisOption,
    key: Annotated[Path, typer.Option("--key", help="Your recovery.key, or the directory it is in.")],
    to: AgreedOption = None,
    passphrase_file: PassphraseFileOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Show what PSBTs pay to whom, ask, and sign with a recovery key, into new files beside them. Needs no network."""
    with errors_as_one_line():
        if yes and not to:
            fail("with --yes nobody looks at whom the PSBTs pay; name the agreed addresses with --to")
        if json and not yes:
            fail("with --json nothing is shown to be agreed to; add --yes, and the agreed addresses with --to")
        forbid_memory_dumps()
        run_self_test()
        agreed = Genesis.load(genesis)
        terms = terms_of(agreed)
        public = recovery_key_of(key, terms.custody)
        requests = [_read(path, terms, agreed, to) for path in psbts]
        targets = [path.with_name(f"{path.stem}.{public.hex()[:8]}.psbt") for path in psbts]
        for target in targets:
            refuse_existing(target)
        for path, request in zip(psbts, requests, strict=True) if not json else ():
            print_request(path, request, agreed)
            out.print()
        if not yes and not typer.confirm(f"sign with the recovery key {public.hex()}?"):
            fail("nothing was signed")
        secret = open_recovery_key(key, find_passphrase(passphrase_file, what=f"{key}"))
        signed = [request.signed(secret, secrets.token_bytes) for request in requests]
        for target, request in zip(targets, signed, strict=True):
            write_psbt(target, request.psbt)
        if json:
            print_json([psbt_entry(target, request, agreed) for target, request in zip(targets, signed, strict=True)])
        for target in targets if not json else ():
            out.print(f"signed: {target}", markup=False)


@recovery_app.command("combine")
def combine(
    psbts: PsbtsArgument,
    genesis: GenesisOption,
    output: Annotated[Path, typer.Option("--out", help="Where to write the PSBT with all signatures; a new file.")],
    json: JsonOption = False,
) -> None:
    """Put the signatures of several holders for one transaction into one PSBT."""
    with errors_as_one_line():
        agreed = Genesis.load(genesis)
        terms = terms_of(agreed)
        request = combined([_read(path, terms, agreed, None) for path in psbts])
        write_psbt(output, request.psbt)
        if json:
            print_json(psbt_entry(output, request, agreed))
        else:
            print_request(output, request, agreed)


@recovery_app.command("finalize")
def finalize(
    psbt: PsbtArgument,
    genesis: GenesisOption,
    output: Annotated[Path, typer.Option("--out", help="Where to write the signed transaction, in hex; a new file.")],
    to: AgreedOption = None,
    json: JsonOption = False,
) -> None:
    """Make the signed transaction of a PSBT with enough signatures, and run its scripts. It is not sent yet."""
    with errors_as_one_line():
        agreed = Genesis.load(genesis)
        request = _read(psbt, terms_of(agreed), agreed, to)
        transaction = request.finalized()
        write_transaction(output, transaction)
        if json:
            print_json(psbt_entry(output, request, agreed))
        else:
            print_request(psbt, request, agreed)
            out.print(f"signed transaction: {output}; send it with: peg recovery broadcast {output}", markup=False)


@recovery_app.command("broadcast")
def broadcast_command(
    transaction: Annotated[Path, typer.Argument(metavar="TRANSACTION", help="What `finalize` wrote.")],
    config: Annotated[Path | None, typer.Option("--config", help="The .toml of a node: its Bitcoin node.")] = None,
    l1_url: L1UrlOption = None,
    l1_cookie: L1CookieOption = None,
    l1_user: L1UserOption = None,
    l1_password: L1PasswordOption = None,
    json: JsonOption = False,
) -> None:
    """Ask the Bitcoin node whether it takes a signed transaction, and send it."""
    with errors_as_one_line():
        signed = read_transaction(transaction)
        l1 = _l1(l1_url, l1_cookie, l1_user, l1_password) or (load_config(config).l1 if config else None)
        if l1 is None:
            fail("name the Bitcoin node with --l1-url and --l1-cookie, or a node's file with --config")

        async def send() -> Txid:
            async with L1Client(l1.url, l1.credentials()) as client:
                return await broadcast(client, signed)

        txid_hex = hash_to_hex(trio.run(send))
        if json:
            print_json({"txid": txid_hex})
        else:
            out.print(f"sent: {txid_hex}; it is done once L1 has buried it", markup=False)


@recovery_app.command("drill")
def drill(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="Rehearse on a copy of this local federation's chain.", show_default="a new federation"
        ),
    ] = None,
    members: Annotated[int, typer.Option("--members", min=1, max=15, help="Of a new federation.")] = 4,
    json: JsonOption = False,
) -> None:
    """Rehearse the way out on regtest, from deposits to coins at a new address. Exit status 0: everything held.

    A new federation with a short time lock, of 72 blocks, is made for it, and its members are killed. With --dir,
    a copy of a local federation's Bitcoin chain is used, whether its members run or not, and nothing of it is changed.
    Nothing is left behind.
    """
    from pegnode.cli.recovery_drill import rehearse  # the displays of the demo

    with errors_as_one_line():
        status = rehearse(directory, members, json=json)
    raise typer.Exit(status)


def _sources(config_path: Path | None, genesis: Path | None, data: Path | None, l1: L1Config | None) -> _Sources:
    config = None if config_path is None else load_config(config_path)
    if config is not None:
        return _Sources(Genesis.load(genesis or config.genesis), config, data or config.data_dir, l1 or config.l1)
    if genesis is None or l1 is None:
        fail("name a node's file with --config, or --genesis and the Bitcoin node with --l1-url and --l1-cookie")
    return _Sources(Genesis.load(genesis), None, data, l1)


def _known(sources: _Sources) -> KnownReserve:
    """From the disk, or from the process that runs on it."""
    if sources.data is None:
        return KnownReserve.nothing()
    rules = sources.genesis.rules()
    known = known_on_disk(sources.data, rules)
    if known is not None:
        return known
    if sources.config is None:
        fail(f"a process runs on {sources.data}; name its file with --config, so that it can be asked, or stop it")
    with client_of(sources.config) as client:
        return known_to_node(client, rules, sidechain_network(sources.genesis.l1.network))


def _survey(sources: _Sources, known: KnownReserve) -> Survey:
    async def look() -> Survey:
        async with L1Client(sources.l1.url, sources.l1.credentials()) as client:
            return await survey(client, sources.genesis, sources.genesis.rules().custody, known)

    words = "looking through all unspent outputs of the Bitcoin node; on the main chain this takes minutes"
    with Console(stderr=True).status(words):
        return trio.run(look)


def _write(directory: Path, requests: Sequence[RecoveryRequest]) -> list[Path]:
    make_directory(directory)
    files = [directory / f"recovery-{number}.psbt" for number in range(1, len(requests) + 1)]
    for file, request in zip(files, requests, strict=True):
        write_psbt(file, request.psbt)
    return files


def _read(path: Path, terms: RecoveryTerms, genesis: Genesis, to: Sequence[str] | None) -> RecoveryRequest:
    """A PSBT that asks for what it may, and pays whom was agreed on. Raises Rejected, with the file's name."""
    try:
        request = RecoveryRequest.read(read_psbt(path), terms)
        if to:
            request.require_payees([_agreed(text, genesis) for text in to])
    except Rejected as error:
        detail = error.detail if error.detail.startswith(str(path)) else f"{path}: {error.detail}"
        raise Rejected(error.reason, detail) from error
    return request


def _agreed(address: str, genesis: Genesis) -> Script:
    return decode_address(address, l1_network(genesis.l1.network))


def _l1(url: str | None, cookie: Path | None, user: str | None, password: Path | None) -> L1Config | None:
    return None if url is None else L1Config(url=url, cookie_file=cookie, user=user, password_file=password)
