"""Claim scripts that members watch for deposits: told to all, kept, rationed, and few enough."""

import pytest
import trio

from bridge.bitcoin.identifiers import Script
from bridge.custody import CoinKind
from pegnode.net.messages import RegistrationsMessage
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import registry as registry_module
from pegnode.service import relay as relay_module
from pegnode.service.registry import RegistrationRefused, RegistryReason
from tests.support.members import MemoryFederation, Stranger, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr, p2wpkh

ALL = (0, 1, 2, 3)
BOB = MiniWallet("bob")


async def guest_of(federation: MemoryFederation, name: str = "a guest") -> Stranger:
    stranger = await federation.join(PeerId(name))
    await trio.sleep(0.5)
    return stranger


async def test_registration_reaches_every_member_and_survives_a_restart(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        federation.members[1].relay.register(BOB.script())
        await federation.until(
            lambda: all(BOB.script() in member.core.registry for member in federation.members.values())
        )
        await federation.stop(2)
        await federation.start(2)
        registry = federation.members[2].core.registry
        assert registry.claim_scripts() == (BOB.script(),)
        assert registry.terms[federation.deposit_script(BOB.script())].claim_script == BOB.script()
        assert {terms.kind for terms in registry.terms.values()} == set(CoinKind)


async def test_script_that_no_claim_can_pay_is_refused_and_drops_who_relays_it(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        for script in (b"\x6a\x01x", b"\x00\x15" + bytes(21), b"x"):
            with pytest.raises(RegistrationRefused) as caught:
                federation.members[0].relay.register(Script(script))
            assert caught.value.reason is RegistryReason.CLAIM_SCRIPT_TYPE
        guest = await guest_of(federation)
        guest.say_all(RegistrationsMessage((BOB.script(), b"x")))
        await trio.sleep(0.1)
        assert [left.reason for left in guest.left] == [DropReason.GARBLED_MESSAGE]
        assert federation.members[0].core.registry.claim_scripts() == ()


async def test_registrations_of_guests_are_rationed_and_written_at_once(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "GUEST_REGISTRATIONS_BURST", 50)
    async with memory_federation(0, 1) as federation:
        member = federation.members[0]
        guest = await guest_of(federation)
        scripts = tuple(p2wpkh(f"user {number}") for number in range(120))
        writes: list[int] = []
        write = type(federation.disks[0].database).write

        def counting(database: object, changes: object) -> None:
            writes.append(1)
            write(database, changes)  # type: ignore[arg-type]

        monkeypatch.setattr(type(federation.disks[0].database), "write", counting)
        guest.say(federation.peer_id(0), RegistrationsMessage(scripts[:50]))
        guest.say(federation.peer_id(0), RegistrationsMessage(scripts[:50]))
        guest.say(federation.peer_id(0), RegistrationsMessage(scripts[50:100]))
        await trio.sleep(0.1)
        assert member.core.registry.claim_scripts() == scripts[:50]
        assert federation.members[1].core.registry.claim_scripts() == scripts[:50]
        assert len(writes) == 2
        await trio.sleep(25)
        guest.say(federation.peer_id(0), RegistrationsMessage(scripts[100:]))
        await trio.sleep(0.1)
        assert len(member.core.registry) == 70
        assert guest.left == []
        member.relay.register(BOB.script())
        assert BOB.script() in member.core.registry, "guests use up nothing of the node's own users"


async def test_guest_uses_up_nothing_of_another_guests_registrations_but_all_together_are_rationed(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "GUEST_REGISTRATIONS_BURST", 4)
    monkeypatch.setattr(relay_module, "ALL_GUESTS", 2)
    async with memory_federation(0) as federation:
        registry = federation.members[0].core.registry
        scripts = tuple(p2wpkh(f"user {number}") for number in range(12))
        guests = [await guest_of(federation, f"guest {number}") for number in range(3)]
        for guest in guests:
            for first in range(0, len(scripts), 3):
                guest.say_all(RegistrationsMessage(scripts[first : first + 3]))
        await trio.sleep(0.1)
        assert registry.claim_scripts() == scripts[:6], "three of each of two, and then too few for another three"
        await trio.sleep(2)
        guests[2].say_all(RegistrationsMessage(scripts[9:]))
        await trio.sleep(0.1)
        assert set(registry.claim_scripts()) == {*scripts[:6], *scripts[9:]}
        assert all(guest.left == [] for guest in guests)


async def test_registrations_are_taken_some_at_a_time_as_far_as_the_inbox_and_the_allowance_go(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "REGISTRATIONS_AT_ONCE", 10)
    monkeypatch.setattr(relay_module, "INBOX_REGISTRATIONS", 4)
    monkeypatch.setattr(relay_module, "GUEST_REGISTRATIONS_BURST", 25)
    async with memory_federation(0) as federation:
        registry = federation.members[0].core.registry
        sizes: list[int] = []
        registry.on_new(lambda: sizes.append(len(registry)))
        member, guest = await federation.join(federation.peer_id(1), PeerRole.MEMBER), await guest_of(federation)
        scripts = tuple(p2wpkh(f"user {number}") for number in range(100))
        member.say_all(RegistrationsMessage(scripts[:50]))
        await trio.sleep(1)
        assert sizes == [10, 20, 30, 40]
        guest.say_all(RegistrationsMessage(scripts[60:]))
        await trio.sleep(1)
        assert sizes == [10, 20, 30, 40, 50, 60]
        assert registry.claim_scripts() == scripts[:40] + scripts[60:80]


async def test_registrations_of_one_member_are_rationed_by_themselves(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MEMBER_REGISTRATIONS_BURST", 10)
    async with memory_federation(0) as federation:
        registry = federation.members[0].core.registry
        one, other = [await federation.join(federation.peer_id(index), PeerRole.MEMBER) for index in (1, 2)]
        await trio.sleep(0.5)
        scripts = tuple(p2wpkh(f"user {number}") for number in range(20))
        one.say_all(RegistrationsMessage(scripts[:10]))
        await trio.sleep(0.1)
        one.say_all(RegistrationsMessage(scripts[10:15]))
        await trio.sleep(0.1)
        assert registry.claim_scripts() == scripts[:10]
        other.say_all(RegistrationsMessage(scripts[15:]))
        await trio.sleep(1)
        one.say_all(RegistrationsMessage(scripts[10:15]))
        await trio.sleep(0.1)
        assert set(registry.claim_scripts()) == set(scripts)


async def test_full_registry_lets_the_oldest_go(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_REGISTERED", 5)
    async with memory_federation(0) as federation:
        registry = federation.members[0].core.registry
        told: list[int] = []
        registry.on_new(lambda: told.append(1))
        scripts = [p2tr(f"user {number}") for number in range(8)]
        for script in scripts[:4]:
            assert registry.add([script]) == [script]
            await trio.sleep(1)
        assert registry.add(scripts[3:7]) == scripts[4:7]
        assert registry.add(scripts[3:7]) == []
        assert registry.claim_scripts() == tuple(scripts[2:7])
        assert set(federation.members[0].store.deposit_scripts()) == set(scripts[2:7])
        assert federation.deposit_script(scripts[0]) not in registry.terms
        assert len(registry.terms) == 5 + 2
        assert len(told) == 5


async def test_member_that_floods_the_registry_pushes_out_its_own_first(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_REGISTERED", 30)
    async with memory_federation(0) as federation:
        registry = federation.members[0].core.registry
        own = [p2tr(f"own {number}") for number in range(8)]
        told = tuple(p2tr(f"told {number}") for number in range(7))
        registry.add(own)
        faulty, other = [await federation.join(federation.peer_id(index), PeerRole.MEMBER) for index in (1, 2)]
        await trio.sleep(0.5)
        other.say_all(RegistrationsMessage(told))
        await trio.sleep(0.1)
        for part in range(10):
            faulty.say_all(RegistrationsMessage(tuple(p2tr(f"flood {part} {number}") for number in range(20))))
            await trio.sleep(0.1)
        assert set(registry.claim_scripts()) > {*own, *told}
        assert len(registry) == 30


async def test_what_a_member_told_is_not_passed_on_in_this_nodes_name(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        one, other = [await federation.join(federation.peer_id(index), PeerRole.MEMBER) for index in (1, 2)]
        await trio.sleep(0.5)
        one.say(federation.peer_id(0), RegistrationsMessage((BOB.script(),)))
        await trio.sleep(0.5)
        assert BOB.script() in federation.members[0].core.registry
        assert other.told(RegistrationsMessage) == []
