"""Burns that no batch pays come back by themselves, beside one that is paid, and their owner spends them."""

from collections.abc import Iterator
from typing import Final

import pytest

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script
from pegnode.rpc.results import WithdrawalReply
from pegnode.wallet.wallet import HistoryKind
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, running_federation
from tests.support.users import User, user_of

EXPIRY_ANCHORS: Final = 148
"""Above what one step of the anchor, and the wait for a batch, allow: 144 and 3 in configs/local.toml."""
MAX_WAIT_ANCHORS: Final = 3
REFUND_FEE_SATS: Final = 500
"""As in configs/local.toml."""
PARAMETERS: Final = {"withdrawal_expiry_anchors": EXPIRY_ANCHORS, "max_refunds_per_block": 2}
DEPOSIT_SATS: Final = 10_000_000
BURNED_SATS: Final = 2_500_000
PAYEE: Final = encode_address(Script(b"\x00\x20" + sha256(b"a script that nobody has")), l1_network("regtest"))


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    directory = tmp_path_factory.mktemp("refunds") / "federation"
    with running_federation(directory, parameters=PARAMETERS) as federation, user_of(federation, "alice") as user:
        yield user


def test_burns_that_bear_no_fee_are_refunded_and_spent_again(alice: User) -> None:
    federation = alice.federation
    alice.fund(DEPOSIT_SATS)
    mean = [alice.wallet.withdraw(alice.url, PAYEE, BURNED_SATS, max_fee_sats=0) for _ in range(3)]
    paid = alice.withdraw(PAYEE, 1_000_000)
    waiting = [federation.await_stage(burn, ("waiting",)) for burn in (*mean, paid)]
    reasons = [reply.waiting.reason for reply in waiting if reply.waiting is not None]
    assert reasons == [*["withdrawal-max-fee"] * 3, "withdrawal-not-due"]
    assert {reply.expires_in_anchors for reply in waiting} == {EXPIRY_ANCHORS}
    left_sats = DEPOSIT_SATS - 3 * BURNED_SATS - 1_000_000
    assert alice.balance_sats() < left_sats

    federation.mine(MAX_WAIT_ANCHORS)
    federation.await_stage(paid, ("broadcast",))
    federation.mine(EXPIRY_ANCHORS - MAX_WAIT_ANCHORS)
    refunded = [federation.await_stage(burn, ("refunded",), "dave") for burn in mean]
    assert_refunded(federation, mean, refunded)
    federation.mine(CONFIRMATIONS)
    federation.await_stage(paid, ("settled",))
    assert federation.peg().unsettled_sats == 0

    balance_sats = alice.balance_sats()
    back_sats = 3 * (BURNED_SATS - REFUND_FEE_SATS)
    assert back_sats < balance_sats < left_sats + back_sats
    assert [item.kind for item in alice.wallet.history()].count(HistoryKind.REFUND) == 3
    federation.await_final(alice.send(alice.wallet.new_address(), back_sats - 2_000), federation.local.member_names)
    audit = federation.agreement()
    assert audit.supply_sats == alice.balance_sats()


def assert_refunded(federation: FederationUnderTest, burns: list[OutPoint], replies: list[WithdrawalReply]) -> None:
    """Each has a refund of its own, which a node gives as a transaction that names the burn; nothing was paid on L1."""
    txids = [reply.refund_txid for reply in replies]
    assert len(set(txids)) == len(burns)
    with federation.client("carol") as carol:
        for burn, txid in zip(burns, txids, strict=True):
            assert txid is not None
            federation.await_final(txid, ["carol"])
            refund = carol.call("getrawtransaction", txid, 1)
            assert refund["kind"] == "refund"
            assert refund["vin"][0]["refunds_burn"] == str(burn)
    assert all(reply.payouts == [] and reply.payout is None for reply in replies)
