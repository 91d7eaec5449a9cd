"""`peg l1`: the regtest Bitcoin node, which one may mine on. On any other chain these commands refuse."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import trio
import typer

from bridge.bitcoin.addresses import decode_address, l1_network
from bridge.bitcoin.amounts import parse_btc
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.errors import L1RpcError
from bridge.l1.regtest import AddressType, RegtestMiner
from pegnode.cli.home import DirectoryOption, Home
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_json
from pegnode.errors import PegnodeError
from pegnode.local_federation import LocalFederation

T = TypeVar("T")
MAX_BLOCKS_AT_ONCE = 10_000
MATURITY_BLOCKS = 101

l1_app = typer.Typer(
    no_args_is_help=True,
    help="The regtest Bitcoin node: mine blocks, pay addresses, and make some. Refused on any other chain.",
)


class NotRegtest(PegnodeError):  # noqa: N818 -- a refusal
    """The Bitcoin node is on a chain where blocks aren't made by command."""


def on_regtest(home: Home, work: Callable[[L1Client, RegtestMiner], Awaitable[T]]) -> T:
    """Run `work` with the Bitcoin node of `home` and a funded miner on it. Raises NotRegtest, L1Unavailable."""

    async def with_client() -> T:
        federation = LocalFederation.open(home.directory)
        config = federation.member_config(federation.member_names[0])
        async with L1Client(config.l1.url, config.l1.credentials()) as client:
            chain = (await client.chain_info()).chain
            if chain != "regtest":
                raise NotRegtest(f"the Bitcoin node at {config.l1.url} is on {chain}; this works on regtest only")
            return await work(client, await _funded_miner(client))

    return trio.run(with_client)


async def _funded_miner(client: L1Client) -> RegtestMiner:
    """The miner of the node, with coins that can be spent."""
    try:
        miner = await RegtestMiner.open(client)
    except L1RpcError:
        miner = await RegtestMiner.create(client)
    if await miner.balance_sats() == 0:
        await miner.generate(MATURITY_BLOCKS)
    return miner


@l1_app.command("mine")
def mine(
    directory: DirectoryOption,
    blocks: Annotated[int, typer.Argument(min=1, max=MAX_BLOCKS_AT_ONCE, help="How many blocks.")],
    json: JsonOption = False,
) -> None:
    """Mine blocks."""

    async def work(client: L1Client, miner: RegtestMiner) -> int:
        await miner.generate(blocks)
        return (await client.tip())[0]

    with errors_as_one_line():
        height = on_regtest(Home(directory), work)
        if json:
            print_json({"blocks": blocks, "height": height})
        else:
            out.print(f"mined {blocks}; L1 is at height {height}", markup=False)


@l1_app.command("fund")
def fund(
    directory: DirectoryOption,
    address: Annotated[str, typer.Argument(help="An L1 address, such as a deposit address.")],
    amount: Annotated[str, typer.Argument(help="In bitcoin, such as 0.5.")],
    json: JsonOption = False,
) -> None:
    """Pay an L1 address from the miner's coins. The payment waits for a block: peg l1 mine 1."""
    with errors_as_one_line():
        value_sats = parse_btc(amount)
        decode_address(address, l1_network("regtest"))

        async def work(_: L1Client, miner: RegtestMiner) -> bytes:
            return await miner.send_to_address(address, value_sats)

        txid_hex = hash_to_hex(on_regtest(Home(directory), work))
        if json:
            print_json({"txid": txid_hex, "value_sats": value_sats})
        else:
            out.print(txid_hex, markup=False)


@l1_app.command("address")
def address(
    directory: DirectoryOption,
    kind: Annotated[AddressType, typer.Option("--type", help="In bitcoind's words.")] = AddressType.P2WPKH,
    json: JsonOption = False,
) -> None:
    """Show a fresh L1 address of the miner: somewhere to withdraw to."""
    with errors_as_one_line():

        async def work(_: L1Client, miner: RegtestMiner) -> str:
            return await miner.new_address(kind)

        fresh = on_regtest(Home(directory), work)
        if json:
            print_json({"address": fresh})
        else:
            out.print(fresh, markup=False)
