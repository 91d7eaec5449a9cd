"""How the folders of a federation and of a process are laid out."""

MEMBER_NAMES = (
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl", "liam", "mona", "nina",
    "oscar",
)  # fmt: skip
"""The members of a local federation, in the order of their index."""
GENESIS_FILE = "genesis.json"
FUNCTIONARY_FILE = "functionary.toml"
NODE_NAME = "node"
NODE_FILE = "node.toml"
KEYS_FOLDER = "keys"
DATA_FOLDER = "data"
RECOVERY_FOLDER = "recovery"
PASSPHRASE_FILE = "passphrase"

# Below a process's data folder:
CHAIN_FOLDER = "chain"
JOURNAL_FOLDER = "journal"
COOKIE_FILE = ".cookie"
