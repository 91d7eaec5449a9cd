"""Methods for the way back from a halt: records that members draw up, judge, sign and hand in."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from bridge.errors import MalformedError
from bridge.records import Finding, Record
from federation.record import SignedRecord
from pegnode.resume.document import MAX_RECORDS
from pegnode.resume.words import describe
from pegnode.rpc.arguments import bytes_argument, count_argument
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi, RecordView
from pegnode.rpc.results import ListedRecordReply, RecordViewReply, ResumePlanReply

MAX_LISTED: Final = 100
MAX_NAMED_FINDINGS: Final = 1_000


async def planresume(node: NodeApi, findings: list[str] | None = None) -> ResumePlanReply:
    """Draw up the records that end what this node found: what they say, and what this node sees of it.

    findings: more that are to be ended, which other members found, each in hex, as they stand in the members' plans.
    `waits` is not empty, and there are no records, while something may still change by itself: what, and until when.
    """
    given = findings or []
    if len(given) > MAX_NAMED_FINDINGS:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"findings: at most {MAX_NAMED_FINDINGS}")
    try:
        others = [Finding.decode(bytes_argument("findings", text)) for text in given]
    except MalformedError as error:
        raise RpcError(RpcCode.DESERIALIZATION_ERROR, f"findings: {error}") from error
    plan = await node.plan_resume(others)
    return ResumePlanReply(list(plan.waits), [_view_reply(view) for view in plan.records])


async def judgerecords(node: NodeApi, records: list[str]) -> list[RecordViewReply]:
    """What records say, what this node sees of it, and why this node's member would not sign one, if so.

    records: their bytes in hex, without signatures, with serials one after the other.
    """
    return [_view_reply(view) for view in await node.judge_records(_records(records))]


async def signrecord(node: NodeApi, records: list[str], serial: int) -> str:
    """One of these records with this member's signature, in hex, if its own node finds what the records say.

    records: as in judgerecords: those with lower serials are taken to have come before.  serial: of the one to sign.
    """
    given = _records(records)
    index = next((index for index, record in enumerate(given) if record.serial == serial), None)
    if index is None:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"serial: none of the records has {serial}")
    return (await node.sign_record(given, index)).encode().hex()


async def submitrecord(node: NodeApi, record: str) -> int:
    """Hand in a record that a quorum signed, for one of the next blocks; its serial. record: in hex."""
    try:
        signed = SignedRecord.decode(bytes_argument("record", record))
    except MalformedError as error:
        raise RpcError(RpcCode.DESERIALIZATION_ERROR, f"record: {error}") from error
    node.submit_record(signed)
    return signed.record.serial


async def listrecords(node: NodeApi, first_serial: int = 1, count: int = 10) -> list[ListedRecordReply]:
    """Records that blocks have carried out, from a serial on, then those that wait for a block."""
    count_argument("count", count, MAX_LISTED)
    if first_serial < 0:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"first_serial: {first_serial} is below 0")
    final = [_listed(signed, final=True) for signed in islice(node.store.records(first_serial), count)]
    last = node.store.ledger.totals.record_serial
    waiting = [signed for signed in node.waiting_records() if signed.record.serial > max(last, first_serial - 1)]
    return (final + [_listed(signed, final=False) for signed in waiting])[:count]


def _records(texts: Sequence[str]) -> list[Record]:
    """Records with consecutive serials; raises RpcError."""
    if not 1 <= len(texts) <= MAX_RECORDS:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"records: 1 to {MAX_RECORDS}, not {len(texts)}")
    try:
        records = [Record.decode(bytes_argument("records", text)) for text in texts]
    except MalformedError as error:
        raise RpcError(RpcCode.DESERIALIZATION_ERROR, f"records: {error}") from error
    if [record.serial for record in records] != list(range(records[0].serial, records[0].serial + len(records))):
        raise RpcError(RpcCode.INVALID_PARAMETER, "records: their serials are not one after the other")
    return records


def _view_reply(view: RecordView) -> RecordViewReply:
    says = list(describe(view.record))
    return RecordViewReply(view.record.serial, says, list(view.own_view), view.refusal, view.record.encode().hex())


def _listed(signed: SignedRecord, *, final: bool) -> ListedRecordReply:
    record = signed.record
    return ListedRecordReply(record.serial, final, list(describe(record)), list(signed.signers), signed.encode().hex())


RECORD_METHODS: tuple[Handler, ...] = (planresume, judgerecords, signrecord, submitrecord, listrecords)
