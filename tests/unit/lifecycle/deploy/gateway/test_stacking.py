from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bartizan.core.digest import Digest
from bartizan.core.errors import SandboxError, WorkError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Verdict
from bartizan.lifecycle.deploy.gateway.hosting import Direct, Together, is_row_wise
from bartizan.lifecycle.deploy.gateway.pipeline import SEVERAL, BrokenGuardError, Passage, Pipeline, Placed
from bartizan.lifecycle.deploy.gateway.stacking import MOST_ROWS

SOMEBODY = Caller(id="key:a", role="reader", method="key")
RNG = np.random.default_rng(20261121)


class Model:
    """Three classes of two features; a row with a negative number cannot be answered."""

    dtype, features, classes, scored = np.dtype("<f8"), 2, 3, True

    def __init__(self):
        self.calls = []

    def ask(self, rows, *, scores):
        assert scores
        self.calls.append(len(rows))
        if (rows < 0).any():
            raise WorkError("the model cannot answer these rows")
        logits = rows @ np.arange(6.0).reshape(2, 3)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found = powers / powers.sum(axis=1, keepdims=True)
        return Answer(found.argmax(axis=1), found)


def test_what_is_gathered_is_asked_in_one_call_and_answered_as_if_alone():
    model, alone = Model(), Model()
    host = Direct(model, row_wise=True)
    parts = [RNG.uniform(0, 1, (height, 2)) for height in (1, 3, 1, 7)]
    answers = [give() for give in [host.gather(part) for part in parts]]
    assert model.calls == [12]
    for part, answer in zip(parts, answers, strict=True):
        expected = alone.ask(part, scores=True)
        assert answer.labels.tolist() == expected.labels.tolist()
        assert np.allclose(answer.scores, expected.scores)
        assert answer.microseconds >= 1


def test_rows_that_cannot_be_answered_cost_nobody_else_the_answer():
    model = Model()
    host = Direct(model, row_wise=True)
    gives = [host.gather(np.array([row])) for row in ([0.0, 1.0], [-1.0, 0.0], [1.0, 0.0])]
    assert gives[0]().labels.tolist() == [2]
    with pytest.raises(WorkError):
        gives[1]()
    assert gives[2]().labels.tolist() == [2]
    assert model.calls == [3, 1, 1, 1]


class Mixing(Model):
    """Centres the rows of a call on their mean."""

    def ask(self, rows, *, scores):
        return super().ask(np.abs(rows - rows.mean(axis=0)), scores=scores)


class Choosy(Model):
    """Takes small numbers only."""

    def ask(self, rows, *, scores):
        if (rows > 100).any():
            raise WorkError("there is no such category")
        return super().ask(rows, scores=scores)


class Names(Model):
    """Has labels only."""

    def ask(self, rows, *, scores):
        return Answer(super().ask(rows, scores=scores).labels)


@pytest.mark.parametrize(("model", "expected"), [(Model(), True), (Mixing(), False), (Choosy(), True), (Names(), True)])
def test_a_model_that_mixes_rows_is_known_by_a_few(model, expected):
    assert is_row_wise(model, RNG.uniform(0, 1, (4, 2))) is expected


def test_a_model_that_cannot_be_tried_is_not_put_together():
    assert not is_row_wise(Model(), np.array([[-1.0, 0.0]]))


def test_a_model_whose_process_dies_of_it_is_not_taken_for_one_that_refuses():
    class Dying(Model):
        def ask(self, rows, *, scores):
            del rows, scores
            raise SandboxError("its process is gone")

    with pytest.raises(SandboxError):
        is_row_wise(Dying(), np.ones((1, 2)))


