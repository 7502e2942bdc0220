from __future__ import annotations

import pytest

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.audit import searching
from bartizan.lifecycle.deploy.gateway.audit.record import Ruling
from bartizan.lifecycle.deploy.gateway.audit.secrets import Secrets
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings
from bartizan.lifecycle.deploy.gateway.audit.writer import item
from bartizan.stores.audit import open_audit
from fixtures.auditlogs import START, fill, record, writer

COUNT = 900


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    store = open_audit(str(tmp_path_factory.mktemp("audit") / "audit.db"))
    records = fill(store, COUNT)
    into = writer(store)
    rare = record(COUNT, rulings=(Ruling(guard="sequence", action="flag"),), caller="key:rare", id="ours-4711")
    into.write([item(rare)])
    more = [record(COUNT + 1 + number) for number in range(300)]
    into.write([item(one) for one in more])
    with store.reading() as opened:
        yield opened, [*records, rare, *more]
    store.close()


def ids(reading, **query):
    query.setdefault("limit", 10_000)
    return [hit.record.id for hit in searching.search(reading, searching.Query(**query)).found]


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ({"caller": "key:3"}, lambda one: one.caller == "key:3"),
        ({"decision": "refused"}, lambda one: one.decision == "refused"),
        ({"caller": "key:3", "decision": "refused"}, lambda one: one.caller == "key:3" and one.decision == "refused"),
        ({"guard": "sequence"}, lambda one: one.rulings[0].guard == "sequence"),
        ({"kind": "flagged"}, lambda one: one.caller == "key:rare"),
        ({"kind": "refused"}, lambda one: one.decision == "refused" and one.caller != "key:rare"),
        ({"digest": "a" * 64}, lambda _: True),
        ({"model": "another"}, lambda _: False),
        ({"id": "ours-4711"}, lambda one: one.id == "ours-4711"),
        ({"since": START + 5_000_000, "until": START + 400_000_000}, lambda one: 5 <= number(one) < 400),
        ({"since": START + 600_000_000, "caller": "key:1"}, lambda one: number(one) >= 600 and one.caller == "key:1"),
        ({"outputs": (f"1.{77:032x}", f"1.{1111:032x}")}, lambda one: number(one) in {77, 1111}),
        ({"operation": "infer", "before": 100}, lambda one: number(one) < 100),
    ],
)
def test_a_search_finds_exactly_what_holds_newest_first(reading, query, holds):
    opened, records = reading
    assert ids(opened, **query) == [one.id for one in reversed(records) if holds(one)]


def number(one):
    return (one.at - START) // 1_000_000


def test_every_request_is_found_by_its_id(reading):
    opened, records = reading
    for one in records[::97]:
        assert ids(opened, id=one.id) == [one.id]
    assert ids(opened, id="0" * 16 + "-1") == []


def test_a_search_goes_on_where_it_stopped(reading):
    opened, records = reading
    collected, before = [], 0
    while True:
        result = searching.search(opened, searching.Query(caller="key:2", limit=50, before=before))
        collected += [hit.record.id for hit in result.found]
        if result.complete:
            break
        before = result.go_on
    assert collected == [one.id for one in reversed(records) if one.caller == "key:2"]


def test_a_search_is_bounded(reading, monkeypatch):
    opened, records = reading
    monkeypatch.setattr(searching, "MOST_BLOCKS", 2)
    result = searching.search(opened, searching.Query(caller="key:2", limit=10_000))
    assert not result.complete
    assert 0 < len(result.found) < len(records) / 5
    for wrong in ({"limit": 0}, {"limit": 10**9}, {"kind": "none"}):
        with pytest.raises(InputError):
            searching.search(opened, searching.Query(**wrong))


def test_an_answer_leads_to_its_request_as_long_as_the_key_lives(tmp_path):
    store = open_audit(str(tmp_path / "audit.db"))
    secrets = Secrets(store, AuditSettings())
    secrets.prepare()
    body = b'{"outputs":[1]}'
    asked = record(3, output=secrets.keyed(body))
    writer(store).write([item(record(1)), item(asked), item(record(2))])
    with store.reading() as opened:
        query = searching.of_answer(opened, body)
        assert [hit.record for hit in searching.search(opened, query).found] == [asked]
        assert searching.search(opened, searching.of_answer(opened, body + b" ")).found == ()
    with store.reading() as opened:
        names = [secret.name for secret in opened.secrets()]
    store.destroy(names)
    with store.reading() as opened, pytest.raises(InputError, match="no key"):
        searching.of_answer(opened, body)
    store.close()
