"""Blocks with transactions that break a rule: the evil own a coin, and try everything with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxIn, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.deposits import CLAIM_FLAG, REFUND_FLAG
from bridge.errors import Reason
from bridge.withdrawals import Burn, BurnReason, encode_burn
from pegnode.chain.block import Block
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainView
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason
from tests.sim.bad_scene import BadKind, Maker, Scene, own_coins
from tests.support.mini_wallet import Coin, MiniWallet

FEE_SATS = 1_000
NOBODY = Script(b"\x00\x14" + b"\x66" * 20)
Misuse = Callable[[MiniWallet, Coin, ChainRules], Sequence[Transaction | bytes]]
"""What a coin is misused for: transactions of one block, the last of which breaks the rule."""


def _spend(wallet: MiniWallet, coin: Coin, *outputs: TxOut) -> Transaction:
    return wallet.spend([coin], outputs)


def _rest(coin: Coin, spent_sats: int = 0) -> int:
    return coin[1].value_sats - FEE_SATS - spent_sats


def _inflate(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    return [_spend(wallet, coin, TxOut(coin[1].value_sats + 1, wallet.script()))]


def _double_spend(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    return [wallet.pay(coin, wallet.script()), wallet.pay(coin, NOBODY)]


def _unsigned(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    return [wallet.pay(coin, NOBODY).with_witnesses([()])]


def _of_another(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    """The signature is of other outputs."""
    signed = wallet.pay(coin, wallet.script())
    return [replace(signed, outputs=(TxOut(signed.outputs[0].value_sats, NOBODY),))]


def _with_input(change: Callable[[TxIn], TxIn]) -> Misuse:
    def misuse(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
        paid = wallet.pay(coin, wallet.script())
        return [replace(paid, inputs=(change(paid.inputs[0]),))]

    return misuse


def _with_vout(vout: int) -> Misuse:
    return _with_input(lambda txin: replace(txin, outpoint=OutPoint(txin.outpoint.txid, txin.outpoint.vout | vout)))


def _twice(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    return [wallet.spend([coin, coin], [TxOut(2 * coin[1].value_sats - FEE_SATS, wallet.script())])]


def _paying(script: bytes, value_sats: int | None = None) -> Misuse:
    def misuse(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
        return [_spend(wallet, coin, TxOut(_rest(coin) if value_sats is None else value_sats, Script(script)))]

    return misuse


def _spending(**terms: int) -> Misuse:
    def misuse(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
        return [wallet.spend([coin], [TxOut(_rest(coin), wallet.script())], **terms)]

    return misuse


def _sixty_four_bytes(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    return [_spend(wallet, coin, TxOut(0, Script(b"\x6a\x02ab")))]


def _long(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    return [_spend(wallet, coin, TxOut(0, Script(b"\x6a" + bytes(100_000))))]


def _sigops(wallet: MiniWallet, coin: Coin, _: ChainRules) -> list[Transaction]:
    """OP_CHECKMULTISIG counts as 20, and in a legacy place four times that."""
    return [_spend(wallet, coin, TxOut(0, Script(b"\x6a" + b"\xae" * 201)))]


def _burn(**changes: object) -> Misuse:
    """A burn with one thing wrong."""

    def misuse(wallet: MiniWallet, coin: Coin, rules: ChainRules) -> list[Transaction]:
        terms = Burn(NOBODY, 1_000, wallet.script())
        value_sats = changes.get("value_sats", _rest(coin))
        fields = {name: value for name, value in changes.items() if name not in ("value_sats", "genesis", "cut", "own")}
        if changes.get("own"):
            fields["l1_script"] = reserve_script(rules.custody.newest, CoinKind.CHANGE).script
        script = encode_burn(changes.get("genesis", rules.l1_genesis_hash), replace(terms, **fields))  # type: ignore[arg-type]
        output = TxOut(value_sats, Script(script[: len(script) - changes.get("cut", 0)]))  # type: ignore[arg-type, operator]
        return [_spend(wallet, coin, output)]

    return misuse


_UNKNOWN = OutPoint(Txid(sha256(b"nobody's")), 0)
_REASONS: tuple[tuple[str, Reason, Misuse], ...] = (
    ("makes money", TransactionRule.FEE_NEGATIVE, _inflate),
    ("spends twice", TransactionRule.MISSING_INPUT, _double_spend),
    ("is unsigned", ScriptReason.SCRIPT_FAILED, _unsigned),
    ("is signed for others", ScriptReason.SCRIPT_FAILED, _of_another),
    ("spends nothing", TransactionRule.NULL_PREVOUT, _with_input(lambda it: TxIn(OutPoint(Txid(bytes(32)), 0)))),
    ("spends what never was", TransactionRule.MISSING_INPUT, _with_input(lambda it: replace(it, outpoint=_UNKNOWN))),
    ("looks like a claim", TransactionRule.RESERVED_INDEX, _with_vout(CLAIM_FLAG)),
    ("looks like a refund", TransactionRule.RESERVED_INDEX, _with_vout(REFUND_FLAG)),
    ("has a high index", TransactionRule.RESERVED_INDEX, _with_vout(1 << 31)),
    ("names a coin twice", TransactionRule.DUPLICATE_INPUT, _twice),
    ("pays an odd script", TransactionRule.OUTPUT_TYPE, _paying(b"\x51")),
    ("burns by mistake", BurnReason.MALFORMED, _paying(b"\x6a\x03abc")),
    ("has version 3", TransactionRule.VERSION, _spending(version=3)),
    ("has the greatest version", TransactionRule.VERSION, _spending(version=0xFFFFFFFF)),
    ("is of a later height", TransactionRule.NOT_FINAL, _spending(locktime=400_000_000, sequence=0)),
    ("is of a later time", TransactionRule.NOT_FINAL, _spending(locktime=2_000_000_000, sequence=0)),
    ("is locked by blocks", TransactionRule.RELATIVE_LOCK, _spending(sequence=0xFFFF)),
    ("is locked by time", TransactionRule.RELATIVE_LOCK, _spending(sequence=0xFFFF | 1 << 22)),
    ("has 64 bytes", TransactionRule.SIZE_64, _sixty_four_bytes),
    ("is long", TransactionRule.STRIPPED_SIZE, _long),
    ("checks too much", TransactionRule.SIGOP_COST, _sigops),
    ("is no transaction", TransactionReason.MALFORMED, lambda *_: [b"\x02\x00\x00\x00" + b"\xff" * 56]),
    (
        "has a tail",
        TransactionReason.PARSER_DISAGREEMENT,
        lambda wallet, coin, _: [wallet.pay(coin, NOBODY).serialize() + b"\0"],
    ),
    ("burns for another network", BurnReason.WRONG_GENESIS, _burn(genesis=sha256(b"another network"))),
    ("burns for an odd script", BurnReason.L1_SCRIPT_TYPE, _burn(l1_script=b"\x51")),
    ("burns with an odd refund", BurnReason.REFUND_SCRIPT_TYPE, _burn(refund_script=b"\x51")),
    ("burns for the reserve", BurnReason.RESERVE_SCRIPT, _burn(own=True)),
    ("burns dust", BurnReason.DUST, _burn(value_sats=200)),
    ("burns for fees alone", BurnReason.MAX_FEE, _burn(max_fee_sats=2**40)),
    ("burns too little to refund", BurnReason.BELOW_REFUND_FEE, _burn(value_sats=400, max_fee_sats=0)),
    ("burns less than may be", BurnReason.BELOW_MIN_WITHDRAWAL, _burn(value_sats=999, max_fee_sats=0)),
    ("burns without an end", BurnReason.MALFORMED, _burn(cut=1)),
)


def _maker(misuse: Misuse) -> Maker:
    def make(scene: Scene) -> Block | None:
        spent = {txin.outpoint for data in scene.block.body.transactions for txin in Transaction.parse(data).inputs}
        free = [(wallet, coin) for wallet, coin in scene.coins if coin[0] not in spent]
        if not free:
            return None
        wallet, coin = max(free, key=lambda item: item[1][1].value_sats)
        items = tuple(
            item if isinstance(item, bytes) else item.serialize() for item in misuse(wallet, coin, scene.rules)
        )
        return scene.with_body(transactions=(*scene.block.body.transactions, *items))

    return make


def _replayed(scene: Scene) -> Block | None:
    """What is final already, once more."""
    if not scene.finished:
        return None
    return scene.with_body(transactions=(*scene.block.body.transactions, scene.finished[-1]))


def _repeated(scene: Scene) -> Block | None:
    """What the block holds already, once more."""
    items = scene.block.body.transactions
    return scene.with_body(transactions=(*items, items[-1])) if items else None


def _stolen(scene: Scene) -> Block | None:
    """Somebody else's coin, without any signature."""
    own = {coin[0] for _, coin in scene.coins}
    spent = {txin.outpoint for data in scene.block.body.transactions for txin in Transaction.parse(data).inputs}
    for outpoint, utxo in scene.parent.utxos.items():
        if outpoint not in own | spent:
            theft = Transaction(2, (TxIn(outpoint),), (TxOut(utxo.value_sats, NOBODY),))
            return scene.with_body(transactions=(*scene.block.body.transactions, theft.serialize()))
    return None