@pytest.mark.parametrize(("row_wise", "calls"), [(True, [6]), (False, [1] * 6)])
def test_what_waits_for_a_slow_model_is_put_together_only_where_that_changes_nothing(row_wise, calls):
    async def run():
        host = Together(model, thread, row_wise=row_wise)
        await asyncio.gather(*(host.answer(np.ones((1, 2)), scores=True) for _ in range(6)))

    model = Model()
    with ThreadPoolExecutor(1) as thread:
        asyncio.run(run())
    assert model.calls == calls


def test_an_error_of_the_library_is_that_of_its_own_request_alone():
    class Library(Model):
        def ask(self, rows, *, scores):
            if (rows > 100).any():
                raise MemoryError
            return super().ask(rows, scores=scores)

    host = Direct(Library(), row_wise=True)
    gives = [host.gather(np.array([row])) for row in ([0.0, 1.0], [101.0, 0.0])]
    assert gives[0]().labels.tolist() == [2]
    with pytest.raises(MemoryError):
        gives[1]()


def test_nothing_is_kept_of_a_request_that_failed():
    class Traced(np.ndarray):
        pass

    host = Direct(Model(), row_wise=True)
    gc.disable()
    try:
        rows = np.array([[-1.0, 0.0]]).view(Traced)
        gone, give = weakref.ref(rows), host.gather(rows)
        with contextlib.suppress(WorkError):
            give()
        del rows, give
        host.gather(np.ones((1, 2)))()
        assert gone() is None
    finally:
        gc.enable()


def test_who_comes_after_the_first_answer_is_asked_for_is_asked_anew_and_stacks_are_bounded():
    model = Model()
    host = Direct(model, row_wise=True)
    first = host.gather(RNG.uniform(0, 1, (1, 2)))
    first()
    second = host.gather(RNG.uniform(0, 1, (1, 2)))
    large = host.gather(RNG.uniform(0, 1, (MOST_ROWS, 2)))
    second(), large()
    assert model.calls == [1, 1, MOST_ROWS]


class Least:
    """Refuses what is below a bound; clears what is not."""

    name, cost = "least", 1.0

    def __init__(self, broken=False):
        self.cleared, self.broken = [], broken

    def on_request(self, asked):
        return Verdict(action=Action.REFUSE, reason="low") if (asked.rows < 0).any() else None

    def on_response(self, asked, answer):
        pass

    def clears(self, rows, most):
        self.cleared.append((len(rows), most))
        if self.broken:
            raise ValueError
        return not (rows < 0).any()


class Doubling:
    """Changes rows, and so has to be asked for each request."""

    name, cost = "doubling", 2.0

    def on_request(self, asked):
        return Verdict(action=Action.ALLOW, rows=asked.rows * 2)

    def on_response(self, asked, answer):
        pass


def asked(rows):
    return Asked(request="1", caller=SOMEBODY, model="m", digest=Digest("a" * 64), rows=rows, now=0.0)


def passed(pipeline, parts):
    """Actions and rows of requests that go through together."""
    requests = [asked(part) for part in parts]
    stacks = [pipeline.gather(each.rows) for each in requests]
    found = []
    for each, stack in zip(requests, stacks, strict=True):
        passage = Passage()
        pipeline.before(each, passage, stack)
        found.append((passage.action, each.rows.tolist()))
    return found


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("low", [(), (1,), (0, 2)])
def test_guards_say_of_many_what_they_say_of_each(low, broken):
    parts = [np.full((1 + place, 2), -1.0 if place in low else 1.0) for place in range(3)]
    guard = Least(broken)
    together = passed(Pipeline([Placed(guard), Placed(Doubling())]), parts)
    alone = []
    for part in parts:
        one, passage = asked(part), Passage()
        Pipeline([Placed(Least()), Placed(Doubling())]).before(one, passage)
        alone.append((passage.action, one.rows.tolist()))
    assert together == alone
    assert guard.cleared == [(6, 3)]


