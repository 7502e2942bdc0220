"""A decision tree outside the model: plain rows that a person can read, sign and check by hand.

Each row is ``(column, threshold, left, right, label)``. A row with a label is a leaf. Any other asks whether the
column's value is at most the threshold, and goes on at row ``left`` if so and at row ``right`` otherwise; both lie
further down, so that every walk ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guard import Numbers

MOST_ROWS = 1_023
MOST_LEVELS = 32

Place = Annotated[int, msgspec.Meta(ge=0, le=MOST_ROWS)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
TreeRow = tuple[Name, float, Place, Place, Name]
"""Column, threshold, left, right, label."""


class Tree:
    """A tree that was read and found sound. Asks in about 0.1 us a level."""

    def __init__(self, rows: Sequence[TreeRow], columns: Sequence[str], classes: Sequence[str], where: str) -> None:
        """Read it.

        Raises:
            InputError: it names no column or class, leads backwards or nowhere, or is too deep.
        """
        if not 1 <= len(rows) <= MOST_ROWS:
            raise InputError(f"{where}: a tree has 1 to {MOST_ROWS} rows, this has {len(rows)}", remedy=_REMEDY)
        self._places = {name: place for place, name in enumerate(columns)}
        self._classes = {name: place for place, name in enumerate(classes)}
        self._nodes = tuple(self._node(at, row, len(rows), where) for at, row in enumerate(rows))
        self.levels = self._depth(where)
        column, threshold, left, right, label = (np.array(each) for each in zip(*self._nodes, strict=True))
        self._arrays = column.astype(np.int64), threshold.astype(np.float64), left, right, label

    def _node(self, at: int, row: TreeRow, rows: int, where: str) -> tuple[int, float, int, int, int]:
        column, threshold, left, right, label = row
        if label:
            if label not in self._classes:
                raise InputError(f"{where}, row {at}: {label[:60]!r} is no class", remedy=_REMEDY)
            return 0, np.inf, at, at, self._classes[label]
        if column not in self._places:
            raise InputError(f"{where}, row {at}: there is no column {column[:60]!r}", remedy=_REMEDY)
        if not (at < left < rows and at < right < rows and np.isfinite(threshold)):
            raise InputError(f"{where}, row {at}: it leads backwards, nowhere, or has no threshold", remedy=_REMEDY)
        return self._places[column], float(threshold), left, right, -1

    def _depth(self, where: str) -> int:
        levels = [0] * len(self._nodes)
        for at, (_, _, left, right, label) in enumerate(self._nodes):
            if label < 0:
                levels[left] = max(levels[left], levels[at] + 1)
                levels[right] = max(levels[right], levels[at] + 1)
        if max(levels) > MOST_LEVELS:
            raise InputError(f"{where}: a tree has at most {MOST_LEVELS} levels", remedy=_REMEDY)
        return max(levels)

    def one(self, rows: Numbers, index: int) -> int:
        """The class of one row."""
        nodes, item = self._nodes, rows.item
        column, threshold, left, right, label = nodes[0]
        while label < 0:
            column, threshold, left, right, label = nodes[left if item(index, column) <= threshold else right]
        return label

    def each(self, rows: Numbers) -> NDArray[np.int64]:
        """The class of each row ``(batch,)``."""
        column, threshold, left, right, label = self._arrays
        at = np.zeros(len(rows), np.int64)
        every = np.arange(len(rows))
        for _ in range(self.levels):
            at = np.where(rows[every, column[at]] <= threshold[at], left[at], right[at])
        answers: NDArray[Any] = label[at]
        return answers.astype(np.int64)


_REMEDY = 'write rows of [column, threshold, left, right, label]: ["radius", 15.0, 1, 2, ""], ["", 0, 0, 0, "benign"].'

__all__ = ["MOST_LEVELS", "MOST_ROWS", "Tree", "TreeRow"]
