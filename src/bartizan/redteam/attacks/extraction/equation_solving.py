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
"""Own rows that the solution must predict before it is believed."""
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
    al.: features + 1 for two classes), and ``CHECKED`` more that show that it holds. Where it does not, the
    model is of another kind, and the rest of the budget is spent as by random extraction. A copy that is due
    before the solution has been tried is made by the adversary's learner: with as many unknowns as answers
    any model is explained, and a false solution is worse than none. Needs scores that are not rounded.
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
            yield from solver.siege.ask(solver.fresh(CHECKED))
            if not solver.holds():
                yield from solver.siege.ask(solver.fresh(solver.siege.left))
        return solver.siege.done()


class _Solver:
    def __init__(self, task: ExtractionTask, rng: np.random.Generator) -> None:
        self.task, self.rng = task, rng
        self.siege = Siege(task, scores=True, copy=self.copy)
        self.own = task.rows[rng.permutation(len(task.rows))]
        self.taken = 0
        """Own rows that were asked about."""
        self.equations = 0
        """Answers that the solution rests on; 0 before there are enough."""
        self.centre = task.rows.mean(axis=0)
        self.scale = np.where(task.space.scale > 0, task.space.scale, 1.0)

    def copy(self) -> Predict:
        if self.holds():
            return self.solution(len(self.siege.asked))
        return taught(self.siege, self.rng)

    def solution(self, answers: int) -> LinearCopy:
        """What the first so many answers say."""
        return solved(self.siege.asked[:answers], self.siege.told[:answers], self.centre, self.scale)

    def holds(self) -> bool:
        """Whether the equations alone predict what was told about each of the own rows asked about after them."""
        after = slice(self.equations, self.equations + CHECKED)
        rows, told = self.siege.asked[after], self.siege.told[after]
        if not self.equations or len(rows) < CHECKED:
            return False
        return bool(np.abs(self.solution(self.equations).scores(rows) - told).max() <= AGREED)

    def steps(self) -> Generator[Query, Any, None]:
        """Ask about a row at which the model is not too sure, and about a step from it along each feature."""
        base = self.task.space.project(self.centre[None], self.own[:1])
        told = yield from self.siege.ask(base)
        spare = self.siege.left - self.task.rows.shape[1] - CHECKED
        if told.min() < SURE and spare > 0:
            probes = self.fresh(min(PROBES, spare))
            told = yield from self.siege.ask(probes)
            if told.min(axis=1).max() > self.siege.told[0].min():
                base = probes[told.min(axis=1).argmax()][None]
        inward = np.where(base[0] + STEP * self.scale > self.task.space.high, -STEP, STEP)
        rows = base + np.diag(inward * self.scale)
        projected = self.task.space.project(rows, np.broadcast_to(base, rows.shape))
        # A step that rounding or a category swallows would teach nothing.
        moved = (projected != base).any(axis=1)
        yield from self.siege.ask(np.where(moved[:, None], projected, rows))
        self.equations = len(self.siege.asked)

    def fresh(self, count: int) -> Rows:
        """Own rows that were not asked about; when they run out, again from the first."""
        places = (self.taken + np.arange(count)) % len(self.own)
        self.taken += count
        return self.own[places]
