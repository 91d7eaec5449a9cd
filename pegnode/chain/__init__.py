"""The sidechain's blocks: their bytes, validity, what a member votes for, and how a leader assembles one. Pure."""
