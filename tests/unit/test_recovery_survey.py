"""What there is to recover, by a ledger that may be wrong and a Bitcoin node that is asked about everything."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from bridge.bitcoin.addresses import sidechain_network
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.l1.answers import ChainInfo, MempoolVerdict, ScannedOutput, TxOutSetScan
from bridge.l1.client import L1Client
from bridge.recovery import Origin, RecoveryReason
from bridge.state import Anchor
from federation.keystore import SecretKind, write_member_secrets, write_secret
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.folders import CHAIN_FOLDER
from pegnode.genesis import Genesis
from pegnode.recovery.keys import open_recovery_key, recovery_key_of
from pegnode.recovery.known import KnownCoin, KnownReserve, known_on_disk, known_to_node
from pegnode.recovery.plan import broadcast, plan_recovery, terms_of
from pegnode.recovery.survey import CoinState, Survey, survey
from pegnode.rpc.client import ClientReason, RpcClient, RpcClientError
from pegnode.rpc.results import CoinReply
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.template import Agreed, completed
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.store import ChainStore
from tests.support.cards import PARAMETERS, agreed, member_cards, member_secrets, template
from tests.support.fake_l1_client import REGTEST_GENESIS
from tests.support.final_chains import grown_chain
from tests.support.peg import ALICE, BOB
from tests.support.recovery import coin, planned, signed

TIP = 5_000
TIMELOCK_BLOCKS = 4_032
TAKEN = MempoolVerdict(True, "", 1, 1)
PASSPHRASE = Passphrase("correct horse battery staple")


def genesis() -> Genesis:
    """The federation of configs/local.toml from regtest's first block on."""
    keys = [bytes.fromhex(key) for key in agreed().recovery_keys_hex]
    values = Agreed.of(Anchor(0, REGTEST_GENESIS), keys, 1)
    return template(completed(PARAMETERS, values)).compose([card.section for card in member_cards()])


GENESIS = genesis()
CUSTODY = GENESIS.rules().custody
DEPOSIT, CHANGE, DONATION = Origin(CoinKind.DEPOSIT, 0, ALICE), Origin(CoinKind.CHANGE, 0), Origin(CoinKind.DONATION, 0)


def outpoint(number: int) -> OutPoint:
    return OutPoint(Txid(bytes([number]) * 32), number)


def unspent(number: int, origin: Origin, height: int, value_sats: int = 1_000_000) -> ScannedOutput:
    script = origin.reserve(CUSTODY).script
    return ScannedOutput(outpoint(number), value_sats, script, height, coinbase=False)


@dataclass
class BitcoinNode:
    """Answers what a survey asks. unspent: all there is.  spent_in_mempool: of these."""

    unspent: Sequence[ScannedOutput] = ()
    spent_in_mempool: Sequence[OutPoint] = ()
    verdict: MempoolVerdict = TAKEN
    downloading: bool = False
    first_block: BlockHash = REGTEST_GENESIS
    scanned: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    async def tip(self) -> tuple[int, BlockHash]:
        return TIP, BlockHash(bytes(32))

    async def block_hash(self, height: int) -> BlockHash:
        return self.first_block if height == 0 else BlockHash(bytes(32))

    async def chain_info(self) -> ChainInfo:
        headers = TIP + self.downloading
        return ChainInfo("regtest", TIP, headers, BlockHash(bytes(32)), self.downloading, pruned=False, prune_height=0)

    async def scan_txoutset(self, descriptors: Sequence[str]) -> TxOutSetScan:
        self.scanned += descriptors
        asked = [output for output in self.unspent if f"raw({output.script.hex()})" in descriptors]
        return TxOutSetScan(TIP, BlockHash(bytes(32)), tuple(asked))

    async def mempool_spenders(self, outpoints: Sequence[OutPoint]) -> list[Txid | None]:
        return [Txid(bytes(32)) if item in self.spent_in_mempool else None for item in outpoints]

    async def test_mempool_accept(self, transaction: bytes) -> MempoolVerdict:
        assert transaction == TRANSACTION.serialize()
        return self.verdict

    async def send_raw_transaction(self, transaction: bytes) -> Txid:
        self.sent.append(transaction)
        return Transaction.parse(transaction).txid


async def look(node: BitcoinNode, known: KnownReserve | None = None) -> Survey:
    return await survey(cast(L1Client, node), GENESIS, CUSTODY, known or KnownReserve.nothing())


def known(*coins: KnownCoin, claims: Sequence[Script] = ()) -> KnownReserve:
    return KnownReserve(coins, frozenset(claims), "a test")


# What is found


async def test_change_and_donations_are_found_without_any_ledger() -> None:
    node = BitcoinNode([unspent(1, CHANGE, 10), unspent(2, DONATION, 20), unspent(3, DEPOSIT, 30)])
    found = await look(node)
    assert [(item.coin.outpoint, item.in_ledger) for item in found.coins] == [
        (outpoint(1), False),
        (outpoint(2), False),
    ]
    assert len(node.scanned) == 2


