"""`peg federation`: how a federation comes about, each member on its own machine, without anybody who sees all keys."""

import secrets
from pathlib import Path
from typing import Annotated

import trio
import typer

from bridge.l1.client import L1Client
from federation.keystore import SecretKind, read_secret
from federation.self_test import run_self_test
from pegnode.cli.agreement import print_agreement, print_card, print_template
from pegnode.cli.home import PassphraseFileOption
from pegnode.cli.resume import resume_app
from pegnode.cli.terminal import errors_as_one_line, fail, out, print_fields, print_table
from pegnode.clock import now_ms
from pegnode.config import L1Config
from pegnode.folders import FUNCTIONARY_FILE, NODE_FILE, NODE_NAME
from pegnode.genesis import Genesis
from pegnode.input_file import read_input_text
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.options.reading import MAX_FILE_BYTES
from pegnode.passphrase import find_passphrase
from pegnode.setup.assembly import Assembly, assemble
from pegnode.setup.card import RecoveryCard
from pegnode.setup.comparison import differences
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.folder import CARD_FILE, OwnSettings, complete_member, create_member, write_node
from pegnode.setup.inputs import read_card, recovery_key, write_new
from pegnode.setup.l1_anchor import check_anchor, choose_anchor
from pegnode.setup.template import Agreed, AgreedTemplate, completed, parameters_of

CLOCK_TOLERANCE_MS = 2_000
MEMBER_RPC = "127.0.0.1:18901"
NODE_RPC = "127.0.0.1:18902"

federation_app = typer.Typer(
    no_args_is_help=True,
    help="Set up a federation: each member makes its own keys, and all make the same genesis from public cards. "
    "And end a halt together.",
)
federation_app.add_typer(resume_app, name="resume")

L1UrlOption = Annotated[str | None, typer.Option("--l1-url", help="Your own Bitcoin node, http://host:port.")]
L1CookieOption = Annotated[Path | None, typer.Option("--l1-cookie", help="Its cookie file.")]
L1UserOption = Annotated[str | None, typer.Option("--l1-user", help="Instead of a cookie: its RPC user ...")]
L1PasswordOption = Annotated[
    Path | None, typer.Option("--l1-password-file", help="... and a file with the user's password.")
]


@federation_app.command("init")
def init(
    directory: Annotated[Path, typer.Argument(help="This member's folder; absent or empty.")],
    name: Annotated[str, typer.Option("--name", help="The member's name: a-z, 0-9 and -.")],
    address: Annotated[
        str,
        typer.Option(
            "--address", help="Where the others reach it: /ip4/…, /ip6/… or /dns/NAME (or dns4, dns6), then /tcp/PORT."
        ),
    ],
    passphrase_file: PassphraseFileOption = None,
) -> None:
    """Make this member's keys, and the public card that it gives to the others."""
    with errors_as_one_line():
        _prepare_for_secrets()
        passphrase = find_passphrase(passphrase_file, new=True, what=f"{name}'s keys")
        card = create_member(directory, name, address, passphrase, random_bytes=secrets.token_bytes)
        print_card(card, directory / CARD_FILE)
        out.print("send this file to every member; each compares the fingerprint with you, by voice", markup=False)


@federation_app.command("recovery-card")
def recovery_card(
    directory: Annotated[Path, typer.Argument(help="The folder with recovery.key.")],
    name: Annotated[str, typer.Option("--name", help="The holder's name, or the place's: a-z, 0-9 and -.")],
    passphrase_file: PassphraseFileOption = None,
) -> None:
    """Make the public card of a recovery key, for whoever completes the template, and for every member."""
    with errors_as_one_line():
        _prepare_for_secrets()
        passphrase = find_passphrase(passphrase_file, what="the recovery key")
        secret = read_secret(directory, SecretKind.RECOVERY, passphrase)
        card = RecoveryCard.make(name, secret, secrets.token_bytes)
        write_new(directory / CARD_FILE, card.document)
        print_card(card, directory / CARD_FILE)


