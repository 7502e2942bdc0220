"""Records as points whose distances mean something: gaps filled, scales evened out, categories unfolded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.data.reading import Sample
from bartizan.targets.protocol import Rows

NORMAL_IQR = 1.349
"""Interquartile range of the standard normal distribution."""
FAR = 1e6
"""Points are clipped here, in deviations: far beyond any threshold, safe in single precision."""
WINSOR = 5.0
"""Values this many robust deviations from the median do not widen the scale of their column."""
NARROWEST = 1 / 3
"""The scale is at least this share of the plain deviation: most values may sit on one point."""
MAX_CATEGORIES = 50
"""A categorical column with more codes is treated as numeric."""
CATEGORY_DISTANCE = 1 / np.sqrt(2)
"""Each of the two coordinates that differ between two categories, so that they lie 1 apart."""
BOTH_VALUES = 2
HUGE = 1e150
"""Beyond this, squares overflow: such columns are scaled down while they are looked at."""
MAX_FLOAT = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """How the rows of one dataset, and of others with the same columns, become points."""

    numeric: NDArray[np.int64]
    """Columns that vary and are no categories."""
    centre: NDArray[np.float64]
    """``(numeric,)`` medians: they also fill gaps."""
    scale: NDArray[np.float64]
    """``(numeric,)`` deviations, positive."""
    codes: tuple[tuple[int, NDArray[np.float64]], ...]
    """Categorical columns, each with the codes seen."""

    @property
    def dimensions(self) -> int:
        """Number of coordinates of a point."""
        return len(self.numeric) + sum(len(values) for _, values in self.codes)

    def points(self, rows: Rows) -> Rows:
        """``(batch, dimensions)`` in deviations from the median; gaps lie at the median."""
        with np.errstate(over="ignore"):
            scaled = np.clip((rows[:, self.numeric] - self.centre) / self.scale, -FAR, FAR)
        unfolded = [(rows[:, [column]] == values) * CATEGORY_DISTANCE for column, values in self.codes]
        return np.hstack([np.nan_to_num(scaled, nan=0.0), *unfolded])


def fit_encoder(sample: Sample) -> Encoder:
    """Learn scales and categories from a dataset. Columns without two different values are left out."""
    categorical = set(declared_places(sample.columns, sample.part.categorical))
    numeric, centre, scale, codes = list[int](), list[float](), list[float](), list[tuple[int, NDArray[np.float64]]]()
    for column in range(sample.rows.shape[1]):
        values = sample.rows[:, column]
        values = values[~np.isnan(values)]
        if len(values) == 0 or values.min() == values.max():
            continue
        if column in categorical and len(found := np.unique(values)) <= MAX_CATEGORIES:
            codes.append((column, found))
            continue
        middle, width = _location_and_scale(values)
        numeric.append(column)
        centre.append(middle)
        scale.append(width)
    return Encoder(np.array(numeric, np.int64), np.array(centre), np.array(scale), tuple(codes))


def _location_and_scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and a deviation that a few gross errors cannot widen."""
    largest = max(values.max(), -values.min())
    unit = largest if largest > HUGE else 1.0
    values = values / unit
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    if len(values) > BOTH_VALUES and ((values == values.min()) | (values == values.max())).all():
        return float(median * unit), min(float(values.max() - values.min()), MAX_FLOAT / unit) * unit
    reach = WINSOR * (high - low) / NORMAL_IQR
    width = float(max(np.clip(values, median - reach, median + reach).std(), NARROWEST * values.std()))
    return float(median * unit), width * unit if width > 0 else 1.0


def declared_places(columns: Sequence[str], declared: Sequence[str]) -> list[int]:
    """Places of declared columns; a name that is no column stands for one-hot columns ``name=..`` or ``name_..``."""
    places = list[int]()
    for name in declared:
        prefixes = (f"{name}=", f"{name}_")
        places.extend(
            place
            for place, column in enumerate(columns)
            if column == name or (name not in columns and column.startswith(prefixes))
        )
    return places
