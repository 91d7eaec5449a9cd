"""The decoders of files: genesis documents, templates, configurations, key files, cards, cookies."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from bridge.l1.credentials import CookieAuth, PasswordFileAuth
from bridge.l1.errors import L1Unavailable
from federation.key_files import read_public_keys
from federation.keystore import MemberSecrets, member_path, read_member_secrets, write_member_secrets
from federation.keystore_errors import KeystoreRefused
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N, SealedBox
from pegnode.audit.document import DocumentRefused, parse_document, render_document
from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.genesis import Genesis
from pegnode.genesis_rules import GenesisRefused
from pegnode.guilt.document import Accusation, GuiltRefused, parse_accusation, render_accusation
from pegnode.input_file import FileRefused
from pegnode.options.errors import ConfigRefused
from pegnode.passphrase import read_passphrase_file
from pegnode.resume.document import PlanRefused, parse_plan, render_plan
from pegnode.rpc.cookie import CookieError, Credentials
from pegnode.setup.card import CardRefused, MemberCard, RecoveryCard, decode_card
from pegnode.setup.errors import SetupRefused
from pegnode.setup.template import AgreedTemplate
from tests.fuzz.decoders import Decoder
from tests.fuzz.scene import scene, signed_statement
from tests.support.chain import CONFIGS, START_MS, member_sections, recovery_keys_hex, secret
from tests.support.configs import FUNCTIONARY, NODE
from tests.support.equivocations import equivocation
from tests.support.records import ANY_RECORD, changed

PASSPHRASE = "correct horse battery staple"
_AGREED = f"""
[agreed]
time_ms = {START_MS}
anchor_height = 840000
anchor_hash_hex = "{"0" * 24}{"ab" * 20}"
recovery_keys_hex = {recovery_keys_hex()}
""".encode()


@cache
def document_decoders() -> tuple[Decoder, ...]:
    """All of them."""
    return (*_parameters(), *_configurations(), *_secrets(), *_cards())


def _parameters() -> tuple[Decoder, ...]:
    genesis = scene().chain.genesis
    template = (CONFIGS / "local.toml").read_bytes()
    return (
        Decoder(
            "pegnode.genesis:Genesis.decode",
            _genesis,
            (GenesisRefused,),
            (genesis.canonical_bytes, genesis.document),
            refused=(b"[" * 990 + b"]" * 990, b'{"a":' * 300 + b"1" + b"}" * 300),
        ),
        Decoder(
            "pegnode.setup.template:AgreedTemplate.parse",
            lambda data: AgreedTemplate.parse(data.decode("utf-8", "replace")),
            (SetupRefused, GenesisRefused),
            (template + _AGREED,),
        ),
        Decoder(
            "pegnode.audit.document:parse_document",
            parse_document,
            (DocumentRefused,),
            (render_document(signed_statement(0, 2)),),
            refused=(b"[" * 990 + b"]" * 990, b'{"chain_id":' * 300 + b"1" + b"}" * 300),
        ),
        Decoder(
            "pegnode.resume.document:parse_plan",
            parse_plan,
            (PlanRefused,),
            (render_plan((ANY_RECORD, changed(ANY_RECORD, serial=2))),),
        ),
        Decoder(
            "pegnode.guilt.document:parse_accusation",
            parse_accusation,
            (GuiltRefused,),
            (render_accusation(Accusation.of(equivocation(scene().chain.rules, 2), scene().chain.rules)),),
        ),
        Decoder("pegnode.genesis:Genesis.from_template", _template, (GenesisRefused,), (template,)),
    )


def _configurations() -> tuple[Decoder, ...]:
    return (
        Decoder(
            "pegnode.config:NodeConfig.load",
            _through_file(NodeConfig.load),
            (ConfigRefused, FileRefused),
            (NODE.encode(),),
            refused=(b"a." * 990 + b"a = 1", b"[" + b"a." * 990 + b"a]", b"a = " + b"[" * 990 + b"]" * 990),
        ),
        Decoder(
            "pegnode.config:FunctionaryConfig.load",
            _through_file(FunctionaryConfig.load),
            (ConfigRefused, FileRefused),
            (FUNCTIONARY.encode(),),
        ),
    )


def _secrets() -> tuple[Decoder, ...]:
    directory = scratch_directory()
    keys = MemberSecrets(*(secret(purpose, 0) for purpose in ("vote", "custody", "transport")))
    passphrase = Passphrase(PASSPHRASE)
    path = write_member_secrets(
        directory, keys, passphrase, scrypt_log_n=LEAST_LOG_N, random_bytes=lambda size: bytes(range(size))
    )
    box = path.read_bytes()
    cookie = f"{Credentials.generate().user}:{'0' * 64}".encode()

    def member_keys(path: Path) -> str:
        path.replace(member_path(directory))
        return repr(read_member_secrets(directory, passphrase))

    return (
        Decoder(
            "federation.sealed_box:SealedBox.parse",
            lambda data: SealedBox.parse(data).public,
            (KeystoreRefused,),
            (box,),
        ),
        Decoder("federation.keystore:read_member_secrets", _through_file(member_keys), (KeystoreRefused,), (box,)),
        Decoder("federation.key_files:read_public_keys", _through_file(read_public_keys), (KeystoreRefused,), (box,)),
        Decoder(
            "pegnode.passphrase:read_passphrase_file",
            _through_file(lambda path: read_passphrase_file(path).reveal()),
            (KeystoreRefused,),
            (PASSPHRASE.encode(), f"{PASSPHRASE}\r\nmore".encode()),
        ),
        Decoder("pegnode.rpc.cookie:Credentials.read", _through_file(Credentials.read), (CookieError,), (cookie,)),
        Decoder(
            "bridge.l1.credentials:CookieAuth.read",
            _through_file(lambda path: CookieAuth(path).read()),
            (L1Unavailable,),
            (cookie,),
        ),
        Decoder(
            "bridge.l1.credentials:PasswordFileAuth.read",
            _through_file(lambda path: PasswordFileAuth("alice", path).read()),
            (L1Unavailable,),
            (b"a password",),
        ),
    )


def _cards() -> tuple[Decoder, ...]:
    keys = MemberSecrets(*(secret(purpose, 1) for purpose in ("vote", "custody", "transport")))
    member = MemberCard.make("alice", "/ip4/192.0.2.1/tcp/9735", keys, bytes).document
    recovery = RecoveryCard.make("carol", secret("recovery", 1), bytes).document
    errors = (CardRefused,)
    return (
        Decoder("pegnode.setup.card:MemberCard.decode", MemberCard.decode, errors, (member,)),
        Decoder("pegnode.setup.card:RecoveryCard.decode", RecoveryCard.decode, errors, (recovery,)),
        Decoder("pegnode.setup.card:decode_card", decode_card, errors, (member, recovery)),
    )


def _genesis(data: bytes) -> object:
    """Written out it is the same genesis again, with the same chain id."""
    genesis = Genesis.decode(data)
    again = Genesis.decode(genesis.document)
    assert (again, again.chain_id) == (genesis, genesis.chain_id)
    return genesis


def _template(data: bytes) -> object:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    return Genesis.from_template(
        text,
        members=member_sections(),
        recovery_keys_hex=recovery_keys_hex(),
        anchor=scene().chain.genesis.anchor,
        time_ms=START_MS,
    )


@cache
def _scratch() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="pegnode-fuzz-")


def scratch_directory() -> Path:
    """A directory of this process, its owner's alone, for as long as it runs."""
    return Path(_scratch().name)


def _through_file(load: Callable[[Path], object]) -> Callable[[bytes], object]:
    """What `load` makes of a file with these bytes, which none but its owner may read."""

    def decode(data: bytes) -> object:
        path = scratch_directory() / "file"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
        return load(path)

    return decode
