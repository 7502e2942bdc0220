"""The robust forest: boxes hold all that can be made, leaves count all that arrive, and the exact attack finds less."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from bartizan.adapters import sklearn_structure
from bartizan.lifecycle.develop.harden.box_forest import (
    Boxes,
    best_split,
    box_forest,
    boxes_around,
    grown,
    impurity,
)
from bartizan.redteam.attacks.evasion.tree_exact import TreeSearch
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import Codes, Space
from bartizan.targets.protocol import Access
from bartizan.targets.structure import LEAF
from fixtures.victims import Victim, space_around


class Open(Victim):
    """A scikit-learn model that shows its structure."""

    offers = frozenset({Access.LABELS, Access.SCORES, Access.WEIGHTS})

    def structure(self):
        return sklearn_structure.read(self.model)


def data(load, seed=0):
    rows, labels = load(return_X_y=True)
    return train_test_split(rows, labels, test_size=0.3, random_state=seed, stratify=labels)


def withstands(target, rows, labels, *, space, change):
    task = task_of(rows, labels, space=space, classes=target.classes, max_change=change, budget=300)
    found = play(target, TreeSearch(), task, seed=0)
    return found.robust


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine])
def test_it_withstands_the_search_that_breaks_a_usual_forest(load):
    change = 0.5
    robust, usual, clean = [], [], []
    for seed in range(1):
        rows, rest, labels, truth = data(load, seed)
        space = space_around(rows)
        victim = Open(RandomForestClassifier(25, random_state=seed).fit(rows, labels))
        made = box_forest(victim, rows, labels, space=space, change=change, seed=seed)
        some = slice(0, 30)
        usual.append(withstands(victim, rest[some], truth[some], space=space, change=change))
        robust.append(withstands(made, rest[some], truth[some], space=space, change=change))
        clean.append((made.labels(rest) == truth).mean())
    assert np.mean(robust) > np.mean(usual) + 0.05
    assert np.mean(clean) > 0.88


def test_wherever_a_row_is_brought_its_leaf_has_counted_it():
    rows, _, labels, _ = data(load_breast_cancer)
    space, rng = space_around(rows), np.random.default_rng(0)
    boxes = boxes_around(rows, space, 0.3)
    tree = grown(boxes, np.eye(2)[labels], rng)
    reached = {}
    for _ in range(20):
        moved = boxes.low + rng.random(rows.shape) * (boxes.high - boxes.low)
        for place, row in enumerate(moved):
            node = 0
            while tree.feature[node] != LEAF:
                node = tree.left[node] if row[tree.feature[node]] <= tree.threshold[node] else tree.right[node]
            reached.setdefault(node, set()).add(place)
    for leaf, records in reached.items():
        shares = tree.value[leaf]
        for kind in (0, 1):
            assert shares[kind] != 0 or not (labels[list(records)] == kind).any()


def test_a_split_that_the_adversary_can_undo_is_worth_nothing():
    rows = np.array([[0.0, 0], [0.1, 0], [0.2, 0], [0.3, 1], [0.4, 1], [0.5, 1]])
    counts = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    both = np.array([0, 1])
    assert best_split(Boxes(rows, rows), counts, both) is not None
    feature, _ = best_split(Boxes(rows - 0.4, rows + 0.4), counts, both)
    assert feature == 1
    assert best_split(Boxes(rows - 9, rows + 9), counts, both) is None


def test_impurity_is_ginis():
    assert impurity(np.array([3.0, 1.0])) == pytest.approx(4 * (1 - (9 + 1) / 16))
    assert impurity(np.array([5.0, 0.0])) == 0
    assert impurity(np.zeros(2)) == 0


def test_boxes_stay_among_possible_rows():
    space = Space(
        columns=("a", "b", "c"),
        scale=np.array([2.0, 1.0, 1.0]),
        low=np.zeros(3),
        high=np.array([10.0, 5.0, 2.0]),
        integer=np.zeros(3, bool),
        immutable=np.array([False, True, False]),
        codes=(Codes(2, np.arange(3.0)),),
    )
    boxes = boxes_around(np.array([[0.5, 3, 1], [12, 3, 0]]), space, 1.0)
    assert boxes.low.tolist() == [[0, 3, 0], [10, 3, 0]]
    assert boxes.high.tolist() == [[2.5, 3, 2], [12, 3, 2]]
    assert boxes_around(np.array([[0.5, 3, 1]]), space, 0.5).high.tolist() == [[1.5, 3, 1]]


def test_the_same_seed_gives_the_same_forest_and_one_class_or_no_change_are_no_obstacle():
    rows, rest, labels, truth = data(load_wine)
    space = space_around(rows)
    victim = Victim(RandomForestClassifier(2).fit(rows, labels))
    one, two = (box_forest(victim, rows, labels, space=space, change=0.0, seed=3) for _ in range(2))
    assert (one.scores(rest) == two.scores(rest)).all()
    assert (one.labels(rest) == truth).mean() > 0.9
    assert one.facts.parameters > 0
    lone = box_forest(victim, rows, np.zeros(len(rows), np.int64), space=space, change=0.5, seed=0)
    assert (lone.labels(rest) == 0).all()
