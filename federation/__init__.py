"""Who may sign, and what they refuse."""