@federation_app.command("template")
def template(
    parameters: Annotated[Path, typer.Argument(help="The parameters: a copy of one of configs/*.toml.")],
    output: Annotated[Path, typer.Option("--out", help="Where to write the completed template; a new file.")],
    recovery: Annotated[
        list[str], typer.Option("--recovery", help="A recovery card's file, or an x-only public key in hex; repeat it.")
    ],
    l1_url: L1UrlOption = None,
    l1_cookie: L1CookieOption = None,
    l1_user: L1UserOption = None,
    l1_password: L1PasswordOption = None,
    anchor_height: Annotated[
        int | None,
        typer.Option(
            "--anchor-height",
            min=0,
            help="The L1 block from which the sidechain counts.",
            show_default="twice as deep as deposits must be",
        ),
    ] = None,
) -> None:
    """Complete a template with anchor, time and recovery keys. One person does this, and sends it to everybody."""
    with errors_as_one_line():
        text = read_input_text(parameters, MAX_FILE_BYTES)
        wanted = parameters_of(text, str(parameters))
        keys = [recovery_key(one) for one in recovery]
        l1 = _l1(l1_url, l1_cookie, l1_user, l1_password)
        if l1 is None:
            fail("name your Bitcoin node with --l1-url and --l1-cookie: the anchor is read from it")

        async def choose() -> Agreed:
            async with L1Client(l1.url, l1.credentials()) as client:
                anchor = await choose_anchor(client, wanted, anchor_height)
                return Agreed.of(anchor, [key for key, _ in keys], now_ms())

        agreed = trio.run(choose)
        names = {key.hex(): name for key, name in keys if name is not None}
        result = completed(text, agreed, names)
        write_new(output, result.encode())
        print_template(AgreedTemplate.parse(result), output)
        out.print("send this file to every member; each compares the fingerprint with you, by voice", markup=False)


@federation_app.command("show")
def show(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Cards, templates, geneses.")]) -> None:
    """Check files that others sent, and show the fingerprints to compare."""
    with errors_as_one_line():
        for path in files:
            if path.suffix == ".toml":
                print_template(AgreedTemplate.parse(read_input_text(path, MAX_FILE_BYTES), str(path)), path)
            elif path.name.startswith("genesis"):
                print_fields({"genesis": path, "chain id": Genesis.load(path).chain_id.hex()})
            else:
                print_card(read_card(path), path)


@federation_app.command("assemble")
def assemble_command(
    cards: Annotated[list[Path], typer.Argument(metavar="CARDS...", help="Every member's card, yours among them.")],
    template_file: Annotated[Path, typer.Option("--template", help="The completed template.")],
    directory: Annotated[Path, typer.Option("--dir", help="This member's folder, where `init` made its keys.")],
    l1_url: L1UrlOption = None,
    l1_cookie: L1CookieOption = None,
    l1_user: L1UserOption = None,
    l1_password: L1PasswordOption = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="Where this machine accepts peers.", show_default="the card's port, any address"),
    ] = None,
    rpc: Annotated[str, typer.Option("--rpc", help="Where this member answers, on a loopback address.")] = MEMBER_RPC,
    expect: Annotated[
        str | None, typer.Option("--expect", help="Refuse anything but this chain id, or this genesis file.")
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be agreed, and write nothing.")] = False,
    without_l1_check: Annotated[
        bool, typer.Option("--without-l1-check", help="Trust the template's anchor without asking your Bitcoin node.")
    ] = False,
) -> None:
    """Make the genesis and this member's configuration. The same cards and template make the same chain everywhere."""
    with errors_as_one_line():
        agreed = AgreedTemplate.parse(read_input_text(template_file, MAX_FILE_BYTES), str(template_file))
        assembly = assemble([read_card(path) for path in cards], agreed)
        _require_past(assembly.genesis)
        if expect is not None:
            _require_expected(assembly.genesis, expect)
        l1 = _l1(l1_url, l1_cookie, l1_user, l1_password)
        if l1 is None and not (without_l1_check and dry_run):
            fail("name your Bitcoin node with --l1-url and --l1-cookie: this member asks it about everything on L1")
        depth = None if without_l1_check or l1 is None else _anchor_depth(l1, assembly.genesis)
        print_agreement(assembly, agreed, depth)
        if dry_run or l1 is None:
            out.print("nothing was written", markup=False)
            return
        _complete(directory, assembly, OwnSettings(l1, rpc, listen, passphrase_file))


