from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
import time

import pytest

from bartizan.core.errors import LedgerError, StoreError
from bartizan.lifecycle.deploy.gateway.audit import searching
from bartizan.lifecycle.deploy.gateway.audit.record import AuditLog, Ruling
from bartizan.lifecycle.deploy.gateway.audit.secrets import Secrets, unseal
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings
from bartizan.lifecycle.deploy.gateway.audit.trail import _FLUSH, _SIGN, RETRY_SECONDS, Trail, rhythm
from bartizan.stores.audit import open_audit
from fixtures.auditlogs import CONFIGURATION, MODEL, record, report, writer


@pytest.fixture
def store(tmp_path):
    opened = open_audit(str(tmp_path / "audit.db"))
    yield opened
    opened.close()


def trail_of(store, **settings):
    """A log of a gateway that serves the model of all records under the configuration of all records."""
    chosen = AuditSettings(**settings)
    made = Trail(
        writer(store, rhythm(chosen)),
        Secrets(store, chosen),
        chosen,
        configuration=CONFIGURATION,
        mask=lambda text: text.upper(),
    )
    made._models["tumour"] = MODEL
    return made


def found(store, **query):
    with store.reading() as reading:
        return [hit.record for hit in searching.search(reading, searching.Query(limit=10_000, **query)).found]


async def until(happened):
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.01)


async def write_much(log):
    for number in range(200):
        await log.append(record(number, reasons=("x" * 500,)))


def test_nothing_is_acknowledged_before_it_can_be_read(store):
    async def run():
        log: AuditLog = trail_of(store)
        for number in range(20):
            made = record(number)
            await log.append(made)
            assert found(store, id=made.id) == [made]
        await log.close()

    asyncio.run(run())
    assert report(store).unsigned == 0


def test_records_that_come_together_share_one_future_and_one_transaction(store, monkeypatch):
    sizes = []

    async def run():
        log = trail_of(store)
        write = log._writer.write
        monkeypatch.setattr(log._writer, "write", lambda batch, **how: (sizes.append(len(batch)), write(batch, **how)))
        futures = [log.append(record(number)) for number in range(50)]
        assert len({id(future) for future in futures}) == 1
        await futures[0]
        assert all(future.done() for future in futures)
        await log.close()

    asyncio.run(run())
    assert [size for size in sizes if size] == [50]


def test_a_cancelled_request_does_not_stop_the_others(store):
    async def run():
        log = trail_of(store)

        async def wait(number):
            await log.append(record(number))
            return number

        first, second = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 2
        with pytest.raises(asyncio.CancelledError):
            await first
        await log.close()

    asyncio.run(run())
    assert len(found(store)) == 2


def test_a_full_queue_refuses(store):
    async def run():
        log = trail_of(store, queue=16)
        for number in range(16):
            log.append(record(number))
        with pytest.raises(StoreError, match=r"16 audit records of \d+ bytes wait"):
            log.append(record(17))
        await log.close()
        with pytest.raises(StoreError, match="closed"):
            log.append(record(18))

    asyncio.run(run())
    assert len(found(store)) == 17
    [gap] = found(store, operation="audit.gap")
    assert gap.rows == 1


@pytest.mark.parametrize("mode", ["durable", "written", "fast"])
def test_a_database_that_another_holds_refuses_everything_and_recovers(store, mode, monkeypatch, tmp_path):
    store._connection.execute("PRAGMA busy_timeout=50")
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.05)

    async def run():
        log = trail_of(store, mode=mode, linger_ms=1)
        waiting = log.append(record(1))
        if waiting is not None:
            await waiting
        await until(lambda: not log.waiting)
        other = sqlite3.connect(tmp_path / "audit.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        lost = record(2)
        waiting = log.append(lost)
        if waiting is not None:
            with pytest.raises(StoreError, match="nothing could be recorded"):
                await waiting
        await until(lambda: log.trouble)
        with pytest.raises(StoreError, match="nothing can be recorded"):
            log.append(record(3))
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: not log.trouble)
        again = log.append(record(4))
        if again is not None:
            await again
        await log.close()
        return lost

    lost = asyncio.run(run())
    stored, missing = found(store), 2
    assert report(store).problems == ()
    if mode == "fast":
        assert lost in stored  # it was answered, so it is kept and written later
        missing = 1
    else:
        assert lost not in stored
    assert sum(gap.rows for gap in found(store, operation="audit.gap")) == missing


def test_a_full_disk_refuses_and_recovers(store, monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.02)

    async def run():
        log = trail_of(store)
        for number in range(3):
            await log.append(record(number))
        [(pages,)] = store._connection.execute("PRAGMA page_count").fetchall()
        for connection in (store._connection, store._quick):
            connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="full"):
            await write_much(log)
        for connection in (store._connection, store._quick):
            connection.execute("PRAGMA max_page_count=1073741823")
        await until(lambda: not log.trouble)
        await log.append(record(300))
        await log.close()

    asyncio.run(run())
    assert report(store).problems == ()


