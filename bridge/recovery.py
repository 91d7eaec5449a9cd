"""The way out: transactions by which the recovery keys spend what a dead federation left lying.

Whoever plans one proves nothing: each input carries what its reserve script is made of, so that whoever is asked to
sign derives the script anew from the genesis, and the signature covers every value and script that is spent (BIP341).
So a false plan is refused, or its signatures are worthless.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import HASH_SIZE, OutPoint, Script
from bridge.bitcoin.script import dust_limit_sats
from bridge.bitcoin.taproot import tapbranch_hash
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, Transaction, TxIn, TxOut
from bridge.codec import Encoded, Reader, Writer
from bridge.custody import CoinKind, Custody, CustodyPolicy, ReserveScript, recovery_input_weight, reserve_script
from bridge.errors import MalformedError, Reason, Rejected
from bridge.params import COINBASE_MATURITY, MAX_STANDARD_WEIGHT
from bridge.psbt import Entries, Psbt, proprietary_key, script_path_entries
from bridge.state import MAX_SCRIPT_BYTES

CHAIN_ID_KEY = proprietary_key(0)
"""In a PSBT's global map: the chain id, 32 bytes."""
ORIGIN_KEY = proprietary_key(1)
"""In an input's map: an encoded `Origin`."""
TRANSACTION_VERSION = 2
"""The least that has relative locks. Source: BIP68."""
MIN_FEERATE_SAT_KVB = 1_000
"""What L1 nodes relay. Source: Bitcoin Core, DEFAULT_MIN_RELAY_TX_FEE up to version 29."""

_BARE_INPUT_WEIGHT = (32 + 4 + 1 + 4) * WITNESS_SCALE_FACTOR
_WITNESS_ANNOUNCEMENT_WEIGHT = 2


class RecoveryReason(Reason):
    """Why a recovery is not planned, signed or sent."""

    NO_PAYEES = "recovery-no-payees"  # No address to pay, or one twice.
    PAYEE_IS_RESERVE = "recovery-payee-is-reserve"  # An address of the reserve, which would be locked again.
    FEERATE = "recovery-feerate"
    """Less than a satoshi per virtual byte, or more than the genesis's `feerate_ceiling_sat_kvb`."""
    IMMATURE = "recovery-immature"  # The time lock of the coins has not passed.
    L1_BEHIND = "recovery-l1-behind"  # The Bitcoin node has not all blocks yet: coins could be missing.
    SPENT = "recovery-spent"  # A coin is spent already, or its transaction is not known to the Bitcoin node.
    NOT_RELAYED = "recovery-not-relayed"  # The Bitcoin node refuses the transaction for another reason, in its words.
    NOTHING = "recovery-nothing"  # There is no coin to recover, or none that is worth its own fee.
    DUST = "recovery-dust"  # What is left for each payee is less than nodes relay.
    FOREIGN_GENESIS = "recovery-foreign-genesis"  # Made for another chain than that of the genesis at hand.
    NOT_RESERVE = "recovery-not-reserve"  # An input that does not spend a reserve script of this genesis.
    NOT_AS_PLANNED = "recovery-not-as-planned"
    """Another version, lock or signature hash than a plan's, a coin twice, wrong sums, or final already."""
    OTHER_PAYEES = "recovery-other-payees"  # It does not pay equal shares to the addresses that were agreed on.
    UNKNOWN_KEY = "recovery-unknown-key"  # The key is none of those that may recover the coins.
    BAD_SIGNATURE = "recovery-bad-signature"  # A signature that is not its key's, or by a key that may not recover.
    TOO_FEW_SIGNATURES = "recovery-too-few-signatures"  # Fewer recovery keys than needed have signed an input.


@dataclass(frozen=True, slots=True)
class Origin(Encoded):
    """What a reserve script is made of, beside the genesis. claim_script: empty unless the kind is DEPOSIT."""

    kind: CoinKind
    epoch: int
    claim_script: bytes = b""

    def write(self, writer: Writer) -> None:
        """Append kind u8, epoch u32, claim script."""
        writer.u8(self.kind).u32(self.epoch).variable(self.claim_script)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.enumeration(CoinKind), reader.u32(), reader.variable(MAX_SCRIPT_BYTES))

    def reserve(self, custody: Custody) -> ReserveScript:
        """The reserve script. Raises Rejected(CustodyReason): UNKNOWN_EPOCH, CLAIM_SCRIPT."""
        return reserve_script(custody.policy(self.epoch), self.kind, self.claim_script)


@dataclass(frozen=True, slots=True)
class RecoveryInput:
    """A coin to recover. reserve: the script of its origin."""

    outpoint: OutPoint
    value_sats: int
    origin: Origin
    reserve: ReserveScript

    @property
    def output(self) -> TxOut:
        """What is spent."""
        return TxOut(self.value_sats, self.reserve.script)

    def entries(self) -> dict[bytes, bytes]:
        """All that a plan tells of the coin in a PSBT."""
        reserve = self.reserve
        root = tapbranch_hash(reserve.quorum_leaf_hash, reserve.recovery_leaf_hash)
        leaf, control_block = reserve.recovery_leaf, reserve.recovery_control_block
        told = script_path_entries(self.output, reserve.internal_key, root, leaf, control_block)
        return {**told, ORIGIN_KEY: self.origin.encode()}


def maturity_height(policy: CustodyPolicy, l1_height: int, *, coinbase: bool = False) -> int:
    """The height of the first L1 block that may recover a coin of a block at `l1_height`. Source: BIP68."""
    return l1_height + max(policy.recovery_timelock_blocks, COINBASE_MATURITY if coinbase else 0)


