"""Giving a member's keys a process of their own: the signer's folder, made beside what the member has.

    DIRECTORY/signer.toml     its configuration, with the member's keys where they lie
              data/journal    a copy of the member's journal: what these keys have signed so far

From then on the signer's journal alone decides what is signed: the member's own is marked as one that only repeats
votes, before the signer's folder appears. So neither a second signer nor the member itself can sign against the first.
"""

import shutil
from pathlib import Path
from typing import Final

from federation.journal_entries import open_journal
from federation.journal_header import JournalIdentity
from federation.rocks import DiskError, Hold
from pegnode.config import FunctionaryConfig, SignerConfig
from pegnode.folders import DATA_FOLDER, JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.options.rendering import render
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.staging import staged

SIGNER_FILE: Final = "signer.toml"
SOCKET_PLACE: Final = Path("run", "signer.sock")


def create_signer(config: FunctionaryConfig, directory: Path) -> SignerConfig:
    """Make a signer's folder in `directory`, which is absent or empty, for a member that does not run.

    Raises ConfigRefused for a member without keys_dir; SetupRefused; JournalRefused for its journal: LOCKED among them,
    and KEYS_ELSEWHERE once it has a signer.
    """
    directory = directory.absolute()
    if config.keys_dir is None:
        what = "missing: this member's keys are with a signer already"
        raise ConfigRefused(ConfigReason.MISSING_OPTION, what, (("keys_dir",),))
    rules = Genesis.load(config.genesis).rules()
    identity = JournalIdentity(rules.chain_id, rules.membership.epoch, config.member(rules.membership).index)
    made = SignerConfig(
        name=config.name,
        genesis=config.genesis,
        data_dir=directory / DATA_FOLDER,
        log_level=config.log_level,
        l1=config.l1,
        keys_dir=config.keys_dir,
        passphrase_file=config.passphrase_file,
        socket=directory / SOCKET_PLACE,
    )
    made.validate()
    source = config.data_dir / JOURNAL_FOLDER
    journal = open_journal(source, identity)  # whole, this member's, and in nobody's use
    try:
        journal.require_keys_here()
    finally:
        journal.close()
    with staged(directory) as stage:
        try:
            with Hold(source):
                shutil.copytree(source, stage / DATA_FOLDER / JOURNAL_FOLDER, ignore=shutil.ignore_patterns("LOCK"))
        except (OSError, DiskError) as error:
            raise SetupRefused(SetupReason.UNWRITABLE, f"{directory}: {error}") from error
        (stage / DATA_FOLDER).chmod(0o700)
        (stage / SIGNER_FILE).write_text(render(made, directory), encoding="utf-8")
        open_journal(stage / DATA_FOLDER / JOURNAL_FOLDER, identity).close()
        _leave_keys(source, identity)
    return made


def _leave_keys(path: Path, identity: JournalIdentity) -> None:
    journal = open_journal(path, identity)
    try:
        journal.leave_keys_to_signer()
    finally:
        journal.close()
