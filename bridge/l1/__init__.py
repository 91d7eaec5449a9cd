"""The Bitcoin node (L1) as this program sees it: a typed JSON-RPC client."""
