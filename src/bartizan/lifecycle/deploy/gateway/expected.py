"""What is expected of inputs: from the declaration, as the card states it, and from what training data show."""

from __future__ import annotations

from typing import Any

from bartizan.core.system import DatasetPart
from bartizan.lifecycle.deploy.gateway.guard import Column
from bartizan.targets.feasible import Space

MARGIN = 0.5
"""How far beyond the range that training saw a number may lie where no range is declared, as a part of that range: what
was seen is no bound on what may come. How unusual a row is within it is for the guard ``outliers`` to say."""


def expected_columns(part: DatasetPart, space: Space) -> tuple[Column, ...]:
    """One entry for each feature of a dataset, in its order.

    A declared range counts as it is. Columns that hold 0 or 1 for one category each keep to that.
    """
    codes = {each.column: tuple(each.values.tolist()) for each in space.codes}
    flags = {int(place) for group in space.one_hot for place in group.columns}
    return tuple(_column(part, space, place, codes, flags) for place in range(len(space.columns)))


def _column(
    part: DatasetPart, space: Space, place: int, codes: dict[int, tuple[float, ...]], flags: set[int]
) -> Column:
    name = space.columns[place]
    if place in codes:
        return Column(name=name, categories=codes[place])
    if place in flags:
        return Column(name=name, categories=(0.0, 1.0))
    low, high = float(space.low[place]), float(space.high[place])
    if name not in part.ranges and not part.shape:
        low, high = _wider(low, high)
    return Column(name=name, low=low, high=high, whole=bool(space.integer[place]))


def _wider(low: float, high: float) -> tuple[float, float]:
    """With the margin; what was never negative stays so."""
    margin = MARGIN * (high - low) or MARGIN * abs(high)
    return (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin


def plain(columns: tuple[Column, ...]) -> list[dict[str, Any]]:
    """The same for a report."""
    return [
        {
            "name": column.name,
            **({"low": column.low, "high": column.high} if not column.categories else {}),
            **({"whole": True} if column.whole else {}),
            **({"categories": list(column.categories)} if column.categories else {}),
        }
        for column in columns
    ]


__all__ = ["MARGIN", "expected_columns", "plain"]
