"""Model extraction without any row of the right kind: other pictures, or rows made up feature by feature."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.siege import Siege, Spent, taught
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.protocol import Access, Rows


class Knockoff:
    """Ask about rows of another kind and train on the scores. Stateless.

    With ``task.foreign`` the rows are drawn from those, each once, and then again as mixtures of two;
    without, each feature is drawn alone from the values that it is known to take, as an adversary would
    who knows what is usual but has no whole row. Claims: 0.81 to 0.96 of the victim's accuracy
    after 60,000 queries (Orekondy et al.); with labels alone and pictures of other things, 0.94 to 0.97 of
    it (Correia-Silva et al., whose Copycat this is where only labels are answered). Their adaptive choice of
    classes is left out: it gained nothing here.
    """

    name = "extraction.knockoff"
    title = "Model extraction from scores, with rows of another kind"
    family = "extraction"
    technique = "T38"
    atlas: tuple[str, ...] = ("T05", "AML.T0024.002")
    needs = frozenset({Access.SCORES})
    position = "user"
    references: tuple[str, ...] = (
        "Orekondy et al. 2019, Knockoff Nets, CVPR 2019, arXiv:1812.02766",
        "Correia-Silva et al. 2018, Copycat CNN, IJCNN 2018, arXiv:1806.05476",
    )

    def search(self, task: ExtractionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        siege = Siege(task, Access.SCORES in self.needs, lambda: taught(siege, rng))
        with suppress(Spent):
            yield from siege.ask(_foreign(task, siege.left, rng))
        return siege.done()


class Copycat(Knockoff):
    """The same where only labels are answered."""

    name = "extraction.copycat"
    title = "Model extraction from labels alone, with rows of another kind"
    needs = frozenset({Access.LABELS})


def _foreign(task: ExtractionTask, count: int, rng: np.random.Generator) -> Rows:
    """``(count, features)``: rows of another kind."""
    space, kind = task.space, task.rows.dtype
    if task.foreign is None or not len(task.foreign):
        places = rng.integers(0, len(task.rows), (count, len(space.columns)))
        drawn = task.rows[places, np.arange(len(space.columns))]
        # Any possible row will do as the one that values of fixed features are taken from.
        return space.project(drawn, np.broadcast_to(task.rows[0], drawn.shape))
    rows = task.foreign[rng.permutation(len(task.foreign))][:count]
    first, second = rng.integers(0, len(task.foreign), (2, count - len(rows)))
    way = rng.random((len(first), 1)).astype(kind)
    mixed = task.foreign[first] + way * (task.foreign[second] - task.foreign[first])
    return np.concatenate([rows, mixed]).astype(kind)
