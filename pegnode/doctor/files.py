"""The files that people write or hand on: the configuration, and the genesis."""

import os
import stat
from pathlib import Path

from federation.membership import Member, Membership
from pegnode.config import FunctionaryConfig, NodeConfig, load_config
from pegnode.doctor.findings import Check, Finding, ok, problem, refused, warning
from pegnode.genesis import Genesis
from pegnode.genesis_rules import GenesisRefused
from pegnode.input_file import FileRefused
from pegnode.options.errors import ConfigRefused


def configuration(path: Path) -> tuple[Finding, NodeConfig | None]:
    """Whether the file is a configuration, and whom it belongs to."""
    try:
        config = load_config(path)
        status = path.stat()
    except ConfigRefused as error:
        return problem(Check.CONFIGURATION, error.detail, "correct the file"), None
    except FileRefused as error:
        return refused(Check.CONFIGURATION, error.detail, "correct the path"), None
    except OSError as error:
        return problem(Check.CONFIGURATION, f"{path}: {error.strerror}", "correct the path"), None
    return check_owner(path, status.st_mode, status.st_uid, os.geteuid(), config), config


def check_owner(path: Path, mode: int, owner: int, user: int, config: NodeConfig) -> Finding:
    """Whether nobody else can point the process at other keys or another Bitcoin node. owner, user: numbers."""
    if mode & stat.S_IWGRP:
        return warning(Check.CONFIGURATION, f"{path} can be changed by its group", f"run: chmod g-w {path}")
    if owner not in (user, 0):
        what = f"{path} belongs to user {owner}, who may change it"
        return warning(Check.CONFIGURATION, what, f"run: chown to the user that runs the process: {user}")
    kind = "functionary" if isinstance(config, FunctionaryConfig) else "node"
    return ok(Check.CONFIGURATION, f"{path}: a {kind} named {config.name}")


def genesis(config: NodeConfig) -> tuple[list[Finding], Genesis | None]:
    """Whether the genesis is one, and knows the names that the configuration uses."""
    try:
        found = Genesis.load(config.genesis)
    except (GenesisRefused, FileRefused) as error:
        remedy = "ask another member for genesis.json, and compare the chain id"
        return [problem(Check.GENESIS, error.detail, remedy)], None
    membership = found.rules().membership
    return [check_names(config, membership, found.chain_id)], found


def check_names(config: NodeConfig, membership: Membership, chain_id: bytes) -> Finding:
    """Whether the process and its peers are called as in the genesis."""
    try:
        if isinstance(config, FunctionaryConfig):
            config.member(membership)
        config.peer_addresses(membership)
    except ConfigRefused as error:
        return problem(Check.GENESIS, error.detail, "correct the name, or genesis")
    return ok(Check.GENESIS, f"{membership.size} members, chain id {chain_id.hex()}")


def own_member(config: NodeConfig, membership: Membership) -> Member | None:
    """Which member a functionary is; None for a full node, and for a name that the genesis doesn't know."""
    if not isinstance(config, FunctionaryConfig):
        return None
    return next((member for member in membership.members if member.name == config.name), None)
