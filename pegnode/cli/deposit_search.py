"""Looking for a wallet's deposits, which the members find only where they were told to look."""

from pegnode.rpc.client import RpcClient
from pegnode.rpc.deposit_states import MAX_LISTED_ADDRESSES
from pegnode.rpc.results import DepositReply, RegistrationReply
from pegnode.wallet.node import STOP_GAP
from pegnode.wallet.wallet import Wallet


def find_deposits(client: RpcClient, addresses: list[str]) -> list[DepositReply]:
    """Have the members look for deposits to these addresses, and list what is known of them."""
    replies: list[DepositReply] = []
    for first in range(0, len(addresses), MAX_LISTED_ADDRESSES):
        part = addresses[first : first + MAX_LISTED_ADDRESSES]
        client.ask(RegistrationReply, "registerdeposits", part)
        replies += client.ask(list[DepositReply], "listdeposits", part)
    return replies


def restore_deposits(client: RpcClient, wallet: Wallet) -> list[DepositReply]:
    """The same for all addresses that a restored wallet may have shown: until so many in a row were never paid.

    The chain knows only addresses that were credited, so a deposit may wait at a later one.
    """
    while True:
        addresses = wallet.addresses(ahead=STOP_GAP)
        replies = find_deposits(client, addresses)
        paid = {reply.claim_address for reply in replies}
        used = max((number for number, address in enumerate(addresses, 1) if address in paid), default=0)
        if not wallet.show_addresses(used):
            return replies