def test_a_guard_that_comes_after_one_that_changes_rows_is_asked_for_each():
    class Late(Least):
        cost = 3.0

    guard = Late()
    pipeline = Pipeline([Placed(guard), Placed(Doubling())])
    assert pipeline.gather(np.ones((1, 2))) is None
    assert passed(pipeline, [np.full((1, 2), -1.0)]) == [(Action.REFUSE, [[-2.0, -2.0]])]
    assert not guard.cleared


def test_a_guard_that_breaks_stops_each_request_by_itself():
    class Broken(Least):
        def on_request(self, asked):
            raise ZeroDivisionError(asked.id)

    pipeline = Pipeline([Placed(Broken(broken=True))])
    one = asked(np.ones((1, 2)))
    with pytest.raises(BrokenGuardError):
        pipeline.before(one, Passage(), pipeline.gather(one.rows))


def test_rows_of_other_kinds_are_looked_at_alone():
    guard = Least()
    pipeline = Pipeline([Placed(guard)])
    parts = [np.ones((1, 2)), np.ones((1, 2), np.float32), np.ones((1, 3))]
    assert [action for action, _ in passed(pipeline, parts)] == [Action.ALLOW] * 3
    assert not guard.cleared


class Foreseeing:
    """Works something out of each row, together with others, and notes what it is given back."""

    name, cost = "foreseeing", 3.0

    def __init__(self, broken=False):
        self.given, self.seen, self.broken = [], [], broken

    def foresee(self, rows):
        self.seen.append(len(rows))
        if self.broken:
            raise ValueError
        return rows.sum(axis=1).tolist()

    def on_request(self, asked):
        self.given.append(asked.ahead(self.name))

    def on_response(self, asked, answer):
        pass


def test_what_a_guard_foresees_of_a_row_is_given_back_with_it():
    guard = Foreseeing()
    passed(Pipeline([Placed(guard)]), [np.full((1, 2), float(place)) for place in range(4)])
    assert guard.seen == [4]
    assert guard.given == [0.0, 2.0, 4.0, 6.0]


def test_requests_of_many_rows_are_not_foreseen_and_do_not_stand_in_the_way():
    guard = Foreseeing()
    passed(Pipeline([Placed(guard)]), [np.full((1 + place % 2, 2), float(place)) for place in range(4)])
    assert guard.seen == [2]
    assert guard.given == [0.0, None, 4.0, None]


def test_nothing_is_foreseen_of_a_request_that_comes_alone():
    guard = Foreseeing()
    passed(Pipeline([Placed(guard)]), [np.ones((1, 2))])
    assert (guard.seen, guard.given) == ([], [None])


def test_a_row_that_was_changed_was_not_foreseen():
    guard = Foreseeing()
    passed(Pipeline([Placed(Doubling()), Placed(guard)]), [np.ones((1, 2))] * 2)
    assert guard.given == [None, None]


def test_what_was_foreseen_is_forgotten_once_the_guards_have_looked():
    pipeline, requests = Pipeline([Placed(Foreseeing())]), [asked(np.ones((1, 2))) for _ in range(2)]
    gathered = [pipeline.gather(each.rows) for each in requests]
    for each, place in zip(requests, gathered, strict=True):
        pipeline.before(each, Passage(), place)
    assert not any(each.foreseen for each in requests)


def test_guards_of_another_model_are_not_given_what_the_first_ones_foresaw():
    first, second = Foreseeing(), Foreseeing()
    requests = [asked(np.ones((1, 2))) for _ in range(2)]
    gathered = [Pipeline([Placed(first)]).gather(each.rows) for each in requests]
    for each, place in zip(requests, gathered, strict=True):
        Pipeline([Placed(first)]).before(each, Passage(), place)
        Pipeline([Placed(second)]).before(each, Passage())
    assert second.given == [None, None]


def test_a_guard_that_cannot_foresee_is_asked_for_each():
    guard = Foreseeing(broken=True)
    found = passed(Pipeline([Placed(guard)]), [np.ones((1, 2))] * 2)
    assert guard.given == [None, None]
    assert [action for action, _ in found] == [Action.ALLOW] * 2


