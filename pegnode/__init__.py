"""The running sidechain: chain rules, consensus, storage, network, and the programs around them."""
