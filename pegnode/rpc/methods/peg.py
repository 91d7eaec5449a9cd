"""Methods about the peg: what it holds and owes, who guards it, and how value comes in."""

from dataclasses import asdict

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.identifiers import Script, hash_to_hex
from bridge.custody import CoinKind, ReserveScript, reserve_script
from bridge.errors import Rejected
from bridge.lineages import free_fund_sats
from bridge.state import Totals, WithdrawalStatus
from pegnode.rpc.arguments import address_argument, block_hash_argument, index_argument, txid_argument
from pegnode.rpc.deposit_states import MAX_LISTED_ADDRESSES, DepositInfo
from pegnode.rpc.descriptors import with_checksum
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi
from pegnode.rpc.render import address_text, anchor_reply
from pegnode.rpc.results import (
    ClaimReply,
    DepositAddressReply,
    DepositReply,
    FederationMemberReply,
    FederationReply,
    PegInfoReply,
    RegistrationReply,
    ReserveReply,
)


async def getpeginfo(node: NodeApi) -> PegInfoReply:
    """The five terms of the peg's equality, its anchor on L1, and its limits."""
    tip, ledger, params, status = node.store.tip, node.store.ledger, node.rules.params, node.status()
    totals = ledger.totals
    statuses = [withdrawal.status for _, withdrawal in ledger.open_withdrawals.items()]
    burned_sats = sum(entry.burned_sats for entry in totals.withdrawal_window)
    return PegInfoReply(
        chain_id=node.rules.chain_id.hex(),
        l1_network=node.l1_network.name,
        l1_genesis_hash=hash_to_hex(node.rules.l1_genesis_hash),
        height=tip.header.height,
        block_hash=hash_to_hex(tip.hash),
        anchor=anchor_reply(totals.anchor),
        l1_reachable=status.l1.health.state.answers,
        l1_height=status.l1.height,
        reserves_sats=totals.reserves_sats,
        deficit_sats=totals.deficit_sats,
        supply_sats=totals.supply_sats,
        unsettled_sats=totals.unsettled_sats,
        fund_sats=totals.fund_sats,
        free_fund_sats=free_fund_sats(ledger),
        equality=_equality_holds(totals),
        coins=len(ledger.coins),
        pending_withdrawals=statuses.count(WithdrawalStatus.PENDING),
        batched_withdrawals=statuses.count(WithdrawalStatus.BATCHED),
        open_batches=len(ledger.open_lineages),
        confirmations=params.confirmations,
        min_deposit_sats=params.min_deposit_sats,
        claim_fee_sats=params.claim_fee_sats,
        min_withdrawal_sats=params.min_withdrawal_sats,
        max_withdrawal_sats=params.max_withdrawal_sats,
        window_burned_sats=burned_sats,
        window_left_sats=params.max_window_withdrawals_sats - burned_sats,
        halted=bool(status.halt_findings),
    )


async def getfederationinfo(node: NodeApi) -> FederationReply:
    """The members, their quorum, and the descriptors of the reserve's change and donation scripts.

    Import the descriptors into any Bitcoin node to watch the reserve. What is paid to the donation address goes to the
    fund, and to nobody's account.
    """
    membership, policy = node.rules.membership, node.rules.custody.newest
    seen = {item.member: item for item in node.status().members}
    members = [
        FederationMemberReply(
            index=member.index,
            name=member.name,
            vote_key=member.vote_key32.hex(),
            custody_key=member.custody_key32.hex(),
            peer_id=member.peer_id,
            connected=member.index in seen and seen[member.index].connected,
            last_vote_view=seen[member.index].last_vote_view if member.index in seen else None,
        )
        for member in membership.members
    ]
    return FederationReply(
        chain_id=node.rules.chain_id.hex(),
        epoch=membership.epoch,
        size=membership.size,
        quorum=membership.quorum,
        fault_tolerance=membership.fault_tolerance,
        members=members,
        recovery_keys=[key.hex() for key in policy.recovery_keys],
        recovery_quorum=policy.recovery_quorum,
        recovery_timelock_blocks=policy.recovery_timelock_blocks,
        change=_reserve_reply(node, CoinKind.CHANGE, reserve_script(policy, CoinKind.CHANGE)),
        donation=_reserve_reply(node, CoinKind.DONATION, reserve_script(policy, CoinKind.DONATION)),
        parameters=asdict(node.rules.params),
    )


