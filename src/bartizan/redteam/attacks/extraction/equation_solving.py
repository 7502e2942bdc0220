"""Model extraction by solving equations: the weights of a logistic regression from its scores."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from bartizan.redteam.attack import Query, Search
from bartizan.redteam.siege import Predict, Siege, Spent, taught
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.protocol import Access, Labels, Rows, Scores
from bartizan.targets.structure import Floats

STEP = 0.5
"""Standard deviations between the rows that are asked about."""
SURE = 1e-3
"""Where the model gives a class less than this, another row is looked for to start from."""
PROBES = 10
"""Rows that are tried then."""
CHECKED = 10
"""Own rows that the solution is compared on, when queries are left."""
AGREED = 1e-3
"""Largest difference between scores of the solution and the model's for which it is believed."""
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, eq=False)
class LinearCopy:
    """A copy whose log-odds against class 0 are weighted sums."""

    weights: Floats
    """``(classes, features)``, those of class 0 being 0."""
    bias: Floats
    """``(classes,)``"""

    def __call__(self, rows: Rows) -> Labels:
        """Class indices ``(batch,)``."""
        labels: Labels = (rows @ self.weights.T + self.bias).argmax(axis=1).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """Probabilities ``(batch, classes)``."""
        odds = rows @ self.weights.T + self.bias
        powers = np.exp(odds - odds.max(axis=1, keepdims=True))
        scores: Scores = powers / powers.sum(axis=1, keepdims=True)
        return scores


def solved(rows: Rows, told: Scores, centre: Floats, scale: Floats) -> LinearCopy:
    """The weights that explain the scores ``told`` ``(batch, classes)`` about ``rows`` ``(batch, features)``.

    ``log(p_k / p_0)`` is linear in the row, so that each row gives one equation for each class but the
    first. Equations count by how far the scores are from being rounded away. Fewer rows than features
    give the smallest solution.
    """
    odds = np.log(np.maximum(told, _TINY))
    odds = odds - odds[:, :1]
    trust = np.maximum(told.min(axis=1), _TINY)[:, None]
    trust = np.sqrt(np.minimum(trust / trust.max(), 1.0))
    unknowns = np.column_stack([np.ones(len(rows)), (rows - centre) / scale])
    found = np.linalg.lstsq(trust * unknowns, trust * odds, rcond=None)[0]
    weights = (found[1:] / scale[:, None]).T
    return LinearCopy(weights, found[0] - weights @ centre)


class EquationSolving:
    """Ask about one row and one step along each feature, and solve for weights and bias. Stateless.

    Exact for models whose log-odds are linear: features + 1 queries for all classes together (Tramèr et
    al.: features + 1 for two classes). The solution is then tried on own rows; where it does not hold, the
    model is of another kind, and the rest of the budget is spent as by random extraction. Needs scores that
    are not rounded.
    """

    name = "extraction.equation-solving"
    title = "Model extraction by equation solving, for linear models"
    family = "extraction"
    technique = "T38"
    atlas: tuple[str, ...] = ("T05", "AML.T0024.002")
    needs = frozenset({Access.SCORES})
    position = "user"
    references: tuple[str, ...] = (
        "Tramèr et al. 2016, Stealing machine learning models via prediction APIs, section 4.1, arXiv:1609.02943",
    )

    def search(self, task: ExtractionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        solver = _Solver(task, rng)
        with suppress(Spent):
            yield from solver.steps()
            if not (yield from solver.holds()):
                solver.linear = False
                yield from solver.siege.ask(solver.more(solver.siege.left))
        return solver.siege.done()


class _Solver:
    def __init__(self, task: ExtractionTask, rng: np.random.Generator) -> None:
        self.task, self.rng = task, rng
        self.siege = Siege(task, scores=True, copy=self.copy)
        self.linear = True
        self.own = task.rows[rng.permutation(len(task.rows))]
        self.centre = task.rows.mean(axis=0)
        self.scale = np.where(task.space.scale > 0, task.space.scale, 1.0)

    def copy(self) -> Predict:
        if self.linear:
            return self.solution()
        return taught(self.siege, self.rng)

    def solution(self) -> LinearCopy:
        return solved(self.siege.asked, self.siege.told, self.centre, self.scale)

    def steps(self) -> Generator[Query, Any, None]:
        """Ask about a row at which the model is not too sure, and about a step from it along each feature."""
        base = self.task.space.project(self.centre[None], self.own[:1])
        told = yield from self.siege.ask(base)
        if told.min() < SURE and self.siege.left > self.task.rows.shape[1]:
            probes = self.own[: min(PROBES, self.siege.left - self.task.rows.shape[1])]
            told = yield from self.siege.ask(probes)
            if told.min(axis=1).max() > self.siege.told[0].min():
                base = probes[told.min(axis=1).argmax()][None]
        inward = np.where(base[0] + STEP * self.scale > self.task.space.high, -STEP, STEP)
        rows = base + np.diag(inward * self.scale)
        projected = self.task.space.project(rows, np.broadcast_to(base, rows.shape))
        # A step that rounding or a category swallows would teach nothing.
        moved = (projected != base).any(axis=1)
        yield from self.siege.ask(np.where(moved[:, None], projected, rows))

    def holds(self) -> Generator[Query, Any, bool]:
        """Whether the solution predicts what is told about own rows; taken to be so when no query is left."""
        copy, rows = self.solution(), self.own[: min(CHECKED, self.siege.left)]
        told = yield from self.siege.ask(rows)
        return bool(np.abs(copy.scores(rows) - told).max(initial=0.0) <= AGREED)

    def more(self, count: int) -> Rows:
        """Own rows that were not asked about; then, again from the first."""
        places = (CHECKED + np.arange(count)) % len(self.own)
        return self.own[places]