async def test_deposits_are_found_by_the_ledger_by_the_registry_and_by_hand() -> None:
    node = BitcoinNode([unspent(3, DEPOSIT, 30)])
    in_ledger = known(KnownCoin(outpoint(3), 1_000_000, DEPOSIT, 30))
    for reserve, expected in ((in_ledger, True), (known(claims=[ALICE]), False)):
        [item] = (await look(node, reserve)).coins
        assert (item.coin.outpoint, item.coin.origin, item.in_ledger) == (outpoint(3), DEPOSIT, expected)
    [item] = (await look(node, KnownReserve.nothing().with_claim_scripts([ALICE]))).coins
    assert item.coin.outpoint == outpoint(3)


async def test_ledger_is_not_believed_about_a_coin_that_was_spent() -> None:
    found = await look(BitcoinNode(), known(KnownCoin(outpoint(3), 1_000_000, DEPOSIT, 30)))
    assert [item.state for item in found.coins] == [CoinState.GONE]
    with pytest.raises(Rejected) as rejection:
        found.mature_by(TIP + 1)
    assert rejection.value.reason is RecoveryReason.NOTHING


async def test_coin_is_mature_from_the_first_block_that_may_recover_it() -> None:
    heights = {1: TIP + 1 - TIMELOCK_BLOCKS, 2: TIP + 2 - TIMELOCK_BLOCKS}
    found = await look(BitcoinNode([unspent(number, CHANGE, height) for number, height in heights.items()]))
    assert [(item.state, item.matures_at) for item in found.coins] == [
        (CoinState.MATURE, TIP + 1),
        (CoinState.IMMATURE, TIP + 2),
    ]
    assert [item.outpoint for item in found.mature_by(TIP + 1)] == [outpoint(1)]
    assert [item.outpoint for item in found.mature_by(TIP + 2)] == [outpoint(1), outpoint(2)]


async def test_coin_that_a_waiting_transaction_spends_is_left_to_it() -> None:
    found = await look(BitcoinNode([unspent(1, CHANGE, 1), unspent(2, CHANGE, 1)], [outpoint(1)]))
    assert {item.coin.outpoint: item.state for item in found.coins} == {
        outpoint(1): CoinState.SPENDING,
        outpoint(2): CoinState.MATURE,
    }
    assert [item.outpoint for item in found.mature_by(TIP + 1)] == [outpoint(2)]


async def test_survey_refuses_while_nothing_is_mature() -> None:
    found = await look(BitcoinNode([unspent(1, CHANGE, TIP)]))
    with pytest.raises(Rejected, match=f"the first can be in block {TIP + TIMELOCK_BLOCKS}") as rejection:
        found.mature_by(TIP + 1)
    assert rejection.value.reason is RecoveryReason.IMMATURE


async def test_survey_refuses_a_node_that_is_catching_up() -> None:
    with pytest.raises(Rejected) as rejection:
        await look(BitcoinNode(downloading=True))
    assert rejection.value.reason is RecoveryReason.L1_BEHIND


async def test_survey_refuses_a_node_of_another_chain() -> None:
    with pytest.raises(SetupRefused) as refused:
        await look(BitcoinNode(first_block=BlockHash(b"\x01" * 32)))
    assert refused.value.reason is SetupReason.WRONG_L1


# What is planned and sent


async def test_plan_leaves_what_is_not_worth_its_fee() -> None:
    found = await look(BitcoinNode([unspent(1, CHANGE, 1), unspent(2, DONATION, 1, value_sats=500)]))
    [request] = plan_recovery(found, terms_of(GENESIS), [BOB], 5_000, TIP + 1)
    assert [item.outpoint for item in request.coins] == [outpoint(1)]
    dust = await look(BitcoinNode([unspent(2, DONATION, 1, value_sats=500)]))
    with pytest.raises(Rejected) as rejection:
        plan_recovery(dust, terms_of(GENESIS), [BOB], 5_000, TIP + 1)
    assert rejection.value.reason is RecoveryReason.NOTHING


@pytest.mark.parametrize("feerate_sat_kvb", [999, GENESIS.peg.feerate_ceiling_sat_kvb + 1])
async def test_plan_refuses_a_feerate_that_is_not_relayed_or_above_the_ceiling(feerate_sat_kvb: int) -> None:
    found = await look(BitcoinNode([unspent(1, CHANGE, 1)]))
    with pytest.raises(Rejected) as rejection:
        plan_recovery(found, terms_of(GENESIS), [BOB], feerate_sat_kvb, TIP + 1)
    assert rejection.value.reason is RecoveryReason.FEERATE


TRANSACTION = signed(planned([coin(0)]), 0, 1).finalized()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("non-BIP68-final", RecoveryReason.IMMATURE),
        ("missing-inputs", RecoveryReason.SPENT),
        ("bad-txns-inputs-missingorspent", RecoveryReason.SPENT),
        ("txn-mempool-conflict", RecoveryReason.SPENT),
        ("mempool full", RecoveryReason.NOT_RELAYED),
    ],
)
async def test_transaction_that_the_node_refuses_is_not_sent(words: str, reason: RecoveryReason) -> None:
    node = BitcoinNode(verdict=MempoolVerdict(False, words, None, None))
    with pytest.raises(Rejected) as rejection:
        await broadcast(cast(L1Client, node), TRANSACTION)
    assert rejection.value.reason is reason
    assert node.sent == []


