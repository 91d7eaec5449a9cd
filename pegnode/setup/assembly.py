"""From cards and a template to the genesis: the same on every machine, or a refusal that names who must act. (pure)"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pegnode.genesis import Genesis
from pegnode.net.address import transport_key_of
from pegnode.setup.card import Card, MemberCard, RecoveryCard
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.template import AgreedTemplate


@dataclass(frozen=True, slots=True)
class Assembly:
    """What cards and template make. members: in the order of their index, which is that of their names.

    recovery: the recovery cards that were seen; holders may also have given a bare key.
    """

    genesis: Genesis
    members: tuple[MemberCard, ...]
    recovery: tuple[RecoveryCard, ...]


def assemble(cards: Sequence[Card], template: AgreedTemplate) -> Assembly:
    """The genesis of these members. The order of the cards does not matter, nor that one is given twice.

    Raises SetupRefused: MEMBER_COUNT, DUPLICATE_NAME, DUPLICATE_KEY, DUPLICATE_ADDRESS, LOCAL_ADDRESS,
    RECOVERY_KEY_SHARED, RECOVERY_KEY_UNKNOWN; GenesisRefused.
    """
    distinct = list({card.digest: card for card in cards}.values())
    members = sorted((card for card in distinct if isinstance(card, MemberCard)), key=lambda card: card.name)
    recovery = sorted((card for card in distinct if isinstance(card, RecoveryCard)), key=lambda card: card.name)
    _require_distinct(members)
    _require_reachable(members)
    _require_apart(members, template)
    _require_known(recovery, template)
    wanted = template.parameters.member_count
    if len(members) != wanted:
        names = ", ".join(card.name for card in members) or "nobody"
        todo = "get the missing cards" if len(members) < wanted else "leave out who is no member"
        detail = f"the template is for {wanted} members, and there are cards of {len(members)} ({names}); {todo}"
        raise SetupRefused(SetupReason.MEMBER_COUNT, detail)
    return Assembly(template.compose([card.section for card in members]), tuple(members), tuple(recovery))


def _require_distinct(members: Sequence[MemberCard]) -> None:
    _refuse_shared(members, lambda card: [card.name], SetupReason.DUPLICATE_NAME, "name", "one takes another name")
    todo = "each makes keys of its own: peg federation init"
    _refuse_shared(members, _keys, SetupReason.DUPLICATE_KEY, "key", todo)
    _refuse_shared(
        members,
        lambda card: [f"{card.endpoint.host}:{card.endpoint.port}"],
        SetupReason.DUPLICATE_ADDRESS,
        "address",
        "one makes its card anew, with its own address",
    )


def _require_reachable(members: Sequence[MemberCard]) -> None:
    """All on one machine, or all where other machines can dial them."""
    local = [card for card in members if card.is_local]
    if local and len(local) < len(members):
        card = local[0]
        detail = f"{card.name}'s address is {card.address}, where no other machine reaches it"
        raise SetupRefused(SetupReason.LOCAL_ADDRESS, f"{detail}; {card.name} makes its card anew, with a public one")


def _refuse_shared(
    members: Sequence[MemberCard],
    values: Callable[[MemberCard], Sequence[str]],
    reason: SetupReason,
    what: str,
    todo: str,
) -> None:
    owners: dict[str, MemberCard] = {}
    for card in members:
        for value in values(card):
            other = owners.setdefault(value, card)
            if other is not card:
                detail = (
                    f"{other.name} (card {other.fingerprint}) and {card.name} (card {card.fingerprint}) "
                    f"have one {what}, {value}; {todo}"
                )
                raise SetupRefused(reason, detail)


def _keys(card: MemberCard) -> list[str]:
    """The x coordinates of a member's three keys."""
    return [card.vote_key_hex, card.custody_key_hex, transport_key_of(card.peer_id)[1:].hex()]


def _require_apart(members: Sequence[MemberCard], template: AgreedTemplate) -> None:
    """A recovery key in a member's hands would let that member count twice."""
    for card in members:
        shared = set(_keys(card)) & set(template.agreed.recovery_keys_hex)
        if shared:
            detail = f"{shared.pop()} is also a key of {card.name}; its holder makes a recovery key of its own"
            raise SetupRefused(SetupReason.RECOVERY_KEY_SHARED, detail)


def _require_known(recovery: Sequence[RecoveryCard], template: AgreedTemplate) -> None:
    for card in recovery:
        if card.recovery_key_hex not in template.agreed.recovery_keys_hex:
            detail = (
                f"the key of recovery card {card.name} is not in the template; one of the two is not the agreed one"
            )
            raise SetupRefused(SetupReason.RECOVERY_KEY_UNKNOWN, detail)
