"""`peg fund`: what pays the L1 fees that no payee bears, and how anyone adds to it."""

from typing import Annotated

import typer

from bridge.bitcoin.amounts import format_btc, parse_btc
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.cli.home import DirectoryOption, Home, NodeOption
from pegnode.cli.l1 import on_regtest
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, fail, out, print_fields, print_json
from pegnode.rpc.results import CoinReply, FederationReply, PegInfoReply

fund_app = typer.Typer(
    no_args_is_help=True,
    help="The federation's fund, which pays L1 fees that no payee bears: what it holds, and how to give to it.",
)


@fund_app.command("show")
def show(directory: DirectoryOption, node: NodeOption = None, json: JsonOption = False) -> None:
    """Show what the fund holds, what open batches may take of it, and how old the reserve's oldest coin is."""
    with errors_as_one_line():
        with Home(directory, node).client() as client:
            peg = client.ask(PegInfoReply, "getpeginfo")
            reserve = client.ask(list[CoinReply], "listreservecoins")
            federation = client.ask(FederationReply, "getfederationinfo")
        oldest = max((coin.age_anchors for coin in reserve), default=None)
        timelock = federation.recovery_timelock_blocks
        if json:
            print_json(
                {
                    "fund_sats": peg.fund_sats,
                    "free_sats": peg.free_fund_sats,
                    "deficit_sats": peg.deficit_sats,
                    "oldest_coin_anchors": oldest,
                    "recovery_timelock_blocks": timelock,
                }
            )
            return
        print_fields(
            {
                "fund": coins(peg.fund_sats),
                "free": f"{coins(peg.free_fund_sats)}; open batches may take the rest",
                "deficit": f"{coins(peg.deficit_sats)}; donations repay it first",
                "oldest coin": "none" if oldest is None else _age(oldest, timelock),
            }
        )


def _age(anchors: int, timelock_blocks: int) -> str:
    return f"{anchors} L1 blocks; moved from {-(-timelock_blocks // 2)} on, open to recovery at {timelock_blocks}"


@fund_app.command("address")
def address(directory: DirectoryOption, node: NodeOption = None, json: JsonOption = False) -> None:
    """Show the L1 address whose coins go to the fund, and to nobody's account."""
    with errors_as_one_line():
        federation = _federation(Home(directory, node))
        if json:
            print_json(federation.donation)
            return
        out.print(federation.donation.address, markup=False)
        print_fields({"least": f"{coins(_least_sats(federation))}; less is lost"})


@fund_app.command("donate")
def donate(
    directory: DirectoryOption,
    amount: Annotated[str, typer.Argument(help="In bitcoin, such as 0.001.")],
    node: NodeOption = None,
    json: JsonOption = False,
) -> None:
    """Give to the fund: of a local federation from its miner's coins; else by the payment link that this prints."""
    with errors_as_one_line():
        home = Home(directory, node)
        federation = _federation(home)
        value_sats, target = parse_btc(amount), federation.donation.address
        if value_sats < _least_sats(federation):
            fail(f"too little: less than {coins(_least_sats(federation))} never enters the ledger, and is lost")
        if home.local_passphrase_file() is None:  # no local federation, and no miner here
            link = f"bitcoin:{target}?amount={format_btc(value_sats)}"
            print_json({"link": link}) if json else out.print(link, markup=False)
            return

        async def work(_: L1Client, miner: RegtestMiner) -> bytes:
            return await miner.send_to_address(target, value_sats)

        txid_hex = hash_to_hex(on_regtest(home, work))
        if json:
            print_json({"txid": txid_hex, "value_sats": value_sats})
            return
        out.print(txid_hex, markup=False)
        confirmations = federation.parameters["confirmations"]
        print_fields({"enters": f"after {confirmations} confirmations, without doing anything more"})


def _federation(home: Home) -> FederationReply:
    with home.client() as client:
        return client.ask(FederationReply, "getfederationinfo")


def _least_sats(federation: FederationReply) -> int:
    return federation.parameters["coin_floor_sats"]