@pytest.mark.parametrize("words", ["txn-already-in-mempool", "txn-already-known"])
async def test_transaction_that_the_node_has_is_no_error(words: str) -> None:
    node = BitcoinNode(verdict=MempoolVerdict(False, words, None, None))
    assert await broadcast(cast(L1Client, node), TRANSACTION) == TRANSACTION.txid
    assert node.sent == []


async def test_transaction_that_the_node_takes_is_sent() -> None:
    node = BitcoinNode()
    assert await broadcast(cast(L1Client, node), TRANSACTION) == TRANSACTION.txid
    assert node.sent == [TRANSACTION.serialize()]


# Where the ledger is read


def test_ledger_is_read_from_a_data_directory_and_left_as_it_is(tmp_path: Path) -> None:
    data = grown_chain(tmp_path)
    with closing(ChainStore.open(tmp_path / CHAIN_FOLDER, data.rules)) as store:
        store.keep_deposit_scripts([BOB], created_ms=1)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    reserve = known_on_disk(tmp_path, data.rules)
    assert reserve is not None
    assert reserve.claim_scripts == {BOB}
    coins = {item.outpoint: item for _, item in data.chain.state.ledger.coins.items()}
    assert {item.outpoint: item.value_sats for item in reserve.coins} == {
        place: item.value_sats for place, item in coins.items()
    }
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_data_directory_without_a_chain_or_of_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        known_on_disk(tmp_path, GENESIS.rules())
    assert error.value.reason is StorageReason.MISSING
    grown_chain(tmp_path)
    with pytest.raises(StorageError) as error:
        known_on_disk(tmp_path, GENESIS.rules())
    assert error.value.reason is StorageReason.WRONG_CHAIN


def test_node_of_another_chain_is_not_asked_for_its_coins() -> None:
    asked: list[str] = []

    class Node:
        def ask(self, _: Any, method: str) -> Any:
            asked.append(method)
            return type("Reply", (), {"chain_id": "11" * 32})()

    with pytest.raises(Rejected) as rejection:
        known_to_node(cast(RpcClient, Node()), GENESIS.rules(), cast(Any, None))
    assert rejection.value.reason is RecoveryReason.FOREIGN_GENESIS
    assert asked == ["getfederationinfo"]


COIN = CoinReply(
    outpoint=str(outpoint(1)), value_sats=5, kind="change", epoch=0, address="", claim_address=None, l1_height=7,
    age_anchors=1, recovery_l1_height=9, lineage=None,
)  # fmt: skip


@dataclass
class RunningNode:
    """A node of GENESIS with one coin."""

    coin: CoinReply = COIN
    scripts: Sequence[str] = (BOB.hex(),)

    def ask(self, _: Any, method: str) -> Any:
        if method == "getfederationinfo":
            return type("Reply", (), {"chain_id": GENESIS.rules().chain_id.hex()})()
        return {"listreservecoins": [self.coin], "listdepositscripts": self.scripts}[method]


def told(node: RunningNode) -> KnownReserve:
    return known_to_node(cast(RpcClient, node), GENESIS.rules(), sidechain_network("regtest"))


def test_running_node_tells_its_coins_and_every_script_it_looks_for() -> None:
    reserve = told(RunningNode())
    assert reserve.claim_scripts == {BOB}
    assert reserve.coins == (KnownCoin(outpoint(1), 5, CHANGE, 7),)


@pytest.mark.parametrize(
    "node", [RunningNode(coin=msgspec.structs.replace(COIN, kind="escrow")), RunningNode(scripts=["zz"])]
)
def test_what_a_running_node_of_another_release_tells_is_refused(node: RunningNode) -> None:
    with pytest.raises(RpcClientError) as caught:
        told(node)
    assert caught.value.reason is ClientReason.BAD_REPLY


# Whose key


def test_key_file_of_a_holder_is_known_before_anybody_types_a_passphrase(tmp_path: Path) -> None:
    secret = b"\x07" * 32
    write_secret(tmp_path / "own", SecretKind.RECOVERY, secret, PASSPHRASE, scrypt_log_n=LEAST_LOG_N)
    with pytest.raises(Rejected) as rejection:
        recovery_key_of(tmp_path / "own", CUSTODY)
    assert rejection.value.reason is RecoveryReason.UNKNOWN_KEY
    assert open_recovery_key(tmp_path / "own", PASSPHRASE) == secret


def test_key_file_of_a_member_is_refused(tmp_path: Path) -> None:
    write_member_secrets(tmp_path / "keys", member_secrets("alice"), PASSPHRASE, scrypt_log_n=LEAST_LOG_N)
    with pytest.raises(KeystoreRefused) as refused:
        recovery_key_of(tmp_path / "keys", CUSTODY)
    assert refused.value.reason is KeystoreReason.WRONG_KIND
