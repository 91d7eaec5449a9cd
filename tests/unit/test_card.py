"""Cards: what their signatures cover, and that nobody can register a key that another holds."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bitcoin.curve import CurveReason, schnorr_sign
from bridge.errors import Rejected
from federation.keystore import MemberSecrets, generate_member_secrets, generate_secret
from pegnode.net.address import peer_id_from_secret
from pegnode.setup.card import MAX_CARD_BYTES, CardReason, CardRefused, MemberCard, RecoveryCard, decode_card

ADDRESS = "/ip4/192.0.2.7/tcp/18900"
FIRST_SECRETS = generate_member_secrets(random.Random(1).randbytes)
OTHER_SECRETS = generate_member_secrets(random.Random(2).randbytes)


def card_of(
    secrets: MemberSecrets = FIRST_SECRETS, name: str = "alice", address: str = ADDRESS, seed: int = 3
) -> MemberCard:
    return MemberCard.make(name, address, secrets, random.Random(seed).randbytes)


def recovery_card(name: str = "vault") -> RecoveryCard:
    randomness = random.Random(4).randbytes
    return RecoveryCard.make(name, generate_secret(randomness), randomness)


def refused(work: Callable[[], object]) -> CardRefused:
    with pytest.raises(CardRefused) as caught:
        work()
    return caught.value


def changed(card: MemberCard | RecoveryCard, **fields: Any) -> bytes:
    return json.dumps({**json.loads(card.document), **fields}).encode()


def test_card_is_read_as_it_was_written() -> None:
    for card in (card_of(), recovery_card()):
        assert decode_card(card.document) == card
        assert type(card).decode(card.document) == card


def test_fingerprint_is_of_the_contents_and_not_of_the_signatures() -> None:
    card, again = card_of(seed=3), card_of(seed=5)
    assert card.vote_signature_hex != again.vote_signature_hex
    assert card.fingerprint == again.fingerprint == " ".join(card.digest.hex()[i : i + 4] for i in range(0, 32, 4))
    assert card.fingerprint != card_of(address="/ip4/192.0.2.8/tcp/18900").fingerprint
    assert card.fingerprint != card_of(name="bob").fingerprint


def test_card_belongs_to_its_keys_alone() -> None:
    assert card_of().belongs_to(FIRST_SECRETS)
    for purpose in ("vote", "custody", "transport"):
        assert not card_of().belongs_to(replace(FIRST_SECRETS, **{purpose: getattr(OTHER_SECRETS, purpose)}))


OTHER = card_of(OTHER_SECRETS, "bob", "/dns4/bob.example/tcp/18900")


@pytest.mark.parametrize(
    "field",
    [
        "name",
        "vote_key_hex",
        "custody_key_hex",
        "peer_id",
        "address",
        "vote_signature_hex",
        "custody_signature_hex",
        "transport_signature_hex",
    ],
)
def test_card_with_a_field_of_anothers_is_refused(field: str) -> None:
    """Nobody can put another's key, name or address on a card, for each key signs all of it."""
    altered = changed(card_of(), **{field: getattr(OTHER, field)})
    assert refused(lambda: decode_card(altered)).reason is CardReason.BAD_SIGNATURE


@pytest.mark.parametrize("purpose", ["vote", "custody", "transport"])
def test_key_that_its_maker_does_not_hold_is_not_registered(purpose: str) -> None:
    """A thief signs with its own keys a card that names a victim's public one."""
    victim = card_of(FIRST_SECRETS)
    key = {"vote": "vote_key_hex", "custody": "custody_key_hex", "transport": "peer_id"}[purpose]
    thief = OTHER_SECRETS
    forged = MemberCard(**{**json.loads(OTHER.document), key: getattr(victim, key)})
    signed = {
        f"{name}_signature_hex": schnorr_sign(getattr(thief, name), forged.digest, bytes(32)).hex()
        for name in ("vote", "custody", "transport")
    }
    error = refused(lambda: decode_card(changed(forged, **signed)))
    assert error.reason is CardReason.BAD_SIGNATURE
    assert f"the {purpose} key did not sign" in error.detail


def test_recovery_card_of_anothers_key_is_refused() -> None:
    altered = changed(recovery_card(), recovery_key_hex=card_of().vote_key_hex)
    assert refused(lambda: decode_card(altered)).reason is CardReason.BAD_SIGNATURE
    assert refused(lambda: decode_card(changed(recovery_card(), name="other"))).reason is CardReason.BAD_SIGNATURE


