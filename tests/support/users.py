"""Users of a local federation: wallets that talk to one member or node each, as people's wallets do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.bitcoin.addresses import l1_network
from bridge.bitcoin.identifiers import OutPoint, hash_to_hex
from federation.sealed_box import LEAST_LOG_N
from pegnode.config import NodeConfig
from pegnode.genesis import Genesis
from pegnode.local_federation import client_of
from pegnode.passphrase import read_passphrase_file
from pegnode.rpc.results import WithdrawalEstimateReply
from pegnode.wallet.wallet import Wallet, WalletChain
from tests.support.federation import CONFIRMATIONS, SIDECHAIN, FederationUnderTest, eventually


@dataclass(frozen=True, slots=True)
class User:
    """A wallet, and the configuration of the node that it talks to."""

    federation: FederationUnderTest
    wallet: Wallet
    node: NodeConfig

    @property
    def url(self) -> str:
        """Where the node answers."""
        return f"http://{self.node.rpc.bind}"

    def balance_sats(self) -> int:
        """What is final, after a sync."""
        self.wallet.sync(self.url)
        return self.wallet.balance().confirmed_sats

    def pending_sats(self) -> int:
        """What waits for a block, after a sync."""
        self.wallet.sync(self.url)
        return self.wallet.balance().pending_sats

    def await_balance(self, sats: int) -> None:
        """Wait until exactly so much is final."""
        eventually(lambda: self.balance_sats() == sats, f"a balance of {sats} sats")

    def fund(self, value_sats: int, deposits: int = 1) -> None:
        """Deposit so much from L1, in so many outputs, and wait until the wallet has it."""
        eventually(lambda: self.pending_sats() == 0, "nothing of the wallet's waits")
        before_sats = self.balance_sats()
        claim_addresses = [self.wallet.new_address() for _ in range(deposits)]
        each_sats = value_sats // deposits
        addresses = [self.federation.deposit_address(address) for address in claim_addresses]
        self.federation.pay(dict.fromkeys(addresses, each_sats))
        self.federation.mine(CONFIRMATIONS)
        claim_fee_sats = self.federation.peg().claim_fee_sats
        self.await_balance(before_sats + deposits * (each_sats - claim_fee_sats))

    def send(self, address: str, amount_sats: int) -> str:
        """Pay a sidechain address; the txid in reversed hex."""
        return hash_to_hex(self.wallet.send(self.url, address, amount_sats))

    def withdraw(self, l1_address: str, amount_sats: int) -> OutPoint:
        """Burn for an L1 address at the suggested bound of the fee; the burn."""
        with client_of(self.node) as client:
            estimate = client.ask(WithdrawalEstimateReply, "estimatewithdrawal", l1_address, amount_sats)
        return self.wallet.withdraw(self.url, l1_address, amount_sats, estimate.max_fee_sats)


@contextmanager
def user_of(federation: FederationUnderTest, name: str, node: NodeConfig | None = None) -> Iterator[User]:
    """A user with a new wallet. node: by default the member of the same name."""
    genesis = Genesis.load(federation.local.genesis_path)
    chain = WalletChain(SIDECHAIN, genesis.header().hash, l1_network(genesis.l1.network), genesis.l1_genesis_hash)
    passphrase = read_passphrase_file(federation.local.passphrase_path)
    directory = federation.local.wallets / name
    with Wallet.create(directory, chain, passphrase, scrypt_log_n=LEAST_LOG_N) as wallet:
        yield User(federation, wallet, node or federation.local.member_config(name))
