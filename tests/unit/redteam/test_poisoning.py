"""Poisoning is measured on rows that no training saw, and no attack is believed about how much it spoilt."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam.attacks.poisoning.labelflip import LabelFlip
from bartizan.redteam.poisoning import Poisoning, percent
from bartizan.redteam.tasks import Poison
from fixtures.games import arrays_in, halves, material, play


def neighbours():
    return make_pipeline(StandardScaler(), KNeighborsClassifier())


def cancer(**settings):
    train, rest = halves(load_breast_cancer, share=0.4)
    settings.setdefault("poison_rates", (0.05, 0.2))
    settings.setdefault("positive", "0")
    return train, material(train, rest, **settings)


class Fixed(LabelFlip):
    """Hands over what a function makes of the task."""

    def __init__(self, make):
        self.make = make

    def search(self, task, rng):
        return self.make(task, rng)
        yield


def everywhere(change):
    """One candidate for each rate and repeat, with labels changed by ``change(task, count)``."""

    def make(task, _rng):
        return tuple(
            Poison("fixed", rate, task.rows, change(task, task.spoilt(rate)), repeat)
            for rate in task.rates
            for repeat in range(task.repeats)
        )

    return make


def untouched(task, _count):
    return task.labels.copy()


def missed(task, count):
    """Records of the positive class, in the order of the file."""
    labels = task.labels.copy()
    labels[np.flatnonzero(labels == task.positive)[:count]] = 1 - task.positive
    return labels


def test_clean_labels_cost_nothing_and_the_interval_says_so():
    train, of = cancer()
    metrics = play(Fixed(everywhere(untouched)), Poisoning(), neighbours().fit(*train), of).metrics
    for name in ("accuracy_drop_at_5_percent", "positive_recall_drop_at_20_percent"):
        assert metrics[name].value == 0
        assert metrics[name].low < 0 < metrics[name].high
    assert metrics["clean_accuracy"].value > 0.93


def test_the_numbers_are_those_of_models_trained_on_the_spoilt_data():
    train, of = cancer()
    game = play(Fixed(everywhere(missed)), Poisoning(), neighbours().fit(*train), of)
    task, evaluation = game.case.task, of.evaluation
    clean, spoilt = (neighbours().fit(task.rows, labels) for labels in (task.labels, missed(task, task.spoilt(0.2))))
    positive = evaluation.labels == 0
    drop = clean.score(evaluation.rows, evaluation.labels) - spoilt.score(evaluation.rows, evaluation.labels)
    recall = (spoilt.predict(evaluation.rows[positive]) == 0).mean()
    assert game.metrics["accuracy_drop_at_20_percent"].value == pytest.approx(drop, rel=1e-5)
    curve = game.measurement.curves["positive_recall_by_poison_rate_fixed"]
    assert [point.x for point in curve] == [0.0, 0.05, 0.2]
    assert curve[-1].value == pytest.approx(recall, rel=1e-5)
    assert curve[-1].low < recall < curve[-1].high


def test_the_worst_strategy_counts_with_an_interval_that_pays_for_the_choice():
    train, of = cancer()

    def both(task, rng):
        worse = everywhere(missed)(task, rng)
        return (*worse, *(replace(poison, strategy="idle", labels=task.labels) for poison in worse))

    model = neighbours().fit(*train)
    alone = play(Fixed(everywhere(missed)), Poisoning(), model, of).metrics["positive_recall_drop_at_20_percent"]
    worst = play(Fixed(both), Poisoning(), model, of).metrics["positive_recall_drop_at_20_percent"]
    assert worst.value == alone.value > 0.2
    assert worst.low < alone.low
    assert worst.high >= alone.high
    assert worst.method == "crossed repeats and rows, worst of 2"


def test_findings_name_the_least_rate_that_reaches_their_severity():
    train, of = cancer(poison_rates=(0.02, 0.2, 0.3))
    game = play(Fixed(everywhere(missed)), Poisoning(), neighbours().fit(*train), of)
    by_rule = {finding.rule: finding for finding in game.measurement.findings}
    assert by_rule["redteam/poisoning-targeted"].severity == "high"
    assert "relabelling 20% of" in by_rule["redteam/poisoning-targeted"].title
    assert not play(Fixed(everywhere(untouched)), Poisoning(), neighbours().fit(*train), of).measurement.findings


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (everywhere(lambda task, count: missed(task, count + 1)), "spoilt 18 of 341"),
        (lambda task, rng: everywhere(untouched)(task, rng)[1:], "other candidates than one for each"),
        (lambda task, rng: everywhere(untouched)(task, rng)[:1] * 10, "other candidates than one for each"),
        (everywhere(lambda task, _: task.labels[1:]), "another shape"),
        (lambda _task, _rng: None, "stopped before it was done"),
        (lambda _task, _rng: (), "stopped before it was done"),
    ],
)
def test_an_attack_that_breaks_the_rules_is_no_result(make, fault):
    train, of = cancer()
    with pytest.raises(WorkError, match=fault):
        play(Fixed(make), Poisoning(), neighbours().fit(*train), of)


def test_changed_rows_count_as_spoilt_too():
    def moved(task, rng):
        return tuple(replace(poison, rows=poison.rows + 1.0) for poison in everywhere(untouched)(task, rng))

    train, of = cancer()
    with pytest.raises(WorkError, match="spoilt 341 of 341"):
        play(Fixed(moved), Poisoning(), neighbours().fit(*train), of)


def test_a_task_holds_no_row_that_it_is_measured_on():
    _, of = cancer()
    task = Poisoning().case(LabelFlip(), of, np.random.default_rng(0)).task
    kept = {row.tobytes() for row in of.evaluation.rows}
    for array in arrays_in(task):
        assert not np.shares_memory(array, of.evaluation.rows)
        if array.ndim == 2:
            assert not kept & {row.tobytes() for row in array}


def test_the_rarest_class_is_protected_when_none_is_declared():
    train, rest = halves(load_digits)
    keep = train[1] != 7
    keep[np.flatnonzero(~keep)[:9]] = True
    of = material((train[0][keep], train[1][keep]), rest)
    case = Poisoning().case(LabelFlip(), of, np.random.default_rng(0))
    assert case.task.positive == 7
    assert case.settings["positive_class"] == "7"


def test_evaluation_without_the_protected_class_is_refused():
    train, (rows, labels) = halves(load_digits)
    with pytest.raises(ArtefactError, match="no record of class '3'"):
        Poisoning().case(
            LabelFlip(),
            material(train, (rows[labels != 3], labels[labels != 3]), positive="3"),
            np.random.default_rng(0),
        )


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    train, of = cancer(poison_rates=(0.1,), repeats=2)
    model = DecisionTreeClassifier(random_state=0).fit(*train)
    one, same, other = (
        msgspec.json.encode(play(LabelFlip(), Poisoning(), model, of, seed=seed).measurement) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_no_metric_has_a_dot_in_its_name():
    assert [percent(rate) for rate in (0.02, 0.025, 0.1, 0.001)] == ["2", "2_5", "10", "0_1"]
