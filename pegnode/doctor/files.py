"""The files that people write or hand on: the configuration, and the genesis."""

import os
import stat
from pathlib import Path

from federation.membership import Member, Membership
from pegnode.config import FunctionaryConfig, NodeConfig, ProcessConfig, SignerConfig, load_process_config
from pegnode.doctor.findings import Check, Finding, ok, problem, refused, warning
from pegnode.genesis import Genesis
from pegnode.genesis_rules import GenesisRefused
from pegnode.input_file import FileRefused
from pegnode.options.errors import ConfigRefused


def configuration(path: Path) -> tuple[Finding, ProcessConfig | None]:
    """Whether the file is a configuration, and whom it belongs to."""
    try:
        config = load_process_config(path)
        status = path.stat()
    except ConfigRefused as error:
        return problem(Check.CONFIGURATION, error.detail, "correct the file"), None
    except FileRefused as error:
        return refused(Check.CONFIGURATION, error.detail, "correct the path"), None
    except OSError as error:
        return problem(Check.CONFIGURATION, f"{path}: {error.strerror}", "correct the path"), None
    return check_owner(path, status.st_mode, status.st_uid, os.geteuid(), config), config


def check_owner(path: Path, mode: int, owner: int, user: int, config: ProcessConfig) -> Finding:
    """Whether nobody else can point the process at other keys or another Bitcoin node. owner, user: numbers."""
    if mode & stat.S_IWGRP:
        return warning(Check.CONFIGURATION, f"{path} can be changed by its group", f"run: chmod g-w {path}")
    if owner not in (user, 0):
        what = f"{path} belongs to user {owner}, who may change it"
        return warning(Check.CONFIGURATION, what, f"run: chown to the user that runs the process: {user}")
    kind = type(config).__name__.removesuffix("Config").lower()
    return ok(Check.CONFIGURATION, f"{path}: a {kind} named {config.name}")


def genesis(config: ProcessConfig) -> tuple[list[Finding], Genesis | None]:
    """Whether the genesis is one, and knows the names that the configuration uses."""
    try:
        found = Genesis.load(config.genesis)
    except (GenesisRefused, FileRefused) as error:
        remedy = "ask another member for genesis.json, and compare the chain id"
        return [problem(Check.GENESIS, error.detail, remedy)], None
    membership = found.rules().membership
    return [check_names(config, membership, found.chain_id)], found


def check_names(config: ProcessConfig, membership: Membership, chain_id: bytes) -> Finding:
    """Whether the process and its peers are called as in the genesis."""
    try:
        if isinstance(config, FunctionaryConfig | SignerConfig):
            config.member(membership)
        if isinstance(config, NodeConfig):
            config.peer_addresses(membership)
    except ConfigRefused as error:
        return problem(Check.GENESIS, error.detail, "correct the name, or genesis")
    return ok(Check.GENESIS, f"{membership.size} members, chain id {chain_id.hex()}")


def own_member(config: ProcessConfig, membership: Membership) -> Member | None:
    """Which member this is, or signs for; None for a full node, and for a name that the genesis doesn't know."""
    if not isinstance(config, FunctionaryConfig | SignerConfig):
        return None
    return next((member for member in membership.members if member.name == config.name), None)
