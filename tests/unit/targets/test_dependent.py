"""Columns that follow from others: read without being executed, and followed by every change."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bartizan.adapters import sklearn_structure
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam import registry
from bartizan.redteam.play import play, task_of
from bartizan.targets.dependent import read_dependents
from bartizan.targets.feasible import space_of
from bartizan.targets.protocol import Access
from bartizan.targets.table import Table
from fixtures.victims import Victim, dataset_part

COLUMNS = ("weight", "height", "bmi", "total cost")
DECLARED = {"bmi": "weight / (height * height)"}


def people(count=300, seed=0):
    rng = np.random.default_rng(seed)
    weight, height = rng.normal(75, 12, count), rng.normal(1.7, 0.1, count)
    rows = np.column_stack([weight, height, weight / height**2, rng.normal(size=count)])
    return rows, (rows[:, 2] + rng.normal(0, 1, count) > 26).astype(np.int64)


def space_for(declared=DECLARED, rows=None, **more):
    rows = people()[0] if rows is None else rows
    return space_of(dataset_part(dependent=declared, **more), Table(COLUMNS, rows, np.zeros(len(rows), int), ("0",)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("weight - height", 68.0),
        ("weight * height / 2", 70.0),
        ("-weight + 1.5", -68.5),
        ("{total cost} * 3", 12.0),
        (" (weight + height) / (weight - height - 68 + 72)", 1.0),
        ("2e1", 20.0),
    ],
)
def test_arithmetic_is_read(text, value):
    (found,) = read_dependents({"bmi": text}, COLUMNS)
    assert found.formula(np.array([[70.0, 2.0, 0.0, 4.0]]))[0] == pytest.approx(value)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"bmi": "__import__('os').system('true')"}, "neither a column"),
        ({"bmi": "weight ** 2"}, "neither a column"),
        ({"bmi": "weight if height else 1"}, "neither a column"),
        ({"bmi": "True"}, "neither a column"),
        ({"bmi": "1e999"}, "number too large"),
        ({"bmi": "weight +"}, "is no expression"),
        ({"bmi": ""}, "is no expression"),
        ({"bmi": "\0"}, "is no expression"),
        ({"bmi": "age / 2"}, "there is no column 'age'"),
        ({"bmi": "{age} / 2"}, "there is no column 'age'"),
        ({"age": "weight"}, "there is no such column"),
        ({"bmi": "bmi + 1"}, "waits for itself"),
        ({"bmi": "weight + height", "weight": "bmi - height"}, "waits for itself"),
        ({"bmi": "-" * 60 + "weight"}, "too many operations"),
        ({"bmi": "weight+" * 100 + "weight"}, "characters"),
    ],
)
def test_nothing_else_is(declared, words):
    with pytest.raises(ArtefactError, match=words):
        read_dependents(declared, COLUMNS)


def test_a_formula_that_the_data_contradict_is_refused():
    with pytest.raises(ArtefactError, match="for most records it is not"):
        space_for({"bmi": "weight / height"})
    with pytest.raises(ArtefactError, match="a category and depends"):
        space_for(DECLARED, categorical=("bmi",))


def test_a_column_that_depends_on_a_dependent_one_follows_too():
    rows = people()[0]
    rows[:, 3] = 2 * rows[:, 2]
    space = space_for({"total cost": "bmi * 2", **DECLARED}, rows)
    changed = rows[:5].copy()
    changed[:, 0] += 3
    moved = space.project(changed, rows[:5])
    np.testing.assert_allclose(moved[:, 2], moved[:, 0] / moved[:, 1] ** 2)
    np.testing.assert_allclose(moved[:, 3], 2 * moved[:, 2])


def test_nature_s_own_deviation_from_the_formula_stays_and_costs_nothing():
    rows = people()[0]
    rows[0, 2] += 0.3
    space = space_for(rows=rows)
    changed = rows[:1].copy()
    changed[0, 0] += 1.0
    moved = space.project(changed, rows[:1])
    assert moved[0, 2] == pytest.approx((rows[0, 0] + 1) / rows[0, 1] ** 2 + 0.3)
    assert (space.project(rows[:1], rows[:1]) == rows[:1]).all()
    assert space.change(moved, rows[:1])[0] == pytest.approx(1.0 / space.scale[0])
    assert space.possible(moved, rows[:1])[0]
    moved[0, 2] += 0.1
    assert not space.possible(moved, rows[:1])[0]


def test_a_change_whose_consequence_nobody_ever_saw_is_none():
    rows = people()[0]
    space = space_for(rows=rows)
    changed = rows[:1].copy()
    changed[0, :2] = rows[:, 0].max(), rows[:, 1].min()
    assert (space.project(changed, rows[:1]) == rows[:1]).all()


class Transparent(Victim):
    offers = frozenset({Access.LABELS, Access.SCORES, Access.WEIGHTS})

    def structure(self):
        return sklearn_structure.read(self.model)


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize("name", ["evasion.hopskipjump", "evasion.square", "evasion.nes", "evasion.transfer"])
def test_attacks_find_rows_in_which_everything_that_follows_has_followed(name, norm):
    rows, labels = people()
    model = LogisticRegression(max_iter=5000).fit(rows, labels)
    attack = registry.attack(name)
    if norm not in getattr(attack, "norms", {norm}):
        pytest.skip("searches by other norms")
    near = np.argsort(np.abs(model.decision_function(rows[200:])))[:20] + 200
    task = task_of(
        rows[near], labels[near], space=space_for(), classes=2, max_change=1.0, norm=norm, budget=300,
        starts=(rows[:100], labels[:100]),
    )  # fmt: skip
    found = play(Victim(model), attack, task)
    right = model.predict(task.rows) == task.labels
    fooled = np.isfinite(found.change) & right
    assert fooled.sum() > 0.5 * right.sum()
    drift = found.rows[fooled, 2] - found.rows[fooled, 0] / found.rows[fooled, 1] ** 2
    np.testing.assert_allclose(drift, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["evasion.linear-exact"])
def test_what_is_proven_column_by_column_is_refused(name):
    rows, labels = people()
    model = LogisticRegression(max_iter=5000).fit(rows, labels)
    task = task_of(rows[:5], labels[:5], space=space_for(), classes=2, max_change=1.0)
    with pytest.raises(WorkError, match="'bmi' follows from others"):
        play(Transparent(model), registry.attack(name), task)
