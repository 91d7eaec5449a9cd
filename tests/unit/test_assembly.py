"""Assembly: the same genesis from the same inputs, and a reason for everything that does not fit together."""

import random
from itertools import permutations

import msgspec
import pytest

from pegnode.genesis import Genesis
from pegnode.genesis_rules import GenesisReason, GenesisRefused
from pegnode.setup.assembly import assemble
from pegnode.setup.card import Card, MemberCard, decode_card
from pegnode.setup.comparison import Difference, differences
from pegnode.setup.errors import SetupReason, SetupRefused
from tests.support.cards import (
    ANCHOR,
    NAMES,
    TIME_MS,
    agreed,
    member_card,
    member_cards,
    member_secrets,
    recovery_card,
    recovery_cards,
    template,
    template_text,
)


def _refused(*cards: Card) -> SetupRefused:
    with pytest.raises(SetupRefused) as caught:
        assemble(cards, template())
    return caught.value


def _genesis(text: str | None = None, *cards: MemberCard) -> Genesis:
    return assemble(cards or member_cards(), template(text)).genesis


def test_genesis_does_not_depend_on_the_order_of_the_cards() -> None:
    documents = {assemble(order, template()).genesis.document for order in permutations(member_cards())}
    assert len(documents) == 1
    [document] = documents
    assert [member.name for member in Genesis.decode(document).members] == list(NAMES)


def test_genesis_holds_what_was_agreed() -> None:
    genesis = _genesis()
    assert (genesis.anchor, genesis.time_ms) == (ANCHOR, TIME_MS)
    assert genesis.recovery_keys_hex == agreed().recovery_keys_hex
    assert [member.peer_id for member in genesis.members] == [card.peer_id for card in member_cards()]


def test_genesis_does_not_depend_on_what_only_dials_need() -> None:
    moved = [member_card("alice", "/ip4/192.0.2.1/tcp/1"), *member_cards()[1:]]
    assert _genesis(None, *moved) == _genesis()


def test_card_that_came_twice_counts_once() -> None:
    again = MemberCard.make("bob", "/dns4/bob.example/tcp/18900", member_secrets("bob"), random.Random(9).randbytes)
    assert again != member_cards()[1]
    assert assemble([*member_cards(), *member_cards(), again], template()).genesis == _genesis()


