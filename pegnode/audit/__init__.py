"""What `peg audit` proves: each satoshi of the reserve explained, the ledger carried out again, statements on paper."""
