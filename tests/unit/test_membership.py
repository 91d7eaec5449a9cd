"""Who the members are, how many decide, who leads."""

from dataclasses import replace

import pytest

from bridge.bitcoin.curve import x_only
from federation.membership import MAX_MEMBERS, Member, Membership, MembershipReason, MembershipRefused


def member(index: int) -> Member:
    keys = [x_only((2 * index + number).to_bytes(32, "big")) for number in (1, 2)]
    return Member(index, f"member-{index}", keys[0], keys[1], f"peer-{index}")


def membership(size: int, epoch: int = 0) -> Membership:
    return Membership(epoch, tuple(member(index) for index in range(size)))


def changed(position: int, **fields: object) -> Membership:
    members = list(membership(4).members)
    members[position] = replace(members[position], **fields)  # type: ignore[arg-type]
    return Membership(0, tuple(members))


def refusal(broken: Membership) -> MembershipReason:
    with pytest.raises(MembershipRefused) as caught:
        broken.validate()
    assert isinstance(caught.value.reason, MembershipReason)
    return caught.value.reason


@pytest.mark.parametrize(
    ("size", "fault_tolerance", "quorum"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 3), (6, 1, 5), (7, 2, 5), (10, 3, 7), (15, 4, 11)],
)
def test_quorum_is_all_but_the_tolerated_faults(size: int, fault_tolerance: int, quorum: int) -> None:
    members = membership(size)
    assert (members.fault_tolerance, members.quorum) == (fault_tolerance, quorum)


@pytest.mark.parametrize("size", range(1, 60))
def test_quorums_share_an_honest_member(size: int) -> None:
    members = membership(size)
    assert 2 * members.quorum - size > members.fault_tolerance


def test_leader_rotates_through_all_members() -> None:
    assert [membership(4).leader(view) for view in range(1, 9)] == [1, 2, 3, 0, 1, 2, 3, 0]


def test_contains_only_indexes_in_range() -> None:
    assert [index for index in range(-2, 7) if membership(4).contains(index)] == [0, 1, 2, 3]


def test_validate_accepts_a_sound_membership() -> None:
    membership(4, epoch=2**32 - 1).validate()


def test_validate_refuses_no_members() -> None:
    assert refusal(Membership(0, ())) is MembershipReason.NO_MEMBERS


def test_validate_refuses_too_many_members() -> None:
    crowd = Membership(0, (member(0),) * (MAX_MEMBERS + 1))
    assert refusal(crowd) is MembershipReason.TOO_MANY_MEMBERS
    at_most = Membership(0, crowd.members[1:])
    assert refusal(at_most) is MembershipReason.WRONG_INDEX


@pytest.mark.parametrize("epoch", [-1, 2**32])
def test_validate_refuses_epoch_out_of_range(epoch: int) -> None:
    assert refusal(membership(4, epoch)) is MembershipReason.EPOCH_RANGE


@pytest.mark.parametrize("epoch", [0, 2**32 - 1])
def test_validate_accepts_the_first_and_the_last_epoch(epoch: int) -> None:
    membership(4, epoch).validate()


def test_validate_refuses_index_out_of_order() -> None:
    assert refusal(changed(2, index=3)) is MembershipReason.WRONG_INDEX


def test_validate_refuses_empty_name() -> None:
    assert refusal(changed(1, name="")) is MembershipReason.EMPTY_NAME


def test_validate_refuses_empty_peer_id() -> None:
    assert refusal(changed(1, peer_id="")) is MembershipReason.EMPTY_PEER_ID


@pytest.mark.parametrize("key", [b"", bytes(32), b"\xff" * 32, b"\x02" * 33])
@pytest.mark.parametrize("field", ["vote_key32", "custody_key32"])
def test_validate_refuses_key_off_the_curve(field: str, key: bytes) -> None:
    assert refusal(changed(3, **{field: key})) is MembershipReason.INVALID_KEY


@pytest.mark.parametrize("field", ["name", "peer_id", "vote_key32", "custody_key32"])
def test_validate_refuses_value_shared_by_two_members(field: str) -> None:
    assert refusal(changed(3, **{field: getattr(member(0), field)})) is MembershipReason.DUPLICATE


def test_validate_refuses_one_key_for_vote_and_custody() -> None:
    assert refusal(changed(3, custody_key32=member(3).vote_key32)) is MembershipReason.DUPLICATE
