"""A wallet for the sidechain: BIP86 descriptors from a BIP39 mnemonic, kept and spent by BDK.

Its directory holds `seed.json`, the one secret, sealed, and `wallet.sqlite`, public data that a scan can make anew. A
wallet that was loaded watches; to spend, it is unlocked with its passphrase. BDK knows nothing of the sidechain's
addresses, evidence or burns: scripts go in and out of it as bytes.
"""

import os
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import bdkpython as bdk

from bridge.bitcoin.addresses import Network, decode_address, encode_address
from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.deposits import CLAIM_FLAG, REFUND_FLAG
from bridge.errors import Rejected
from bridge.withdrawals import Burn, encode_burn
from federation.passphrase import Passphrase
from federation.sealed_box import STRONG_LOG_N
from pegnode.chain.transactions import is_spendable
from pegnode.wallet.errors import WalletError, WalletReason
from pegnode.wallet.lock import lock_directory, unlocking_on_error
from pegnode.wallet.node import NodeConnection
from pegnode.wallet.seed import WatchedSeed, open_seed, read_seed, write_seed
from pegnode.wallet.signer import LOOKAHEAD, WalletSigner, bdk_network, creation, fresh_mnemonic, network_kind

SEED_FILE = "seed.json"
DATABASE_FILE = "wallet.sqlite"
DEFAULT_FEERATE_SAT_VB = 1


@dataclass(frozen=True, slots=True)
class WalletChain:
    """The chain that a wallet is on. Both genesis hashes: 32 bytes, internal order."""

    network: Network
    genesis_hash: BlockHash
    l1_network: Network
    l1_genesis_hash: BlockHash


@dataclass(frozen=True, slots=True)
class Balance:
    """confirmed_sats: in final blocks.  pending_sats: in the mempool."""

    confirmed_sats: int
    pending_sats: int


