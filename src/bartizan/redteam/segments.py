"""Parts of the attacked samples, classes and segments, each with its own robust accuracy.

An average hides whom an attack harms most. Segments are the values of declared categories; where none is declared,
thirds of the few features that the attack moved most. A part with few samples is left out: nothing could be said
of it, and it might be one person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.statistics import Estimate, proportion
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows

LEAST = 5
"""Samples of a segment that is shown."""
MOST_SEGMENTS = 40
MOST_VALUES = 12
"""Values of a category; one with more is no segment but nearly an identity."""
FEATURES = 3
"""Features that are cut into thirds where no category is declared."""
MOST_COLUMNS = 200
"""Rows with more features, such as images, have none that would mean anything alone."""
THIRDS = ("lowest third", "middle third", "highest third")


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of the samples under attack."""

    rows: Rows
    """``(samples, features)``: as they were before the attack."""
    right: NDArray[np.bool_]
    """``(samples,)``: answered rightly as long as nobody attacks."""
    robust: NDArray[np.bool_]
    """``(samples,)``: right, and still right under attack."""
    share: Callable[[int, int], Estimate] = proportion
    """A share with its interval."""

    def part(self, name: str, inside: NDArray[np.bool_]) -> dict[str, Any]:
        """One part in numbers: its samples, how many are right, and its robust accuracy with its interval."""
        count = int(inside.sum())
        share = self.share(int(self.robust[inside].sum()), count).metric()
        return {
            "name": name,
            "samples": count,
            "right": int(self.right[inside].sum()),
            "value": share.value,
            "low": share.low,
            "high": share.high,
        }


def by_class(judged: Judged, labels: Labels, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each true class that was attacked."""
    return [judged.part(name, labels == index) for index, name in enumerate(names) if (labels == index).any()]


def by_segment(judged: Judged, space: Space, moved: Rows) -> list[dict[str, Any]]:
    """Each segment that is large enough.

    Args:
        judged: the samples and what became of them.
        space: what the columns are.
        moved: ``(samples, features)``: how far the attack moved each value, in units of ``space.scale``.
    """
    found = list(_categories(judged.rows, space)) or list(_thirds(judged.rows, space, moved))
    shown = [judged.part(name, inside) for name, inside in found if inside.sum() >= LEAST]
    return shown[:MOST_SEGMENTS]


def _categories(rows: Rows, space: Space) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for codes in space.codes:
        if len(codes.values) <= MOST_VALUES:
            for value in codes.values:
                yield f"{space.columns[codes.column]} = {value:g}", rows[:, codes.column] == value
    for group in space.one_hot:
        if len(group.columns) <= MOST_VALUES:
            for column in group.columns:
                yield space.columns[column], rows[:, column] == 1


def _thirds(rows: Rows, space: Space, moved: Rows) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    if not len(rows) or rows.shape[1] > MOST_COLUMNS:
        return
    weight = np.abs(moved).mean(axis=0)
    for column in np.argsort(-weight, kind="stable")[:FEATURES]:
        values = rows[:, column]
        cuts = np.quantile(values, (1 / 3, 2 / 3))
        if not weight[column] or cuts[0] == cuts[1]:
            continue
        which = np.searchsorted(cuts, values, side="left")
        for place, name in enumerate(THIRDS):
            yield f"{space.columns[column]}, {name}", which == place
