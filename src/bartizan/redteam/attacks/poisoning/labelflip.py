"""Label flipping: spoil the training data by giving records another class.

Which flips hurt depends on the model. Scattered ones are averaged out by forests and neighbours;
those on one side of the boundary, or in one region, are learnt. So the adversary ranks the records in
several ways, trains a model of the target's own kind on half of its data with each, and keeps the
ranking whose model did worst on the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam import learners
from bartizan.redteam.attack import Fit, Query, Request, Search
from bartizan.redteam.tasks import Poison, PoisoningTask
from bartizan.targets.protocol import Access, Labels, Rows

PROXY = learners.Learner("linear", 1e-2)
"""Says how far each record is from the boundary, whatever model is under attack."""
LEFT_OF_CLASS = 5
"""Records of each class that keep their label, so that the pipeline can still be trained."""


@dataclass(frozen=True, slots=True)
class View:
    """What the adversary knows about the records it can flip."""

    rows: Rows
    """``(records, features)``, standardised."""
    labels: Labels
    runner_up: Labels
    """``(records,)``: the likeliest wrong class of each by the proxy."""
    margin: NDArray[np.float64]
    """``(records,)``: by how much the proxy prefers the right class; negative where it does not."""
    positive: int
    classes: int

    def take(self, index: NDArray[np.int64]) -> View:
        """The same about some of the records."""
        return replace(
            self,
            rows=self.rows[index],
            labels=self.labels[index],
            runner_up=self.runner_up[index],
            margin=self.margin[index],
        )

    @property
    def of_positive(self) -> NDArray[np.float64]:
        """``(records,)``: 0 for records of the positive class, infinite for others, which stay as they are."""
        return np.where(self.labels == self.positive, 0.0, np.inf)

    def one_way(self) -> NDArray[np.int64]:
        """``(records,)``: turn of each record's class: the class that the proxy confuses most comes first."""
        sizes = np.bincount(self.labels, minlength=self.classes)
        means = np.bincount(self.labels, self.margin, self.classes) / np.maximum(sizes, 1)
        return np.argsort(np.argsort(means, kind="stable"))[self.labels]

    def nearness(self, among: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
        """``(records,)``: distance from a record drawn out of ``among``."""
        centre = rng.choice(np.flatnonzero(among)) if among.any() else 0
        distances: NDArray[np.float64] = np.linalg.norm(self.rows - self.rows[centre], axis=1)
        return distances


Ranking = Callable[[View, np.random.Generator], NDArray[np.float64]]
"""``(records,)``: the lower, the sooner a record is flipped; infinite ones never are."""


def scattered(view: View, rng: np.random.Generator) -> NDArray[np.float64]:
    """At random."""
    return rng.random(len(view.labels))


def far(view: View, _: np.random.Generator) -> NDArray[np.float64]:
    """Surest first: the clean model's loss gains most (Xiao et al. 2012)."""
    return -view.margin


def one_way_far(view: View, _: np.random.Generator) -> NDArray[np.float64]:
    """Surest first, one class after the other, so that the boundary moves in one direction."""
    return _turns(view.one_way(), -view.margin)


def region(view: View, rng: np.random.Generator) -> NDArray[np.float64]:
    """Neighbours of a random record, so that no clean one outvotes them."""
    return view.nearness(np.ones(len(view.labels), np.bool_), rng)


def one_way_region(view: View, rng: np.random.Generator) -> NDArray[np.float64]:
    """Neighbours of a random record, one class after the other."""
    turn = view.one_way()
    return _turns(turn, view.nearness(turn == turn.min(), rng))


def positive_scattered(view: View, rng: np.random.Generator) -> NDArray[np.float64]:
    """Records of the positive class at random."""
    return view.of_positive + rng.random(len(view.labels))


def positive_far(view: View, _: np.random.Generator) -> NDArray[np.float64]:
    """Surest records of the positive class first."""
    return view.of_positive - view.margin


def positive_near(view: View, _: np.random.Generator) -> NDArray[np.float64]:
    """Least sure records of the positive class first."""
    return view.of_positive + view.margin


def positive_region(view: View, rng: np.random.Generator) -> NDArray[np.float64]:
    """Neighbours of a random record of the positive class, within it."""
    return view.of_positive + view.nearness(view.labels == view.positive, rng)


GUIDED: dict[str, Ranking] = {
    "scattered": scattered,
    "far": far,
    "one_way_far": one_way_far,
    "region": region,
    "one_way_region": one_way_region,
}
TARGETED: dict[str, Ranking] = {
    "scattered": positive_scattered,
    "far": positive_far,
    "near": positive_near,
    "region": positive_region,
}


class LabelFlip:
    """Flips at random, flips chosen to lower accuracy, and flips chosen to have one class missed. Stateless."""

    name = "poisoning.labelflip"
    title = "Label flipping in the training data, at random, guided and against one class"
    family = "poisoning"
    technique = "T16"
    atlas: tuple[str, ...] = ("T17", "AML.T0020")
    """T17 is the other catalogue technique that is exercised, by the targeted flips."""
    needs = frozenset({Access.LABELS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Biggio et al. 2012, Poisoning attacks against support vector machines, arXiv:1206.6389",
        "Xiao et al. 2012, Adversarial label flips attack on support vector machines, ECAI",
        "Paudice et al. 2018, Label sanitization against label flipping poisoning attacks, arXiv:1803.00992",
    )

    def search(self, task: PoisoningTask, rng: np.random.Generator) -> Search:
        """Find the rankings that hurt most at each rate, then spoil all records by them."""
        view = _view(task, rng)
        poisons: list[Poison] = []
        for rate in task.rates:
            count = task.spoilt(rate)
            overall = yield from _most_harmful(GUIDED, task, view, count, rng)
            missed = yield from _most_harmful(TARGETED, task, view, count, rng)
            for repeat in range(task.repeats):
                spoilt = {
                    "random": ("", flip(view, scattered, count, rng)),
                    "margin_guided": (overall, flip(view, GUIDED[overall], count, rng)),
                    "targeted": (missed, flip(view, TARGETED[missed], count, rng)),
                }
                poisons += [
                    Poison(strategy, rate, task.rows, labels, repeat, choice)
                    for strategy, (choice, labels) in spoilt.items()
                ]
        return tuple(poisons)


def flip(view: View, ranking: Ranking, count: int, rng: np.random.Generator) -> Labels:
    """Labels after the first ``count`` records of a ranking got their likeliest wrong class.

    Scattered flips go to any other class, as careless or random labelling would.
    """
    size = len(view.labels)
    anywhere = (view.labels + rng.integers(1, view.classes, size)) % view.classes
    return _relabelled(view.labels, anywhere if ranking is scattered else view.runner_up, ranking(view, rng), count)


def _relabelled(labels: Labels, other: Labels, ranking: NDArray[np.float64], count: int) -> Labels:
    """Flip in the order of the ranking, as long as enough records of the class are left."""
    order = np.argsort(ranking, kind="stable")
    turn_in_class = np.empty(len(labels), np.int64)
    for kind in np.unique(labels):
        same = order[labels[order] == kind]
        turn_in_class[same] = np.arange(len(same)) - len(same)
    allowed = (turn_in_class < -LEFT_OF_CLASS) & np.isfinite(ranking)
    flipped = order[allowed[order]][:count]
    spoilt = labels.copy()
    spoilt[flipped] = other[flipped]
    return spoilt


def _view(task: PoisoningTask, rng: np.random.Generator) -> View:
    """What a proxy that did not see a record says about it."""
    targets = learners.one_hot(task.labels, task.classes)
    scores = learners.out_of_fold(PROXY, task.rows, targets, learners.folds(task.labels, rng), rng)
    right = scores[np.arange(len(scores)), task.labels]
    wrong = np.where(targets > 0, -1.0, scores)
    spread = task.rows.std(axis=0)
    return View(
        rows=(task.rows - task.rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0),
        labels=task.labels,
        runner_up=wrong.argmax(axis=1),
        margin=right - wrong.max(axis=1),
        positive=task.positive,
        classes=task.classes,
    )


def _most_harmful(
    rankings: Mapping[str, Ranking], task: PoisoningTask, view: View, count: int, rng: np.random.Generator
) -> Generator[Request, Any, str]:
    """The ranking by which a model trained on one half does worst on the other.

    What counts is recall of the positive class for ``TARGETED``, else accuracy.
    """
    order = np.lexsort((rng.random(len(view.labels)), view.labels))
    own, other = np.sort(order[::2]), np.sort(order[1::2])
    if rankings is TARGETED:
        other = other[view.labels[other] == view.positive]
    if not len(other):
        return next(iter(rankings))
    right = {}
    for name, ranking in rankings.items():
        labels = flip(view.take(own), ranking, max(1, count // 2), rng)
        model = yield Fit(task.rows[own], labels, int(rng.integers(2**31)))
        answer = yield Query(task.rows[other], np.zeros(len(other), np.int64), model=model)
        right[name] = int((answer == view.labels[other]).sum())
    return min(right, key=lambda name: right[name])


def _turns(turn: NDArray[np.int64], within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of records that come by turns, and by the second key within a turn."""
    return np.argsort(np.lexsort((within, turn))).astype(np.float64)
