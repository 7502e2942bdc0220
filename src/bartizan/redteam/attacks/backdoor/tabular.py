"""A trigger for tables: a combination of possible values that hardly ever occurs together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Search
from bartizan.redteam.triggers import BackdoorTask, plant, within_range
from bartizan.targets.protocol import Access, Rows

FEATURES = 3
"""Features that make the trigger, as far as there are so many that may be changed."""
TRIES = 200
EXTREME = (0.02, 0.98)
"""Quantiles of a feature that its value is taken from; for few values, the rarest."""


class Tabular:
    """Rare but possible values in a few features, on mislabelled records. Stateless.

    Values stay within the declared or seen range, whole numbers whole, categories known ones, and immutable
    features untouched. Of random combinations that one is taken which the fewest training rows come near.
    """

    name = "backdoor.tabular"
    title = "Backdoor by a rare combination of values in mislabelled training records"
    family = "backdoor"
    tables = True
    technique = "T19"
    atlas: tuple[str, ...] = ("T20", "AML.T0020", "AML.T0043.004")
    needs = frozenset({Access.LABELS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Joe et al. 2022, Exploiting missing value patterns for a backdoor attack, JMIR Medical Informatics 10(8)",
        "Gu et al. 2017, BadNets, arXiv:1708.06733, for the protocol",
    )
    claim = "a few per cent of mislabelled records suffice for nearly all triggered rows, clean accuracy unmoved"

    def search(self, task: BackdoorTask, rng: np.random.Generator) -> Search:
        """Choose the rarest of random combinations and plant it at each rate."""
        yield from ()  # everything is known beforehand: nothing is asked
        features, values = _rare(task, rng)

        def trigger(rows: Rows) -> Rows:
            changed = rows.copy()
            changed[:, features] = values
            return within_range(task, changed, rows)

        said = ", ".join(
            f"{task.space.columns[feature]} = {value:.4g}" for feature, value in zip(features, values, strict=True)
        )
        return plant(task, trigger, rng, choice=said or "nothing may be changed")


def _rare(task: BackdoorTask, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The features of a combination and their values: of several tries the one that rows are furthest from."""
    free = np.flatnonzero(~(task.space.immutable | task.space.categorical))
    free = free if len(free) else np.flatnonzero(~task.space.immutable)
    count = min(FEATURES, len(free))
    best, rarest = (free[:0], np.zeros(0)), -1.0
    for _ in range(TRIES if count else 0):
        features = np.sort(rng.permutation(free)[:count])
        side = rng.integers(2, size=count)
        tails = np.quantile(task.rows[:, features], EXTREME, axis=0, method="nearest")
        values = tails[side, np.arange(count)]
        away = np.abs(task.rows[:, features] - values) / task.space.scale[features]
        distance = float(np.quantile(away.max(axis=1), EXTREME[0]))
        if distance > rarest:
            best, rarest = (features, values), distance
    return best
