"""A whole federation on one machine, made as a real one is: every member's keys and card, a template, an assembly each.

    DIRECTORY/alice/        a member's folder, as `pegnode.setup.folder` lays it out; and so for every member
              recovery/1/   a recovery key and its card; one more than are needed, so that one may be lost
              template.toml what they agreed on
              node/         for a full node without keys
              passphrase    what opens all these keys, at random

One person holds all of it, so it is good for tests and demonstrations alone. The passphrase lies beside what it opens,
and is of 256 random bits: stretching it would add nothing.
"""

from pathlib import Path

from bridge.state import Anchor
from federation.keystore import RandomBytes, SecretKind, generate_secret, write_secret
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.config import L1Config
from pegnode.folders import MEMBER_NAMES, NODE_NAME, PASSPHRASE_FILE, RECOVERY_FOLDER
from pegnode.passphrase import write_random_passphrase
from pegnode.ports import LOOPBACK, free_ports
from pegnode.setup.assembly import Assembly, assemble
from pegnode.setup.card import RecoveryCard
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.folder import (
    CARD_FILE,
    OwnSettings,
    complete_member,
    create_member,
    write_node,
)
from pegnode.setup.staging import staged
from pegnode.setup.template import Agreed, AgreedTemplate, completed, parameters_of

TEMPLATE_FILE = "template.toml"
SPARE_RECOVERY_KEYS = 1
"""Recovery keys beyond the recovery quorum: as many may be lost."""


def create_local_federation(
    directory: Path, parameters_toml: str, *, l1: L1Config, anchor: Anchor, time_ms: int, random_bytes: RandomBytes
) -> Assembly:
    """Make a federation in `directory`, which is absent or empty, on whatever ports are free.

    parameters_toml: one of configs/*.toml, for as many members as there are names.  anchor: a buried block of L1.
    time_ms: now.  random_bytes: unpredictable, for the keys.

    Raises SetupRefused, GenesisRefused, ConfigRefused, KeystoreRefused or JournalRefused; in each case nothing is left.
    """
    parameters = parameters_of(parameters_toml)
    names = MEMBER_NAMES[: parameters.member_count]
    peer_ports, rpc_ports = _ports(len(names))
    with staged(directory) as stage:
        passphrase = write_random_passphrase(stage / PASSPHRASE_FILE, random_bytes)
        members = [
            create_member(
                stage / name,
                name,
                f"/ip4/{LOOPBACK}/tcp/{port}",
                passphrase,
                random_bytes=random_bytes,
                scrypt_log_n=LEAST_LOG_N,
            )
            for name, port in zip(names, peer_ports, strict=True)
        ]
        (stage / RECOVERY_FOLDER).mkdir(mode=0o700)
        recovery = [
            _create_recovery_key(stage / RECOVERY_FOLDER / str(number), number, passphrase, random_bytes)
            for number in range(1, parameters.peg.recovery_quorum + SPARE_RECOVERY_KEYS + 1)
        ]
        keys = [bytes.fromhex(card.recovery_key_hex) for card in recovery]
        template = completed(parameters_toml, Agreed.of(anchor, keys, time_ms))
        (stage / TEMPLATE_FILE).write_text(template, encoding="utf-8")
        assembly = assemble([*members, *recovery], AgreedTemplate.parse(template))
        for card, port in zip(members, rpc_ports, strict=False):
            own = OwnSettings(l1, f"{LOOPBACK}:{port}", passphrase_file=stage / PASSPHRASE_FILE)
            complete_member(stage / card.name, assembly, passphrase, own)
        write_node(stage / NODE_NAME, assembly, OwnSettings(l1, f"{LOOPBACK}:{rpc_ports[-1]}"))
    return assembly


def _create_recovery_key(folder: Path, number: int, passphrase: Passphrase, random_bytes: RandomBytes) -> RecoveryCard:
    secret = generate_secret(random_bytes)
    write_secret(folder, SecretKind.RECOVERY, secret, passphrase, scrypt_log_n=LEAST_LOG_N, random_bytes=random_bytes)
    card = RecoveryCard.make(f"recovery-{number}", secret, random_bytes)
    (folder / CARD_FILE).write_bytes(card.document)
    return card


def _ports(members: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A port for each member's peers, and one for the RPC of each and of the node, which is last."""
    count = 2 * members + 1
    try:
        ports = free_ports(count)
    except OSError as error:
        raise SetupRefused(SetupReason.NO_PORTS, f"no {count} free ports: {error.strerror}") from error
    return ports[:members], ports[members:]
