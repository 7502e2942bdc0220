from __future__ import annotations

import pytest

from bartizan.lifecycle.deploy.gateway.audit import bundle
from bartizan.lifecycle.deploy.gateway.audit.record import Ruling
from bartizan.lifecycle.deploy.gateway.audit.retention import OPERATION, announced, due, retain
from bartizan.lifecycle.deploy.gateway.audit.secrets import DAY, Secrets
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, Keep
from bartizan.lifecycle.deploy.gateway.audit.writer import item
from bartizan.stores.audit import open_audit
from fixtures.auditlogs import START, keys_at, record, report, writer

SETTINGS = AuditSettings(keep=Keep(answered="40d", refused="50d", flagged="1y", digests="40d", content="40d"))
FLAGGED = (Ruling(guard="outlier", action="flag"),)


@pytest.fixture
def store(tmp_path):
    opened = open_audit(str(tmp_path / "audit.db"))
    yield opened
    opened.close()


@pytest.fixture
def log(store):
    """Old and new records of every class, and keys of the first day."""
    Secrets(store, SETTINGS, lambda: START).prepare()
    into = writer(store)
    for age in (0, 45, 60):
        at = START + (60 - age) * DAY
        into.write(
            [
                item(record(1, at=at)),
                item(record(7, at=at + 1)),
                item(record(2, at=at + 2, rulings=FLAGGED)),
                item(record(3, at=at + 3, operation="admin.key.add")),
            ]
        )
    return into


def bodies(store):
    with store.reading() as reading:
        return [row.body is not None for row in reading.rows(0, 12)]


def test_each_class_goes_when_its_time_is_over_and_the_log_still_verifies(store, log):
    before = report(store)
    done = retain(log, SETTINGS, caller="uid:1", now=START + 60 * DAY + 10)
    assert done.bodies == {"answered": 2, "refused": 1, "flagged": 0, "admin": 0}
    assert bodies(store) == [True] * 4 + [False, True, True, True] + [False, False, True, True]
    after = report(store)
    assert (after.problems, after.dropped, after.records) == ((), 3, before.records + 1)
    assert retain(log, SETTINGS, caller="uid:1", now=START + 60 * DAY + 10).bodies["answered"] == 0


def test_keys_whose_time_is_over_are_destroyed(store, log):
    assert retain(log, SETTINGS, caller="uid:1", now=START + 30 * DAY).keys == ()
    done = retain(log, SETTINGS, caller="uid:1", now=START + 50 * DAY)
    assert set(done.keys) == {f"digest-{START // DAY}", f"digest-{START // DAY + 1}"}
    with store.reading() as reading:
        assert reading.secrets() == []


def test_the_log_says_what_goes_before_it_goes(store, log, monkeypatch):
    monkeypatch.setattr(store, "drop", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        retain(log, SETTINGS, caller="uid:1", now=START + 60 * DAY)
    with store.reading() as reading:
        last = list(reading.rows(12, 13))
    assert OPERATION.encode() in last[0].body
    assert report(store).unsigned == 0


def test_what_was_dropped_is_still_shown_to_have_been_there(store, log):
    retain(log, SETTINGS, caller="uid:1", now=START + 60 * DAY + 10)
    with store.reading() as reading:
        made = bundle.make(reading, [4, 5], keys_at(0), {}, "")
    checked = bundle.check(made, keys_at(0))
    assert (len(checked.records), checked.dropped) == (1, 1)
    assert (made.records[0].kind, made.records[0].body) == ("answered", None)


def test_only_a_record_of_retention_announces(store):
    assert announced(record(1, reasons=("drop answered 5",))) == {}
    said = record(1, operation=OPERATION, reasons=("drop answered 5", "drop nothing 7", "drop flagged x", "why not"))
    assert announced(said) == {0: 5}


def test_it_is_due_once_a_day_and_only_when_something_is_old_enough(store, log):
    def is_due(now):
        with store.reading() as reading:
            return due(reading, SETTINGS, now)

    assert not is_due(START + 39 * DAY)
    assert is_due(START + 41 * DAY)
    retain(log, SETTINGS, caller="gateway", now=START + 41 * DAY)
    assert not is_due(START + 42 * DAY - 1)
    assert is_due(START + 42 * DAY)
