"""Methods for the way back from a halt: what goes in and comes out of them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.records import Deficit, Finding, LostCoin, Record, Resume
from federation.record import RecordRefused, SignedRecord
from federation.record_law import RecordLaw
from pegnode.errors import Refusal
from pegnode.resume.document import MAX_RECORDS
from pegnode.resume.words import describe
from pegnode.rpc.node_api import RecordView, ResumePlan
from pegnode.rpc.results import ListedRecordReply, RecordViewReply, ResumePlanReply
from pegnode.service.resumption import ResumptionReason
from tests.support.peg import outpoint
from tests.support.rpc_node import FakeNode

FINDING = Finding.coin_gone(outpoint(1))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    yield fake
    fake.close()


def record(node: FakeNode, serial: int) -> Record:
    """A record of the node's chain: a deficit if its serial is odd, else a resume."""
    content = Deficit((LostCoin(outpoint(1), 5),)) if serial % 2 else Resume((FINDING,))
    return Record(node.rules.chain_id, 0, serial, 1_000, content)


def encoded(*records: Record | SignedRecord) -> list[str]:
    return [item.encode().hex() for item in records]


async def test_planresume_shows_records_in_words_and_bytes(node: FakeNode) -> None:
    drawn = record(node, 1)
    node.resume_plan = ResumePlan((), (RecordView(drawn, ("the own view",), "a reason"),))
    reply = msgspec.convert((await node.ask("planresume")).result, ResumePlanReply)
    assert reply.waits == []
    assert reply.records == [
        RecordViewReply(1, list(describe(drawn)), ["the own view"], "a reason", drawn.encode().hex())
    ]
    node.resume_plan = ResumePlan(("a reason to wait",), ())
    await node.ask("planresume", [FINDING.encode().hex()])
    assert node.asked_findings == [(), (FINDING,)]


async def test_planresume_takes_no_other_findings(node: FakeNode) -> None:
    for findings in (["00"], ["zz"], [FINDING.encode().hex() + "00"]):
        assert (await node.ask("planresume", findings)).code == -22
    assert (await node.ask("planresume", [FINDING.encode().hex()] * 1_001)).code == -8
    assert node.asked_findings == []


async def test_planresume_says_why_there_is_none(node: FakeNode) -> None:
    node.failure = Refusal(ResumptionReason.NOT_HALTED)
    answer = await node.ask("planresume")
    assert (answer.code, answer.reason) == (-26, ResumptionReason.NOT_HALTED.value)


async def test_judgerecords_views_each(node: FakeNode) -> None:
    records = [record(node, 4), record(node, 5)]
    reply = msgspec.convert((await node.ask("judgerecords", encoded(*records))).result, list[RecordViewReply])
    assert [(view.serial, view.own_view, view.refusal) for view in reply] == [
        (4, ["as seen here"], None),
        (5, ["as seen here"], None),
    ]


@pytest.mark.parametrize("method", ["judgerecords", "signrecord"])
async def test_records_have_to_follow_one_another(node: FakeNode, method: str) -> None:
    more = [1] if method == "signrecord" else []
    for records in ([], encoded(record(node, 1), record(node, 3)), encoded(record(node, 2), record(node, 1))):
        assert (await node.ask(method, records, *more)).code == -8
    many = encoded(*(record(node, serial) for serial in range(MAX_RECORDS + 1)))
    assert (await node.ask(method, many, *more)).code == -8
    for text in ("00", "zz"):
        assert (await node.ask(method, [text], *more)).code == -22


async def test_signrecord_signs_the_one_with_that_serial(node: FakeNode) -> None:
    records = [record(node, 1), record(node, 2)]
    answer = await node.ask("signrecord", encoded(*records), 2)
    assert SignedRecord.decode(bytes.fromhex(answer.result)) == SignedRecord(records[1], ((2, bytes(range(64))),))
    assert (await node.ask("signrecord", encoded(*records), 3)).code == -8
    node.failure = RecordRefused(RecordLaw.COIN_NOT_LOST, "it is there")
    answer = await node.ask("signrecord", encoded(*records), 1)
    assert (answer.code, answer.reason) == (-26, RecordLaw.COIN_NOT_LOST.value)


async def test_submitted_record_waits_in_the_list(node: FakeNode) -> None:
    signed = SignedRecord(record(node, 1), ((2, bytes(64)),))
    assert (await node.ask("submitrecord", *encoded(signed))).result == 1
    for text in ("00", "zz", *encoded(signed.record)):
        assert (await node.ask("submitrecord", text)).code == -22
    [listed] = msgspec.convert((await node.ask("listrecords")).result, list[ListedRecordReply])
    assert listed == ListedRecordReply(1, False, list(describe(signed.record)), [2], signed.encode().hex())
    assert (await node.ask("listrecords", 2)).result == []
    for parameters in ((1, 0), (1, 101), (-1, 1)):
        assert (await node.ask("listrecords", *parameters)).code == -8
