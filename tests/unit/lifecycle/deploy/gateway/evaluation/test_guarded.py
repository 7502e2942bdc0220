"""A model behind guards, as an attacker meets it."""

from __future__ import annotations

import numpy as np

from bartizan.adapters.callable_target import CallableTarget
from bartizan.lifecycle.deploy.gateway.evaluation.guarded import Guarded, Manner
from bartizan.lifecycle.deploy.gateway.evaluation.remembered import Remembered
from bartizan.lifecycle.deploy.gateway.guard import Answer
from bartizan.lifecycle.deploy.gateway.pipeline import Pipeline
from bartizan.targets.detail import Detail
from bartizan.targets.feasible import image_space


class Counting:
    """Scores of two classes by the first column; counts the rows that it is asked about."""

    def __init__(self):
        self.rows = 0

    def __call__(self, rows):
        self.rows += len(rows)
        return np.stack([1 - rows[:, 0], rows[:, 0]], axis=1)


def front(model, detail="scores", **more):
    target = CallableTarget(model, features=4, classes=2, answers="scores")
    return Guarded(target, lambda: Pipeline([]), Detail(detail), **more)


ROWS = np.array([[0.1, 0, 0, 0], [0.9, 0, 0, 0], [0.1, 0, 0, 0]])


def test_without_guards_it_answers_what_the_model_does():
    served = front(Counting())
    assert served.labels(ROWS).tolist() == [0, 1, 0]
    np.testing.assert_allclose(served.scores(ROWS)[:, 1], [0.1, 0.9, 0.1])
    assert (served.asked, served.shown) == (6, 6)
    assert served.labels(ROWS[:0]).shape == (0,)


def test_the_detail_is_what_comes_back():
    rows = np.array([[0.234567, 0, 0, 0]])
    assert abs(front(Counting(), "rounded-scores").scores(rows)[0, 1] - 0.23) < 1e-6


def test_one_memory_serves_many_attacks_and_the_model_is_asked_once_about_a_row():
    model = Counting()
    memory = Remembered(CallableTarget(model, features=4, classes=2, answers="scores"))
    for _ in range(3):
        served = front(model, memory=memory)
        assert served.labels(ROWS).tolist() == [0, 1, 0]
        np.testing.assert_allclose(served.scores(ROWS)[:, 1], [0.1, 0.9, 0.1])
    assert model.rows <= 3  # the repeat within one question may be asked along
    assert isinstance(memory.answer(ROWS), Answer)


def test_noise_is_what_the_model_is_asked_about_and_stays_within_what_can_be():
    seen = []

    def model(rows):
        seen.append(rows)
        return np.stack([1 - rows[:, 0], rows[:, 0]], axis=1)

    served = front(model, manner=Manner("noise", noise=0.5), space=image_space((1, 2, 2)), seed=3)
    served.labels(ROWS)
    (asked,) = seen
    assert (asked != ROWS).any()
    assert asked.min() >= 0
    assert asked.max() <= 1


class Unsure:
    """A pipeline that makes scores less sure, as the guard for outliers does."""

    def before(self, asked, passage):
        """Let everything by."""

    def after(self, asked, answer, passage):
        """Halfway to nothing known."""
        del asked, passage
        answer.scores = (answer.scores + 0.5) / 2


def test_scores_that_a_guard_changed_are_what_the_attacker_sees():
    target = CallableTarget(Counting(), features=4, classes=2, answers="scores")
    served = Guarded(target, Unsure, Detail("scores"))
    np.testing.assert_allclose(served.scores(ROWS)[:, 1], [0.3, 0.7, 0.3])
    np.testing.assert_allclose(served.scores(ROWS)[:, 1], [0.3, 0.7, 0.3])  # what is remembered stays as it was
