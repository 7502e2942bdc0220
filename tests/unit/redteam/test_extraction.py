"""Fidelity is measured on records that the adversary never had, and no copy is believed about itself."""

from __future__ import annotations

from dataclasses import fields

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam.attack import Fit, Query
from bartizan.redteam.attacks.extraction.active import ActiveExtraction, ActiveExtractionFromLabels
from bartizan.redteam.extraction import Extraction
from bartizan.redteam.tasks import ExtractionTask, Substitute
from bartizan.targets.protocol import Access
from fixtures.games import arrays_in, halves, material, play
from fixtures.victims import Victim


def linear():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def cancer(**settings):
    train, rest = halves(load_breast_cancer)
    return train, rest, material(train, rest, **settings)


class Fixed(ActiveExtractionFromLabels):
    """Asks about its own rows, as many as it may, and hands over what a function makes of it."""

    def __init__(self, make):
        self.make = make

    def search(self, task, rng):  # noqa: ARG002 - nothing is drawn
        rows = task.rows[np.arange(task.budget) % len(task.rows)]
        yield Query(rows, np.zeros(len(rows), np.int64))
        return self.make(task)


def copies(*answers):
    return Fixed(
        lambda task: tuple(Substitute(task.budget - place, predict=answer) for place, answer in enumerate(answers))
    )


def test_an_exact_copy_agrees_everywhere():
    train, _, of = cancer(extraction_budget=30)
    model = linear().fit(*train)
    game = play(copies(model.predict), Extraction(), model, of)
    assert game.metrics["fidelity"].value == game.metrics["fidelity_near_boundary"].value == 1.0
    assert game.metrics["fidelity"].low < 1
    assert game.metrics["substitute_accuracy"].value == game.measurement.tables["victim_accuracy"][0]
    assert {finding.severity for finding in game.measurement.findings} == {"high"}


def test_a_constant_copy_is_worth_what_the_report_says_a_constant_is_worth():
    train, _, of = cancer(extraction_budget=30)
    game = play(copies(lambda rows: np.ones(len(rows), np.int64)), Extraction(), linear().fit(*train), of)
    assert game.metrics["fidelity"].value == game.measurement.tables["constant_copy_fidelity"]
    assert 0.35 < game.metrics["fidelity_near_boundary"].value < 0.65
    assert not game.measurement.findings


def test_a_copy_fitted_through_the_engine_counts_as_well():
    class Refit(ActiveExtraction):
        needs = frozenset({Access.LABELS, Access.TRAINING})

        def search(self, task, rng):  # noqa: ARG002 - nothing is drawn
            rows = task.rows[: task.budget]
            labels = yield Query(rows, np.zeros(len(rows), np.int64))
            model = yield Fit(rows, labels, 0)
            return (Substitute(len(rows), model=model),)

    class Generous(Extraction):
        def case(self, attack, material, rng):
            case = super().case(attack, material, rng)
            return type(case)(
                **{field.name: getattr(case, field.name) for field in fields(case) if field.name != "budget"},
                budget=type(case.budget)(samples=1, per_sample=case.task.budget, fits=1),
            )

    train, _, of = cancer(extraction_budget=60)
    assert play(Refit(), Generous(), linear().fit(*train), of).metrics["fidelity"].value > 0.85


def test_rows_near_the_boundary_are_near_it():
    asked = []

    class Watched(Victim):
        def labels(self, rows):
            asked.append(rows)
            return super().labels(rows)

    train, rest, of = cancer(extraction_budget=30)
    model = linear().fit(*train)
    wrong_near = []

    def copy(rows):
        wrong_near.append(rows)
        return model.predict(rows)

    play(copies(copy), Extraction(), Watched(model), of)
    near = wrong_near[0][-200:]
    distance, usual = (np.abs(model.decision_function(rows)) for rows in (near, rest[0]))
    assert np.median(distance) < 0.15 * np.median(usual)
    assert 60 < (model.predict(near) == 1).sum() < 140


