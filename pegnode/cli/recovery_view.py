"""How `peg recovery` shows coins and PSBTs, to people and to machines."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bridge.bitcoin.addresses import Network, encode_address, l1_network, sidechain_network
from bridge.bitcoin.identifiers import Script, hash_to_hex
from bridge.bitcoin.script import classify
from bridge.recovery_signing import RecoveryRequest
from pegnode.cli.terminal import coins, out, print_fields, print_items, print_table
from pegnode.genesis import Genesis
from pegnode.recovery.known import KnownReserve
from pegnode.recovery.survey import CoinState, Survey, SurveyedCoin, coins_in_words
from pegnode.rpc.descriptors import with_checksum


class CoinEntry(msgspec.Struct, frozen=True):
    """A coin in JSON. state: mature, immature, spending or gone.  matures_at: height of the first block to spend it."""

    outpoint: str
    value_sats: int
    kind: str
    address: str
    claim_address: str | None
    descriptor: str
    l1_height: int
    matures_at: int
    in_ledger: bool
    state: str


class PsbtEntry(msgspec.Struct, frozen=True):
    """A PSBT in JSON. payments: address and amount.  signers: the recovery keys that have signed all they can."""

    file: str
    txid: str
    inputs: int
    value_sats: int
    payments: list[tuple[str, int]]
    fee_sats: int
    vsize_vbytes: int
    signers: list[str]


class PlanReply(msgspec.Struct, frozen=True):
    """What `peg recovery plan --json` prints. source: where the ledger was read.  l1_height: of the newest block."""

    chain_id: str
    source: str
    l1_height: int
    coins: list[CoinEntry]
    psbts: list[PsbtEntry]


def plan_reply(
    genesis: Genesis, known: KnownReserve, found: Survey, files: Sequence[Path], requests: Sequence[RecoveryRequest]
) -> PlanReply:
    """All of a plan."""
    entries = [coin_entry(item, genesis) for item in found.coins]
    psbts = [psbt_entry(file, request, genesis) for file, request in zip(files, requests, strict=True)]
    return PlanReply(genesis.chain_id.hex(), known.source, found.tip_height, entries, psbts)


def coin_entry(item: SurveyedCoin, genesis: Genesis) -> CoinEntry:
    """One coin."""
    origin, reserve = item.coin.origin, item.coin.reserve
    claim = Script(origin.claim_script)
    return CoinEntry(
        outpoint=str(item.coin.outpoint),
        value_sats=item.coin.value_sats,
        kind=origin.kind.name.lower(),
        address=encode_address(reserve.script, l1_network(genesis.l1.network)),
        claim_address=encode_address(claim, sidechain_network(genesis.l1.network)) if claim else None,
        descriptor=with_checksum(reserve.descriptor),
        l1_height=item.l1_height,
        matures_at=item.matures_at,
        in_ledger=item.in_ledger,
        state=item.state.value,
    )


def psbt_entry(file: Path, request: RecoveryRequest, genesis: Genesis) -> PsbtEntry:
    """One PSBT."""
    network = l1_network(genesis.l1.network)
    transaction = request.psbt.transaction
    return PsbtEntry(
        file=str(file),
        txid=hash_to_hex(transaction.txid),
        inputs=len(transaction.inputs),
        value_sats=request.value_sats,
        payments=[(_payee(output.script, network), output.value_sats) for output in transaction.outputs],
        fee_sats=request.fee_sats,
        vsize_vbytes=request.vsize_vbytes,
        signers=[key.hex() for key in request.signers()],
    )


def print_survey(genesis: Genesis, known: KnownReserve, found: Survey) -> None:
    """Every coin with what it takes to look for it elsewhere, and sums."""
    print_fields(
        {"chain id": genesis.chain_id.hex(), "ledger": known.source, "Bitcoin node": f"block {found.tip_height}"}
    )
    out.print()
    items = [(_headline(item, found.tip_height), _details(coin_entry(item, genesis))) for item in found.coins]
    print_items(items, "no coin of this reserve is on L1")
    out.print()
    for state, words in _SUMS.items():
        chosen = [item.coin.value_sats for item in found.coins if item.state is state]
        if chosen:
            out.print(f"{coins(sum(chosen))} in {coins_in_words(len(chosen))} {words}", markup=False)


def print_request(file: Path, request: RecoveryRequest, genesis: Genesis) -> None:
    """What a PSBT pays to whom, and who has signed it."""
    entry = psbt_entry(file, request, genesis)
    policy = request.policies[0]
    feerate = request.fee_sats / request.vsize_vbytes
    out.print(f"{file}", markup=False, style="bold" if out.is_terminal else "")
    print_fields(
        {
            "    transaction": entry.txid,
            "    spends": f"{coins(entry.value_sats)} in {coins_in_words(entry.inputs)} of the reserve",
            "    fee": f"{coins(entry.fee_sats)}, {feerate:.1f} sat/vB of {entry.vsize_vbytes} vB",
            "    signed by": f"{len(entry.signers)} recovery keys; {policy.recovery_quorum} are needed",
        }
    )
    rows = [(f"    {address}", coins(value_sats)) for address, value_sats in entry.payments]
    print_table(("    pays", "BTC "), rows, "")


def _payee(script: Script, network: Network) -> str:
    """An address, or a script of no address in hex: a plan has none, but somebody may ask to sign for one."""
    return encode_address(script, network) if classify(script) is not None else f"script {script.hex()}"


_SUMS = {
    CoinState.MATURE: "can be recovered now",
    CoinState.IMMATURE: "can be recovered later",
    CoinState.SPENDING: "being spent by a transaction that waits in the mempool",
    CoinState.GONE: "of the ledger, spent on L1 already",
}


def _headline(item: SurveyedCoin, tip_height: int) -> str:
    words = {
        CoinState.MATURE: "can be recovered now",
        CoinState.IMMATURE: f"can be recovered in block {item.matures_at}, {item.matures_at - tip_height} from now",
        CoinState.SPENDING: "a transaction that spends it waits in the mempool",
        CoinState.GONE: "spent on L1",
    }
    kind = item.coin.origin.kind.name.lower()
    return f"{coins(item.coin.value_sats)} {kind}: {words[item.state]}{'' if item.in_ledger else '; not in the ledger'}"


def _details(entry: CoinEntry) -> dict[str, str]:
    claim = {} if entry.claim_address is None else {"credits": entry.claim_address}
    return {"coin": entry.outpoint, "address": entry.address, **claim, "descriptor": entry.descriptor}