def test_whatever_goes_wrong_in_writing_nobody_waits_for_ever(store, monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.02)

    def failing(_batch):
        raise MemoryError

    async def run():
        log = trail_of(store)
        await log.append(record(0))
        with monkeypatch.context() as broken:
            broken.setattr(log._writer, "put", failing)
            with pytest.raises(StoreError, match="MemoryError"):
                await asyncio.wait_for(log.append(record(1)), 30)
            assert "MemoryError" in log.trouble
        await until(lambda: not log.trouble)
        await log.append(record(2))
        await asyncio.wait_for(log.close(), 30)

    asyncio.run(run())
    assert report(store).problems == ()


def test_what_was_put_and_did_not_reach_the_disk_is_not_written_twice(store, monkeypatch):
    """Not even when the log turns to the fast mode meanwhile, where what failed is kept and tried again."""
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.02)

    def failing():
        raise StoreError("the disk is broken")

    async def run():
        log = trail_of(store)
        await log.append(record(0))
        with monkeypatch.context() as broken:
            broken.setattr(store, "sync", failing)
            told = log.append(record(1))
            await asyncio.sleep(0)
            log.adopt(AuditSettings(mode="fast"), lambda text: text)
            with pytest.raises(StoreError, match="broken"):
                await told
        await until(lambda: not log.trouble)
        await log.close()

    asyncio.run(run())
    assert len(found(store, id=record(1).id)) == 1


def test_the_written_mode_answers_before_the_disk_does_and_asks_it_soon(store, monkeypatch):
    """A batch that was put does not wait for a disk that takes its time; what comes meanwhile does not either."""
    asked, answers = threading.Event(), threading.Event()

    def slow():
        asked.set()
        assert answers.wait(60)

    async def run():
        log = trail_of(store, mode="written", linger_ms=1)
        await log.append(record(0))  # the first goes through the thread, which makes the connection for the others
        with monkeypatch.context() as slowly:
            slowly.setattr(store, "sync", slow)
            for number in range(1, 4):
                await asyncio.wait_for(log.append(record(number)), 30)
                assert found(store, id=record(number).id)
            await until(asked.is_set)
            await asyncio.wait_for(log.append(record(4)), 30)
            answers.set()
        await log.close()

    asyncio.run(run())
    assert len(found(store)) == 5
    assert report(store).unsigned == 0


def test_what_is_put_while_the_disk_is_busy_is_taken_to_it_without_anybody_following(store, monkeypatch):
    asked, answers, times = threading.Event(), threading.Event(), []

    def slow():
        times.append(len(found(store)))
        asked.set()
        assert answers.wait(60)

    async def run():
        log = trail_of(store, mode="written", linger_ms=1)
        await log.append(record(0))
        monkeypatch.setattr(store, "sync", slow)
        await log.append(record(1))
        await until(asked.is_set)
        await log.append(record(2))
        answers.set()
        await until(lambda: len(times) > 1)
        await log.close()

    asyncio.run(run())
    assert times[:2] == [2, 3]


def test_a_checkpoint_that_cannot_be_signed_for_want_of_the_store_stops_nobody(store):
    async def run():
        log = trail_of(store, mode="written")
        await log.append(record(0))
        log._signing = True
        log._done(_SIGN, StoreError("no more files"))
        assert not log.trouble
        log._done(_SIGN, LedgerError("changed underneath"))
        assert log.trouble
        await until(lambda: not log.trouble)
        await log.close()

    asyncio.run(run())


def test_a_disk_that_fails_after_the_answer_stops_the_written_mode_until_it_works(store, monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.02)

    def failing(_handle):
        raise OSError(errno.EIO, "the disk is broken")

    async def run():
        log = trail_of(store, mode="written", linger_ms=1)
        await log.append(record(0))
        with monkeypatch.context() as broken:
            broken.setattr("bartizan.stores.audit.sqlite._to_disk", failing)
            await log.append(record(1))
            await until(lambda: log.trouble)
            with pytest.raises(StoreError, match="the disk is broken"):
                log.append(record(2))
        await until(lambda: not log.trouble)
        await log.append(record(3))
        await log.close()

    asyncio.run(run())
    ids = [kept.id for kept in found(store)]
    assert [ids.count(record(number).id) for number in range(4)] == [1, 1, 0, 1]
    assert report(store).problems == ()


def test_a_disk_that_fails_while_a_batch_is_written_is_left_to_that_batch(store, monkeypatch):
    async def run():
        log = trail_of(store, mode="written", linger_ms=1)
        await log.append(record(0))
        log._busy = True
        log._flushing = True
        log._done(_FLUSH, StoreError("the disk is broken"))
        assert not log.trouble
        assert not log._flushing
        log._busy = False
        await log.append(record(1))
        await log.close()

    asyncio.run(run())
    assert len(found(store)) == 2