def test_signature_of_a_recovery_card_is_none_of_a_member_card() -> None:
    assert refused(lambda: RecoveryCard.decode(card_of().document)).reason is CardReason.MALFORMED
    assert refused(lambda: MemberCard.decode(recovery_card().document)).reason is CardReason.MALFORMED


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_card_of_another_version_is_refused(version: object) -> None:
    for card in (card_of(), recovery_card()):
        altered = changed(card, version=version)
        assert refused(lambda data=altered: decode_card(data)).reason is CardReason.UNKNOWN_VERSION  # type: ignore[misc]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 4000,
        b"{}",
        b'{"format": 1, "version": 1}',
        b'{"format": "pegnode-member-card", "version": 1}',
        changed(card_of(), more=1),
        changed(card_of(), name="Alice"),
        changed(card_of(), name=""),
        changed(card_of(), vote_key_hex="AA" * 32),
        changed(card_of(), vote_key_hex=7),
        changed(card_of(), vote_signature_hex=""),
        changed(card_of(), vote_signature_hex="00" * 63),
        changed(card_of(), transport_signature_hex=card_of().transport_signature_hex.upper()),
        changed(recovery_card(), signature_hex="zz"),
        b" " * MAX_CARD_BYTES + card_of().document,
    ],
)
def test_malformed_card_is_refused(data: bytes) -> None:
    assert refused(lambda: decode_card(data)).reason is CardReason.MALFORMED


@pytest.mark.parametrize(
    "fields",
    [
        {"vote_key_hex": "ff" * 32},
        {"custody_key_hex": "00" * 32},
        {"custody_key_hex": card_of().vote_key_hex},
        {"peer_id": "12D3KooWGRUVh5UfLxPSgNXTaQeYd2nTrm6YVkTWVWTzDVhmgNSf"},
        {"peer_id": "16Uiu2"},
    ],
)
def test_card_with_a_key_that_is_none_is_refused(fields: dict[str, str]) -> None:
    altered = changed(card_of(), **fields)
    assert refused(lambda: decode_card(altered)).reason is CardReason.INVALID_KEY


def test_recovery_card_with_a_key_that_is_none_is_refused() -> None:
    altered = changed(recovery_card(), recovery_key_hex="ff" * 32)
    assert refused(lambda: decode_card(altered)).reason is CardReason.INVALID_KEY


BAD_ADDRESSES = [
    "",
    "192.0.2.7:18900",
    "/ip4/192.0.2.7/tcp/0",
    "/ip4/192.0.2.7/tcp/65536",
    "/ip4/0.0.0.0/tcp/18900",
    "/ip6/::/tcp/18900",
    "/ip4/224.0.0.1/tcp/18900",
    "/ip4/192.0.2/tcp/18900",
    "/ip4/192.0.2.7/udp/18900",
    "/dns4/a b/tcp/18900",
    "/dns4/\x1b[31m/tcp/18900",
    "/dns4/" + "a" * 300 + "/tcp/1",
    "/dns4/\udcff/tcp/1",
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_address_that_nobody_can_dial_is_refused(address: str) -> None:
    assert refused(lambda: card_of(address=address)).reason is CardReason.BAD_ADDRESS


@pytest.mark.parametrize("name", ["", "Alice", "a" * 33, "-a", "a\n", "\udcff"])
def test_name_that_is_none_is_refused(name: str) -> None:
    assert refused(lambda: card_of(name=name)).reason is CardReason.MALFORMED
    assert refused(lambda: recovery_card(name)).reason is CardReason.MALFORMED


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("/dns4/Alice.Example/tcp/18900", "/dns/alice.example./tcp/18900"),
        ("/ip6/2001:db8::1/tcp/18900", "/ip6/2001:DB8:0::1/tcp/18900"),
    ],
)
def test_address_has_one_endpoint_however_it_is_spelt(address: str, same: str) -> None:
    assert card_of(address=address).endpoint == card_of(address=same).endpoint


def test_secret_that_is_none_makes_no_card() -> None:
    with pytest.raises(Rejected) as caught:
        RecoveryCard.make("vault", bytes(32), random.Random(1).randbytes)
    assert caught.value.reason is CurveReason.INVALID_SCALAR


def test_peer_id_and_signature_are_of_one_transport_key() -> None:
    """Keys with the same x and another y are one holder's: both spellings verify, and they are different peers."""
    assert card_of().peer_id == peer_id_from_secret(FIRST_SECRETS.transport)


@settings(max_examples=200)
@given(position=st.integers(0, len(card_of().document) - 1), byte=st.integers(0, 255))
def test_card_with_any_byte_changed_is_refused_or_means_the_same(position: int, byte: int) -> None:
    document = bytearray(card_of().document)
    document[position] = byte
    try:
        card = decode_card(bytes(document))
    except CardRefused:
        return
    assert card == card_of()


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_card_are_refused(data: bytes) -> None:
    assert refused(lambda: decode_card(data)).reason in CardReason
