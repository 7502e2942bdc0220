"""Evasion of trees by an adversary who has the model file: the nearest row there is, with its proof."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from bartizan.core.errors import BudgetError, WorkError
from bartizan.redteam.attack import Inspect, Query, Search
from bartizan.redteam.cells import Cells
from bartizan.redteam.nearest_side import refuse_dependents
from bartizan.redteam.tasks import Bounded, EvasionTask
from bartizan.redteam.tree_proof import prove
from bartizan.redteam.tree_search import Searcher
from bartizan.redteam.trees import Nearest, nearest_leaf
from bartizan.targets.protocol import Access
from bartizan.targets.structure import TreeEnsemble

NODES = 2_000
"""Nodes of the search tree of one mixed-integer program: with it the work, and not the result, is bounded."""


class TreeExact:
    """The nearest possible row of another class: the optimum, or a row and a bound that none can beat.

    For one tree, a walk over its leaves. For sums of trees, the neighbourhood search first, and then a
    mixed-integer program for each other class, of what is nearer than the row found: seconds a row by the
    norm inf, up to minutes by the others for a hundred trees; where it is stopped, a bound is left. Costs
    one query a row, to see that the model agrees. Claim of Kantchelian et al.: the optimum for boosted
    trees on MNIST.
    """

    name = "evasion.tree-exact"
    title = "Exact evasion of trees, from the model file"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.WEIGHTS})
    position = "user"
    references: tuple[str, ...] = (
        "Kantchelian et al. 2016, Evasion and hardening of tree ensemble classifiers, ICML 2016, arXiv:1509.07892",
        "Zhang et al. 2020, An efficient adversarial attack for tree ensembles, NeurIPS 2020, arXiv:2010.11598",
    )

    def __init__(self, *, nodes: int = NODES, seconds: float = np.inf) -> None:
        self.nodes = nodes
        """Of each search tree; with 0 nothing is proven about sums of trees."""
        self.seconds = seconds
        """Wall time of one program; results may depend on the machine when it is finite."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``. Candidates are ``Bounded``."""
        structure = yield Inspect()
        if not isinstance(structure, TreeEnsemble):
            raise WorkError(
                f"{self.name} attacks trees, and the model is a {type(structure).__name__}",
                remedy="use an attack by gradients or by queries.",
            )
        refuse_dependents(self.name, task.space)
        found = self._nearest(structure, task, rng)
        rows = np.array([one.row for one in found]).reshape(task.rows.shape)
        # Without a query left, what was found stands without the model's word; the family asks in any case.
        with suppress(BudgetError):
            yield Query(rows, np.arange(len(rows)))
        return Bounded(rows, np.array([one.bound for one in found]))

    def _nearest(self, ensemble: TreeEnsemble, task: EvasionTask, rng: np.random.Generator) -> list[Nearest]:
        """What is known for each sample; samples that the model already gets wrong are their own nearest row."""
        cells, found = Cells.of(ensemble, task.space), list[Nearest]()
        wrong = ensemble.labels(task.rows) != task.labels
        searcher = Searcher(cells) if ensemble.trees > 1 else None
        for place, row in enumerate(task.rows):
            label = int(task.labels[place])
            if wrong[place]:
                found.append(Nearest(row, 0.0))
            elif searcher is None:
                found.append(nearest_leaf(cells, task.space, row, label, task.norm))
            else:
                known = searcher.nearest(task.space, row, label, task.norm, rng)
                found.append(self._proven(cells, task, place, known))
        return found

    def _proven(self, cells: Cells, task: EvasionTask, place: int, known: Nearest) -> Nearest:
        if not self.nodes:
            return known
        row, label = task.rows[place], int(task.labels[place])
        return prove(cells, task.space, row, label, task.norm, known=known, nodes=self.nodes, seconds=self.seconds)


class TreeSearch(TreeExact):
    """The neighbourhood search alone: for forests that are too large for a proof.

    A tenth of a second for a row and a hundred trees. Claim of Zhang et al.: closer rows than queries find, in
    a fraction of the time of the exact program.
    """

    name = "evasion.tree-search"
    title = "Evasion of large sums of trees, from the model file"

    def __init__(self) -> None:
        super().__init__(nodes=0)