def test_the_fast_mode_waits_no_longer_than_it_says(store):
    async def run():
        log = trail_of(store, mode="fast", linger_ms=30)
        assert log.append(record(1)) is None
        await asyncio.sleep(0.005)
        assert found(store) == []
        await asyncio.sleep(0.3)
        assert len(found(store)) == 1
        await log.close()

    asyncio.run(run())


def test_content_is_kept_for_whom_it_is_declared_masked_and_sealed(store, tmp_path):
    flagged = (Ruling(guard="outlier", action="flag"),)

    async def run():
        log = trail_of(store, content="flagged")
        await log.append(record(1, at=time.time_ns()), b"usual input")
        await log.append(record(2, at=time.time_ns(), rulings=flagged), b"strange input")
        await log.close()

    asyncio.run(run())
    strange, usual = found(store)
    assert usual.content == ""
    with store.reading() as reading:
        assert unseal(reading, strange.content) == b"STRANGE INPUT"
    assert b"STRANGE" not in (tmp_path / "audit.db").read_bytes() + (tmp_path / "audit.db-wal").read_bytes()
    assert report(store).problems == ()


def test_content_that_finds_no_room_shuts_nobody_out(store):
    much = b"x" * (5 << 20)

    async def run():
        log = trail_of(store, content="all", queue_bytes=8 << 20)
        first = log.append(record(1, at=time.time_ns()), much)
        with pytest.raises(StoreError, match="1 audit records of 52"):
            log.append(record(2, at=time.time_ns()), much)
        await first
        await log.append(record(3, at=time.time_ns()), much * 2)  # nobody waits: there is room for any
        await log.close()

    asyncio.run(run())
    gap, *others = found(store, operation="audit.gap")
    assert (gap.rows, others) == (1, [])
    kept = [one.content for one in found(store) if one.id != gap.id]
    with store.reading() as reading:
        assert sorted(len(unseal(reading, name)) for name in kept) == [len(much), 2 * len(much)]


def test_what_was_answered_is_kept_though_the_mode_changed_before_it_could_not_be_written(store, monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.02)

    def failing(*_, **__):
        raise StoreError("the disk is full")

    async def run():
        log = trail_of(store, mode="fast", linger_ms=1)
        with monkeypatch.context() as broken:
            broken.setattr(log._writer, "write", failing)
            assert log.append(record(1)) is None
            log.adopt(AuditSettings(mode="durable"), lambda text: text)
            await until(lambda: log.trouble)
        await until(lambda: not log.trouble)
        await log.close()

    asyncio.run(run())
    assert found(store, id=record(1).id)
    assert not found(store, operation="audit.gap")


def test_a_switch_that_could_not_be_recorded_is_recorded_with_the_next_request(store, monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.audit.trail.RETRY_SECONDS", 0.02)

    def failing(*_, **__):
        raise StoreError("the disk is full")

    async def run():
        log = trail_of(store)
        await log.append(record(1))
        with monkeypatch.context() as broken:
            broken.setattr(log._writer, "put", failing)
            with pytest.raises(StoreError, match="full"):
                await log.append(record(2, configuration="c" * 64))
        await until(lambda: not log.trouble)
        await log.append(record(3, configuration="c" * 64))
        await log.close()

    asyncio.run(run())
    [switch] = found(store, operation="gateway.configuration")
    assert switch.configuration == "c" * 64
    [gap] = found(store, operation="audit.gap")
    assert gap.rows == 1


def test_content_is_not_kept_unless_it_is_declared(store):
    async def run():
        log = trail_of(store)
        await log.append(record(2, rulings=(Ruling(guard="outlier", action="refuse"),)), b"strange input")
        await log.close()

    asyncio.run(run())
    assert found(store)[0].content == ""


def test_a_record_without_measure_is_refused(store):
    async def run():
        log = trail_of(store)
        with pytest.raises(StoreError, match="too long"):
            log.append(record(1, reasons=("x" * 100_000,)))
        await log.close()

    asyncio.run(run())
    assert RETRY_SECONDS < 1


def test_a_switch_stands_before_the_first_request_under_it(store):
    async def run():
        log = trail_of(store)
        for number, (configuration, digest) in enumerate([("b", "a"), ("b", "a"), ("c", "a"), ("c", "d"), ("b", "d")]):
            made = record(number + 1, configuration=configuration * 64, model_digest=digest * 64)
            await log.append(made)
            if number == 3:  # one that was read before the switches ends after them
                await log.append(record(1, configuration="b" * 64, model_digest="a" * 64))
        await log.append(record(9, configuration="b" * 64, model_digest="", status=404))
        await log.close()

    asyncio.run(run())
    told = [
        (one.operation, (one.model_digest if one.operation == "gateway.model" else one.configuration)[:1])
        for one in reversed(found(store))
    ]
    assert told == [
        ("infer", "b"),
        ("infer", "b"),
        ("gateway.configuration", "c"),
        ("infer", "c"),
        ("gateway.model", "d"),
        ("infer", "c"),
        ("infer", "b"),
        ("gateway.configuration", "b"),
        ("infer", "b"),
        ("infer", "b"),
    ]
