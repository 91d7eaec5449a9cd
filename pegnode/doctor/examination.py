"""All checks of one process, in the order in which one would put things right."""

from pathlib import Path

from federation.journal_header import JournalIdentity
from pegnode.chain.parameters import ChainRules
from pegnode.clock import now_ms
from pegnode.config import FunctionaryConfig, NodeConfig, ProcessConfig, SignerConfig
from pegnode.doctor import bitcoin_node, files, keys, machine, members, process, stores
from pegnode.doctor.findings import Check, Finding, Outcome, ok, problem
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.options.errors import ConfigRefused
from pegnode.rpc.results import StatusReply


async def examine(path: Path) -> list[Finding]:
    """Everything about the process whose configuration is at `path`. Nothing is changed, and nobody is asked."""
    finding, config = files.configuration(path)
    if config is None:
        return [finding, *_machine()]
    found = [finding]
    findings, genesis = files.genesis(config)
    found += [*findings, *_machine(), *_folder(config)]
    if isinstance(config, NodeConfig):
        return found + await _node(config, genesis)
    if isinstance(config, SignerConfig):
        answer = keys.signer(config.socket)
        running = answer.outcome is Outcome.OK
        found.append(answer if running else ok(Check.SIGNER, "does not run"))
        found += _own_files(config, genesis.rules() if genesis else None, running)
    return found + (await _bitcoin_node(config, genesis, None) if genesis else [])


async def _node(config: NodeConfig, genesis: Genesis | None) -> list[Finding]:
    """What a process with a network and an RPC has besides."""
    found: list[Finding] = []
    answer = process.ask_process(config)
    running = answer.status is not None
    found += [process.check_process(answer, now_ms()), *process.ports(config, running)]
    rules = genesis.rules() if genesis else None
    found += _own_files(config, rules, running)
    if genesis is None or rules is None:
        return found
    found += await _bitcoin_node(config, genesis, answer.status)
    return found + await members.members(config, rules.membership, rules.chain_id, answer.status)


def _machine() -> list[Finding]:
    clock = machine.check_clock(machine.clock_state())
    return [machine.software(), machine.curve(), machine.descriptors(), clock]


def _folder(config: ProcessConfig) -> list[Finding]:
    """The data folder, and the disk that it is on."""
    try:
        folder = machine.check_data_folder(machine.folder_state(config.data_dir), config.data_dir)
        return [folder, machine.check_disk(machine.disk_state(config.data_dir, config.l1.cookie_file))]
    except OSError as error:
        remedy = "run this as the user that runs the process, or correct data_dir"
        return [problem(Check.DATA_FOLDER, f"{config.data_dir}: {error.strerror}", remedy)]


def _own_files(config: ProcessConfig, rules: ChainRules | None, running: bool) -> list[Finding]:
    """A member's keys and journal, and the database of its chain."""
    found = []
    if isinstance(config, FunctionaryConfig | SignerConfig):
        member = files.own_member(config, rules.membership) if rules else None
        if config.keys_dir is not None:
            key_file = keys.keys(config.keys_dir, member)
            found += [key_file, keys.passphrase(config.keys_dir, config.passphrase_file, key_file)]
        if isinstance(config, FunctionaryConfig) and config.signer is not None:
            found.append(keys.signer(config.signer.socket))
        identity = JournalIdentity(rules.chain_id, rules.membership.epoch, member.index) if rules and member else None
        found.append(stores.journal(config.data_dir / JOURNAL_FOLDER, identity, running))
    if rules is not None:
        found.append(stores.database(config.data_dir / CHAIN_FOLDER, rules, running))
    return found


async def _bitcoin_node(config: ProcessConfig, genesis: Genesis, status: StatusReply | None) -> list[Finding]:
    anchor_height = status.anchor.height if status else genesis.anchor.height
    try:
        return await bitcoin_node.bitcoin_node(config.l1, genesis, anchor_height, now_ms() / 1000)
    except ConfigRefused as error:
        return [problem(Check.BITCOIN_NODE, error.detail, "correct the file")]
