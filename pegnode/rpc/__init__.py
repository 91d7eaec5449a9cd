"""The HTTP edge: JSON-RPC in the manner of bitcoind, and Esplora-style REST for wallets. Loopback only."""