class HistoryKind(StrEnum):
    """What a transaction of the history is."""

    DEPOSIT = "deposit"
    """The claim of a deposit on L1."""
    REFUND = "refund"
    """An expired withdrawal came back."""
    WITHDRAWAL = "withdrawal"
    PAYMENT = "payment"


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One transaction. sent, received: what it took from and gave to this wallet.

    fee_sats: None when it spends outputs that this wallet does not know.  height: None while it waits.
    time_seconds: Unix time, of its block or of when it was last seen waiting; None when neither is known.
    """

    txid: Txid
    kind: HistoryKind
    sent_sats: int
    received_sats: int
    fee_sats: int | None
    height: int | None
    time_seconds: int | None


class Wallet:
    """One open wallet; another process can't open it until `close`."""

    def __init__(self, directory: Path, chain: WalletChain, wallet: bdk.Wallet, persister: bdk.Persister, lock: int):
        self.directory = directory
        self.chain = chain
        self._wallet = wallet
        self._persister = persister
        self._lock = lock
        self._signer: WalletSigner | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        chain: WalletChain,
        passphrase: Passphrase,
        mnemonic: str | None = None,
        *,
        scrypt_log_n: int = STRONG_LOG_N,
    ) -> Self:
        """A new wallet in `directory`, unlocked, from 12 fresh words or from given ones.

        scrypt_log_n: see `federation.sealed_box`. Raises WalletError (EXISTS, IN_USE, BAD_MNEMONIC, UNUSABLE), and
        KeystoreRefused for what the file of the seed refuses.
        """
        words = fresh_mnemonic() if mnemonic is None else " ".join(mnemonic.split())
        signer = WalletSigner(words, chain.network, chain.genesis_hash)
        lock = lock_directory(directory, create=True)
        with unlocking_on_error(lock):
            watched = WatchedSeed(hash_to_hex(chain.genesis_hash), signer.receive, signer.change)
            write_seed(directory / SEED_FILE, watched, words, passphrase, scrypt_log_n=scrypt_log_n)
            wallet = cls._open(directory, chain, watched, lock)
        wallet._signer = signer
        return wallet

    @classmethod
    def load(cls, directory: Path, chain: WalletChain) -> Self:
        """The wallet in `directory`, locked.

        Raises WalletError (NOT_FOUND, IN_USE, WRONG_CHAIN, DAMAGED, UNUSABLE), and KeystoreRefused.
        """
        if not (directory / SEED_FILE).exists():
            raise WalletError(WalletReason.NOT_FOUND, f"there is no wallet in {directory}")
        lock = lock_directory(directory, create=False)
        with unlocking_on_error(lock):
            watched = read_seed(directory / SEED_FILE)
            if watched.genesis_hash != hash_to_hex(chain.genesis_hash):
                detail = f"the wallet in {directory} is of another chain, whose first block is {watched.genesis_hash}"
                raise WalletError(WalletReason.WRONG_CHAIN, detail)
            return cls._open(directory, chain, watched, lock)

    @classmethod
    def _open(cls, directory: Path, chain: WalletChain, watched: WatchedSeed, lock: int) -> Self:
        """The database of the wallet, made anew if it is missing."""
        path = directory / DATABASE_FILE
        is_new = not path.exists()
        try:
            receive, change = (
                bdk.Descriptor(text, network_kind(chain.network)) for text in (watched.receive, watched.change)
            )
            network, created = bdk_network(chain.network), creation(chain.genesis_hash)
            persister = bdk.Persister.new_sqlite(str(path))
            if is_new:
                wallet = bdk.Wallet.create_with_params(receive, change, network, persister, created)
            else:
                loaded = bdk.LoadParams(
                    check_network=network,
                    check_genesis_hash=created.genesis_hash,
                    lookahead=LOOKAHEAD,
                    use_spk_cache=False,
                )
                wallet = bdk.Wallet.load_with_params(receive, change, persister, loaded)
        except bdk.DescriptorError as error:
            detail = f"{directory / SEED_FILE} names no descriptors; restore the wallet from its words"
            raise WalletError(WalletReason.DAMAGED, detail) from error
        except (bdk.PersistenceError, bdk.CreateWithPersistError, bdk.LoadWithPersistError) as error:
            detail = f"{path} can't be used ({error}); move it away: it holds no secret, and a sync makes it anew"
            raise WalletError(WalletReason.DAMAGED, detail) from error
        return cls(directory, chain, wallet, persister, lock)

    def unlock(self, passphrase: Passphrase) -> None:
        """Let the wallet spend until it is closed. Raises WalletError (DAMAGED), and KeystoreRefused."""
        path = self.directory / SEED_FILE
        try:
            signer = WalletSigner(self.mnemonic(passphrase), self.chain.network, self.chain.genesis_hash)
        except WalletError:
            raise WalletError(WalletReason.DAMAGED, f"the words in {path} are no mnemonic") from None
        if read_seed(path) != WatchedSeed(hash_to_hex(self.chain.genesis_hash), signer.receive, signer.change):
            detail = f"{path} watches what its words don't own; restore the wallet from them"
            raise WalletError(WalletReason.DAMAGED, detail)
        self._signer = signer

    def close(self) -> None:
        """Let other processes open the wallet; closing twice is allowed."""
        self._signer = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mnemonic(self, passphrase: Passphrase) -> str:
        """The words from which everything can be restored. Raises KeystoreRefused (WRONG_PASSPHRASE)."""
        return open_seed(self.directory / SEED_FILE, passphrase)

    def new_address(self) -> str:
        """An address that was not shown before."""
        return encode_address(self._new_script(), self.chain.network)

    def addresses(self, ahead: int = 0) -> list[str]:
        """Every address shown so far, oldest first: deposits to them are this wallet's. ahead: and so many to come."""
        external = bdk.KeychainKind.EXTERNAL
        scripts = [
            self._wallet.peek_address(external, index).address.script_pubkey().to_bytes()
            for index in range(self._shown + ahead)
        ]
        return [encode_address(bytes(script), self.chain.network) for script in scripts]

    def show_addresses(self, count: int) -> bool:
        """Count the first `count` addresses as shown; whether one of them was not before."""
        if count <= self._shown:
            return False
        self._wallet.reveal_addresses_to(bdk.KeychainKind.EXTERNAL, count - 1)
        self._persist()
        return True

    @property
    def _shown(self) -> int:
        last = self._wallet.derivation_index(bdk.KeychainKind.EXTERNAL)
        return 0 if last is None else last + 1

    def sync(self, url: str, *, full: bool = False) -> None:
        """Learn what happened to the addresses shown; with `full`, or the first time, to all that could have been.

        Raises WalletError (NODE_UNREACHABLE, WRONG_CHAIN).
        """
        node = self._node(url)
        never_synced = self._wallet.latest_checkpoint().height == 0
        update = node.full_scan(self._wallet) if full or never_synced else node.sync(self._wallet)
        self._wallet.apply_update(update)
        self._persist()

    def balance(self) -> Balance:
        """As of the last sync or payment."""
        balance = self._wallet.balance()
        pending_sats = balance.trusted_pending.to_sat() + balance.untrusted_pending.to_sat()
        return Balance(balance.confirmed.to_sat(), pending_sats)

    def send(self, url: str, address: str, amount_sats: int, *, feerate_sat_vb: int = DEFAULT_FEERATE_SAT_VB) -> Txid:
        """Pay a sidechain address.

        Raises WalletError: nothing was sent, unless it is NODE_UNREACHABLE, after which the next sync tells.
        """
        script = _script(address, self.chain.network)
        return self._pay(url, script, amount_sats, feerate_sat_vb).txid

    def withdraw(
        self,
        url: str,
        l1_address: str,
        amount_sats: int,
        max_fee_sats: int,
        *,
        feerate_sat_vb: int = DEFAULT_FEERATE_SAT_VB,
    ) -> OutPoint:
        """Burn an amount, for the federation to pay it to an L1 address less at most `max_fee_sats`.

        If that can't be done in time, a fresh address of this wallet is refunded. Returns the burn's outpoint, which
        names the withdrawal. Raises WalletError as `send` does.
        """
        l1_script = _script(l1_address, self.chain.l1_network)
        if not 0 <= max_fee_sats < amount_sats:
            raise WalletError(WalletReason.BAD_AMOUNT, f"a fee of up to {max_fee_sats} sats from {amount_sats}")
        burn = Burn(l1_script, max_fee_sats, self._new_script())
        script = encode_burn(self.chain.l1_genesis_hash, burn)
        transaction = self._pay(url, script, amount_sats, feerate_sat_vb)
        return transaction.outpoint([output.script for output in transaction.outputs].index(script))

    def history(self) -> list[HistoryItem]:
        """Every transaction that touches this wallet: those that wait, then the newest first."""
        items = [self._history_item(item) for item in self._wallet.transactions()]
        return sorted(items, key=lambda item: (item.height is not None, -(item.height or 0), item.txid))

    def burns(self) -> list[OutPoint]:
        """The withdrawals that this wallet paid for, by their burns."""
        paid_for = [
            Transaction.parse(bytes(item.transaction.serialize()))
            for item in self._wallet.transactions()
            if self._wallet.sent_and_received(item.transaction).sent.to_sat()
        ]
        return [
            transaction.outpoint(vout)
            for transaction in paid_for
            for vout, output in enumerate(transaction.outputs)
            if _is_burn(output)
        ]

    def _pay(self, url: str, script: Script, amount_sats: int, feerate_sat_vb: int) -> Transaction:
        """Build, sign and broadcast a payment of an amount to a script."""
        if not 0 < amount_sats <= MAX_MONEY_SATS:
            raise WalletError(WalletReason.BAD_AMOUNT, f"{amount_sats} sats")
        signed = self._signed(script, amount_sats, feerate_sat_vb)
        self._persist()
        self._node(url).broadcast(signed)
        self._wallet.apply_unconfirmed_txs([bdk.UnconfirmedTx(tx=signed, last_seen=int(time.time()))])
        self._persist()
        return Transaction.parse(bytes(signed.serialize()))

    def _signed(self, script: Script, amount_sats: int, feerate_sat_vb: int) -> bdk.Transaction:
        if self._signer is None:
            raise WalletError(WalletReason.LOCKED, "the wallet watches; unlock it with its passphrase to spend")
        try:
            psbt = (
                bdk.TxBuilder()
                .add_recipient(bdk.Script(script), bdk.Amount.from_sat(amount_sats))
                .fee_rate(bdk.FeeRate.from_sat_per_vb(feerate_sat_vb))
                .ordering(bdk.TxOrdering.UNTOUCHED)
                .finish(self._wallet)
            )
            self._signer.sign(psbt)
            self._wallet.finalize_psbt(psbt)
            return psbt.extract_tx()
        except (bdk.CreateTxError.InsufficientFunds, bdk.CreateTxError.CoinSelection) as error:
            available_sats = self._wallet.balance().trusted_spendable.to_sat()
            detail = f"{amount_sats} sats and the fee, of {available_sats} sats that can be spent now"
            raise WalletError(WalletReason.INSUFFICIENT_FUNDS, detail) from error
        except bdk.CreateTxError.OutputBelowDustLimit as error:
            raise WalletError(WalletReason.BELOW_DUST, f"{amount_sats} sats are too few for an output") from error
        except (bdk.CreateTxError, bdk.SignerError, bdk.ExtractTxError, bdk.FeeRateError) as error:
            raise WalletError(WalletReason.LIBRARY, str(error)) from error

    def _history_item(self, item: bdk.CanonicalTx) -> HistoryItem:
        transaction = Transaction.parse(bytes(item.transaction.serialize()))
        values = self._wallet.sent_and_received(item.transaction)
        try:
            fee_sats: int | None = self._wallet.calculate_fee(item.transaction).to_sat()
        except bdk.CalculateFeeError:
            fee_sats = None
        position = item.chain_position
        confirmed = position.is_confirmed()
        block = position.confirmation_block_time if confirmed else None
        return HistoryItem(
            txid=transaction.txid,
            kind=_kind(transaction),
            sent_sats=values.sent.to_sat(),
            received_sats=values.received.to_sat(),
            fee_sats=fee_sats,
            height=block.block_id.height if block else None,
            time_seconds=block.confirmation_time if block else position.timestamp,
        )

    def _new_script(self) -> Script:
        """The script of an address not shown before."""
        info = self._wallet.reveal_next_address(bdk.KeychainKind.EXTERNAL)
        self._persist()
        return Script(bytes(info.address.script_pubkey().to_bytes()))

    def _persist(self) -> None:
        try:
            self._wallet.persist(self._persister)
        except bdk.PersistenceError as error:
            raise WalletError(
                WalletReason.UNUSABLE, f"can't write {self.directory / DATABASE_FILE}: {error}"
            ) from error

    def _node(self, url: str) -> NodeConnection:
        return NodeConnection(url, self.chain.genesis_hash)


def _kind(transaction: Transaction) -> HistoryKind:
    """By the marks in the inputs' indexes, and the burns among the outputs."""
    marks = {item.outpoint.vout & (CLAIM_FLAG | REFUND_FLAG) for item in transaction.inputs}
    if CLAIM_FLAG in marks:
        return HistoryKind.DEPOSIT
    if REFUND_FLAG in marks:
        return HistoryKind.REFUND
    return HistoryKind.WITHDRAWAL if any(map(_is_burn, transaction.outputs)) else HistoryKind.PAYMENT


def _is_burn(output: TxOut) -> bool:
    """Whether it is a data output that holds value."""
    return output.value_sats > 0 and not is_spendable(output)


def _script(address: str, network: Network) -> Script:
    try:
        return decode_address(address, network)
    except Rejected as error:
        raise WalletError(WalletReason.BAD_ADDRESS, error.detail or error.reason.value) from error
