"""Single steps: what one block costs, and what it is made of."""

from bench.report import median_seconds, milliseconds, print_table
from bridge.bitcoin.curve import schnorr_sign, schnorr_verify, x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.script import ScriptType
from bridge.ledger import enter_coin, ledger_root
from pegnode.chain.rules import apply_block
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet, coins_of
from tests.support.peg import coin, new_ledger

TRANSFERS = 500
COINS = 1_000


def run() -> None:
    """Measure and print."""
    verify_s = _schnorr_verify_seconds()
    figures = [
        ("Schnorr signature checked", verify_s, 1),
        (f"block of {TRANSFERS} transfers applied (P2TR, one input, two outputs)", _apply_block_seconds(), TRANSFERS),
        (f"ledger root over {COINS} coins", _ledger_root_seconds(), COINS),
    ]
    rows = [
        (what, milliseconds(seconds), f"{seconds / count * 1e6:.3g} µs", f"{seconds / count / verify_s:.2f}")
        for what, seconds, count in figures
    ]
    print_table("Single steps", ("", "time", "each", "signature checks"), rows)


def _schnorr_verify_seconds() -> float:
    secret, digest = sha256(b"bench"), sha256(b"message")
    public_key, signature = x_only(secret), schnorr_sign(secret, digest, bytes(32))
    return median_seconds(lambda: schnorr_verify(public_key, digest, signature), 1_000)


def _apply_block_seconds() -> float:
    """A block whose every transaction spends a coin of its own."""
    chain, wallet = MemoryChain(), MiniWallet("bench")
    script = wallet.script(ScriptType.P2TR)
    [coin_] = chain.fund(script, value_sats=1_000_000_000)
    parts = wallet.pay(coin_, *[script] * TRANSFERS, fee_sats=100_000)
    chain.extend(parts)
    transfers = [wallet.pay(part, script, script) for part in coins_of(parts)]
    block = chain.build(*transfers).block
    assert len(block.body.transactions) == TRANSFERS
    return median_seconds(lambda: apply_block(chain.state, block, chain.facts(block), chain.rules), 5)


def _ledger_root_seconds() -> float:
    ledger = new_ledger()
    for number in range(COINS):
        enter_coin(ledger, coin(number, 1_000_000), 30_000)
    return median_seconds(lambda: ledger_root(ledger), 20)
