"""What of the reserve is on L1, as one's own Bitcoin node sees it, and when the recovery keys may spend it."""

from dataclasses import dataclass
from enum import StrEnum

from bridge.bitcoin.identifiers import OutPoint
from bridge.custody import Custody
from bridge.errors import Rejected
from bridge.l1.answers import ScannedOutput
from bridge.l1.client import L1Client
from bridge.recovery import Origin, RecoveryInput, RecoveryReason, maturity_height
from pegnode.genesis import Genesis
from pegnode.genesis_rules import FIRST_EPOCH
from pegnode.recovery.known import KnownCoin, KnownReserve
from pegnode.setup.l1_anchor import check_anchor

EPOCHS = (FIRST_EPOCH,)
"""Those that a genesis knows."""


class CoinState(StrEnum):
    """What becomes of a coin."""

    MATURE = "mature"
    """The recovery keys can spend it in the next block."""
    IMMATURE = "immature"
    """They will be able to."""
    SPENDING = "spending"
    """A transaction waits in the Bitcoin node's mempool that spends it."""
    GONE = "gone"
    """The ledger has it, and the chain has not: it was spent."""


@dataclass(frozen=True, slots=True)
class SurveyedCoin:
    """matures_at: the height of the first L1 block that may recover it.  in_ledger: or only on L1."""

    coin: RecoveryInput
    l1_height: int
    matures_at: int
    in_ledger: bool
    state: CoinState


@dataclass(frozen=True, slots=True)
class Survey:
    """tip_height: of L1.  coins: those that mature first come first."""

    tip_height: int
    coins: tuple[SurveyedCoin, ...]

    def mature_by(self, height: int) -> list[RecoveryInput]:
        """What a block at that height may recover. Raises Rejected(RecoveryReason): IMMATURE, NOTHING."""
        unspent = [item for item in self.coins if item.state in (CoinState.MATURE, CoinState.IMMATURE)]
        chosen = [item.coin for item in unspent if item.matures_at <= height]
        if unspent and not chosen:
            first = min(item.matures_at for item in unspent)
            detail = f"no coin can be recovered by block {height}: the first can be in block {first}"
            raise Rejected(RecoveryReason.IMMATURE, detail)
        if not chosen:
            raise Rejected(RecoveryReason.NOTHING, "the Bitcoin node knows no unspent coin of this reserve")
        return chosen


def coins_in_words(count: int) -> str:
    """How many, for people."""
    return "1 coin" if count == 1 else f"{count} coins"


async def survey(client: L1Client, genesis: Genesis, custody: Custody, known: KnownReserve) -> Survey:
    """Look for every coin that is known or can be derived, in the whole set of unspent outputs.

    On the main chain this takes minutes. Raises L1Error, SetupRefused for a node on another chain, and
    Rejected(RecoveryReason.L1_BEHIND).
    """
    await check_anchor(client, genesis)
    info = await client.chain_info()
    if info.is_downloading:
        detail = f"the Bitcoin node is at block {info.blocks} and still catching up; wait until it has all blocks"
        raise Rejected(RecoveryReason.L1_BEHIND, detail)
    origins = {origin.reserve(custody).script: origin for origin in known.origins(custody, EPOCHS)}
    found = await client.scan_txoutset([f"raw({script.hex()})" for script in origins])
    spenders = await client.mempool_spenders([output.outpoint for output in found.outputs])
    ledger = {coin.outpoint: coin for coin in known.coins}
    coins = [
        _found(output, origins[output.script], custody, found.height, ledger, is_spent=spender is not None)
        for output, spender in zip(found.outputs, spenders, strict=True)
    ]
    unspent = {output.outpoint for output in found.outputs}
    coins += [_gone(coin, custody) for coin in known.coins if coin.outpoint not in unspent]
    return Survey(found.height, tuple(sorted(coins, key=lambda item: (item.matures_at, item.coin.outpoint))))


def _found(
    output: ScannedOutput,
    origin: Origin,
    custody: Custody,
    tip_height: int,
    ledger: dict[OutPoint, KnownCoin],
    *,
    is_spent: bool,
) -> SurveyedCoin:
    reserve = origin.reserve(custody)
    matures_at = maturity_height(reserve.policy, output.height, coinbase=output.coinbase)
    state = CoinState.MATURE if tip_height + 1 >= matures_at else CoinState.IMMATURE
    return SurveyedCoin(
        coin=RecoveryInput(output.outpoint, output.value_sats, origin, reserve),
        l1_height=output.height,
        matures_at=matures_at,
        in_ledger=output.outpoint in ledger,
        state=CoinState.SPENDING if is_spent else state,
    )


def _gone(known: KnownCoin, custody: Custody) -> SurveyedCoin:
    reserve = known.origin.reserve(custody)
    return SurveyedCoin(
        coin=RecoveryInput(known.outpoint, known.value_sats, known.origin, reserve),
        l1_height=known.l1_height,
        matures_at=maturity_height(reserve.policy, known.l1_height),
        in_ledger=True,
        state=CoinState.GONE,
    )
