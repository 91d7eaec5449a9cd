"""How value crosses between Bitcoin and the sidechain: evidence, custody, and the ledger that accounts for it."""