def test_recovery_cards_are_checked_and_change_nothing() -> None:
    assembly = assemble([*recovery_cards(), *member_cards()], template())
    assert assembly.genesis == _genesis()
    assert [card.name for card in assembly.recovery] == ["vault-1", "vault-2", "vault-3"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_missing_cards_are_refused_by_number(count: int) -> None:
    refused = _refused(*member_cards()[:count])
    assert refused.reason is SetupReason.MEMBER_COUNT
    assert f"there are cards of {count} (" in refused.detail
    assert "get the missing cards" in refused.detail


def test_card_too_many_is_refused() -> None:
    refused = _refused(*member_cards(), member_card("erin"))
    assert refused.reason is SetupReason.MEMBER_COUNT
    assert "alice, bob, carol, dave, erin" in refused.detail


def test_name_of_two_members_is_refused() -> None:
    refused = _refused(*member_cards()[:3], member_card("alice", keys_of="dave"))
    assert refused.reason is SetupReason.DUPLICATE_NAME
    assert member_card("alice").fingerprint in refused.detail


@pytest.mark.parametrize("purpose", ["vote", "custody", "transport"])
def test_key_of_two_members_is_refused(purpose: str) -> None:
    """One holder with two seats: it can sign both cards."""
    own = {name: getattr(member_secrets("mallory"), name) for name in ("vote", "custody", "transport")}
    secrets = type(member_secrets("dave"))(**{**own, purpose: getattr(member_secrets("dave"), purpose)})
    second_seat = MemberCard.make("alice", "/dns4/alice.example/tcp/18900", secrets, random.Random(1).randbytes)
    assert _refused(second_seat, *member_cards()[1:]).reason is SetupReason.DUPLICATE_KEY


def test_key_for_two_purposes_of_two_members_is_refused() -> None:
    dave, own = member_secrets("dave"), member_secrets("mallory")
    secrets = type(dave)(vote=dave.transport, custody=own.custody, transport=own.transport)
    second_seat = MemberCard.make("alice", "/dns4/alice.example/tcp/18900", secrets, random.Random(1).randbytes)
    assert _refused(second_seat, *member_cards()[1:]).reason is SetupReason.DUPLICATE_KEY


def test_address_of_two_members_is_refused_however_it_is_spelt() -> None:
    refused = _refused(*member_cards()[:3], member_card("dave", "/dns/CAROL.example./tcp/18900"))
    assert refused.reason is SetupReason.DUPLICATE_ADDRESS
    assert "carol.example:18900" in refused.detail


@pytest.mark.parametrize("host", ["/ip4/127.0.0.1", "/ip6/::1", "/dns4/localhost"])
def test_address_that_no_other_machine_reaches_is_refused(host: str) -> None:
    refused = _refused(*member_cards()[:3], member_card("dave", f"{host}/tcp/18900"))
    assert refused.reason is SetupReason.LOCAL_ADDRESS
    assert "dave" in refused.detail
    local = [member_card(name, f"{host}/tcp/{18_900 + index}") for index, name in enumerate(NAMES)]
    assert _genesis(None, *local) == _genesis()


@pytest.mark.parametrize("field", ["vote_key_hex", "custody_key_hex"])
def test_recovery_key_of_a_member_is_refused(field: str) -> None:
    key = getattr(member_cards()[2], field)
    text = template_text().replace(agreed().recovery_keys_hex[0], key)
    with pytest.raises(SetupRefused) as caught:
        assemble(member_cards(), template(text))
    assert caught.value.reason is SetupReason.RECOVERY_KEY_SHARED
    assert "carol" in caught.value.detail


def test_recovery_card_whose_key_is_not_agreed_is_refused() -> None:
    assert _refused(*member_cards(), recovery_card(4)).reason is SetupReason.RECOVERY_KEY_UNKNOWN


def test_too_few_recovery_keys_are_refused() -> None:
    lone = "\n".join(line for line in template_text().splitlines() if line.strip()[1:65] not in _all_but_one())
    with pytest.raises(GenesisRefused) as caught:
        template(lone)
    assert caught.value.reason is GenesisReason.RECOVERY_QUORUM


def _all_but_one() -> tuple[str, ...]:
    return agreed().recovery_keys_hex[1:]


def test_cards_that_went_through_files_make_the_same_genesis() -> None:
    assert _genesis(None, *[MemberCard.decode(card.document) for card in member_cards()]) == _genesis()
    assert [decode_card(card.document) for card in recovery_cards()] == recovery_cards()


def test_equal_geneses_have_no_difference() -> None:
    assert differences(_genesis(), Genesis.decode(_genesis().document)) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("confirmations = 6", "confirmations = 7", Difference("peg.confirmations", "6", "7")),
        (
            "max_view_timeout_ms = 16_000",
            "max_view_timeout_ms = 16_001",
            Difference("consensus.max_view_timeout_ms", "16000", "16001"),
        ),
        ("max_inputs = 4_000", "max_inputs = 4_001", Difference("chain.max_inputs", "4000", "4001")),
        (f"time_ms = {TIME_MS}", "time_ms = 1", Difference("time_ms", str(TIME_MS), "1")),
        ("anchor_height = 101", "anchor_height = 9", Difference("l1.anchor_height", "101", "9")),
    ],
)
def test_difference_names_the_field_and_both_values(old: str, new: str, found: Difference) -> None:
    other = _genesis(template_text().replace(old, new))
    assert other.chain_id != _genesis().chain_id
    assert differences(_genesis(), other) == [found]


def test_differences_of_one_member_are_its_own() -> None:
    other = _genesis(None, *member_cards()[:3], member_card("dave", keys_of="mallory"))
    assert {item.field for item in differences(_genesis(), other)} == {
        "members.dave.vote_key_hex",
        "members.dave.custody_key_hex",
        "members.dave.peer_id",
    }


def test_member_that_one_side_lacks_is_named() -> None:
    other = _genesis(None, *member_cards()[1:], member_card("erin"))
    found = {item.field: (item.first, item.second) for item in differences(_genesis(), other)}
    assert found["members"] == ("alice, bob, carol, dave", "bob, carol, dave, erin")
    assert found["members.alice.name"] == ("alice", None)
    assert found["members.erin.name"] == (None, "erin")
    assert not any("bob" in field for field in found)


def test_order_of_members_is_a_difference() -> None:
    genesis = _genesis()
    turned = msgspec.structs.replace(genesis, members=genesis.members[::-1])
    assert turned.chain_id != genesis.chain_id
    assert [item.field for item in differences(genesis, turned)] == ["members"]