def is_worth_spending(value_sats: int, policy: CustodyPolicy, feerate_sat_kvb: int) -> bool:
    """Whether a coin holds more than its input costs."""
    return value_sats > fee_sats(-(-recovery_input_weight(policy) // WITNESS_SCALE_FACTOR), feerate_sat_kvb)


def require_feerate(feerate_sat_kvb: int, ceiling_sat_kvb: int) -> None:
    """Raise Rejected(RecoveryReason.FEERATE) unless L1 nodes relay it and the genesis allows it."""
    if not MIN_FEERATE_SAT_KVB <= feerate_sat_kvb <= ceiling_sat_kvb:
        allowed = f"{MIN_FEERATE_SAT_KVB} to {ceiling_sat_kvb} sat/kvB, the genesis's feerate_ceiling_sat_kvb"
        raise Rejected(RecoveryReason.FEERATE, f"{feerate_sat_kvb} sat/kvB; {allowed}")


def signed_vsize_vbytes(transaction: Transaction, policies: Sequence[CustodyPolicy]) -> int:
    """The virtual size of an unsigned recovery once it is signed. policies: of each input."""
    return -(-_signed_weight(transaction, policies) // WITNESS_SCALE_FACTOR)


def plan_transactions(
    coins: Sequence[RecoveryInput], payees: Sequence[Script], feerate_sat_kvb: int
) -> list[tuple[tuple[RecoveryInput, ...], Transaction]]:
    """Unsigned transactions that pay all of these coins in equal shares to the payees, each with the coins it spends.

    They are as few as nodes relay, of like size and value; what can't be divided goes to the first payee.
    Raises Rejected(RecoveryReason): NO_PAYEES, PAYEE_IS_RESERVE, NOTHING, DUST.
    """
    if not payees or len(set(payees)) != len(payees):
        raise Rejected(RecoveryReason.NO_PAYEES, "name each address to pay once, and at least one")
    if not coins:
        raise Rejected(RecoveryReason.NOTHING, "there is no coin that could be recovered")
    for coin in coins:
        if coin.reserve.script in payees:
            raise Rejected(RecoveryReason.PAYEE_IS_RESERVE, "name an address outside of the reserve")
    ranked = sorted(coins, key=lambda coin: (-coin.value_sats, coin.outpoint))
    count = 1 + sum(recovery_input_weight(coin.reserve.policy) for coin in coins) // MAX_STANDARD_WEIGHT
    while True:
        shares = [tuple(sorted(ranked[start::count], key=lambda coin: coin.outpoint)) for start in range(count)]
        planned = [(share, _transaction(share, payees, feerate_sat_kvb)) for share in shares]
        if all(_is_relayed(transaction, share) for share, transaction in planned):
            return planned
        count += 1


def recovery_psbt(chain_id: bytes, coins: Sequence[RecoveryInput], transaction: Transaction) -> Psbt:
    """The PSBT of a planned transaction: everything that signers and finalizers want to know, and no signature."""
    entries: Entries = {CHAIN_ID_KEY: Writer().fixed(chain_id, HASH_SIZE).finish()}
    return Psbt.of(transaction, entries, tuple(coin.entries() for coin in coins))


def origin_of(entries: Entries) -> Origin:
    """What an input's map says of its reserve script. Raises Rejected(RecoveryReason.NOT_RESERVE)."""
    try:
        return Origin.decode(entries.get(ORIGIN_KEY, b""))
    except MalformedError as error:
        detail = "an input does not tell of which reserve script it is; take the PSBT that `peg recovery plan` wrote"
        raise Rejected(RecoveryReason.NOT_RESERVE, detail) from error


def _transaction(coins: Sequence[RecoveryInput], payees: Sequence[Script], feerate_sat_kvb: int) -> Transaction:
    """These coins less the fee, in equal shares. Raises Rejected(RecoveryReason.DUST)."""
    inputs = tuple(TxIn(coin.outpoint, sequence=coin.reserve.policy.recovery_timelock_blocks) for coin in coins)
    empty = Transaction(TRANSACTION_VERSION, inputs, tuple(TxOut(0, payee) for payee in payees))
    fee = fee_sats(signed_vsize_vbytes(empty, [coin.reserve.policy for coin in coins]), feerate_sat_kvb)
    left_sats = sum(coin.value_sats for coin in coins) - fee
    share_sats, rest_sats = divmod(left_sats, len(payees))
    shares = [share_sats + rest_sats, *[share_sats] * (len(payees) - 1)]
    if any(share < dust_limit_sats(payee) for share, payee in zip(shares, payees, strict=True)):
        raise Rejected(RecoveryReason.DUST, f"{share_sats} sats for each payee; take a lower feerate or fewer payees")
    outputs = tuple(TxOut(share, payee) for share, payee in zip(shares, payees, strict=True))
    return Transaction(TRANSACTION_VERSION, inputs, outputs)


def _is_relayed(transaction: Transaction, coins: Sequence[RecoveryInput]) -> bool:
    return _signed_weight(transaction, [coin.reserve.policy for coin in coins]) <= MAX_STANDARD_WEIGHT


def _signed_weight(transaction: Transaction, policies: Sequence[CustodyPolicy]) -> int:
    witnesses = sum(recovery_input_weight(policy) - _BARE_INPUT_WEIGHT for policy in policies)
    return transaction.stripped_size * WITNESS_SCALE_FACTOR + _WITNESS_ANNOUNCEMENT_WEIGHT + witnesses
