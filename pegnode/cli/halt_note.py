"""What is said below a list of deposits or withdrawals of a node that is halted: what they say comes next does not."""

from typing import Final

from pegnode.cli.terminal import out
from pegnode.rpc.client import RpcClient
from pegnode.rpc.results import PegInfoReply

HALT_NOTE: Final = (
    "this node is HALTED: what waits for Bitcoin, or for the members' votes on it, may wait until the halt ends; "
    "nothing is lost by that. See `peg status`"
)


def print_halt_note(client: RpcClient) -> None:
    """Say so, if the node is halted. Raises RpcClientError."""
    if client.ask(PegInfoReply, "getpeginfo").halted:
        out.print(HALT_NOTE, markup=False)
