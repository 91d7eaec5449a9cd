"""How things stand at one moment: both chains, the peg's five terms, the members and the users."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import trio

from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error
from pegnode.demo.cast import Members, User
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import PegInfoReply, StatusReply


@dataclass(frozen=True, slots=True)
class Terms:
    """The five terms of the peg's equality, in satoshis, after one sidechain block."""

    reserves_sats: int
    deficit_sats: int
    supply_sats: int
    unsettled_sats: int
    fund_sats: int

    @classmethod
    def of(cls, peg: PegInfoReply) -> Self:
        """The terms that a member tells; whether they are equal is not taken from it."""
        return cls(peg.reserves_sats, peg.deficit_sats, peg.supply_sats, peg.unsettled_sats, peg.fund_sats)

    @property
    def hold(self) -> bool:
        """Whether reserves + deficit == supply + unsettled + fund, and no term is negative."""
        left = self.reserves_sats + self.deficit_sats
        right = self.supply_sats + self.unsettled_sats + self.fund_sats
        terms = (self.reserves_sats, self.deficit_sats, self.supply_sats, self.unsettled_sats, self.fund_sats)
        return left == right and min(terms) >= 0


class MemberState(StrEnum):
    """What a member is doing, for people."""

    STOPPED = "stopped"
    KILLED = "killed"
    STARTING = "starting"
    WAITING = "waiting"
    """It lacks something: its Bitcoin node, or peers."""
    CATCHING_UP = "catching up"
    RUNNING = "running"
    HALTED = "HALTED"


@dataclass(frozen=True, slots=True)
class MemberScene:
    """A member. height, view: None while it does not answer."""

    name: str
    state: MemberState
    height: int | None = None
    view: int | None = None


@dataclass(frozen=True, slots=True)
class UserScene:
    """A user. balance_sats: as of the last look into the wallet."""

    name: str
    balance_sats: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything at one moment. l1_height, terms: None while nobody tells.  height: the highest final one."""

    l1_height: int | None
    height: int | None
    terms: Terms | None
    members: tuple[MemberScene, ...]
    users: tuple[UserScene, ...]


async def look(members: Members, users: Sequence[User], client: L1Client) -> Scene:
    """Ask everybody at once."""
    statuses: dict[str, StatusReply | None] = {}
    l1_heights: list[int] = []

    async def ask_member(name: str) -> None:
        statuses[name] = await members.status(name) if members.is_running(name) else None

    async def ask_l1() -> None:
        try:
            l1_heights.append((await client.tip())[0])
        except L1Error:
            return  # it is busy mining; the next look will tell

    async with trio.open_nursery() as nursery:
        for name in members.names:
            nursery.start_soon(ask_member, name)
        nursery.start_soon(ask_l1)
    heights = {name: status.height for name, status in statuses.items() if status is not None}
    return Scene(
        l1_height=l1_heights[0] if l1_heights else None,
        height=max(heights.values(), default=None),
        terms=await _terms(members, max(heights, key=heights.__getitem__)) if heights else None,
        members=tuple(_member_scene(members, name, statuses[name]) for name in members.names),
        users=tuple(UserScene(user.name, user.balance_sats) for user in users),
    )


async def _terms(members: Members, name: str) -> Terms | None:
    try:
        return Terms.of(await members.peg(name))
    except RpcClientError:
        return None


def _member_scene(members: Members, name: str, status: StatusReply | None) -> MemberScene:
    if status is None:
        is_away = MemberState.KILLED if name in members.killed else MemberState.STOPPED
        return MemberScene(name, MemberState.STARTING if members.is_running(name) else is_away)
    if status.halted:
        state = MemberState.HALTED
    elif status.syncing:
        state = MemberState.CATCHING_UP
    elif status.waiting_for or status.stall is not None:
        state = MemberState.WAITING
    else:
        state = MemberState.RUNNING
    return MemberScene(name, state, status.height, status.view)
