"""`peg deposit`: from L1 to the sidechain."""

from typing import Annotated

import typer

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.identifiers import Script
from pegnode.cli.home import DirectoryOption, Home, NodeOption
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, out, print_fields, print_items, print_json
from pegnode.cli.wallets import DEFAULT_WALLET, WalletOption, open_wallet
from pegnode.rpc.results import ClaimReply, DepositAddressReply, DepositReply, PegInfoReply

deposit_app = typer.Typer(
    no_args_is_help=True, help="From L1 to the sidechain: addresses to pay, and what became of it."
)


@deposit_app.command("address")
def address(
    directory: DirectoryOption,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    to: Annotated[
        str | None,
        typer.Option("--to", help="A sidechain address to credit.", show_default="a fresh one of the wallet"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show an L1 address; what it receives is credited to the wallet on the sidechain."""
    with errors_as_one_line():
        home = Home(directory, node)
        if to is None:
            with open_wallet(home, name, synced=False) as wallet:
                to = wallet.new_address()
        with home.client() as client:
            reply = client.ask(DepositAddressReply, "getdepositaddress", to)
        if json:
            print_json(reply)
            return
        out.print(reply.address, markup=False)
        print_fields(
            {
                "credits": reply.claim_address,
                "after": f"{reply.confirmations} confirmations, without doing anything more",
                "least": f"{coins(reply.min_deposit_sats)}; less goes to the federation's fund",
                "fee": coins(reply.claim_fee_sats),
                "claim script": f"{reply.claim_script_hex} (with the L1 txid, it claims by hand)",
            }
        )


@deposit_app.command("list")
def listing(
    directory: DirectoryOption, node: NodeOption = None, name: WalletOption = DEFAULT_WALLET, json: JsonOption = False
) -> None:
    """List the deposits to the wallet's addresses, and how far each has come."""
    with errors_as_one_line():
        home = Home(directory, node)
        with open_wallet(home, name, synced=False) as wallet, home.client() as client:
            replies = client.ask(list[DepositReply], "listdeposits", wallet.addresses())
        if json:
            print_json(replies)
            return
        print_items(
            [(f"{coins(item.value_sats)}  {_state(item)}", _details(item)) for item in replies],
            "no deposits in L1 blocks yet; get an address with: peg deposit address",
        )


def _details(deposit: DepositReply) -> dict[str, str]:
    details = {"paid by": deposit.outpoint, "to": deposit.claim_address or "-"}
    if deposit.claim_txid is not None:
        details["credited by" if deposit.status == "claimed" else "will be credited by"] = deposit.claim_txid
    return details


def _state(deposit: DepositReply) -> str:
    match deposit.status:
        case "seen":
            return f"{deposit.confirmations} of {deposit.confirmations_needed} confirmations"
        case "claimable":
            return "deep enough; in one of the next blocks"
        case "below-minimum":
            return "below the minimum: a gift to the fund"
        case other:
            return other


@deposit_app.command("claim")
def claim(
    directory: DirectoryOption,
    l1_txid: Annotated[str, typer.Argument(help="The L1 transaction.")],
    vout: Annotated[int, typer.Argument(min=0, max=0xFFFFFFFF, help="Which of its outputs, from 0.")],
    claim_address: Annotated[str, typer.Argument(help="The sidechain address to credit, or its script in hex.")],
    node: NodeOption = None,
    json: JsonOption = False,
) -> None:
    """Claim a deposit by hand, from any node: for an address that no member watches any more."""
    with errors_as_one_line():
        home = Home(directory, node)
        with home.client() as client:
            needed = client.ask(PegInfoReply, "getpeginfo").confirmations
            reply = client.ask(ClaimReply, "claimdeposit", l1_txid, vout, as_address(home, claim_address))
        if json:
            print_json(reply)
        else:
            out.print(
                f"proven ({needed} confirmations); {coins(reply.credited_sats)} in one of the next blocks", markup=False
            )
            out.print(reply.claim_txid, markup=False)


def as_address(home: Home, text: str) -> str:
    """A sidechain address as it is, or the one of a script given in hex."""
    try:
        script = bytes.fromhex(text)
    except ValueError:
        return text
    return encode_address(Script(script), home.networks()[0])
