"""What to bid for a withdrawal: a suggestion, for the batch decides the price, never above the burner's bound."""

from bridge.batch_form import MAX_CHANGE_PARTS
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, compact_size
from bridge.custody import CoinKind, quorum_input_weight, reserve_script
from bridge.ledger import LedgerView
from pegnode.chain.parameters import ChainRules

FEERATE_MARGIN = 2
"""Members vote for a batch within a factor of two of their own estimate, so this bid survives any of theirs."""

_FIXED_WEIGHT = (4 + 4 + 3 + 3) * WITNESS_SCALE_FACTOR + 2
"""Version, locktime, both counts at their longest, the witness's marker and flag. Source: BIP144."""


def suggested_max_fee_sats(
    view: LedgerView, rules: ChainRules, l1_script: Script, amount_sats: int, feerate_sat_kvb: int
) -> int:
    """The fee of a batch that pays this withdrawal alone, at twice the feerate but not above the peg's ceiling.

    With others in the batch, its fee is shared, and what is not used is paid out.
    """
    policy, params = rules.custody.newest, rules.params
    inputs = _inputs_needed(view, amount_sats, params.batch_max_first_inputs)
    change_weight = _output_weight(reserve_script(policy, CoinKind.CHANGE).script)
    weight = _FIXED_WEIGHT + inputs * quorum_input_weight(policy)
    weight += _output_weight(l1_script) + MAX_CHANGE_PARTS * change_weight
    feerate_sat_kvb = max(feerate_sat_kvb * FEERATE_MARGIN, params.feerate_floor_sat_kvb)
    vsize_vbytes = -(-weight // WITNESS_SCALE_FACTOR)
    return fee_sats(vsize_vbytes, min(feerate_sat_kvb, params.feerate_ceiling_sat_kvb))


def _inputs_needed(view: LedgerView, amount_sats: int, limit: int) -> int:
    """How many of the largest coins cover the amount; at least one."""
    values_sats = sorted((coin.value_sats for _, coin in view.coins.items()), reverse=True)
    covered_sats = 0
    for count, value_sats in enumerate(values_sats[:limit], start=1):
        covered_sats += value_sats
        if covered_sats >= amount_sats:
            return count
    return max(1, min(len(values_sats), limit))


def _output_weight(script: bytes) -> int:
    return (8 + len(compact_size(len(script))) + len(script)) * WITNESS_SCALE_FACTOR
