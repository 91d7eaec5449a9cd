"""Records that wait for a block: only what a quorum signed, as long as it may still be of use."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.errors import Reason, Rejected
from bridge.records import RecordReason
from federation.endorsement import EndorsementReason
from federation.errors import Refused
from federation.record import SignedRecord
from pegnode.mempool.record_pool import MAX_WAITING, RecordPool, RecordPoolReason
from tests.support.chain import L1_START, MemoryChain
from tests.support.records import NEVER, changed, rebase_of, resume, signed


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


@pytest.fixture
def pool() -> RecordPool:
    return RecordPool()


def reason_of(action: Callable[[], None]) -> Reason:
    try:
        action()
    except (Rejected, Refused) as refused:
        return refused.reason
    pytest.fail("nothing was refused")


def add(pool: RecordPool, chain: MemoryChain, record: SignedRecord) -> None:
    pool.add(record, chain.state, chain.rules)


def test_records_wait_by_serial_and_of_one_serial_the_longest_lasting_first(
    chain: MemoryChain, pool: RecordPool
) -> None:
    second, first = resume(chain.rules, 2), resume(chain.rules, 1)
    brief = changed(first, expires_at_anchor=NEVER - 1)
    for record in (second, brief, first):
        add(pool, chain, record)
    assert pool.waiting() == (first, brief, second)
    assert pool.with_serial(1) == (first, brief)
    pool.drop(first)
    pool.drop(first)
    assert pool.waiting() == (brief, second)


def test_record_that_waits_or_has_a_used_serial_is_refused_without_blame(chain: MemoryChain, pool: RecordPool) -> None:
    record = resume(chain.rules, 1)
    add(pool, chain, record)
    assert reason_of(lambda: add(pool, chain, record)) is RecordPoolReason.ALREADY_WAITING
    false = replace(resume(chain.rules, 0), signatures=())
    assert reason_of(lambda: add(pool, chain, false)) is RecordPoolReason.USED


def test_record_that_no_quorum_of_this_chain_signed_is_refused_and_teaches_nothing(
    chain: MemoryChain, pool: RecordPool
) -> None:
    chain.bury()
    rebase = rebase_of(chain.l1.blocks[L1_START - 1 : L1_START + 1], chain.l1.anchor(L1_START + 5))
    record = resume(chain.rules, 1, rebase)
    for false, why in (
        (signed(record.record, 0, 1), EndorsementReason.TOO_FEW),
        (replace(record, record=replace(record.record, serial=2)), EndorsementReason.BAD_SIGNATURE),
        (changed(record, chain_id=bytes(32)), RecordReason.WRONG_CHAIN),
        (changed(record, epoch=1), RecordReason.WRONG_EPOCH),
    ):
        assert reason_of(lambda false=false: add(pool, chain, false)) is why  # type: ignore[misc]
    assert pool.waiting() == ()
    assert not pool.branches.knows(rebase.old_anchor)
    add(pool, chain, record)
    assert pool.branches.knows(rebase.old_anchor)
    assert RecordPool([record]).branches.knows(rebase.old_anchor)


def test_record_that_expired_is_refused_and_forgotten(chain: MemoryChain, pool: RecordPool) -> None:
    height = chain.header.anchor.height
    in_time = changed(resume(chain.rules), expires_at_anchor=height)
    add(pool, chain, in_time)
    late = changed(resume(chain.rules), expires_at_anchor=height - 1)
    assert reason_of(lambda: add(pool, chain, late)) is RecordPoolReason.EXPIRED
    pool.recheck(chain.state)
    assert pool.waiting() == (in_time,)
    chain.bury()
    chain.extend()
    pool.recheck(chain.state)
    assert pool.waiting() == ()


def test_full_pool_keeps_those_that_come_first(chain: MemoryChain, pool: RecordPool) -> None:
    for serial in range(2, MAX_WAITING + 2):
        add(pool, chain, resume(chain.rules, serial))
    last = resume(chain.rules, MAX_WAITING + 2)
    assert reason_of(lambda: add(pool, chain, last)) is RecordPoolReason.FULL
    first = resume(chain.rules, 1)
    add(pool, chain, first)
    assert [record.record.serial for record in pool.waiting()] == list(range(1, MAX_WAITING + 1))


def test_records_that_lead_to_another_branch_are_told_whether_final_or_waiting(
    chain: MemoryChain, pool: RecordPool
) -> None:
    chain.l1.mine_empty(20)
    rebase = rebase_of(chain.l1.blocks[L1_START - 1 : L1_START + 1], chain.l1.anchor(L1_START + 5))
    first, other, third = resume(chain.rules, 1, rebase), resume(chain.rules, 2), resume(chain.rules, 3, rebase)
    pool.learn([first, other])
    add(pool, chain, third)
    assert list(pool.leading(1)) == [first, third]
    assert list(pool.leading(2)) == [third]
