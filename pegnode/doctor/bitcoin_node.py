"""The member's own Bitcoin node: what it is, where it is on its chain, and how it is reached."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import trio

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.l1.answers import ChainInfo, NetworkInfo
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error
from bridge.l1.jsonrpc import Call
from bridge.l1.reply import Reply
from bridge.l1.states import L1State, state_of_failure
from bridge.l1.watcher import WINDOW_BLOCKS
from pegnode.config import L1Config
from pegnode.doctor.findings import Check, Finding, ok, problem, warning
from pegnode.genesis import Genesis
from pegnode.service.l1_diagnosis import L1Look, diagnose

ASK_TIMEOUT_S: Final = 10.0
MAX_BLOCK_AHEAD_S: Final = 7_200
"""No node takes a block whose time is further ahead of its clock. Source: Bitcoin Core, MAX_FUTURE_BLOCK_TIME."""
MAX_PEER_OFFSET_S: Final = 10
"""Clocks of the Bitcoin node's peers, as it measures them, are seconds apart at best."""
STALE_TIP_S: Final = 7_200
"""Two hours without a block happen a few times in a lifetime of Bitcoin's main chain."""
WAITING_STATES: Final = (L1State.STARTING, L1State.INITIAL_DOWNLOAD, L1State.BEHIND, L1State.PRUNED, L1State.SLOW)
"""Of these, time or patience is the remedy, or the node does most of its work."""


@dataclass(frozen=True, slots=True)
class BitcoinFacts:
    """What the node answered. first: its block 0.  at_anchor: its block at the genesis's anchor, None above its tip.

    tip_time_s: of its newest block, Unix time.  offset_s: its peers' clocks against its own.  indexed: whether its
    transaction index is there and complete.
    """

    chain: ChainInfo
    network: NetworkInfo
    first: BlockHash | None
    at_anchor: BlockHash | None
    tip_time_s: int
    offset_s: int
    indexed: bool
    answer_s: float


def check_state(facts: BitcoinFacts, genesis: Genesis, anchor_height: int) -> Finding:
    """Which state of `L1State` the node is in. anchor_height: of the newest final block that is known."""
    look = L1Look(
        chain=facts.chain,
        network=facts.network,
        answer_s=facts.answer_s,
        chain_fault=_chain_fault(facts, genesis),
        needed_height=max(genesis.anchor.height, min(facts.chain.blocks - WINDOW_BLOCKS, anchor_height) + 1),
    )
    state, detail = diagnose(look)
    if state is not L1State.OK:
        return _state_finding(state, detail)
    where = f"{facts.network.subversion} on {facts.chain.chain}, at height {facts.chain.blocks}"
    if look.lag_blocks:
        return warning(Check.BITCOIN_NODE, f"{where}, {look.lag_blocks} blocks behind", L1State.BEHIND.remedy)
    if facts.at_anchor is None:
        what = f"{where}: it has yet to reach the genesis's anchor, {genesis.anchor.height}"
        return warning(Check.BITCOIN_NODE, what, "wait until it has caught up; on regtest, mine")
    if facts.chain.chain != "regtest" and not facts.network.connections:
        return warning(Check.BITCOIN_NODE, f"{where}, without peers", L1State.STUCK.remedy)
    return ok(Check.BITCOIN_NODE, where)


def check_failure(error: L1Error) -> Finding:
    """Why the node gave no answer."""
    return _state_finding(*state_of_failure(error))


def _state_finding(state: L1State, detail: str) -> Finding:
    what = f"{state}: {state.cause}" + (f" ({detail})" if detail else "")
    if state in WAITING_STATES:
        return warning(Check.BITCOIN_NODE, what, state.remedy)
    return problem(Check.BITCOIN_NODE, what, state.remedy)


