"""The victim here says 1 where the first feature is positive, so that every number is known beforehand."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Severity
from bartizan.core.system import Expectation, ModelPart, RedTeam
from bartizan.redteam.attack import Query
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.family import Material
from bartizan.targets.feasible import space_of
from bartizan.targets.protocol import Access
from bartizan.targets.table import Table
from fixtures.victims import Victim, dataset_part

MODEL = ModelPart(
    name="victim",
    path="m",
    task="classification",
    framework="scikit-learn",
    trained_on="train",
    evaluated_on="evaluation",
    classes=("well", "ill"),
    positive="ill",
    uses=(),
    limits="",
    retention="5y",
    destruction="d",
    lifespan="1y",
)


def table(count, seed, wrong=0):
    """Rows whose first feature is the distance to the boundary; the first ``wrong`` labels are not its sign."""
    rows = np.random.default_rng(seed).normal(size=(count, 3))
    labels = (rows[:, 0] > 0).astype(int)
    labels[:wrong] = 1 - labels[:wrong]
    return Table(("a", "b", "c"), rows, labels, ("0", "1"))


def material(evaluation=None, **settings):
    training = table(500, 1)
    settings = {"samples": 80, "query_budget": 100, "max_change": 0.5} | settings
    return Material(
        model=MODEL,
        settings=RedTeam(**settings),
        expected=Expectation(metrics={}, failure_plan="", monitoring=""),
        training=training,
        evaluation=evaluation or table(200, 2, wrong=20),
        space=space_of(dataset_part(), training),
    )


class Attack:
    """An attack that does what a test tells it."""

    name, title, family, technique, atlas = "evasion.told", "Told", "evasion", "T08", ("AML.T0015",)
    needs, position, references = frozenset({Access.LABELS}), "user", ()

    def __init__(self, search):
        self._search = search

    def search(self, task, rng):
        return self._search(task, rng)


def mirrored(task):
    """The nearest rows beyond the boundary."""
    rows = task.rows.copy()
    rows[:, 0] = np.where(rows[:, 0] > 0, -1e-9, 1e-9)
    return rows


def measured(search, given=None, answer=lambda rows: rows[:, 0] > 0, kind=None):
    given, family = given or material(), Evasion()
    attack = (kind or Attack)(search)
    case = family.case(attack, given, np.random.default_rng(0))
    victim = Victim(answer=answer, features=3)
    engine = Engine(victim)
    run = Run(attack.search(case.task, None), budget=case.budget, needs=attack.needs, watch=case.watch)
    engine.drive([run])
    measuring = run.measuring(family.measure(case, run, np.random.default_rng(1)))
    engine.drive([measuring])
    return measuring.candidates, case, victim


def at_once(task, _rng):
    """Ask the nearest rows beyond the boundary once, and hand them over."""
    rows = mirrored(task)
    yield Query(rows, np.arange(len(rows)))
    return rows


def expected_robust(case, bound):
    """Samples that are right and farther from the boundary than the bound."""
    task = case.task
    right = (task.rows[:, 0] > 0) == task.labels
    return right & (np.abs(task.rows[:, 0]) / task.space.scale[0] > bound)


def test_robust_accuracy_is_the_share_that_lies_farther_from_the_boundary():
    found, case, _ = measured(at_once)
    robust = found.metrics["robust_accuracy"]
    assert robust.value == pytest.approx(expected_robust(case, 0.5).mean(), abs=1e-5)
    assert robust.low < robust.value < robust.high
    assert (robust.n, robust.method) == (80, "wilson")
    assert found.metrics["clean_accuracy"].value == 0.9
    assert found.metrics["clean_accuracy"].n == 200


def test_the_median_change_is_that_of_the_rows_that_were_right():
    found, case, _ = measured(at_once)
    task = case.task
    right = (task.rows[:, 0] > 0) == task.labels
    median = np.median(np.abs(task.rows[right, 0]) / task.space.scale[0])
    change = found.metrics["median_change"]
    assert change.value == pytest.approx(median, rel=1e-4)
    assert change.low <= change.value <= change.high
    assert (change.unit, change.method) == ("standard deviations", "bootstrap")


def test_the_curve_over_the_change_falls_and_goes_as_far_as_the_attack_looked():
    found, case, _ = measured(at_once)
    curve = found.curves["robust_accuracy_by_change"]
    assert [point.x for point in curve][:: len(curve) - 1] == [0, 1]
    for point in curve:
        assert point.value == pytest.approx(expected_robust(case, point.x).mean(), abs=1e-5)
        assert point.low <= point.value <= point.high

    def near(task, _rng):
        rows = mirrored(task)
        close = np.abs(task.rows[:, 0]) < 0.4
        yield Query(rows[close], np.flatnonzero(close))

    assert measured(near)[0].curves["robust_accuracy_by_change"][-1].x == 0.5


def test_the_curve_over_the_budget_shows_what_was_known_by_then():
    def late(task, _rng):
        """Waste 20 queries on each row before asking the one that counts."""
        each = np.arange(len(task.rows))
        for _ in range(20):
            yield Query(task.rows, each)
        yield Query(mirrored(task), each)
        return mirrored(task)

    found, case, _ = measured(late)
    right = ((case.task.rows[:, 0] > 0) == case.task.labels).mean()
    curve = {point.x: point.value for point in found.curves["robust_accuracy_by_queries"]}
    assert curve[0] == curve[10] == pytest.approx(right, abs=1e-5)
    assert curve[30] == curve[100] == found.metrics["robust_accuracy"].value < curve[10]


def test_the_confusion_matrix_under_attack_says_which_class_is_answered_for_which():
    found, case, _ = measured(at_once)
    confusion, task = found.tables["confusion"], case.task
    robust = expected_robust(case, 0.5)
    right = (task.rows[:, 0] > 0) == task.labels
    under_attack = np.where(right & ~robust, 1 - task.labels, task.rows[:, 0] > 0)
    expected = np.zeros((2, 2), int)
    np.add.at(expected, (task.labels, under_attack.astype(int)), 1)
    assert confusion["classes"] == ["well", "ill"]
    assert confusion["under_attack"] == expected.tolist()
    assert np.trace(confusion["clean"]) == right.sum()
    assert np.array(confusion["clean"]).sum(axis=1).tolist() == np.bincount(task.labels).tolist()


def test_missed_positives_are_counted_with_and_without_attack():
    found, case, _ = measured(at_once)
    ill = case.task.labels == 1
    assert found.metrics["robust_recall"].value == pytest.approx(expected_robust(case, 0.5)[ill].mean(), abs=1e-5)
    assert found.metrics["clean_recall"].n == (table(200, 2, wrong=20).labels == 1).sum()


@pytest.mark.parametrize(
    "claim",
    [
        lambda task: task.rows,
        lambda task: np.full_like(task.rows, np.nan),
        lambda task: task.rows[:3],
        lambda _: "all of them, believe me",
        lambda _: None,
    ],
    ids=["the rows themselves", "no numbers", "too few", "words", "nothing"],
)
def test_what_an_attack_claims_is_not_believed(claim):
    def liar(task, _rng):
        yield Query(task.rows, np.arange(len(task.rows)))
        return claim(task)

    found, case, _ = measured(liar)
    right = ((case.task.rows[:, 0] > 0) == case.task.labels).mean()
    assert found.metrics["robust_accuracy"].value == pytest.approx(right, abs=1e-5)
    assert found.findings == ()


def test_rows_that_cannot_be_are_no_success():
    """The immutable feature decides, so no possible row fools the victim, whatever the attack asks."""
    given = material()
    space = space_of(dataset_part(immutable=("a",)), given.training)
    given = Material(MODEL, given.settings, given.expected, given.training, given.evaluation, space)
    found, case, _ = measured(at_once, given)
    right = ((case.task.rows[:, 0] > 0) == case.task.labels).mean()
    assert found.metrics["robust_accuracy"].value == pytest.approx(right, abs=1e-5)


def test_what_an_attack_found_counts_even_if_it_hands_over_nothing():
    def forgetful(task, rng):
        yield from at_once(task, rng)

    assert measured(forgetful)[0].metrics == measured(at_once)[0].metrics


def test_a_row_that_fooled_a_fickle_victim_once_must_fool_it_again():
    calls = []

    def fickle(rows):
        calls.append(len(rows))
        honest = rows[:, 0] > 0
        return ~honest if len(calls) == 1 else honest

    def ask_the_rows(task, _rng):
        yield Query(task.rows, np.arange(len(task.rows)))

    found, case, _ = measured(ask_the_rows, answer=fickle)
    right = ((case.task.rows[:, 0] > 0) == case.task.labels).mean()
    assert found.metrics["robust_accuracy"].value == pytest.approx(right, abs=1e-5)


def test_the_adversary_owns_no_row_that_is_attacked_and_never_sees_training():
    given = material()
    case = Evasion().case(Attack(at_once), given, np.random.default_rng(0))
    attacked, owned = ({row.tobytes() for row in rows} for rows in (case.task.rows, case.task.starts))
    training = {row.tobytes() for row in given.training.rows}
    assert (len(attacked), len(owned)) == (80, 120)
    assert not attacked & owned
    assert not (attacked | owned) & training


def test_a_fifth_of_a_small_evaluation_set_is_left_to_start_from():
    case = Evasion().case(Attack(at_once), material(table(10, 3)), np.random.default_rng(0))
    assert (len(case.task.rows), len(case.task.starts)) == (8, 2)
    with pytest.raises(ArtefactError, match="has 1 records, too few"):
        Evasion().case(Attack(at_once), material(table(1, 3)), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("bound", "severity"), [(3.0, Severity.HIGH), (0.5, Severity.MEDIUM), (0.16, Severity.LOW), (0.0001, None)]
)
def test_the_finding_weighs_as_much_as_the_attack_surely_succeeds(bound, severity):
    found, _, _ = measured(at_once, material(max_change=bound))
    assert [finding.severity for finding in found.findings] == ([severity] if severity else [])


def test_the_report_names_records_and_changes_but_no_values():
    found, case, _ = measured(at_once)
    samples = found.tables["samples"]
    assert len(samples) == 80
    first = next(sample for sample in samples if sample["answer"] == sample["class"])
    assert first["record"] in range(200)
    assert first["queries"] == 1
    assert set(first["moved_most"]) == {"a"}
    assert abs(first["moved_most"]["a"]) == pytest.approx(first["change"], rel=1e-4)
    text = json.dumps(msgspec.to_builtins(found.tables))
    assert not any(repr(value) in text for value in case.task.rows[:, 1].tolist())


def test_the_measurement_is_not_charged_to_the_attack():
    _, case, victim = measured(at_once)
    assert case.watch.found.change.size == 80
    # attack; all rows; what was known by 10 and 30 queries, and returned; samples and the last rows twice
    assert victim.rows == 80 + 200 + 80 * 3 + 2 * 2 * 80


class Noisy(Attack):
    """An attack that allows for answers at random."""

    averages = True


@pytest.mark.parametrize(("kind", "low"), [(Attack, 0.0), (Noisy, None)])
def test_of_a_model_that_answers_at_random_nothing_is_claimed_but_by_attacks_that_allow_for_it(kind, low):
    rng = np.random.default_rng(5)

    def coin(rows):
        return (rows[:, 0] + 0.05 * rng.normal(size=len(rows))) > 0

    found, *_ = measured(at_once, answer=coin, kind=kind)
    robust = found.metrics["robust_accuracy"]
    assert (robust.low == 0.0) == (low == 0.0)
    assert ("answers at random" in found.summary) == (low == 0.0)
    assert bool(found.no_claim) == (low == 0.0)


def test_a_budget_that_shows_nothing_leaves_no_claim():
    class Hungry(Attack):
        least = 50

    enough, *_ = measured(at_once, kind=Hungry)
    assert not enough.no_claim
    found, *_ = measured(at_once, material(query_budget=10), kind=Hungry)
    assert found.metrics["robust_accuracy"].low == 0.0
    assert "10 queries a row are fewer than the 50" in found.summary


def test_a_median_that_was_not_reached_and_a_share_of_nothing_are_left_out():
    def ask_the_rows(task, _rng):
        yield Query(task.rows, np.arange(len(task.rows)))

    found, *_ = measured(ask_the_rows)
    assert "median_change" not in found.metrics
    lonely = material(table(200, 3), samples=1)
    found, case, _ = measured(ask_the_rows, lonely)
    assert ("robust_recall" in found.metrics) == bool((case.task.labels == 1).any())


def test_an_attack_that_spends_all_it_may_is_not_said_to_fail_with_less():
    def at_the_bound(task, _rng):
        rows = task.rows.copy()
        away = np.where(rows[:, 0] > 0, -1, 1) * task.max_change * task.space.scale[0]
        rows[:, 0] += away
        yield Query(task.space.project(rows, task.rows), np.arange(len(rows)))
        return rows

    curve = measured(at_the_bound)[0].curves["robust_accuracy_by_change"]
    assert [point.x for point in curve] == [0.0, 0.5]
    assert curve[1].value < curve[0].value
