"""What is known of the reserve: by a full node's disk, by a running full node, or by people.

It is a hint, and never believed: each coin's script is derived anew and looked for on the Bitcoin node. What it lacks,
though, is not found: a deposit's script can't be guessed without its claim script.
"""

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bridge.bitcoin.addresses import Network, decode_address
from bridge.bitcoin.identifiers import OutPoint, Script, outpoint_from_text
from bridge.custody import CoinKind, Custody
from bridge.errors import Rejected
from bridge.recovery import Origin, RecoveryReason
from federation.rocks import DiskError, DiskFault, held_still
from pegnode.chain.parameters import ChainRules
from pegnode.folders import CHAIN_FOLDER
from pegnode.rpc.client import ClientReason, RpcClient, RpcClientError
from pegnode.rpc.results import CoinReply, FederationReply
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.store import ChainStore


@dataclass(frozen=True, slots=True)
class KnownCoin:
    """A coin that a ledger holds. l1_height: of its block."""

    outpoint: OutPoint
    value_sats: int
    origin: Origin
    l1_height: int


@dataclass(frozen=True, slots=True)
class KnownReserve:
    """coins: the ledger's.  claim_scripts: other sidechain scripts that deposits may name.  source: for people."""

    coins: tuple[KnownCoin, ...]
    claim_scripts: frozenset[Script]
    source: str

    @classmethod
    def nothing(cls) -> Self:
        """Only what every genesis tells: change and donations."""
        return cls((), frozenset(), "no ledger")

    def with_claim_scripts(self, more: Collection[Script]) -> "KnownReserve":
        """The same with more scripts that deposits may name."""
        return KnownReserve(self.coins, self.claim_scripts | set(more), self.source)

    def origins(self, custody: Custody, epochs: Collection[int]) -> list[Origin]:
        """Everything whose reserve script can be derived, in every epoch."""
        claims = self.claim_scripts | {coin.origin.claim_script for coin in self.coins} - {b""}
        return [
            origin
            for epoch in sorted(epochs)
            for origin in (
                Origin(CoinKind.CHANGE, epoch),
                Origin(CoinKind.DONATION, epoch),
                *(Origin(CoinKind.DEPOSIT, epoch, claim_script) for claim_script in sorted(claims)),
            )
        ]


def known_on_disk(data_dir: Path, rules: ChainRules) -> KnownReserve | None:
    """What the chain in a data directory, or in a copy of one, knows; None while a process runs on it.

    No file is changed. Raises StorageError.
    """
    chain = data_dir / CHAIN_FOLDER
    if not chain.is_dir():
        raise StorageError(StorageReason.MISSING, f"there is no chain in {chain}; name a data directory that has one")
    try:
        with held_still(chain), closing(ChainStore.look(chain, rules)) as store:
            coins = tuple(
                KnownCoin(
                    coin.outpoint, coin.value_sats, Origin(coin.kind, coin.epoch, coin.claim_script), coin.l1_height
                )
                for _, coin in store.ledger.coins.items()
            )
            source = f"{data_dir}, block {store.tip.header.height}"
            return KnownReserve(coins, frozenset(store.deposit_scripts()), source)
    except DiskError as error:
        if error.fault is DiskFault.LOCKED:
            return None
        raise StorageError(StorageReason.UNUSABLE, f"can't use {chain}: {error.detail}") from error


def known_to_node(client: RpcClient, rules: ChainRules, network: Network) -> KnownReserve:
    """What a running node tells. network: how its addresses are written.

    Raises RpcClientError, Rejected(RecoveryReason.FOREIGN_GENESIS).
    """
    chain_id_hex = client.ask(FederationReply, "getfederationinfo").chain_id
    if chain_id_hex != rules.chain_id.hex():
        detail = f"the node is on the chain {chain_id_hex}, and this genesis is of {rules.chain_id.hex()}"
        raise Rejected(RecoveryReason.FOREIGN_GENESIS, detail)
    coins = tuple(_told_coin(reply, network) for reply in client.ask(list[CoinReply], "listreservecoins"))
    claims = client.ask(list[str], "listdepositscripts")
    try:
        return KnownReserve(coins, frozenset(Script(bytes.fromhex(text)) for text in claims), "a running node")
    except ValueError as error:
        raise RpcClientError(ClientReason.BAD_REPLY, "the node names a claim script that is not in hex") from error


def _told_coin(reply: CoinReply, network: Network) -> KnownCoin:
    kind = CoinKind.__members__.get(reply.kind.upper())
    if kind is None:
        detail = f"the node has a coin of kind {reply.kind!r}, which this release doesn't know; use the node's own"
        raise RpcClientError(ClientReason.BAD_REPLY, detail)
    claim_script = b"" if reply.claim_address is None else decode_address(reply.claim_address, network)
    origin = Origin(kind, reply.epoch, claim_script)
    return KnownCoin(outpoint_from_text(reply.outpoint), reply.value_sats, origin, reply.l1_height)