class Foretelling:
    """Works something out of each answer, together with others, and notes what it is given back."""

    name, cost, foretells = "foretelling", 3.0, True

    def __init__(self, broken=False):
        self.given, self.seen, self.broken = [], [], broken

    def foretell(self, labels, scores):
        self.seen.append((labels.tolist(), scores.shape))
        if self.broken:
            raise ValueError
        return [int(label) * 10 for label in labels]

    def on_request(self, asked):
        pass

    def on_response(self, asked, answer):
        del asked
        self.given.append(answer.ahead(self.name))


class Overruling:
    """Says another label, or the same with less confidence."""

    name, cost = "overruling", 1.0

    def __init__(self, **said):
        self.said = said

    def on_request(self, asked):
        pass

    def on_response(self, asked, answer):
        del asked, answer
        return Verdict(action=Action.ALLOW, **self.said)


class Silent(Foretelling):
    """Never has anything to say of an answer, and is not asked."""

    name, cost, foretells, for_requests = "silent", 1.0, False, True


def answered(pipeline, answers, rows=0):
    collected = [pipeline.collect(asked(np.ones((rows or len(answer), 2))), answer) for answer in answers]
    for answer, place in zip(answers, collected, strict=True):
        pipeline.after(asked(np.ones((1, 2))), answer, Passage(), place)


def certain(count, height=1):
    return [Answer(np.full(height, place % 3), np.full((height, 3), 1 / 3)) for place in range(count)]


def test_what_a_guard_foretells_of_an_answer_is_given_back_with_it_and_forgotten():
    guard, silent = Foretelling(), Silent()
    answers = certain(SEVERAL)
    answered(Pipeline([Placed(guard), Placed(silent)]), answers)
    assert guard.given == [place % 3 * 10 for place in range(SEVERAL)]
    assert guard.seen == [([place % 3 for place in range(SEVERAL)], (SEVERAL, 3))]
    assert silent.given == []
    assert {answer.ahead(guard.name) for answer in answers} == {None}


@pytest.mark.parametrize(
    "answers",
    [certain(SEVERAL - 1), certain(SEVERAL, 2), [Answer(np.zeros(1, int)) for _ in range(SEVERAL)]],
    ids=["few", "of several rows", "without scores"],
)
def test_other_answers_are_looked_at_by_themselves(answers):
    guard = Foretelling()
    answered(Pipeline([Placed(guard)]), answers)
    assert (guard.seen, guard.given) == ([], [None] * len(answers))


def test_a_guard_that_cannot_foretell_looks_at_each():
    guard = Foretelling(broken=True)
    answered(Pipeline([Placed(guard)]), certain(SEVERAL))
    assert guard.given == [None] * SEVERAL


@pytest.mark.parametrize("said", [{"labels": np.array([1])}, {"scores": np.full((1, 3), 0.5)}])
@pytest.mark.parametrize("enforce", [True, False])
def test_of_an_answer_that_was_changed_nothing_was_foretold(said, enforce):
    guard = Foretelling()
    answered(Pipeline([Placed(Overruling(**said), enforce=enforce), Placed(guard)]), certain(SEVERAL))
    assert guard.given == ([None] * SEVERAL if enforce else [place % 3 * 10 for place in range(SEVERAL)])


def test_answers_of_models_with_other_classes_are_looked_at_by_themselves():
    guard = Foretelling()
    answered(Pipeline([Placed(guard)]), [*certain(SEVERAL), Answer(np.zeros(1, int), np.full((1, 4), 0.25))])
    assert guard.given == [None] * (SEVERAL + 1)


def test_an_answer_to_fewer_rows_than_were_asked_is_not_put_among_others():
    guard = Foretelling()
    answered(Pipeline([Placed(guard)]), certain(SEVERAL), rows=2)
    assert guard.given == [None] * SEVERAL
