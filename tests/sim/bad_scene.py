"""What bad blocks are made of: a valid block on its parent, and what the evil know and own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bridge.bitcoin.transaction import TxOut
from bridge.errors import Reason
from pegnode.chain.block import Block
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainView
from tests.support.fake_l1 import FakeL1
from tests.support.mini_wallet import Coin, MiniWallet


@dataclass(frozen=True)
class Scene:
    """parent: the state below `block`, which is valid.  l1: the real one.  wallets: the evil's own.

    secrets: the evil's vote keys, by member.  finished: encoded transactions that are final already.
    """

    parent: ChainView
    block: Block
    rules: ChainRules
    l1: FakeL1
    wallets: Sequence[MiniWallet]
    secrets: Mapping[int, bytes]
    finished: Sequence[bytes] = ()

    @cached_property
    def coins(self) -> list[tuple[MiniWallet, Coin]]:
        """What the evil own before the block."""
        return list(own_coins(self.parent, self.wallets))

    def with_header(self, **changes: object) -> Block:
        """The block under another header."""
        return Block(replace(self.block.header, **changes), self.block.body)  # type: ignore[arg-type]

    def with_body(self, **sections: object) -> Block:
        """The block with other sections in its body; the header commits to it, and to the ledger that it had before."""
        body = replace(self.block.body, **sections)  # type: ignore[arg-type]
        return Block(replace(self.block.header, body_root=body.root), body)

    def with_only(self, **sections: object) -> Block:
        """The block with these sections, and nothing else but its refunds."""
        rest = {"records": (), "evidence": (), "transactions": (), "batches": ()}
        return self.with_body(**{**rest, **sections})


def own_coins(state: ChainView, wallets: Sequence[MiniWallet]) -> Iterator[tuple[MiniWallet, Coin]]:
    """What these wallets own in a state."""
    by_script = {wallet.script(): wallet for wallet in wallets}
    for outpoint, utxo in state.utxos.items():
        if (wallet := by_script.get(utxo.script)) is not None:
            yield wallet, (outpoint, TxOut(utxo.value_sats, utxo.script))


Maker = Callable[[Scene], Block | None]


@dataclass(frozen=True, slots=True)
class BadKind:
    """One way in which a block can be invalid.

    reason, cause: what the rules have to answer.  make: the block, or None where the scene has not what it takes.
    is_heavy: it is large, and takes long to judge.
    """

    name: str
    reason: Reason
    cause: Reason | None
    make: Maker
    is_heavy: bool = False