def _many_inputs(scene: Scene) -> Block:
    inputs = tuple(TxIn(OutPoint(_UNKNOWN.txid, vout)) for vout in range(scene.rules.chain.max_inputs + 1))
    return scene.with_body(transactions=(Transaction(2, inputs, (TxOut(0, NOBODY),)).serialize(),))


BAD = BodyReason.BAD_TRANSACTION
TRANSACTION_KINDS: tuple[BadKind, ...] = (
    *(
        BadKind(f"a transaction that {name}", BAD, cause, _maker(misuse), is_heavy=misuse is _long)
        for name, cause, misuse in _REASONS
    ),
    BadKind("a transaction that is final already", BAD, TransactionRule.MISSING_INPUT, _replayed),
    BadKind("a transaction twice", BAD, TransactionRule.MISSING_INPUT, _repeated),
    BadKind("a transaction that steals", BAD, ScriptReason.SCRIPT_FAILED, _stolen),
    BadKind("too many inputs", BodyReason.TOO_MANY_INPUTS, BodyReason.TOO_MANY_INPUTS, _many_inputs, is_heavy=True),
)


def spoilt_transactions(
    state: ChainView, rules: ChainRules, wallets: Sequence[MiniWallet], rng: Random
) -> tuple[bytes, ...]:
    """Transactions of the evil's coin that no node may pass on, encoded; none if it has no coin."""
    coins = [(wallet, coin) for wallet, coin in own_coins(state, wallets) if coin[1].value_sats >= 20_000]
    if not coins:
        return ()
    wallet, coin = rng.choice(coins)
    _, _, misuse = rng.choice([item for item in _REASONS if item[2] is not _long])
    return tuple(item if isinstance(item, bytes) else item.serialize() for item in misuse(wallet, coin, rules))
