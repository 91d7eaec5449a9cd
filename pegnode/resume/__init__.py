"""The way back from a halt, as far as it is without a node: what became of coins, and plans as files for people."""
