"""The running sidechain: chain rules, consensus, storage, network, wallet and command line."""

__version__ = "0.1.0"
