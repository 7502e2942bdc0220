"""The profile of a dataset: statistics of each column and label counts, computed from its bytes.

Of personal data nothing is given that describes fewer than five people: a count below five is
not shown (and then all counts of that table go in steps of five, so that it cannot be worked out),
and minimum, quartiles and maximum are means over the five records nearest to them.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.data.reading import ABSENT, Sample

LEAST_GROUP = 5
"""Fewest records that a number about personal data may rest on."""
POINTS = {"min": 0.0, "lowerQuartile": 0.25, "median": 0.5, "upperQuartile": 0.75, "max": 1.0}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a dataset, in numbers."""

    records: int
    labels: dict[str, int]
    """Records by label value."""
    columns: dict[str, dict[str, float | int | None]]
    """Statistics by column: present, distinct, mean, deviation, min, quartiles, max; null where not shown."""
    aggregated_over: int = 1
    """Fewest records behind a number."""


class ProfileChange(msgspec.Struct, frozen=True, kw_only=True):
    """How one version of a dataset differs from another."""

    records: int
    """Records more (or fewer)."""
    labels: dict[str, int]
    """Label value to records more (or fewer); equal counts are left out."""
    shares: dict[str, float]
    """Label value to change of its share."""
    means: dict[str, float]
    """Column to shift of its mean, in deviations of the older version; unchanged ones are left out."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    """Columns."""


def profile(sample: Sample) -> Profile:
    """Statistics of every column, and label counts."""
    group = LEAST_GROUP if sample.part.personal_data else 1
    return Profile(
        records=len(sample) if group == 1 else len(sample) // group * group,
        labels=label_counts(sample),
        columns={name: _column(sample.rows[:, place], group) for place, name in enumerate(sample.columns)},
        aggregated_over=group,
    )


def label_counts(sample: Sample) -> dict[str, int]:
    """Records by label value; for personal data in steps of five as soon as one class has fewer than five."""
    found = np.bincount(sample.labels[sample.labels != ABSENT], minlength=sample.classes).tolist()
    counts = dict(zip(sample.label_values, found, strict=True))
    if sample.part.personal_data and any(number < LEAST_GROUP for number in counts.values()):
        return {value: number // LEAST_GROUP * LEAST_GROUP for value, number in counts.items()}
    return counts


def _column(values: NDArray[np.float64], group: int) -> dict[str, float | int | None]:
    present = np.sort(values[~np.isnan(values)])
    if len(present) < group or not len(present):
        return {"present": 0 if group == 1 else None}
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = {"mean": present.mean(), "deviation": present.std()}
        numbers |= {name: _at(present, level, group) for name, level in POINTS.items()}
    return {
        "present": len(present) // group * group,
        "distinct": len(np.unique(present)) if group == 1 else None,
        **{name: _plain(number) for name, number in numbers.items()},
    }


def _at(ordered: NDArray[np.float64], level: float, group: int) -> float:
    """Quantile of sorted values as the mean of the ``group`` values nearest to its place."""
    start = int(np.clip(round(level * (len(ordered) - 1)) - group // 2, 0, len(ordered) - group))
    return float(ordered[start : start + group].mean())


def _plain(number: float) -> float | None:
    """Six significant digits; nothing for what overflowed."""
    return float(f"{number:.6g}") if math.isfinite(number) else None


def compare_profiles(old: Profile, new: Profile) -> ProfileChange:
    """What changed between two versions of a dataset: counts, shares of labels, and means of columns."""
    values = sorted({*old.labels, *new.labels})
    gained = {value: new.labels.get(value, 0) - old.labels.get(value, 0) for value in values}
    before, after = max(1, sum(old.labels.values())), max(1, sum(new.labels.values()))
    return ProfileChange(
        records=new.records - old.records,
        labels={value: number for value, number in gained.items() if number},
        shares={
            value: round(new.labels.get(value, 0) / after - old.labels.get(value, 0) / before, 6) for value in values
        },
        means=_mean_shifts(old, new),
        added=tuple(sorted(new.columns.keys() - old.columns.keys())),
        removed=tuple(sorted(old.columns.keys() - new.columns.keys())),
    )


def _mean_shifts(old: Profile, new: Profile) -> dict[str, float]:
    shifts = {}
    for name in sorted(old.columns.keys() & new.columns.keys()):
        first, second = old.columns[name], new.columns[name]
        before, after, width = first.get("mean"), second.get("mean"), first.get("deviation")
        if before is not None and after is not None and before != after:
            shifts[name] = round((after - before) / (width or 1.0), 6)
    return shifts


def read_profile(report: bytes) -> Profile:
    """The profile inside a report of the check ``data.quality``.

    Raises:
        msgspec.ValidationError: it is no such report.
    """
    return msgspec.json.decode(report, type=_Report).profile


class _Report(msgspec.Struct, frozen=True):
    profile: Profile
