"""The parts of a running node: each owns one task or one piece of state, and none knows how the others are joined."""
