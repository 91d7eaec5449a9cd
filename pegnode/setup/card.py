"""Public cards: what each key holder gives to the others before there is a genesis. (pure)

A member's card names its three public keys and where it is dialled; a recovery card names one key. Each key signs the
whole card, so nobody can register a key that another holds, and nothing of a card can be changed on its way. All three
sign by BIP340, the transport key too: a peer id spells out a secp256k1 key. (libp2p itself has that key sign other
messages by ECDSA, whose nonces are derived in another way.)

What a card can't prove is who its holder is. For that, people compare fingerprints, by voice.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import msgspec

from bridge.bitcoin.curve import SIGNATURE_SIZE, is_valid_x_only, schnorr_sign, schnorr_verify, x_only
from bridge.bitcoin.hashes import tagged_hash
from bridge.codec import Writer
from bridge.errors import Reason
from federation.keystore import MemberSecrets, RandomBytes
from pegnode.errors import ReasonedError
from pegnode.genesis import Hex32, MemberName, MemberSection, PeerId
from pegnode.json_document import render_json
from pegnode.net.address import Endpoint, parse_endpoint, peer_id_from_secret, transport_key_of
from pegnode.net.transport import TransportError

CARD_VERSION = 1
MEMBER_FORMAT = "pegnode-member-card"
RECOVERY_FORMAT = "pegnode-recovery-card"
MAX_CARD_BYTES = 4096
AUX_SIZE = 32
FINGERPRINT_SIZE = 16
"""Bytes of the digest that people compare: nobody finds a second card with the same ones."""
_ADDRESS = re.compile(r"[A-Za-z0-9./:-]{1,300}")
_SIGNATURE = re.compile(rf"[0-9a-f]{{{2 * SIGNATURE_SIZE}}}")

C = TypeVar("C", bound=msgspec.Struct)


class CardReason(Reason):
    """Why a card is refused."""

    UNREADABLE = "card-unreadable"
    """The file can't be read, or is too large to be one."""
    MALFORMED = "card-malformed"
    """It is no card, or a field is missing, unknown or of the wrong form."""
    UNKNOWN_VERSION = "card-unknown-version"
    """Another release of this program wrote it."""
    INVALID_KEY = "card-invalid-key"
    """A key is no point of the curve, or serves two purposes."""
    BAD_ADDRESS = "card-bad-address"
    """Nobody can dial it."""
    BAD_SIGNATURE = "card-bad-signature"
    """It was altered, or its maker does not hold the key."""


class CardRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """A card that proves nothing, and what to do about it. reason: CardReason."""


class MemberCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a member publishes. Keys: x-only, 32 bytes in hex.  address: a multiaddr at which others reach it.

    Signatures: 64 bytes in hex, each over `digest`.
    """

    format: str = MEMBER_FORMAT
    version: int = CARD_VERSION
    name: MemberName
    vote_key_hex: Hex32
    custody_key_hex: Hex32
    peer_id: PeerId
    address: str
    vote_signature_hex: str
    custody_signature_hex: str
    transport_signature_hex: str

    @classmethod
    def make(cls, name: str, address: str, secrets: MemberSecrets, random_bytes: RandomBytes) -> Self:
        """The card of these keys, signed and checked. Raises CardRefused for a name or address that can't be one."""
        unsigned = cls(
            name=name,
            vote_key_hex=x_only(secrets.vote).hex(),
            custody_key_hex=x_only(secrets.custody).hex(),
            peer_id=peer_id_from_secret(secrets.transport),
            address=address,
            vote_signature_hex="",
            custody_signature_hex="",
            transport_signature_hex="",
        )
        _require_name(name)
        _ = unsigned.endpoint
        signatures = {
            f"{purpose}_signature_hex": schnorr_sign(secret, unsigned.digest, random_bytes(AUX_SIZE)).hex()
            for purpose, secret in (
                ("vote", secrets.vote),
                ("custody", secrets.custody),
                ("transport", secrets.transport),
            )
        }
        return cls.decode(msgspec.structs.replace(unsigned, **signatures).document)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The card in JSON, with all signatures checked. Raises CardRefused."""
        card = _decoded(data, cls, MEMBER_FORMAT)
        keys = card._signed_keys()
        if len({key for _, key, _ in keys}) != len(keys):
            raise CardRefused(CardReason.INVALID_KEY, f"{card.name}: one key serves two purposes; make new keys")
        _ = card.endpoint
        for purpose, key, _ in keys:
            _require_point(card.name, purpose, key)
        for purpose, key, signature_hex in keys:
            _check_signature(card.name, purpose, key, card.digest, signature_hex)
        return card

    @property
    def digest(self) -> bytes:
        """What is signed: 32 bytes that commit to every field but the signatures."""
        fields = Writer().u32(self.version).variable(self.name.encode())
        fields.fixed(bytes.fromhex(self.vote_key_hex), 32).fixed(bytes.fromhex(self.custody_key_hex), 32)
        fields.variable(self.peer_id.encode()).variable(self.address.encode())
        return tagged_hash("pegnode/member-card", fields.finish())

    @property
    def fingerprint(self) -> str:
        """What people compare: 16 bytes of the digest, in hex, in groups of four digits."""
        return _fingerprint(self.digest)

    @property
    def document(self) -> bytes:
        """The card as a file holds it."""
        return render_json(self)

    @property
    def endpoint(self) -> Endpoint:
        """Where others dial it, spelt in one way. Raises CardRefused (BAD_ADDRESS)."""
        if not _ADDRESS.fullmatch(self.address):
            raise self._bad_address("it is not of the form /ip4/<address>/tcp/<port>, /ip6/… or /dns/<name>/tcp/<port>")
        try:
            endpoint = parse_endpoint(self.address)
        except TransportError as error:
            raise self._bad_address(str(error)) from error
        if not endpoint.port:
            raise self._bad_address("port 0 can't be dialled; name the port that others reach")
        try:
            ip = ipaddress.ip_address(endpoint.host)
        except ValueError:
            return Endpoint(endpoint.host.lower().rstrip("."), endpoint.port)
        if ip.is_unspecified or ip.is_multicast:
            raise self._bad_address(f"{ip} can't be dialled; name the address that others reach")
        return Endpoint(str(ip), endpoint.port)

    @property
    def is_local(self) -> bool:
        """Whether the address leads nowhere but to the machine that dials it."""
        host = self.endpoint.host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def section(self) -> MemberSection:
        """The member as a genesis names it."""
        return MemberSection(self.name, self.vote_key_hex, self.custody_key_hex, self.peer_id)

    def belongs_to(self, secrets: MemberSecrets) -> bool:
        """Whether these are the card's keys."""
        return (
            x_only(secrets.vote).hex() == self.vote_key_hex
            and x_only(secrets.custody).hex() == self.custody_key_hex
            and peer_id_from_secret(secrets.transport) == self.peer_id
        )

    def _signed_keys(self) -> list[tuple[str, bytes, str]]:
        """Each key with its purpose and its signature; raises CardRefused for a peer id without a key in it."""
        try:
            transport_key = transport_key_of(self.peer_id)[1:]
        except TransportError as error:
            raise CardRefused(CardReason.INVALID_KEY, f"{self.name}: {error}") from error
        return [
            ("vote", bytes.fromhex(self.vote_key_hex), self.vote_signature_hex),
            ("custody", bytes.fromhex(self.custody_key_hex), self.custody_signature_hex),
            ("transport", transport_key, self.transport_signature_hex),
        ]

    def _bad_address(self, detail: str) -> CardRefused:
        return CardRefused(CardReason.BAD_ADDRESS, f"{self.name}: {detail}")


class RecoveryCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the holder of a recovery key publishes. recovery_key_hex: x-only, 32 bytes in hex."""

    format: str = RECOVERY_FORMAT
    version: int = CARD_VERSION
    name: MemberName
    recovery_key_hex: Hex32
    signature_hex: str

    @classmethod
    def make(cls, name: str, secret: bytes, random_bytes: RandomBytes) -> Self:
        """The card of this key, signed and checked. Raises CardRefused for a name that can't be one."""
        _require_name(name)
        unsigned = cls(name=name, recovery_key_hex=x_only(secret).hex(), signature_hex="")
        signature = schnorr_sign(secret, unsigned.digest, random_bytes(AUX_SIZE))
        return cls.decode(msgspec.structs.replace(unsigned, signature_hex=signature.hex()).document)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The card in JSON, with its signature checked. Raises CardRefused."""
        card = _decoded(data, cls, RECOVERY_FORMAT)
        key = bytes.fromhex(card.recovery_key_hex)
        _require_point(card.name, "recovery", key)
        _check_signature(card.name, "recovery", key, card.digest, card.signature_hex)
        return card

    @property
    def digest(self) -> bytes:
        """What is signed: 32 bytes that commit to every field but the signature."""
        fields = Writer().u32(self.version).variable(self.name.encode())
        return tagged_hash("pegnode/recovery-card", fields.fixed(bytes.fromhex(self.recovery_key_hex), 32).finish())

    @property
    def fingerprint(self) -> str:
        """What people compare: 16 bytes of the digest, in hex, in groups of four digits."""
        return _fingerprint(self.digest)

    @property
    def document(self) -> bytes:
        """The card as a file holds it."""
        return render_json(self)


Card = MemberCard | RecoveryCard


def decode_card(data: bytes) -> Card:
    """A card of either kind. Raises CardRefused."""
    kinds: dict[str, type[Card]] = {MEMBER_FORMAT: MemberCard, RECOVERY_FORMAT: RecoveryCard}
    found = _fields(data).get("format")
    kind = kinds.get(found) if isinstance(found, str) else None
    if kind is None:
        raise CardRefused(CardReason.MALFORMED, f"format is neither {MEMBER_FORMAT} nor {RECOVERY_FORMAT}")
    return kind.decode(data)


def _fields(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CARD_BYTES:
        raise CardRefused(CardReason.MALFORMED, f"more than {MAX_CARD_BYTES} bytes: not a card")
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardRefused(CardReason.MALFORMED, "not JSON; ask for the file again") from error
    if not isinstance(fields, dict):
        raise CardRefused(CardReason.MALFORMED, "not a JSON object; ask for the file again")
    return fields


def _decoded(data: bytes, kind: type[C], wanted_format: str) -> C:
    """The fields, complete and of the right form; format and version are looked at first."""
    fields = _fields(data)
    if fields.get("format") != wanted_format:
        raise CardRefused(CardReason.MALFORMED, f"format is not {wanted_format}")
    version = fields.get("version")
    if type(version) is not int or version != CARD_VERSION:
        detail = f"not of card version {CARD_VERSION}; all holders must use one release of this program"
        raise CardRefused(CardReason.UNKNOWN_VERSION, detail)
    try:
        return msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        raise CardRefused(CardReason.MALFORMED, str(error).replace("$.", "")) from error


def _require_name(name: str) -> None:
    try:
        msgspec.convert(name, MemberName)
    except msgspec.ValidationError as error:
        detail = f"a name has 1 to 32 of a-z, 0-9 and -, and begins with a letter or digit; not {name!r}"
        raise CardRefused(CardReason.MALFORMED, detail) from error


def _require_point(name: str, purpose: str, key: bytes) -> None:
    if not is_valid_x_only(key):
        raise CardRefused(CardReason.INVALID_KEY, f"{name}: the {purpose} key is no point of the curve")


def _check_signature(name: str, purpose: str, key: bytes, digest: bytes, signature_hex: str) -> None:
    if not _SIGNATURE.fullmatch(signature_hex):
        raise CardRefused(CardReason.MALFORMED, f"{name}: the {purpose} signature is not 64 bytes in lower-case hex")
    if not schnorr_verify(key, digest, bytes.fromhex(signature_hex)):
        detail = f"{name}: the {purpose} key did not sign this card; ask {name} for the file again, by another way"
        raise CardRefused(CardReason.BAD_SIGNATURE, detail)


def _fingerprint(digest: bytes) -> str:
    return grouped(digest[:FINGERPRINT_SIZE].hex())


def grouped(digits: str) -> str:
    """Digits in groups of four, as people read them to each other."""
    return " ".join(_groups(digits))


def _groups(digits: str) -> Iterator[str]:
    return (digits[start : start + 4] for start in range(0, len(digits), 4))