def _complete(directory: Path, assembly: Assembly, own: OwnSettings) -> None:
    """Write the member's files, and say what comes next."""
    _prepare_for_secrets()
    passphrase = find_passphrase(own.passphrase_file, what="this member's keys")
    fresh = complete_member(directory, assembly, passphrase, own)
    node = directory / NODE_NAME / NODE_FILE
    if not node.exists():
        write_node(node.parent, assembly, OwnSettings(own.l1, NODE_RPC))
    if not fresh:
        out.print(f"{directory} was assembled before, with this genesis; nothing was changed", markup=False)
        return
    out.print("compare the chain id with every other member before you start", markup=False)
    out.print(f"start this member with: peg functionary run --config {directory / FUNCTIONARY_FILE}", markup=False)
    out.print(f"for people who run full nodes: {node.parent}, with their own [l1] in {node.name}", markup=False)


@federation_app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(metavar="GENESIS_A", help="A genesis file.")],
    second: Annotated[Path, typer.Argument(metavar="GENESIS_B", help="Another member's.")],
) -> None:
    """Name every field in which two geneses differ, with both values; exit status 1 if there is one."""
    with errors_as_one_line():
        one, other = Genesis.load(first), Genesis.load(second)
        found = differences(one, other)
        if not found:
            print_fields({"the same chain id": one.chain_id.hex()})
            return
        rows = [(item.field, item.first or "-", item.second or "-") for item in found]
        rows.append(("chain id", one.chain_id.hex(), other.chain_id.hex()))
        print_table(("field", str(first), str(second)), rows, "")
        raise typer.Exit(1)


def _prepare_for_secrets() -> None:
    """Keep secrets out of memory dumps, and sign nothing on a machine that signs wrongly."""
    forbid_memory_dumps()
    run_self_test()


def _l1(url: str | None, cookie: Path | None, user: str | None, password: Path | None) -> L1Config | None:
    return None if url is None else L1Config(url=url, cookie_file=cookie, user=user, password_file=password)


def _anchor_depth(l1: L1Config, genesis: Genesis) -> int:
    async def check() -> int:
        async with L1Client(l1.url, l1.credentials()) as client:
            return await check_anchor(client, genesis)

    return trio.run(check)


def _require_past(genesis: Genesis) -> None:
    ahead_ms = genesis.time_ms - now_ms()
    if ahead_ms > CLOCK_TOLERANCE_MS:
        detail = f"block 0 lies {ahead_ms // 1000} s ahead of this machine's clock; correct the clock, or the template"
        raise SetupRefused(SetupReason.TIME_AHEAD, detail)


def _require_expected(genesis: Genesis, expected: str) -> None:
    """Raise SetupRefused (UNEXPECTED), naming the fields if the other genesis is at hand."""
    if expected.strip().lower() == genesis.chain_id.hex():
        return
    path = Path(expected)
    if not path.is_file():
        detail = f"these cards and this template make {genesis.chain_id.hex()}, not {expected}"
        todo = "ask for the other genesis.json, and give it to --expect: then every difference is named"
        raise SetupRefused(SetupReason.UNEXPECTED, f"{detail}; {todo}")
    found = differences(Genesis.load(path), genesis)
    if found:
        named = "; ".join(
            f"{item.field} is {item.first or 'absent'} there and {item.second or 'absent'} here" for item in found
        )
        raise SetupRefused(SetupReason.UNEXPECTED, f"not the genesis in {path}: {named}")
