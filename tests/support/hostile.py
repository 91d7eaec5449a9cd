"""A federation of which one member is hostile: the test speaks with his keys, and with as many strangers as it likes.

Strangers come from addresses of their own, since a guest's faults are held against its address.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction
from federation.keystore import MemberSecrets, read_member_secrets
from federation.signer import Signer
from pegnode.genesis import Genesis
from pegnode.net.address import parse_endpoint
from pegnode.net.peers import MEMBER_PENALTY_S
from pegnode.net.transport import PeerAddress, PeerId, PeerRole, RemoteFault
from pegnode.passphrase import read_passphrase_file
from tests.support.configs import own_keys
from tests.support.federation import CONFIRMATIONS, SIDECHAIN, FederationUnderTest, fresh_address, running_federation
from tests.support.mini_wallet import Coin, MiniWallet, coins_of
from tests.support.raw_peer import RawPeer, dial
from tests.support.users import User, user_of

HOSTILE = "dave"
HONEST = ("alice", "bob", "carol")


@dataclass
class Stage:
    """Three honest members, a user of theirs, and the keys of the fourth.

    coin: of the wallet "cheap".  sources: addresses that were not used yet.
    """

    federation: FederationUnderTest
    user: User
    genesis: Genesis
    keys: MemberSecrets
    coin: Coin
    sources: Iterator[str] = field(default_factory=lambda: (f"127.1.{n // 250}.{n % 250 + 1}" for n in range(60_000)))
    rss_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def chain_id(self) -> bytes:
        return self.genesis.rules().chain_id

    def address(self, name: str) -> PeerAddress:
        """Where a member listens."""
        config = self.federation.local.member_config(name)
        return PeerAddress(PeerId(config.member(self.genesis.rules().membership).peer_id), config.p2p.listen)

    def signer(self) -> Signer:
        """The hostile member's keys, at the test's command."""
        membership = self.genesis.rules().membership
        index = self.federation.local.member_config(HOSTILE).member(membership).index
        return Signer(self.keys, membership, index, self.chain_id, secrets.token_bytes)

    def drops(self, name: str, **wanted: object) -> list[dict[str, Any]]:
        """What a member remembers of dropped peers, as far as it has these fields."""
        with self.federation.client(name) as client:
            found = client.call("listdroppedpeers")
        return [item for item in found if wanted.items() <= item.items()]

    def block(self, height: int) -> bytes:
        """An encoded final block."""
        with self.federation.client("alice") as client:
            return bytes.fromhex(client.ask(str, "getblock", self.federation.block_hash(height, "alice"), 0))

    def finalization(self, height: int) -> bytes:
        """Of the first block from `height` on that has one of its own."""
        with self.federation.client("alice") as client:
            while True:
                header = client.call("getblockheader", self.federation.block_hash(height, "alice"))
                if header["certificate"] is not None:
                    return bytes.fromhex(header["certificate"])
                height += 1

    def pay(self) -> None:
        """A transfer through alice that becomes final everywhere."""
        self.user.wallet.sync(self.user.url)
        self.federation.await_final(self.user.send(fresh_address(), 10_000), HONEST)

    def grown_bytes(self, name: str) -> int:
        """By how much a member's memory has grown since the beginning."""
        process = self.federation.local.process(name)
        assert process is not None
        resident = int(process.memory_info().rss)
        return resident - self.rss_bytes.setdefault(name, resident)


@contextmanager
def hostile_stage(directory: Path) -> Iterator[Stage]:
    """A federation with a user, and dave stopped."""
    with running_federation(directory) as federation, user_of(federation, "alice") as user:
        user.fund(8_000_000, deposits=4)
        local = federation.local
        local.stop_member(HOSTILE)
        keys = read_member_secrets(own_keys(local.member_config(HOSTILE)), read_passphrase_file(local.passphrase_path))
        made = Stage(federation, user, Genesis.load(local.genesis_path), keys, funded_coin(federation))
        made.pay()
        for name in HONEST:
            made.grown_bytes(name)
        yield made


def funded_coin(federation: FederationUnderTest) -> Coin:
    """A claimed deposit of the wallet "cheap"."""
    address = encode_address(MiniWallet("cheap").script(ScriptType.P2TR), SIDECHAIN)
    federation.pay({federation.deposit_address(address): 1_000_000})
    federation.mine(CONFIRMATIONS)
    [claimed] = federation.await_claimed([address], 1)
    with federation.client() as client:
        claim = Transaction.parse(bytes.fromhex(client.ask(str, "getrawtransaction", claimed.claim_txid)))
    return coins_of(claim)[0]


@asynccontextmanager
async def as_hostile_member(stage: Stage, name: str) -> AsyncIterator[RawPeer]:
    """A connection to a member under dave's name, as soon as it lets him in again."""
    deadline_s = trio.current_time() + 4 * MEMBER_PENALTY_S[1]
    while True:
        async with AsyncExitStack() as stack:
            is_greeted = False
            with suppress(RemoteFault, ExceptionGroup):
                peer = await stack.enter_async_context(dial(stage.address(name), stage.keys.transport))
                await peer.hello(stage.chain_id, PeerRole.MEMBER)
                is_greeted = await peer.is_greeted()
            if is_greeted:
                yield peer
                return
        assert trio.current_time() < deadline_s, f"{name} lets nobody in"
        await trio.sleep(0.3)


async def connect_from(source: str, address: PeerAddress) -> trio.socket.SocketType:
    """A connection that has said nothing yet."""
    endpoint = parse_endpoint(address.multiaddr)
    socket = trio.socket.socket()
    await socket.bind((source, 0))
    await socket.connect((endpoint.host, endpoint.port))
    return socket
