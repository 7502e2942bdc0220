from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from bartizan.core.errors import BudgetError, WorkError
from bartizan.redteam import engine as engine_module
from bartizan.redteam.attack import Fit, Query
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.family import ask
from bartizan.redteam.ledger import Budget
from bartizan.targets.protocol import Access
from fixtures.victims import Victim

SCORES = frozenset({Access.LABELS, Access.SCORES})


def positive(rows):
    return rows[:, 0] > 0


def victim():
    return Victim(answer=positive, features=2)


def tree():
    rows = np.random.default_rng(0).normal(size=(50, 2))
    return Victim(DecisionTreeClassifier(random_state=0).fit(rows, rows[:, 0] > 0))


def rows_of(*values):
    return np.array([[value, 0.0] for value in values]).reshape(-1, 2)


def query(*values, sample=0, **more):
    return Query(rows_of(*values), np.full(len(values), sample), **more)


def each(requests):
    """Ask one after the other; returns the answers."""
    answers = []
    for request in requests:
        answer = yield request
        answers.append(answer if isinstance(answer, int) else answer.tolist())
    return answers


def run_of(search, *, samples=1, per_sample=100, needs=frozenset({Access.LABELS}), **more):
    return Run(search, budget=Budget(samples=samples, per_sample=per_sample, **more), needs=needs)


def test_an_attack_is_told_what_it_asked_and_its_result_is_kept():
    def search():
        first = yield query(1, -1)
        second = yield query(3)
        return first.tolist(), second.tolist()

    run = run_of(search())
    Engine(victim()).drive([run])
    assert run.candidates == ([1, 0], [1])
    assert (run.ledger.queries, run.ledger.calls, run.stopped) == (3, 2, "")


def test_what_several_attacks_ask_goes_out_in_one_call_and_comes_back_apart():
    def search(*values):
        return each(query(value, -value) for value in values)

    target = victim()
    runs = [run_of(search(1, -2, 3)), run_of(search(-1)), run_of(search(5, 5))]
    Engine(target).drive(runs)
    assert [run.candidates for run in runs] == [[[1, 0], [0, 1], [1, 0]], [[0, 1]], [[1, 0], [1, 0]]]
    assert (target.calls, target.rows) == (3, 12)
    assert [run.ledger.calls for run in runs] == [3, 1, 2]


def test_a_large_question_is_asked_in_calls_of_bounded_size():
    def search():
        return (yield ask(rows_of(*range(-5, 6))))

    target = victim()
    run = run_of(search())
    Engine(target, max_call_rows=4).drive([run])
    assert run.candidates.tolist() == [0] * 6 + [1] * 5
    assert (target.calls, run.ledger.calls) == (3, 3)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), max_size=20), st.integers(0, 15))
def test_no_attack_gets_one_answer_more_than_it_may_have(batches, per_sample):
    answered = []

    def greedy():
        for batch in batches:
            sample = np.array(batch)
            try:
                yield Query(np.column_stack([sample, sample]).astype(float), sample)
            except BudgetError:
                continue
            answered.extend(batch)
        return "done"

    run, target = run_of(greedy(), samples=3, per_sample=per_sample), victim()
    Engine(target).drive([run])
    assert np.bincount(answered, minlength=3).max() <= per_sample
    assert target.rows == run.ledger.queries == len(answered)
    assert run.candidates == "done"


def test_an_attack_that_catches_the_end_of_its_budget_hands_over_what_it_has():
    def search():
        best = 0
        try:
            while True:
                yield query(1, 1, 1)
                best += 3
        except BudgetError:
            return best

    run = run_of(search(), per_sample=10)
    Engine(victim()).drive([run])
    assert run.candidates == 9
    assert "has 1 of 10 queries left and 3 more were asked for" in run.stopped


def test_an_attack_that_does_not_catch_it_ends_without_candidates():
    def search():
        while True:
            yield query(1)

    run = run_of(search(), per_sample=10)
    Engine(victim()).drive([run])
    assert run.candidates is None
    assert run.ledger.queries == 10
    assert "0 of 10 queries left" in run.stopped


def test_an_attack_that_never_stops_asking_for_too_much_is_ended():
    def search():
        while True:
            try:
                yield query(1)
            except BudgetError:
                continue

    with pytest.raises(WorkError, match="refused 100 times and asks on"):
        Engine(victim()).drive([run_of(search(), per_sample=1)])


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (query(1, scores=True), "asks for scores but declares that it needs labels only"),
        (query(1, model=3), "asks model 3, which it never fitted"),
        (Query(np.ones((2, 3)), np.zeros(2, int)), r"array \(2, 3\); rows have 2 features"),
        (Query(np.ones((2, 2)), np.zeros(3, int)), r"array \(2, 2\)"),
        (query(np.nan), "asks about a row that is not finite"),
    ],
)
def test_an_attack_that_breaks_the_rules_is_stopped(request_, fault):
    def search():
        yield request_

    with pytest.raises(WorkError, match=fault):
        Engine(victim()).drive([run_of(search())])


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda rows: np.full(len(rows), 2), "no class or no number"),
        (lambda rows: np.full(len(rows), -1), "no class or no number"),
        (lambda rows: np.zeros(len(rows) + 1), r"answers 1 rows with an array \(2,\)"),
    ],
)
def test_a_target_that_answers_nonsense_is_not_believed(answer, fault):
    def search():
        yield query(1)

    with pytest.raises(WorkError, match=fault):
        Engine(Victim(answer=answer, features=2)).drive([run_of(search())])


