"""Records that begin as what a quorum of the scene's members would sign, changed in any field or byte."""

from dataclasses import replace

from bridge.errors import MalformedError
from bridge.records import Deficit, Finding, LostCoin, Record, Resume
from bridge.state import Anchor
from federation.record import SignedRecord
from tests.fuzz.chooser import Chooser
from tests.fuzz.scene import scene
from tests.support.records import rebase_of, record_of, signed

_SIGNERS = ((0, 1, 2), (1, 2, 3), (0, 1, 2, 3), (0, 1), (0, 2, 1), (0, 0, 1, 2))


def fuzzed(choose: Chooser, serial: int = 1) -> SignedRecord | None:
    """A record for a block after the scene's chain, as it should be or not; None for one that has no encoding."""
    try:
        record = record_of(scene().chain.rules, _resume(choose) if choose.below(2) else _deficit(choose), serial)
        whole = signed(_changed(record, choose), *choose.pick(_SIGNERS))
        if choose.below(8) == 7:
            whole = SignedRecord.decode(choose.edited(whole.encode()))
        whole.encode()
    except MalformedError:
        return None
    return whole


def _changed(record: Record, choose: Chooser) -> Record:
    match choose.below(8):
        case 1:
            return replace(record, serial=choose.number(record.serial, 8))
        case 2:
            return replace(record, expires_at_anchor=choose.number(scene().chain.header.anchor.height, 4))
        case 3:
            return replace(record, epoch=choose.number(record.epoch, 4))
        case 4:
            return replace(record, chain_id=choose.edited(record.chain_id)[:32].ljust(32, b"\x00"))
        case _:
            return record


def _deficit(choose: Chooser) -> Deficit:
    """Some coins of the ledger, locked ones among them; maybe with other values, or none at all."""
    coins = [coin for _, coin in scene().chain.state.ledger.coins.items()]
    first = choose.below(len(coins))
    lost = [LostCoin(coin.outpoint, coin.value_sats) for coin in coins[first : first + 1 + choose.below(3)]]
    if choose.below(4) == 3:
        lost[0] = replace(lost[0], value_sats=choose.number(lost[0].value_sats, 8))
    if choose.below(4) == 3:
        lost[-1] = replace(lost[-1], outpoint=replace(lost[-1].outpoint, vout=choose.below(4)))
    return Deficit.of(lost)


def _resume(choose: Chooser) -> Resume:
    """Findings, and maybe a rebase from the chain's anchor, or from one beside it."""
    chain = scene().chain
    finding = Finding.anchor_left(Anchor(choose.below(256), chain.header.anchor.hash))
    if not choose.below(3):
        return Resume.of((finding,))
    top = chain.header.anchor.height - choose.below(2)
    branch = chain.l1.blocks[top - 1 - choose.below(4) : top + 1]
    height = min(chain.header.anchor.height + 1 + choose.below(4), chain.l1.height)
    return Resume.of((finding,), rebase_of(branch, chain.l1.anchor(height)))