async def getdepositaddress(node: NodeApi, claim_address: str) -> DepositAddressReply:
    """The L1 address whose deposits are credited to a sidechain address, and a request to the members to watch it.

    The address follows from the claim address alone: asking again, or asking another node, gives the same one.
    """
    claim_script = address_argument("claim_address", claim_address, node.network)
    policy, params = node.rules.custody.newest, node.rules.params
    reserve = reserve_script(policy, CoinKind.DEPOSIT, claim_script)
    await node.register_deposits((claim_script,))
    return DepositAddressReply(
        address=encode_address(reserve.script, node.l1_network),
        descriptor=with_checksum(reserve.descriptor),
        claim_address=encode_address(claim_script, node.network),
        claim_script_hex=claim_script.hex(),
        epoch=policy.epoch,
        confirmations=params.confirmations,
        min_deposit_sats=params.min_deposit_sats,
        claim_fee_sats=params.claim_fee_sats,
    )


async def registerdeposits(node: NodeApi, claim_addresses: list[str]) -> RegistrationReply:
    """Have the members look for deposits to these claim addresses, as getdepositaddress does for one.

    For a wallet that was restored, or whose addresses the members may have forgotten: what they look for is a hint.
    """
    claim_scripts = _claim_scripts(node, claim_addresses)
    return RegistrationReply(registered=len(claim_scripts), new=await node.register_deposits(claim_scripts))


async def listdepositscripts(node: NodeApi) -> list[str]:
    """The claim scripts, in hex, that this node looks for deposits to: of every address it knows was handed out."""
    return [script.hex() for script in node.store.deposit_scripts()]


async def listdeposits(node: NodeApi, claim_addresses: list[str] | None = None) -> list[DepositReply]:
    """The L1 deposits for some claim addresses, or for all that this node knows of: the oldest first, unconfirmed last.

    Each has its state, what that means, and what happens next and when.
    """
    if claim_addresses is None:
        claim_scripts = tuple(node.store.deposit_scripts())
    else:
        claim_scripts = _claim_scripts(node, claim_addresses)
    return [_deposit_reply(node, deposit) for deposit in await node.deposits(claim_scripts)]


async def claimdeposit(
    node: NodeApi, l1_txid: str, claim_address: str, vout: int | None = None, l1_block_hash: str | None = None
) -> list[ClaimReply]:
    """Prove by hand what an L1 transaction pays to the deposit addresses, of any epoch, of a claim address.

    For an address that the members don't watch, or a deposit older than what they look through. vout names one output;
    without it all that pay are claimed. Needs the confirmations that getpeginfo tells, and a Bitcoin node that finds
    the transaction: by its index (txindex), or in the block l1_block_hash. Returns once the proof is offered for the
    next blocks.
    """
    txid, claim_script = (
        txid_argument("l1_txid", l1_txid),
        address_argument("claim_address", claim_address, node.network),
    )
    output = None if vout is None else index_argument("vout", vout)
    block = None if l1_block_hash is None else block_hash_argument("l1_block_hash", l1_block_hash)
    receipts = await node.claim_deposits(txid, claim_script, output, block)
    return [
        ClaimReply(
            outpoint=str(receipt.outpoint),
            claim_txid=hash_to_hex(receipt.claim_txid),
            credited_sats=receipt.credited_sats,
        )
        for receipt in receipts
    ]


def _equality_holds(totals: Totals) -> bool:
    try:
        totals.require_equality()
    except Rejected:
        return False
    return True


def _reserve_reply(node: NodeApi, kind: CoinKind, reserve: ReserveScript) -> ReserveReply:
    return ReserveReply(
        kind=kind.name.lower(),
        address=encode_address(reserve.script, node.l1_network),
        script_hex=reserve.script.hex(),
        descriptor=with_checksum(reserve.descriptor),
    )


def _claim_scripts(node: NodeApi, claim_addresses: list[str]) -> tuple[Script, ...]:
    if len(claim_addresses) > MAX_LISTED_ADDRESSES:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"claim_addresses: at most {MAX_LISTED_ADDRESSES}")
    return tuple(address_argument("claim_addresses", text, node.network) for text in claim_addresses)


def _deposit_reply(node: NodeApi, deposit: DepositInfo) -> DepositReply:
    return DepositReply(
        outpoint=str(deposit.outpoint),
        claim_address=address_text(Script(deposit.claim_script), node.network),
        value_sats=deposit.value_sats,
        l1_height=deposit.l1_height,
        confirmations=deposit.confirmations,
        confirmations_needed=deposit.confirmations_needed,
        status=deposit.status.value,
        meaning=deposit.meaning,
        next=deposit.next_step,
        blocks_left=deposit.blocks_left,
        anchor_height=deposit.anchor_height,
        openings_before=deposit.openings_before,
        claim_txid=None if deposit.claim_txid is None else hash_to_hex(deposit.claim_txid),
        claim_height=deposit.claim_height,
    )


PEG_METHODS: tuple[Handler, ...] = (
    getpeginfo, getfederationinfo, getdepositaddress, registerdeposits, listdepositscripts, listdeposits, claimdeposit,
)  # fmt: skip
