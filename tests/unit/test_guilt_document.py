"""Accusations on paper: one form, in which nothing can be told that the votes don't say, and whose key it is."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.errors import Reason
from federation.certificate import VoteKind, VoteReason
from federation.equivocation import Equivocation, EquivocationReason
from federation.errors import Refused
from pegnode.guilt.document import (
    MAX_DOCUMENT_BYTES,
    Accusation,
    GuiltReason,
    GuiltRefused,
    parse_accusation,
    render_accusation,
)
from tests.support.chain import vote_secrets
from tests.support.equivocations import CONFLICTS, FINALIZE, block_hash, equivocation, signed_vote
from tests.support.statements import GENESIS

RULES = GENESIS.rules()
GUILTY = 2
ACCUSATION = Accusation.of(equivocation(RULES, GUILTY), RULES)
Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> bytes:
    """The file with its fields changed."""
    document = json.loads(render_accusation(ACCUSATION))
    edit(document)
    return json.dumps(document, indent=2).encode()


def refused(data: bytes) -> Reason:
    with pytest.raises(GuiltRefused) as caught:
        parse_accusation(data)
    return caught.value.reason


def not_proved(accusation: Accusation) -> Reason:
    with pytest.raises(Refused) as caught:
        accusation.verify()
    return caught.value.reason


def not_the_member(accusation: Accusation) -> Reason:
    accusation.verify()
    with pytest.raises(GuiltRefused) as caught:
        accusation.require_member(RULES)
    return caught.value.reason


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_accusation_is_read_back_as_written_and_holds(kinds: tuple[VoteKind, VoteKind]) -> None:
    accusation = Accusation.of(equivocation(RULES, GUILTY, kinds=kinds), RULES)
    data = render_accusation(accusation)
    assert parse_accusation(data) == accusation
    assert parse_accusation(data.replace(b"\n", b"\r\n \t")) == accusation
    assert len(data) < MAX_DOCUMENT_BYTES / 4
    accusation.verify()
    accusation.require_member(RULES)


def test_words_name_the_member_the_view_and_the_blocks() -> None:
    document = json.loads(render_accusation(ACCUSATION))
    assert document["says"][0] == "member 2, member-2, signed two votes in view 9 that no honest member signs both"
    votes = [f"notarize block {hash_to_hex(block_hash(number))} in view 9" for number in (1, 2)]
    assert sorted(entry["says"] for entry in document["votes"]) == sorted(votes)
    nullified = Accusation.of(equivocation(RULES, GUILTY, kinds=CONFLICTS[1]), RULES)
    assert json.loads(render_accusation(nullified))["votes"][0]["says"] == "nullify view 9"


def _set(name: str, value: object) -> Edit:
    return lambda document: document.update({name: value})


MALFORMED: dict[str, Edit] = {
    "field too much": _set("note", "all is well"),
    "field less": lambda document: document.pop("epoch"),
    "other epoch than the votes": _set("epoch", 1),
    "other member than the votes": _set("member", 1),
    "other words": _set("says", ["member 2, member-2, did nothing wrong"]),
    "other words of a vote": lambda document: document["votes"][0].update(says="nullify view 9"),
    "name that tells a story": _set("name", "member-2\x1b[2J"),
    "name of another form": _set("name", "Member 2"),
    "chain id too short": _set("chain_id", "00"),
    "chain id in capitals": lambda document: document.update(chain_id=document["chain_id"].upper()),
    "key that is no hex": _set("vote_key", "not hex"),
    "key too long": lambda document: document.update(vote_key=document["vote_key"] * 2),
    "one vote": lambda document: document["votes"].pop(),
    "three votes": lambda document: document["votes"].append(document["votes"][0]),
    "vote cut short": lambda document: document["votes"][0].update(vote=document["votes"][0]["vote"][:-2]),
    "vote with more": lambda document: document["votes"][0].update(vote=document["votes"][0]["vote"] + "00"),
    "kind that is none": lambda document: document["votes"][0].update(vote="04" + document["votes"][0]["vote"][2:]),
    "number as text": _set("member", "2"),
    "number below zero": _set("member", -1),
    "true for a number": _set("epoch", False),
}


@pytest.mark.parametrize("edit", MALFORMED.values(), ids=MALFORMED)
def test_file_that_says_other_than_its_votes_refused(edit: Edit) -> None:
    assert refused(edited(edit)) is GuiltReason.MALFORMED


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'"\xff"', b"[" * 990 + b"]" * 990, b"{" * 200])
def test_file_that_is_none_refused(data: bytes) -> None:
    assert refused(data) is GuiltReason.MALFORMED


def test_field_twice_or_out_of_order_refused() -> None:
    data = render_accusation(ACCUSATION)
    assert refused(data.replace(b'"epoch": 0,', b'"epoch": 1, "epoch": 0,')) is GuiltReason.MALFORMED
    document = json.loads(data)
    assert refused(json.dumps(dict(reversed(document.items()))).encode()) is GuiltReason.MALFORMED
    assert refused(data[:-3]) is GuiltReason.MALFORMED


def test_votes_that_prove_nothing_are_told_why() -> None:
    first = signed_vote(RULES, GUILTY)
    pairs = {
        Equivocation(first, signed_vote(RULES, GUILTY, aux=1)): EquivocationReason.SAME_STATEMENT,
        Equivocation(first, signed_vote(RULES, GUILTY, FINALIZE)): EquivocationReason.COMPATIBLE,
        Equivocation(first, signed_vote(RULES, GUILTY, view=10, block=2)): EquivocationReason.OTHER_VIEW,
        Equivocation(first, signed_vote(RULES, GUILTY, epoch=1, block=2)): EquivocationReason.OTHER_EPOCH,
        Equivocation(first, signed_vote(RULES, 1, block=2)): EquivocationReason.OTHER_MEMBER,
    }
    for pair, reason in pairs.items():
        accusation = parse_accusation(render_accusation(replace(ACCUSATION, equivocation=pair)))
        assert not_proved(accusation) is reason


def test_forged_vote_another_key_or_another_chain_proves_nothing() -> None:
    pair = ACCUSATION.equivocation
    forged = replace(pair, second=replace(pair.second, signature64=pair.first.signature64))
    assert not_proved(replace(ACCUSATION, equivocation=forged)) is VoteReason.BAD_SIGNATURE
    assert not_proved(replace(ACCUSATION, vote_key32=RULES.membership.members[1].vote_key32)) is (
        VoteReason.BAD_SIGNATURE
    )
    assert not_proved(replace(ACCUSATION, chain_id=sha256(b"another chain"))) is VoteReason.BAD_SIGNATURE
    swapped = Equivocation(pair.second, pair.first)
    assert not_proved(replace(ACCUSATION, equivocation=swapped)) is EquivocationReason.UNORDERED


def by_own_key(member: int, **named: Any) -> Accusation:
    """A proof that holds of a key of one's own, which is put into the mouth of a member."""
    return Accusation.of(equivocation(RULES, member, **named), RULES)