def test_an_empty_question_is_answered_without_a_call():
    def search():
        labels = yield query()
        scores = yield query(scores=True)
        return labels.shape, scores.shape

    target, run = tree(), run_of(search(), needs=SCORES)
    Engine(target).drive([run])
    assert (run.candidates, target.calls) == (((0,), (0, 2)), 0)


def test_a_fitted_model_is_asked_by_its_handle_and_costs_no_queries():
    rows = np.random.default_rng(0).normal(size=(60, 2))

    def search():
        upright = yield Fit(rows, (rows[:, 0] > 0).astype(int), seed=1)
        inverted = yield Fit(rows, (rows[:, 0] < 0).astype(int), seed=2)
        answers = yield from each(query(2, -2, model=model) for model in (upright, inverted))
        return (upright, inverted), answers

    target = tree()
    run = run_of(search(), fits=2)
    Engine(target).drive([run])
    assert run.candidates == ((1, 2), [[1, 0], [0, 1]])
    assert (run.ledger.queries, run.ledger.own_queries, run.ledger.fits) == (0, 4, 2)
    assert (target.fits, target.rows) == ([1, 2], 0)


def test_a_model_that_nobody_asks_is_not_trained():
    rows = np.random.default_rng(0).normal(size=(60, 2))

    def search():
        return (yield Fit(rows, (rows[:, 0] > 0).astype(int), seed=1))

    target, run = tree(), run_of(search(), fits=1)
    Engine(target).drive([run])
    assert (run.candidates, target.fits) == (1, [])


def test_training_runs_beyond_the_budget_are_refused_like_queries():
    rows = np.random.default_rng(0).normal(size=(60, 2))

    def search():
        handles = []
        try:
            while True:
                handles.append((yield Fit(rows, (rows[:, 0] > 0).astype(int), seed=len(handles))))
        except BudgetError:
            return handles

    run = run_of(search(), fits=3)
    Engine(tree()).drive([run])
    assert run.candidates == [1, 2, 3]


def test_old_models_are_let_go_and_come_back_the_same(monkeypatch):
    monkeypatch.setattr(engine_module, "KEPT_MODELS", 2)
    rng = np.random.default_rng(0)
    rows, probe = rng.normal(size=(60, 2)), rng.normal(size=(40, 2))

    def search():
        handles = yield from each(Fit(rows, rng.integers(0, 2, 60), seed=seed) for seed in range(4))
        first = yield from each(ask(probe, model=handle) for handle in handles)
        again = yield from each(ask(probe, model=handle) for handle in handles)
        return first, again

    target, run = tree(), run_of(search(), fits=4)
    Engine(target).drive([run])
    first, again = run.candidates
    assert first == again
    assert target.fits == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_measurement_may_ask_the_models_of_the_attack_without_a_budget():
    rows = np.random.default_rng(0).normal(size=(60, 2))

    def search():
        handle = yield Fit(rows, (rows[:, 0] < 0).astype(int), seed=1)
        yield query(1, 2, 3)
        return handle

    def measure(run):
        stolen = yield ask(rows_of(2, -2), model=run.candidates)
        real = yield ask(rows_of(2, -2), scores=True)
        return stolen.tolist(), real.argmax(axis=1).tolist()

    engine = Engine(tree())
    run = run_of(search(), per_sample=3, fits=1)
    engine.drive([run])
    measuring = run.measuring(measure(run))
    engine.drive([measuring])
    assert measuring.candidates == ([0, 1], [1, 0])
    assert run.ledger.queries == 3


def test_a_watch_sees_what_the_victim_was_asked_and_in_what_order():
    class Watch:
        def __init__(self):
            self.seen = []

        def see(self, query, answer, ordinal):
            self.seen.append((query.rows[:, 0].tolist(), answer.tolist(), ordinal.tolist()))

    def search():
        yield Query(rows_of(1, -1, 2), np.array([0, 1, 0]))
        yield Query(rows_of(-3, 3), np.array([0, 1]))

    watch = Watch()
    Engine(victim()).drive([Run(search(), budget=Budget(samples=2, per_sample=9), watch=watch)])
    assert watch.seen == [([1, -1, 2], [1, 0, 1], [1, 1, 2]), ([-3, 3], [0, 1], [3, 2])]


def test_progress_tells_queries_spent_and_allowed():
    told = []

    def search():
        yield query(1, 2)
        yield query(3)

    engine = Engine(victim(), progress=lambda *words: told.append(words))
    engine.drive([run_of(search(), per_sample=5)], "walking")
    assert told == [(2, 5, "walking"), (3, 5, "walking")]


def test_scores_and_labels_are_asked_apart():
    def search(*, scores):
        return (yield query(1, -1, scores=scores))

    target = tree()
    runs = [run_of(search(scores=True), needs=SCORES), run_of(search(scores=False), needs=SCORES)]
    Engine(target).drive(runs)
    assert [run.candidates.shape for run in runs] == [(2, 2), (2,)]
