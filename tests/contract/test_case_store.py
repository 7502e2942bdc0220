"""What every store of cases promises, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import multiprocessing
import threading

import msgspec
import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.cases import Room, Settled
from bartizan.stores.cases import open_cases
from fixtures.filling import case, fill

ROOM = Room(capacity=5, per_caller=3)


@pytest.fixture
def store(ledger_location):
    opened = open_cases(ledger_location)
    yield opened
    opened.close()


def add(store, number=1, fingerprint="", room=ROOM, **more):
    return store.add(case(number, **more), b"sealed", fingerprint or f"{number:064x}", room)


def settled(verdict="confirm", at=2_000):
    return Settled(at=at, statement="e" * 64, verdict=verdict, reviewer="ann")


def test_a_case_comes_back_as_it_was_kept(store):
    add(store)
    kept = store.find(case().id)
    assert kept.case == case()
    assert (kept.state, kept.content, kept.more) == ("open", b"sealed", 0)
    assert store.find("f" * 32) is None


def test_the_most_urgent_come_first_and_without_content(store):
    for number, due in ((1, 30), (2, 10), (3, 20)):
        add(store, number, caller=f"key:{number}", due=due)
    assert [kept.case.due for kept in store.listed()] == [10, 20, 30]
    assert [kept.case.due for kept in store.listed(due_before=20)] == [10]
    assert [kept.case.due for kept in store.listed(limit=2)] == [10, 20]
    assert store.listed(queue="held") == []
    assert all(kept.content is None for kept in store.listed())


def test_the_same_question_is_the_same_case_as_long_as_it_is_open(store):
    add(store, 1, "f" * 64)
    assert add(store, 2, "f" * 64).case.id == case(1).id
    store.settle(case(1).id, lambda _: settled())
    assert add(store, 3, "f" * 64).case.id == case(3).id


def test_more_of_one_caller_are_counted_and_not_kept(store):
    for number in range(1, 4):
        add(store, number, opened=number)
    for number in range(4, 8):
        assert add(store, number).case.id == case(3).id
    assert store.find(case(3).id).more == 4
    assert len(store.listed()) == 3


def test_a_queue_that_is_full_takes_no_more(store):
    for number in range(1, 6):
        assert add(store, number, caller=f"key:{number}") is not None
    assert add(store, 6, caller="key:6") is None
    assert add(store, 7, caller="key:7", queue="sampled") is not None, "queues are apart"


def test_a_held_case_has_to_be_kept_or_refused(store):
    for number in range(1, 4):
        add(store, number, queue="held")
    assert add(store, 4, queue="held") is None
    later = case(1).due + 1
    assert add(store, 5, queue="held", opened=later) is not None, "what is over frees its place"


def test_a_case_is_decided_once(store):
    add(store)
    decided = store.settle(case().id, lambda kept: settled("change" if kept.case == case() else "reject"))
    assert (decided.state, decided.verdict, decided.reviewer) == ("decided", "change", "ann")
    assert store.find(case().id) == decided
    assert store.find(case().id).decided == 2_000
    with pytest.raises(InputError, match="was decided"):
        store.settle(case().id, lambda _: settled())
    with pytest.raises(InputError, match="was decided"):
        store.settle(case().id, lambda _: settled(), again="a" * 64)
    anew = store.settle(case().id, lambda _: settled("reject"), again="e" * 64)
    assert store.find(case().id).verdict == anew.verdict == "reject"
    with pytest.raises(InputError, match="no case"):
        store.settle("f" * 32, lambda _: settled())


def test_a_decision_that_could_not_be_signed_leaves_the_case_open(store):
    add(store)

    def fails(_):
        raise StoreError("the ledger is out of reach")

    with pytest.raises(StoreError, match="out of reach"):
        store.settle(case().id, fails)
    assert store.find(case().id).state == "open"


def test_two_reviewers_at_once_do_not_both_decide(store, ledger_location):
    add(store)
    other = open_cases(ledger_location)
    begun, go_on, outcomes = threading.Event(), threading.Event(), []

    def slow(_):
        begun.set()
        go_on.wait(20)
        return settled("confirm")

    def second():
        begun.wait(20)
        go_on.set()
        try:
            other.settle(case().id, lambda _: settled("reject"))
        except InputError as error:
            outcomes.append(error.message)

    thread = threading.Thread(target=second)
    thread.start()
    store.settle(case().id, slow)
    thread.join(30)
    other.close()
    assert store.find(case().id).verdict == "confirm"
    assert len(outcomes) == 1
    assert "was decided: confirm" in outcomes[0]


def test_content_is_erased_after_its_time_and_the_case_stays(store):
    add(store, 1, due=10)
    add(store, 2, caller="key:b", due=50)
    add(store, 3, caller="key:c", due=50)
    add(store, 4, caller="key:d", queue="held", due=10)
    store.settle(case(2).id, lambda _: settled(at=5))
    assert store.erase(("flagged", "filtered"), 20) == 2
    assert [store.find(case(number).id).content for number in range(1, 5)] == [None, None, b"sealed", b"sealed"]
    assert store.find(case(1).id).case.content == digest_bytes(b"sealed")
    assert store.erase(("flagged", "filtered"), 20) == 0


def test_erased_content_is_overwritten_in_a_file(tmp_path):
    store = open_cases(str(tmp_path / "cases.db"))
    store.add(case(), b"needle" * 1000, "f" * 64, ROOM)
    store.erase(("flagged",), case().due + 1)
    store.close()
    assert all(b"needle" not in path.read_bytes() for path in tmp_path.iterdir())


def test_queues_are_counted(store):
    add(store, 1, due=10)
    add(store, 2, caller="key:b", due=50)
    add(store, 3, caller="key:c", due=10)
    store.settle(case(3).id, lambda _: settled("change"))
    tally = store.tallies(20)["flagged"]
    assert (tally.open, tally.overdue, tally.decided, tally.changed) == (2, 1, 1, 1)


def test_several_processes_never_keep_more_than_there_is_room_for(ledger_location):
    open_cases(ledger_location).close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(ledger_location, start)) for start in (100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    store = open_cases(ledger_location)
    assert store.tallies(0)["flagged"].open == 25
    store.close()


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database at all\n" * 100)
    for location in (str(tmp_path / "text"), "mysql://x/y", "sqlite://", "://", str(tmp_path)):
        with pytest.raises(StoreError):
            open_cases(location)


def test_a_case_that_was_tampered_with_has_another_digest(store):
    add(store)
    kept = store.find(case().id).case
    assert kept.digest == case().digest
    for change in ({"due": 1}, {"reasons": ()}, {"model": "other"}, {"content": "f" * 64}):
        assert msgspec.structs.replace(kept, **change).digest != kept.digest
