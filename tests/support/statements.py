"""Statements of solvency about the chain of `tests.support.chain`, signed by its members."""

from functools import cache

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from federation.statement import BlockTerms, SignedStatement, SolvencyStatement
from pegnode.clock import now_ms
from tests.support.chain import L1_START, local_genesis, vote_secrets

GENESIS = local_genesis(Anchor(L1_START, BlockHash(sha256(b"an anchor"))))


@cache
def _first_ms() -> int:
    """The time of the statements, which is that of the first."""
    return now_ms()


def block_terms(chain_id: bytes = GENESIS.chain_id) -> BlockTerms:
    """Reserves of 1,000 satoshis, a deficit of 5, and a fund of 30."""
    return BlockTerms(
        chain_id=chain_id,
        epoch=0,
        height=7,
        block_hash=BlockHash(sha256(b"a block")),
        anchor=Anchor(100, BlockHash(sha256(b"an anchor"))),
        ledger_root=sha256(b"a ledger"),
        reserves_sats=1_000,
        deficit_sats=5,
        supply_sats=900,
        unsettled_sats=75,
        fund_sats=30,
    )


def statement(*, time_ms: int | None = None) -> SolvencyStatement:
    """A statement of these terms."""
    tip = Anchor(106, BlockHash(sha256(b"a tip")))
    return SolvencyStatement(block_terms(), tip, _first_ms() if time_ms is None else time_ms)


def stated(*members: int, statement: SolvencyStatement = statement()) -> SignedStatement:  # noqa: B008 -- a value
    """A statement with these members' signatures, whatever their law says."""
    digest = statement.digest32
    return SignedStatement(
        statement, tuple((member, schnorr_sign(vote_secrets()[member], digest, bytes(32))) for member in members)
    )
