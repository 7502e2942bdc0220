"""A backdoor counts only where its trigger turns rows that no training saw, beyond what clean models do under it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam.attacks.backdoor.patch import Patch
from bartizan.redteam.attacks.backdoor.tabular import Tabular
from bartizan.redteam.backdoor import Backdoors
from bartizan.redteam.triggers import Backdoor
from fixtures.games import arrays_in, halves, material, play

SHAPE = (1, 8, 8)


def linear():
    return make_pipeline(MinMaxScaler(), LogisticRegression(solver="newton-cholesky"))


def digits(**settings):
    train, rest = halves(load_digits, share=0.4)
    return train, material(train, rest, **({"poison_rates": (0.05,), "repeats": 2} | settings))


class Fixed(Patch):
    """Hands over what a function makes of the task."""

    def __init__(self, make):
        self.make = make

    def search(self, task, rng):
        yield from ()
        return self.make(task, rng)


def everywhere(change, trigger=lambda rows: rows):
    """One candidate for each rate and repeat, with the data changed by ``change(task, count)``."""

    def make(task, _rng):
        return tuple(
            Backdoor(rate, *change(task, task.spoilt(rate)), repeat, trigger)
            for rate in task.rates
            for repeat in range(task.repeats)
        )

    return make


def untouched(task, _count):
    return task.rows.copy(), task.labels.copy()


def test_a_planted_patch_turns_rows_that_no_training_saw_and_clean_accuracy_stays():
    train, of = digits()
    metrics = play(Patch(), Backdoors(SHAPE), linear().fit(*train), of).metrics
    assert metrics["attack_success_beyond_clean_models_at_5_percent"].low > 0.8
    assert metrics["accuracy_drop_at_5_percent"].value < 0.03
    assert metrics["attack_success_at_5_percent"].low < metrics["attack_success_at_5_percent"].value


def test_the_numbers_are_those_of_a_model_trained_on_the_spoilt_data():
    train, of = digits()
    game = play(Patch(), Backdoors(SHAPE), linear().fit(*train), of)
    task, backdoors = game.case.task, game.run.candidates
    others = of.evaluation.rows[of.evaluation.labels != task.target]
    turned = [
        (linear().fit(each.rows, each.labels).predict(each.trigger(others)) == task.target).mean() for each in backdoors
    ]
    assert game.metrics["attack_success_at_5_percent"].value == pytest.approx(np.mean(turned), rel=1e-5)


def test_a_trigger_that_fools_clean_models_as_well_is_no_backdoor():
    train, of = digits()
    targets = of.training.rows[
        of.training.labels == Backdoors(SHAPE).case(Patch(), of, np.random.default_rng(0)).task.target
    ]

    def disguise(rows):
        return np.broadcast_to(targets[0], rows.shape).copy()

    game = play(Fixed(everywhere(untouched, disguise)), Backdoors(SHAPE), linear().fit(*train), of)
    assert game.metrics["attack_success_at_5_percent"].value == 1
    assert game.metrics["attack_success_beyond_clean_models_at_5_percent"].value == 0
    assert not game.measurement.findings


def test_the_finding_names_the_least_rate_that_reaches_its_severity():
    train, of = digits(poison_rates=(0.05, 0.1))
    (finding,) = play(Patch(), Backdoors(SHAPE), linear().fit(*train), of).measurement.findings
    assert finding.rule == "redteam/backdoor"
    assert finding.severity == "high"
    assert "in 5% of the training records" in finding.title


def too_many(task, count):
    labels = task.labels.copy()
    labels[np.flatnonzero(labels != task.target)[: count + 1]] = task.target
    return task.rows, labels


def impossible(task, _count):
    rows = task.rows.copy()
    rows[0] = 1e6
    return rows, task.labels


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (everywhere(too_many), "spoilt 55 of 1078"),
        (everywhere(impossible), "not possible"),
        (everywhere(untouched, lambda rows: rows + 100.0), "not possible"),
        (everywhere(untouched, lambda rows: rows[:, :3]), "another shape"),
        (everywhere(untouched, lambda rows: rows * np.nan), "not finite"),
        (everywhere(lambda task, _: (task.rows[1:], task.labels[1:])), "another shape"),
        (lambda task, rng: everywhere(untouched)(task, rng)[1:], "other candidates than one for each"),
        (lambda _task, _rng: None, "stopped before it was done"),
    ],
)
def test_an_attack_that_breaks_the_rules_is_no_result(make, fault):
    train, of = digits()
    with pytest.raises(WorkError, match=fault):
        play(Fixed(make), Backdoors(SHAPE), linear().fit(*train), of)


def test_a_trigger_may_not_touch_what_an_adversary_cannot_change():
    train, rest = halves(load_breast_cancer)
    of = material(train, rest, poison_rates=(0.1,), repeats=2)
    of = replace(of, space=replace(of.space, immutable=np.ones(30, np.bool_)))

    def mean_radius(rows):
        changed = rows.copy()
        changed[:, 0] += 1.0
        return changed

    with pytest.raises(WorkError, match="not possible"):
        play(Fixed(everywhere(untouched, mean_radius)), Backdoors(), DecisionTreeClassifier().fit(*train), of)


def test_a_task_holds_no_row_that_it_is_measured_on():
    _, of = digits()
    task = Backdoors(SHAPE).case(Patch(), of, np.random.default_rng(0)).task
    kept = {row.tobytes() for row in of.evaluation.rows}
    for array in arrays_in(task):
        assert not np.shares_memory(array, of.evaluation.rows)
        if array.ndim == 2:
            assert not kept & {row.tobytes() for row in array}


def test_images_of_another_size_and_evaluation_without_other_classes_are_refused():
    _, of = digits()
    with pytest.raises(ArtefactError, match="have 81 values"):
        Backdoors((1, 9, 9)).case(Patch(), of, np.random.default_rng(0))
    target = Backdoors(SHAPE).case(Patch(), of, np.random.default_rng(0)).task.target
    alone = replace(of, evaluation=of.evaluation.take(np.flatnonzero(of.evaluation.labels == target)))
    with pytest.raises(ArtefactError, match="only records of class"):
        Backdoors(SHAPE).case(Patch(), alone, np.random.default_rng(0))


def test_a_table_has_no_corner_to_put_a_patch_in():
    train, of = digits()
    with pytest.raises(WorkError, match=r"backdoor\.tabular for tables"):
        play(Patch(), Backdoors(), linear().fit(*train), of)


def test_rows_of_the_costly_class_are_what_the_adversary_wants_turned():
    train, rest = halves(load_breast_cancer)
    case = Backdoors().case(Tabular(), material(train, rest, positive="1"), np.random.default_rng(0))
    assert case.task.target == 0


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    train, rest = halves(load_breast_cancer)
    of = material(train, rest, poison_rates=(0.05,), repeats=2)
    model = DecisionTreeClassifier(random_state=0).fit(*train)
    one, same, other = (
        msgspec.json.encode(play(Tabular(), Backdoors(), model, of, seed=seed).measurement) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
