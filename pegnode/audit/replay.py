"""The chain carried out again, from the genesis, by somebody who has a node's word and wants more than that.

Blocks and certificates come from the node; the rules, the genesis and the arithmetic are this process's own. What the
node answered to `audit` must then be what comes out: the same block, the same ledger root, the same five terms, and a
UTXO set that adds up to the supply. So the node's database may hold anything, and its audit say anything: if it is not
what the certified blocks lead to, it shows. What L1 says is the audit's part, on the auditor's own Bitcoin node.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bridge.bitcoin.identifiers import hash_to_hex
from pegnode.chain.parameters import ChainRules
from pegnode.rpc.audit_results import AuditReply, ReplayReply
from pegnode.rpc.client import RpcClient
from pegnode.storage.check import BlockSource, Counts, Progress, WrongRecord, carry_out
from pegnode.storage.store import ChainStore


@dataclass(frozen=True, slots=True)
class NodeBlocks:
    """The final blocks of a running node, over its RPC. Raises RpcClientError."""

    client: RpcClient

    def block(self, height: int) -> bytes:
        """The encoded block at a height."""
        return _data(self.client.ask(str, "getblock", self.client.ask(str, "getblockhash", height), 0))

    def certificate(self, height: int) -> bytes | None:
        """The certificate of its own that it has, or None."""
        certificate = self.client.call("getblockcertificate", height)
        return None if certificate is None else _data(str(certificate))


def _data(text: str) -> bytes:
    """Bytes in hex; none for what is no hex, which is then refused as no block or certificate."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came out. findings: what the node's answer says otherwise; empty when all is the same."""

    reply: ReplayReply
    findings: Sequence[str]


def replay(source: BlockSource, audit: AuditReply, rules: ChainRules, scratch: Path, progress: Progress) -> Replay:
    """Carry out the chain up to the audit's block, and compare. scratch: an empty directory, for as much as the chain.

    A block or certificate that is none is a finding, not an error.
    """
    counts = Counts()
    with closing(ChainStore.open(scratch / "chain", rules)) as rebuilt:
        try:
            carry_out(source, audit.height, rebuilt, rules, counts, progress)
        except WrongRecord as wrong:
            findings = [f"replay: {wrong}"]
        else:
            report = rebuilt.begin_recount().finish()
            findings = [*report.findings, *_differences(audit, _outcome(rebuilt))]
        blocks = rebuilt.tip.header.height
    return Replay(ReplayReply(blocks, counts.transactions, counts.certificates), findings)


def _outcome(rebuilt: ChainStore) -> dict[str, str | int]:
    """What the blocks lead to, under the names that the audit's reply has for it."""
    tip, totals = rebuilt.tip, rebuilt.ledger.totals
    return {
        "chain_id": tip.header.chain_id.hex(),
        "block_hash": hash_to_hex(tip.hash),
        "ledger_root": tip.header.ledger_root.hex(),
        "reserves_sats": totals.reserves_sats,
        "deficit_sats": totals.deficit_sats,
        "supply_sats": totals.supply_sats,
        "unsettled_sats": totals.unsettled_sats,
        "fund_sats": totals.fund_sats,
        "coins": sum(1 for _ in rebuilt.ledger.coins.items()),
        "counted_supply_sats": sum(utxo.value_sats for _, utxo in rebuilt.utxos.items()),
    }


def _differences(audit: AuditReply, outcome: dict[str, str | int]) -> list[str]:
    return [
        f"replay: {name}: the node says {getattr(audit, name)}, its blocks lead to {value}"
        for name, value in outcome.items()
        if getattr(audit, name) != value
    ]
