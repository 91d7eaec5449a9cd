"""`peg withdraw`: from the sidechain home to L1."""

from typing import Annotated

import typer

from bridge.bitcoin.amounts import parse_btc
from bridge.waiting import WaitReason
from pegnode.cli.halt_note import print_halt_note
from pegnode.cli.home import DirectoryOption, Home, NodeOption, PassphraseFileOption, rpc_url
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, fail, print_fields, print_items, print_json
from pegnode.cli.wallets import DEFAULT_WALLET, open_spending_wallet, open_wallet
from pegnode.rpc.results import WaitingReply, WithdrawalEstimateReply, WithdrawalReply

LISTED = 50
PayingWalletOption = Annotated[
    str | None,
    typer.Option(
        "--wallet",
        "-w",
        envvar="PEGNODE_WALLET",
        help="The wallet's name; with `list`, show only what it withdrew.",
        show_default=f"{DEFAULT_WALLET}; all wallets with `list`",
    ),
]


def withdraw(
    directory: DirectoryOption,
    l1_address: Annotated[str, typer.Argument(metavar="L1_ADDRESS|list", help="Where to pay on L1; or `list`.")],
    amount: Annotated[str | None, typer.Argument(help="In bitcoin, such as 0.5; the L1 fee comes out of it.")] = None,
    max_fee_sats: Annotated[
        int | None,
        typer.Option("--max-fee", min=0, help="Most that the payout may cost, in satoshis.", show_default="estimated"),
    ] = None,
    node: NodeOption = None,
    name: PayingWalletOption = None,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Burn coins of the wallet, and have the federation pay an L1 address. See how far it is: peg withdraw list."""
    with errors_as_one_line():
        home = Home(directory, node)
        if l1_address == "list" and amount is None:
            _list(home, name, json)
            return
        if amount is None:
            fail("how much? peg withdraw L1_ADDRESS AMOUNT")
        amount_sats = parse_btc(amount)
        with home.client() as client:
            estimate = client.ask(
                WithdrawalEstimateReply,
                "estimatewithdrawal",
                l1_address=l1_address,
                amount_sats=amount_sats,
                max_fee_sats=max_fee_sats,
            )
        _require_enough(amount_sats, estimate)
        with open_spending_wallet(home, name or DEFAULT_WALLET, passphrase_file) as wallet:
            burn = wallet.withdraw(rpc_url(home.config()), l1_address, amount_sats, estimate.max_fee_sats)
        if json:
            print_json({"burn": str(burn), "amount_sats": amount_sats, "max_fee_sats": estimate.max_fee_sats})
            return
        print_fields(
            {
                "burn": burn,
                "burned": coins(amount_sats),
                "paid": f"at least {coins(estimate.received_sats)} to {l1_address}, {_when(estimate)}",
            }
        )


def _require_enough(amount_sats: int, estimate: WithdrawalEstimateReply) -> None:
    """End the command when so much, with this bound on the fee, could not be burned or would never be paid."""
    if amount_sats < estimate.min_withdrawal_sats:
        fail(f"too little: the least that may be withdrawn is {coins(estimate.min_withdrawal_sats)}")
    if estimate.max_fee_sats < estimate.least_max_fee_sats:
        fail(
            f"too little: no batch costs a payee less than {estimate.least_max_fee_sats} sats, so with --max-fee"
            f" {estimate.max_fee_sats} it is never paid, but refunded; suggested:"
            f" {estimate.suggested_max_fee_sats}"
        )
    if estimate.received_sats < estimate.dust_limit_sats:
        least_sats = estimate.max_fee_sats + estimate.dust_limit_sats
        fail(f"too little: with a fee of up to {coins(estimate.max_fee_sats)} the least is {coins(least_sats)}")


def _when(estimate: WithdrawalEstimateReply) -> str:
    """When the payout comes: a batch leaves out whoever will not bear a share of its fee."""
    if estimate.max_fee_sats >= estimate.suggested_max_fee_sats:
        return "with the next batch"
    return (
        f"if a batch costs it {estimate.max_fee_sats} sats at most (suggested: {estimate.suggested_max_fee_sats});"
        " refunded if none does before it expires"
    )


def _list(home: Home, name: str | None, json: bool) -> None:
    burns = None
    if name is not None:
        with open_wallet(home, name) as wallet:
            burns = [str(burn) for burn in wallet.burns()]
    with home.client() as client:
        replies = client.ask(list[WithdrawalReply], "listwithdrawals", burns=burns, count=LISTED)
        if json:
            print_json(replies)
            return
        print_items([item_of(reply) for reply in replies], "no withdrawals yet")
        print_halt_note(client)


def item_of(reply: WithdrawalReply) -> tuple[str, dict[str, str]]:
    """How `peg withdraw list` shows a withdrawal: a headline and what is to be known besides."""
    values = {"to": reply.l1_address or reply.l1_script_hex, "burn": reply.burn}
    if reply.payout is not None:
        values["paid by"] = reply.payout
    elif reply.payouts:
        values["paid by"] = f"{reply.payouts[-1].txid}, {reply.payouts[-1].confirmations} confirmations"
    elif reply.refund_txid is not None:
        values["refunded by"] = reply.refund_txid
    if reply.payouts:
        values["fee"] = _fee(reply)
    if reply.waiting is not None:
        values["waits"] = waits_for(reply.waiting, reply.max_fee_sats)
    if reply.expires_in_anchors:
        values["refund"] = (
            f"after {_count(reply.expires_in_anchors, 'more L1 block')}, if no batch has taken it by then"
        )
    paid = "" if reply.paid_sats is None else f", {coins(reply.paid_sats)} paid"
    return f"{reply.stage}: {coins(reply.value_sats)} burned{paid}", values


def waits_for(waiting: WaitingReply, max_fee_sats: int) -> str:
    """Why a withdrawal is pending, in a line."""
    match waiting.reason:
        case WaitReason.EXPIRED:
            return "it has expired, and one of the next blocks refunds it"
        case WaitReason.MAX_FEE:
            return (
                f"a payout costs each payee at least {waiting.share_sats} sats now, and its max fee is {max_fee_sats}"
            )
        case WaitReason.BATCH_OPEN:
            return "the payout before has to be settled first"
        case WaitReason.NOT_COVERED:
            return "the reserve's free coins do not cover it and the older ones"
        case WaitReason.BATCH_FULL:
            return "older ones fill the next payout"
        case WaitReason.NOT_DUE:
            burns, blocks = _count(waiting.burns_missing, "more burn"), _count(waiting.anchors_left, "more L1 block")
            return f"the next payout is due after {burns} or {blocks}"
        case WaitReason.NEXT:
            return "the next payout includes it"
    return waiting.reason


def _count(number: int | None, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _fee(reply: WithdrawalReply) -> str:
    """The feerate of the version that paid, or of the newest, and how often it was raised."""
    paying = [payout for payout in reply.payouts if reply.payout is not None and reply.payout.startswith(payout.txid)]
    version = (paying or reply.payouts)[-1]
    feerate = f"{version.feerate_sat_kvb / 1000:g} sat/vB"
    if len(reply.payouts) == 1:
        return feerate
    return f"{feerate}, version {reply.payouts.index(version) + 1} of {len(reply.payouts)}"
