"""Our adapter to Bitcoin: identifiers, amounts, hashes, transactions, scripts, curve points, Taproot and addresses."""
