"""Transactions and evidence that wait for a block. Pure."""
