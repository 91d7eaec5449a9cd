"""A node and its signer: one that is away, and what the node tells of it."""

import pytest
import trio

from bridge.bitcoin.identifiers import Txid
from federation.cosign import CosignShare
from federation.statement import SignedStatement, SolvencyStatement
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.signing.local import LocalSigner
from pegnode.signing.port import SignerAway
from tests.support.members import Member, memory_federation


class AwaySigner(LocalSigner):
    """A signer that does not answer."""

    @property
    def waiting_for(self) -> str | None:
        return "the signer at nowhere"

    async def cosign(self, txid: Txid) -> CosignShare:
        raise SignerAway("nowhere")

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        raise SignerAway("nowhere")


def take_signer_away(member: Member) -> None:
    """From now on this node's signer does not answer."""
    away = AwaySigner(member.federation.signer(0), member.core, member.auditor, member.resumption)
    member.live._signer = away
    member.live._report._signer = away
    member.payouts._signer = away


async def test_statement_is_unavailable_while_the_signer_is_away(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        assert "the signer at nowhere" not in member.live.status().waiting_for
        take_signer_away(member)
        assert "the signer at nowhere" in member.live.status().waiting_for
        with pytest.raises(NodeUnavailable) as caught:
            await member.live.sign_statement(None)
        assert caught.value.reason is UnavailableReason.SIGNER_AWAY