def _chain_fault(facts: BitcoinFacts, genesis: Genesis) -> str | None:
    if facts.first != genesis.l1_genesis_hash:
        return f"it is on {facts.chain.chain}, and the genesis is for {genesis.l1.network}"
    if facts.at_anchor is not None and facts.at_anchor != genesis.anchor.hash:
        return f"it has another block at the genesis's anchor, {hash_to_hex(genesis.anchor.hash)}"
    return None


def check_clock(facts: BitcoinFacts, now_s: float) -> list[Finding]:
    """Whether L1 contradicts this machine's clock; that it does not, proves little. now_s: Unix time."""
    remedy = "set this machine's clock, and keep it right with NTP"
    behind_s = facts.tip_time_s - MAX_BLOCK_AHEAD_S - now_s
    if behind_s > 0:
        what = f"L1's newest block is from the future: this clock is at least {behind_s:.0f} s behind"
        return [problem(Check.CLOCK, what, remedy)]
    found = []
    if abs(facts.offset_s) > MAX_PEER_OFFSET_S:
        found.append(warning(Check.CLOCK, f"the Bitcoin node's peers are {facts.offset_s:+d} s from its clock", remedy))
    age_s = now_s - facts.tip_time_s
    if facts.chain.chain == "main" and age_s > STALE_TIP_S and not facts.chain.is_downloading:
        what = f"L1's newest block is {age_s / 3600:.1f} hours old by this clock"
        found.append(warning(Check.CLOCK, what, f"{remedy}; or the Bitcoin node is cut off: {L1State.STUCK.remedy}"))
    return found


def check_index(facts: BitcoinFacts) -> Finding:
    """Whether deposits can be found by their transaction alone."""
    if facts.indexed:
        return ok(Check.BITCOIN_INDEX, "it has its transaction index")
    what = "it has no transaction index, or is still building it"
    return warning(Check.BITCOIN_INDEX, what, "set txindex=1 for claims by hand of deposits made long ago")


def check_connection(l1: L1Config) -> Finding:
    """Whether the password travels over a network in clear."""
    parts = urlsplit(l1.url)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local or parts.scheme == "https":
        return ok(Check.BITCOIN_CONNECTION, f"asked at {l1.url}")
    what = f"{l1.url} is another machine, and password and answers travel to it in clear"
    return warning(Check.BITCOIN_CONNECTION, what, "use a tunnel (ssh -L, WireGuard) and its end on 127.0.0.1")


async def ask_bitcoin_node(l1: L1Config, genesis: Genesis) -> BitcoinFacts:
    """Everything that the checks above want to know. Raises L1Error, ConfigRefused."""
    async with L1Client(l1.url, l1.credentials(), ASK_TIMEOUT_S) as client:
        asked_s = trio.current_time()
        chain = await client.chain_info()
        answer_s = trio.current_time() - asked_s
        tip = await client.block_header(chain.best_block_hash)
        network = Reply(await client.connection.call(Call("getnetworkinfo")), "getnetworkinfo")
        indexes = Reply(await client.connection.call(Call("getindexinfo")), "getindexinfo")
        return BitcoinFacts(
            chain=chain,
            network=NetworkInfo.parse(network),
            first=await client.block_hash(0),
            at_anchor=await client.block_hash(genesis.anchor.height),
            tip_time_s=tip.time if tip else 0,
            offset_s=network["timeoffset"].integer(minimum=-(2**31)),
            indexed="txindex" in indexes and indexes["txindex"]["synced"].flag(),
            answer_s=answer_s,
        )


async def bitcoin_node(l1: L1Config, genesis: Genesis, anchor_height: int, now_s: float) -> list[Finding]:
    """All of it. anchor_height: of the newest final block that is known.  now_s: Unix time."""
    connection = check_connection(l1)
    try:
        facts = await ask_bitcoin_node(l1, genesis)
    except L1Error as error:
        return [check_failure(error), connection]
    return [check_state(facts, genesis, anchor_height), check_index(facts), connection, *check_clock(facts, now_s)]
