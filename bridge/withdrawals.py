"""Burns: how coin of the sidechain asks to be paid out on L1.

A burn is an output that holds the value and can't be spent, with everything that paying it takes in its script:

    OP_RETURN <L1 genesis hash, 32> <L1 script> <max_fee, 8 little-endian> <refund script>

each item pushed minimally, both scripts of one of the five types. The genesis hash keeps a burn meant for one network
from counting on another. From the value at most max_fee is spent on L1 fees; the rest reaches the L1 script. The refund
script is paid on the sidechain if the withdrawal expires.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bitcoin.core.script import OP_RETURN

from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash, Script
from bridge.bitcoin.script import classify, dust_limit_sats, parse_pushes, push
from bridge.bitcoin.transaction import TxOut
from bridge.custody import Custody
from bridge.errors import Reason, Rejected
from bridge.ledger import LedgerView
from bridge.params import PegParams

MAX_FEE_SIZE = 8
"""Bytes of max_fee in a burn."""


class BurnReason(Reason):
    """Why an output is no burn, or may not burn what it holds."""

    MALFORMED = "burn-malformed"  # Not OP_RETURN and then exactly the four pushes, each the shortest, of their sizes.
    WRONG_GENESIS = "burn-wrong-genesis"  # It names the L1 of another network.
    L1_SCRIPT_TYPE = "burn-l1-script-type"  # The L1 script is none of the five types.
    REFUND_SCRIPT_TYPE = "burn-refund-script-type"  # The refund script is none of the five types.
    RESERVE_SCRIPT = "burn-reserve-script"  # The L1 script is the reserve's own change or donation script.
    DUST = "burn-dust"  # The value is below the L1 script's dust limit.
    MAX_FEE = "burn-max-fee"  # After the whole of max_fee, less than the L1 script's dust limit is left.
    BELOW_REFUND_FEE = "burn-below-refund-fee"  # The value is not above `refund_fee_sats`.
    BELOW_MIN_WITHDRAWAL = "burn-below-min-withdrawal"  # The value is below `min_withdrawal_sats`.
    OVER_MAX_WITHDRAWAL = "burn-over-max-withdrawal"  # The value is above `max_withdrawal_sats`.
    OVER_WINDOW = "burn-over-window"  # With what was burned lately, it is above `max_window_withdrawals_sats`.


@dataclass(frozen=True, slots=True)
class Burn:
    """What a burn's script says. l1_script and refund_script: of the five types; max_fee_sats: u64."""

    l1_script: Script
    max_fee_sats: int
    refund_script: Script


def encode_burn(l1_genesis_hash: BlockHash, burn: Burn) -> Script:
    """The output script that burns, 89 to 113 bytes. l1_genesis_hash: 32 bytes, internal order."""
    max_fee = burn.max_fee_sats.to_bytes(MAX_FEE_SIZE, "little")
    items = (l1_genesis_hash, burn.l1_script, max_fee, burn.refund_script)
    return Script(bytes([OP_RETURN]) + b"".join(push(item) for item in items))


def parse_burn(output: TxOut, l1_genesis_hash: BlockHash) -> Burn:
    """What an OP_RETURN output that holds value says.

    Raises Rejected(BurnReason): MALFORMED, WRONG_GENESIS, L1_SCRIPT_TYPE or REFUND_SCRIPT_TYPE.
    """
    if output.script[:1] != bytes([OP_RETURN]):
        raise Rejected(BurnReason.MALFORMED, "a burn begins with OP_RETURN")
    items = parse_pushes(output.script[1:])
    if items is None or len(items) != 4 or len(items[0]) != HASH_SIZE or len(items[2]) != MAX_FEE_SIZE:
        raise Rejected(BurnReason.MALFORMED, "a burn pushes genesis hash, L1 script, maximal fee and refund script")
    genesis, l1_script, max_fee, refund_script = items
    if genesis != l1_genesis_hash:
        raise Rejected(BurnReason.WRONG_GENESIS, "the burn is meant for another network")
    if classify(l1_script) is None:
        raise Rejected(BurnReason.L1_SCRIPT_TYPE, l1_script.hex())
    if classify(refund_script) is None:
        raise Rejected(BurnReason.REFUND_SCRIPT_TYPE, refund_script.hex())
    return Burn(Script(l1_script), int.from_bytes(max_fee, "little"), Script(refund_script))


def check_burns(burns: Sequence[tuple[Burn, int]], view: LedgerView, custody: Custody, params: PegParams) -> None:
    """Whether burns, each with the value it holds in sats, may all be recorded on top of `view`, at its anchor.

    Raises Rejected(BurnReason): RESERVE_SCRIPT, DUST, MAX_FEE, BELOW_REFUND_FEE, BELOW_MIN_WITHDRAWAL,
    OVER_MAX_WITHDRAWAL, OVER_WINDOW.
    """
    room_sats = window_room_sats(view, params)
    for burn, value_sats in burns:
        _check_burn(burn, value_sats, custody, params)
        room_sats -= value_sats
        if room_sats < 0:
            raise Rejected(
                BurnReason.OVER_WINDOW,
                f"{params.max_window_withdrawals_sats - room_sats} sats in {params.withdrawal_window_anchors} anchors, "
                f"over the cap of {params.max_window_withdrawals_sats}",
            )


def window_room_sats(view: LedgerView, params: PegParams) -> int:
    """What may still be burned on top of `view`, at its anchor."""
    return params.max_window_withdrawals_sats - sum(entry.burned_sats for entry in view.totals.withdrawal_window)


def _check_burn(burn: Burn, value_sats: int, custody: Custody, params: PegParams) -> None:
    if custody.is_reserve_script(burn.l1_script):
        raise Rejected(BurnReason.RESERVE_SCRIPT, "the reserve can't be its own payee")
    dust_sats = dust_limit_sats(burn.l1_script)
    if value_sats < dust_sats:
        raise Rejected(BurnReason.DUST, f"{value_sats} sats, at least {dust_sats}")
    if value_sats - burn.max_fee_sats < dust_sats:
        raise Rejected(BurnReason.MAX_FEE, f"{value_sats} less {burn.max_fee_sats} may leave under {dust_sats} sats")
    if value_sats <= params.refund_fee_sats:
        raise Rejected(BurnReason.BELOW_REFUND_FEE, f"{value_sats} sats could not be refunded")
    if value_sats < params.min_withdrawal_sats:
        raise Rejected(BurnReason.BELOW_MIN_WITHDRAWAL, f"{value_sats} sats, at least {params.min_withdrawal_sats}")
    if value_sats > params.max_withdrawal_sats:
        raise Rejected(BurnReason.OVER_MAX_WITHDRAWAL, f"{value_sats} sats, at most {params.max_withdrawal_sats}")
