"""The half of a wallet that holds its secrets: it signs what the watching half builds."""

import bdkpython as bdk

from bridge.bitcoin.addresses import Network
from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from pegnode.wallet.errors import WalletError, WalletReason

LOOKAHEAD = 25
"""Addresses derived ahead of the last one shown."""


class WalletSigner:
    """Keys from a BIP39 mnemonic by BIP86, in memory. receive, change: the public descriptors of their addresses."""

    def __init__(self, mnemonic: str, network: Network, genesis_hash: BlockHash) -> None:
        """Raises WalletError (BAD_MNEMONIC), which does not quote it."""
        try:
            words = bdk.Mnemonic.from_string(mnemonic)
        except bdk.Bip39Error:
            raise WalletError(WalletReason.BAD_MNEMONIC, "not the words of a BIP39 mnemonic") from None
        kind = network_kind(network)
        key = bdk.DescriptorSecretKey(kind, words, None)
        receive = bdk.Descriptor.new_bip86(key, bdk.KeychainKind.EXTERNAL, kind)
        change = bdk.Descriptor.new_bip86(key, bdk.KeychainKind.INTERNAL, kind)
        self.receive, self.change = str(receive), str(change)  # BDK's str leaves secrets out
        memory = bdk.Persister.new_in_memory()
        self._wallet = bdk.Wallet.create_with_params(
            receive, change, bdk_network(network), memory, creation(genesis_hash)
        )

    def sign(self, psbt: bdk.Psbt) -> None:
        """Add the signatures to a PSBT that tells how its keys are derived. Raises bdk.SignerError."""
        self._wallet.sign(psbt)


def fresh_mnemonic() -> str:
    """12 new words."""
    return str(bdk.Mnemonic(bdk.WordCount.WORDS12))


def network_kind(network: Network) -> bdk.NetworkKind:
    """How keys are written."""
    return bdk.NetworkKind.MAIN if network.name == "main" else bdk.NetworkKind.TEST


def bdk_network(network: Network) -> bdk.Network:
    """What BDK takes the sidechain for."""
    return bdk.Network.BITCOIN if network.name == "main" else bdk.Network.REGTEST


def creation(genesis_hash: BlockHash) -> bdk.CreateParams:
    """How a new wallet begins."""
    first = bdk.BlockHash.from_string(hash_to_hex(genesis_hash))
    return bdk.CreateParams(genesis_hash=first, lookahead=LOOKAHEAD, use_spk_cache=False)
