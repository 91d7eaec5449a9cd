"""Final blocks and the state after them, on disk: atomic, locked, checked when opened."""