def test_key_that_is_not_the_members_accuses_nobody() -> None:
    """Anybody can sign what he likes with a key of his own, and write a member's name beside it."""
    liar = by_own_key(1)
    votes = [replace(vote, member=GUILTY) for vote in (liar.equivocation.first, liar.equivocation.second)]
    framed = Accusation(Equivocation(votes[0], votes[1]), RULES.chain_id, "member-2", liar.vote_key32)
    assert not_the_member(parse_accusation(render_accusation(framed))) is GuiltReason.OTHER_KEY


def test_accusation_of_another_chain_epoch_member_or_name_refused() -> None:
    other_chain = sha256(b"another chain")
    elsewhere = replace(by_own_key(1, chain_id=other_chain), chain_id=other_chain)
    assert not_the_member(elsewhere) is GuiltReason.WRONG_CHAIN
    assert not_the_member(by_own_key(1, epoch=1)) is GuiltReason.WRONG_EPOCH
    assert not_the_member(replace(ACCUSATION, name="member-1")) is GuiltReason.OTHER_NAME
    pair, count = ACCUSATION.equivocation, len(vote_secrets())
    nobody = Equivocation(replace(pair.first, member=count), replace(pair.second, member=count))
    assert not_the_member(replace(ACCUSATION, equivocation=nobody)) is GuiltReason.UNKNOWN_MEMBER
