"""`peg deposit`: from L1 to the sidechain."""

from typing import Annotated

import typer

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.identifiers import Script
from bridge.errors import Rejected
from pegnode.cli.deposit_search import find_deposits
from pegnode.cli.halt_note import print_halt_note
from pegnode.cli.home import DirectoryOption, Home, NodeOption
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, out, print_fields, print_items, print_json
from pegnode.cli.wallets import DEFAULT_WALLET, WalletOption, open_wallet
from pegnode.rpc.client import RpcClient, RpcRefused
from pegnode.rpc.deposit_states import ClaimReason
from pegnode.rpc.results import ClaimReply, DepositAddressReply, DepositReply
from pegnode.wallet.node import STOP_GAP

deposit_app = typer.Typer(
    no_args_is_help=True, help="From L1 to the sidechain: addresses to pay, and what became of it."
)

OF_ONE_ADDRESS = (
    ClaimReason.WRONG_SCRIPT,
    ClaimReason.ALREADY_ENTERED,
    ClaimReason.BELOW_MINIMUM,
    ClaimReason.SPENT,
    ClaimReason.TOO_OLD,
)
"""Refusals that leave room for another address of the wallet."""


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
                "claim script": f"{reply.claim_script_hex} (with the L1 txid, it claims by hand: peg deposit claim)",
            }
        )


@deposit_app.command("list")
def listing(
    directory: DirectoryOption, node: NodeOption = None, name: WalletOption = DEFAULT_WALLET, json: JsonOption = False
) -> None:
    """List the deposits to the wallet's addresses: what is the case with each, what happens next, and when.

    Has the members look for them too, should they have forgotten.
    """
    with errors_as_one_line():
        home = Home(directory, node)
        with open_wallet(home, name, synced=False) as wallet, home.client() as client:
            replies = find_deposits(client, wallet.addresses())
            if json:
                print_json(replies)
                return
            print_items(
                [(f"{coins(item.value_sats)}  {item.status}", _details(item)) for item in replies],
                "no deposits in the mempool or the latest blocks of L1; get an address with: peg deposit address",
            )
            print_halt_note(client)


def _details(deposit: DepositReply) -> dict[str, str]:
    details = {"paid by": deposit.outpoint, "to": deposit.claim_address or "-"}
    if deposit.claim_txid is not None:
        details["credited by" if deposit.claim_height is not None else "will be credited by"] = deposit.claim_txid
    return details | {"state": deposit.meaning, "next": deposit.next}


@deposit_app.command("claim")
def claim(
    directory: DirectoryOption,
    l1_txid: Annotated[str, typer.Argument(help="The L1 transaction.")],
    claim_address: Annotated[
        str | None,
        typer.Option(help="The sidechain address to credit.", show_default="all of the wallet's"),
    ] = None,
    claim_script: Annotated[
        str | None, typer.Option(help="The same as a script in hex, as peg deposit address showed it.")
    ] = None,
    vout: Annotated[
        int | None, typer.Option(min=0, max=0xFFFFFFFF, help="One output, from 0.", show_default="all that pay it")
    ] = None,
    l1_block: Annotated[
        str | None,
        typer.Option(help="The hash of the L1 block that holds it, for a Bitcoin node without txindex."),
    ] = None,
    node: NodeOption = None,
    name: WalletOption = DEFAULT_WALLET,
    json: JsonOption = False,
) -> None:
    """Claim deposits by hand, from any node: for an address that no member watches, or a deposit of long ago.

    The L1 transaction and the address it was for are enough.
    """
    with errors_as_one_line():
        home = Home(directory, node)
        addresses = _claim_addresses(home, name, claim_address, claim_script)
        with home.client() as client:
            claimed = _claim_any(client, addresses, l1_txid, vout, l1_block)
        if json:
            print_json(claimed)
            return
        for item in claimed:
            out.print(f"{coins(item.credited_sats)}  proven: in one of the next blocks", markup=False)
            print_fields({"    paid by": item.outpoint, "    will be credited by": item.claim_txid})


def _claim_addresses(home: Home, name: str, address: str | None, script: str | None) -> list[str]:
    """Whom to credit. Raises typer.BadParameter."""
    if address is not None and script is not None:
        raise typer.BadParameter("give one of --claim-address and --claim-script")
    if address is not None:
        return [address]
    if script is not None:
        return [_address_of(home, script)]
    with open_wallet(home, name, synced=False) as wallet:
        return wallet.addresses(ahead=STOP_GAP)


def _address_of(home: Home, script_hex: str) -> str:
    try:
        return encode_address(Script(bytes.fromhex(script_hex)), home.networks()[0])
    except (ValueError, Rejected) as error:
        raise typer.BadParameter(
            "not a script of one of the five types, in hex", param_hint="--claim-script"
        ) from error


def _claim_any(
    client: RpcClient, addresses: list[str], l1_txid: str, vout: int | None, l1_block: str | None
) -> list[ClaimReply]:
    """Claim what pays one of the addresses. Raises the node's refusal when nothing does."""
    claimed: list[ClaimReply] = []
    refusals: list[RpcRefused] = []
    for address in addresses:
        try:
            claimed += client.ask(list[ClaimReply], "claimdeposit", l1_txid, address, vout, l1_block)
        except RpcRefused as refused:
            if refused.refusal not in OF_ONE_ADDRESS:
                raise
            refusals.append(refused)
    if not claimed:
        raise min(refusals, key=lambda refused: refused.refusal == ClaimReason.WRONG_SCRIPT)
    return claimed
