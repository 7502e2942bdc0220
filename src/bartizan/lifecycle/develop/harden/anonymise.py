"""Anonymising the training data: records that share their identifying values with others (k-anonymity).

Sweeney 2002 for the aim, LeFevre et al. 2006 (Mondrian multidimensional k-anonymity) for the way: the
records are halved along the widest column at its median as long as both halves keep ``K`` records; then
each group gets its mean. K-anonymity says nothing about what else is known of a person and is no
differential privacy; what it leaves is measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.family import Material
from bartizan.redteam.statistics import bootstrap, metric, proportion
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access, Labels, Rows, Target

K = 5


def groups(rows: Rows, columns: NDArray[np.int64], scale: Rows, k: int = K) -> NDArray[np.int64]:
    """``(records,)``: group of each record; every group has at least ``k``, or all records together are fewer."""
    group = np.zeros(len(rows), np.int64)
    waiting, last = [np.arange(len(rows))], 0
    while waiting:
        inside = waiting.pop()
        parts = _halves(rows[inside][:, columns] / scale[columns], k)
        if parts is None:
            group[inside] = last
            last += 1
        else:
            waiting += [inside[~parts], inside[parts]]
    return group


def _halves(values: Rows, k: int) -> NDArray[np.bool_] | None:
    """Which records go to the upper half, along the widest column that allows it; None when none does."""
    spans = np.ptp(values, axis=0) if len(values) else np.zeros(0)
    for column in np.argsort(-spans, kind="stable"):
        if spans[column] <= 0:
            break
        upper: NDArray[np.bool_] = values[:, column] > np.median(values[:, column])
        if min(int(upper.sum()), int((~upper).sum())) >= k:
            return upper
    return None


def generalised(rows: Rows, columns: NDArray[np.int64], space: Space, k: int = K) -> Rows:
    """The rows with the identifying ``columns`` replaced by what their group shares: mean, or commonest code."""
    group = groups(rows, columns, space.scale, k)
    counts = np.bincount(group)
    result = rows.copy()
    codes = {item.column for item in space.codes}
    one_hot = {int(column) for item in space.one_hot for column in item.columns}
    for column in columns.tolist():
        if column in codes:
            result[:, column] = _commonest(rows[:, column], group)
            continue
        means = np.bincount(group, weights=rows[:, column]) / counts
        result[:, column] = np.rint(means[group]) if space.integer[column] and column not in one_hot else means[group]
    return result


def _commonest(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    kinds, places = np.unique(values, return_inverse=True)
    table = np.zeros((group.max() + 1, len(kinds)), np.int64)
    np.add.at(table, (group, places), 1)
    common: NDArray[np.float64] = kinds[table.argmax(axis=1)][group]
    return common


class Anonymised(Wrapped):
    """A model that has seen generalised rows only."""

    def __init__(self, inner: Target, columns: NDArray[np.int64], space: Space) -> None:
        super().__init__(inner)
        self._columns, self._space = columns, space

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: the records are generalised first."""
        inner = self.inner.retrain(self.seen(rows), labels, seed=seed)
        return Anonymised(inner, self._columns, self._space)

    def seen(self, rows: Rows) -> Rows:
        """What the model is given of training rows."""
        return generalised(rows, self._columns, self._space)


class Anonymise:
    """See the file's own words."""

    name, title, kind, credit = "anonymise", f"Trained on {K}-anonymous records", "data", True
    references: tuple[str, ...] = (
        "LeFevre et al. 2006, Mondrian multidimensional k-anonymity, ICDE",
        "Sweeney 2002, k-anonymity: a model for protecting privacy",
    )

    def __init__(self, identifying: tuple[str, ...] = ()) -> None:
        self.identifying = identifying
        """Columns by which a person could be recognised; empty takes all."""

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"k": K, "identifying": list(self.identifying) or "all columns"}

    def columns(self, material: Material) -> NDArray[np.int64]:
        """Places of the identifying columns."""
        names = self.identifying or material.training.columns
        return np.array([place for place, name in enumerate(material.training.columns) if name in names], np.int64)

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        unknown = sorted(set(self.identifying) - set(material.training.columns))
        if unknown:
            return f"the training data have no column {unknown[0]!r}."
        if Access.TRAINING not in base.offers:
            return "the model cannot be trained again."
        return "" if len(material.training) >= 2 * K else f"{len(material.training)} records are too few for groups."

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        unfitted = Anonymised(base, self.columns(material), material.space)
        return unfitted.retrain(material.training.rows, material.training.labels, seed=int(rng.integers(2**31)))


class Linkage:
    """How well somebody who knows a person's identifying values finds the record in leaked data. See ``Column``."""

    name = "linkage"
    version = "1"
    title = "Linkage of leaked training records"

    def __init__(self, anonymise: Anonymise) -> None:
        self._anonymise = anonymise

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        columns, material = self._anonymise.columns(trial.material), trial.material
        rows = material.training.rows
        seen = trial.target.seen(rows) if isinstance(trial.target, Anonymised) else rows
        found, alone = linked(rows, seen, columns, material.space.scale)
        interval = bootstrap(found, lambda drawn: float(drawn.mean()), trial.rng("linkage"))
        return Part(
            metrics={
                "linked": metric(float(found.mean()), interval, len(found), "bootstrap", unit="share"),
                "singled_out": proportion(int(alone.sum()), len(alone)).metric("share"),
            },
            details={"identifying": [material.training.columns[place] for place in columns.tolist()]},
        )


def linked(
    rows: Rows, leaked: Rows, columns: NDArray[np.int64], scale: Rows
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Who knows a record's values takes the nearest leaked record: chance that it is right, ``(records,)``.

    Beside it which records share their leaked values with nobody. Leaked records that are equal share the chance.
    """
    chance, alone = np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
    known, kept = rows[:, columns] / scale[columns], leaked[:, columns] / scale[columns]
    _, kinds, sizes = np.unique(kept, axis=0, return_inverse=True, return_counts=True)
    kinds = kinds.ravel()
    first = np.zeros(len(sizes), np.int64)
    first[kinds[::-1]] = np.arange(len(kinds))[::-1]
    for place, row in enumerate(known):
        nearest = int(np.square(kept[first] - row).sum(axis=1).argmin())
        chance[place] = 1 / sizes[nearest] if nearest == kinds[place] else 0.0
        alone[place] = sizes[kinds[place]] == 1
    return chance, alone