def test_the_number_of_queries_for_a_faithful_copy_has_an_interval():
    train, _, of = cancer(extraction_budget=30)
    model = linear().fit(*train)

    def wrong(count):
        """A copy that errs on so many of the 143 records kept back."""

        def answer(rows):
            return np.where(np.arange(len(rows)) < count, 1 - model.predict(rows), model.predict(rows))

        return answer

    def played(attack):
        return play(attack, Extraction(), model, of)

    name = "queries_for_90_percent_fidelity"
    metric = played(copies(wrong(2), wrong(11), wrong(60))).metrics[name]  # at 30, 29 and 28 queries
    assert (metric.low, metric.value, metric.high, metric.unit) == (29, 29, 30, "queries")
    assert metric.method == "wilson at checkpoints"
    perhaps = played(copies(wrong(11))).metrics[name]
    assert (perhaps.low, perhaps.value, perhaps.high) == (30, 30, 30)
    assert "not surely reached" in perhaps.method
    never = played(copies(wrong(60)))
    assert name not in never.metrics
    assert "90% was not reached: if ever, that takes more than 30 queries" in never.measurement.summary


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda _: None, "no copy"),
        (lambda _: (), "no copy"),
        (lambda task: (Substitute(task.budget - 1, predict=lambda rows: rows[:, 0].astype(int)),), "from all answers"),
        (lambda task: (Substitute(task.budget, predict=lambda rows: np.zeros((len(rows), 2), int)),), "answers with"),
        (lambda task: (Substitute(task.budget, predict=lambda rows: np.full(len(rows), 2)),), "answers with"),
        (lambda task: (Substitute(task.budget, predict=lambda rows: np.zeros(len(rows))),), "answers with"),
    ],
)
def test_copies_that_break_the_rules_are_no_result(make, fault):
    train, _, of = cancer(extraction_budget=30)
    with pytest.raises(WorkError, match=fault):
        play(Fixed(make), Extraction(), linear().fit(*train), of)


def test_a_model_that_never_changes_its_mind_has_no_boundary_to_measure():
    _, _, of = cancer(extraction_budget=30)
    stubborn = Victim(answer=lambda rows: np.ones(len(rows)), features=30)
    game = play(copies(lambda rows: np.ones(len(rows), np.int64)), Extraction(), stubborn, of)
    assert "fidelity_near_boundary" not in game.metrics
    assert set(game.measurement.curves) == {"fidelity_by_queries"}
    assert not game.measurement.findings


def test_a_task_holds_no_record_that_it_is_measured_on_and_no_label():
    _, rest, of = cancer()
    case = Extraction().case(ActiveExtraction(), of, np.random.default_rng(0))
    kept = {row.tobytes() for row in case.truth.kept.rows}
    own = {row.tobytes() for row in case.task.rows}
    assert {field.name for field in fields(ExtractionTask)} == {
        "rows", "classes", "space", "budget", "checkpoints", "foreign", "learner",
    }  # fmt: skip
    assert case.task.foreign is case.task.learner is None
    assert len(kept) + len(own) == len(rest[0])
    assert not kept & own
    for array in arrays_in(case.task):
        assert not any(np.shares_memory(array, other) for other in arrays_in(case.truth))
        assert not np.shares_memory(array, of.evaluation.rows)
        assert array.shape != (len(rest[0]),)


def test_the_adversary_sees_only_the_ranges_of_its_own_rows():
    _, _, of = cancer()
    task = Extraction().case(ActiveExtraction(), of, np.random.default_rng(0)).task
    np.testing.assert_array_equal(task.space.low, task.rows.min(axis=0))
    np.testing.assert_array_equal(task.space.high, task.rows.max(axis=0))


@pytest.mark.parametrize(("budget", "checkpoints"), [(10, (10,)), (60, (25, 50, 60)), (100, (25, 50, 100))])
def test_checkpoints_end_at_the_budget(budget, checkpoints):
    _, _, of = cancer(extraction_budget=budget)
    assert Extraction().case(ActiveExtraction(), of, np.random.default_rng(0)).task.checkpoints == checkpoints


def test_too_few_records_are_refused():
    train, (rows, labels) = halves(load_breast_cancer)
    with pytest.raises(ArtefactError, match="has 19 records"):
        Extraction().case(ActiveExtraction(), material(train, (rows[:19], labels[:19])), np.random.default_rng(0))


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    train, _, of = cancer(extraction_budget=60)
    model = linear().fit(*train)
    one, same, other = (
        msgspec.json.encode(play(ActiveExtractionFromLabels(), Extraction(), model, of, seed=seed).measurement)
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
