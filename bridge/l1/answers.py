"""What the Bitcoin node answers, as values: hashes raw in internal order, money in satoshis, feerates in sat/kvB.

Each `parse` raises L1Unavailable(BAD_RESPONSE).
"""

from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.reply import Reply

MAX_VOUT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """Which chain the node follows, and how far it has come."""

    chain: str
    """main, test, testnet4, signet or regtest."""
    blocks: int
    """Height of the active chain's tip."""
    headers: int
    best_block_hash: BlockHash
    initial_block_download: bool
    pruned: bool
    prune_height: int
    """The lowest block that the node still has; 0 when it has all of them."""

    @property
    def is_downloading(self) -> bool:
        """Whether the node is still catching up with the chain.

        On regtest, a node with all blocks says so too, as long as the newest is a day old: nobody mines there.
        """
        return self.initial_block_download and (self.blocks < self.headers or self.chain != "regtest")

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read `getblockchaininfo`."""
        return cls(
            chain=reply["chain"].text(),
            blocks=reply["blocks"].integer(),
            headers=reply["headers"].integer(minimum=-1),
            best_block_hash=reply["bestblockhash"].block_hash(),
            initial_block_download=reply["initialblockdownload"].flag(),
            pruned=reply["pruned"].flag(),
            prune_height=reply["pruneheight"].integer() if "pruneheight" in reply else 0,
        )


@dataclass(frozen=True, slots=True)
class L1Header:
    """A block's header, and where the node sees it."""

    block_hash: BlockHash
    height: int
    confirmations: int
    """1 at the tip; -1 for a block that isn't on the active chain."""
    n_tx: int
    """How many transactions the block holds; 0 while the node has only its header."""
    merkle_root: bytes
    time: int
    """Seconds since 1970, as the miner stated it."""
    previous_hash: BlockHash | None
    """None for the genesis block."""

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read `getblockheader`."""
        return cls(
            block_hash=reply["hash"].block_hash(),
            height=reply["height"].integer(),
            confirmations=reply["confirmations"].integer(minimum=-1),
            n_tx=reply["nTx"].integer(),
            merkle_root=reply["merkleroot"].hash(),
            time=reply["time"].integer(),
            previous_hash=reply["previousblockhash"].block_hash() if "previousblockhash" in reply else None,
        )


@dataclass(frozen=True, slots=True)
class L1TxOut:
    """An unspent output."""

    value_sats: int
    script: Script
    confirmations: int
    """0 for an output of a transaction in the mempool."""
    coinbase: bool
    best_block_hash: BlockHash
    """The tip at which this was true."""

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read `gettxout`."""
        return cls(
            value_sats=reply["value"].sats(),
            script=reply["scriptPubKey"]["hex"].script(),
            confirmations=reply["confirmations"].integer(),
            coinbase=reply["coinbase"].flag(),
            best_block_hash=reply["bestblock"].block_hash(),
        )


@dataclass(frozen=True, slots=True)
class MempoolVerdict:
    """Whether the node would take a transaction into its mempool."""

    allowed: bool
    reject_reason: str
    """The node's words; empty when allowed."""
    vsize_vbytes: int | None
    """None when refused."""
    fee_sats: int | None
    """None when refused."""

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read one element of `testmempoolaccept`."""
        if reply["allowed"].flag():
            return cls(True, "", reply["vsize"].integer(), reply["fees"]["base"].sats())
        return cls(False, reply["reject-reason"].text(), None, None)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """The node's software and its relay policy."""

    version: int
    """10000 for each major version from 22 on: 290100 is 29.1."""
    subversion: str
    """What it calls itself, such as "/Satoshi:29.1.0/"."""
    connections: int
    relay_feerate_sat_kvb: int
    incremental_feerate_sat_kvb: int

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read `getnetworkinfo`."""
        return cls(
            version=reply["version"].integer(),
            subversion=reply["subversion"].text(),
            connections=reply["connections"].integer(),
            relay_feerate_sat_kvb=reply["relayfee"].sats(),
            incremental_feerate_sat_kvb=reply["incrementalfee"].sats(),
        )


@dataclass(frozen=True, slots=True)
class DescriptorInfo:
    """What the node makes of a descriptor."""

    descriptor: str
    """In canonical form, with the checksum of that form."""
    checksum: str
    """Of the descriptor as it was given."""
    is_range: bool
    is_solvable: bool
    has_private_keys: bool

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read `getdescriptorinfo`."""
        return cls(
            descriptor=reply["descriptor"].text(),
            checksum=reply["checksum"].text(),
            is_range=reply["isrange"].flag(),
            is_solvable=reply["issolvable"].flag(),
            has_private_keys=reply["hasprivatekeys"].flag(),
        )


@dataclass(frozen=True, slots=True)
class ScannedOutput:
    """An unspent output found by a scan."""

    outpoint: OutPoint
    value_sats: int
    script: Script
    height: int
    coinbase: bool

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read one element of the `unspents` of `scantxoutset`."""
        return cls(
            outpoint=OutPoint(reply["txid"].txid(), reply["vout"].integer(maximum=MAX_VOUT)),
            value_sats=reply["amount"].sats(),
            script=reply["scriptPubKey"].script(),
            height=reply["height"].integer(),
            coinbase=reply["coinbase"].flag(),
        )


@dataclass(frozen=True, slots=True)
class TxOutSetScan:
    """The unspent outputs that match some descriptors, at one tip."""

    height: int
    best_block_hash: BlockHash
    outputs: tuple[ScannedOutput, ...]

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read `scantxoutset start`. One that was ended early tells what it had found by then: that is no answer."""
        if not reply["success"].flag():
            raise L1Unavailable(L1Reason.BAD_RESPONSE, f"{reply.where}: somebody ended it before it was complete")
        return cls(
            height=reply["height"].integer(),
            best_block_hash=reply["bestblock"].block_hash(),
            outputs=tuple(ScannedOutput.parse(item) for item in reply["unspents"].items()),
        )
