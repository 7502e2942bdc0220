"""One dataset under examination: the data, those beside it, and what several measures share."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.data.encoding import Encoder, fit_encoder
from bartizan.lifecycle.develop.data.learners import FOLDS
from bartizan.lifecycle.develop.data.neighbours import Neighbours, nearest
from bartizan.lifecycle.develop.data.reading import ABSENT, Sample
from bartizan.targets.protocol import Labels, Rows

MAX_POINTS = 100_000
"""Records that distances are computed for; of a larger set a seeded sample is taken."""
MAX_POINT_CELLS = 1 << 24
"""Records x columns that distances are computed for: fewer records of wide tables."""
REFERENCES = 8_000
"""Records among which neighbours are looked for; of a larger set a seeded sample is taken."""
NEIGHBOURS = 50
REACH = 20.0
FEWEST_GROUPS = 2 * FOLDS
"""Groups that each class must occur in for groups to be kept whole."""
JUDGED_RECORDS = 2 * FOLDS
"""Records that a class needs to be judged."""
MOSTLY_EMPTY = 0.5
"""Records with a larger share of gaps have no place among the others."""


@dataclass(eq=False)
class Examination:
    """What measures read. Everything derived is computed once, when first asked for."""

    sample: Sample
    siblings: tuple[Sample, ...] = ()
    """The system's other datasets."""
    seed: int = 0

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of one measure, independent of the other measures."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    @cached_property
    def encoder(self) -> Encoder:
        """How records become points."""
        return fit_encoder(self.sample)

    @cached_property
    def usable(self) -> NDArray[np.int64]:
        """Indices, rising, of the records that have a label and a place among the others."""
        gaps = np.isnan(self.sample.rows).mean(axis=1)
        return np.flatnonzero((self.sample.labels != ABSENT) & (gaps <= MOSTLY_EMPTY))

    @cached_property
    def chosen(self) -> NDArray[np.int64]:
        """Indices, rising, of the ``usable`` records that are looked at closely: all, or a sample."""
        most = min(MAX_POINTS, max(1, MAX_POINT_CELLS // len(self.sample.columns)))
        if len(self.usable) <= most:
            return self.usable
        return np.sort(self.rng("chosen").choice(self.usable, most, replace=False))

    @property
    def sampled(self) -> bool:
        """Whether ``chosen`` is a sample of a larger set."""
        return len(self.chosen) < len(self.usable)

    @cached_property
    def points(self) -> Rows:
        """``(chosen, dimensions)``."""
        return self.encoder.points(self.sample.rows[self.chosen])

    @cached_property
    def near_points(self) -> Rows:
        """``points`` cut off at ``REACH`` deviations: what lies beyond is far, and how far would drown the rest."""
        return np.clip(self.points, -REACH, REACH)

    @cached_property
    def labels(self) -> Labels:
        """``(chosen,)``."""
        return self.sample.labels[self.chosen]

    @cached_property
    def copies(self) -> NDArray[np.int64]:
        """``(records,)``: records with the same number hold exactly the same features."""
        return copy_numbers(self.sample.rows)

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """``(chosen,)``: records that must stay on one side of a split.

        These are the declared groups, unless some class occurs in too few of them to be on both
        sides; then copies of one another.
        """
        if self.sample.groups:
            groups = np.unique(self.sample.groups, return_inverse=True)[1][self.chosen].astype(np.int64)
            spread = blocks_by_class(groups, self.labels, self.sample.classes)
            if spread[np.unique(self.labels)].min(initial=FEWEST_GROUPS) >= FEWEST_GROUPS:
                return groups
        return self.copies[self.chosen]

    @cached_property
    def judged(self) -> NDArray[np.int64]:
        """Classes with enough records, in enough blocks, to be learnt and judged by cross-validation."""
        counts = np.bincount(self.labels, minlength=self.sample.classes)
        spread = blocks_by_class(self.blocks, self.labels, self.sample.classes)
        return np.flatnonzero((counts >= JUDGED_RECORDS) & (spread >= FOLDS))

    @cached_property
    def references(self) -> NDArray[np.int64]:
        """Places within ``chosen`` among which neighbours are looked for."""
        everyone = np.arange(len(self.chosen))
        if len(everyone) <= REFERENCES:
            return everyone
        return np.sort(self.rng("references").choice(everyone, REFERENCES, replace=False))

    @cached_property
    def neighbours(self) -> Neighbours:
        """The nearest ``NEIGHBOURS`` references of each chosen record, as places within ``chosen``."""
        own = np.full(len(self.chosen), -1)
        own[self.references] = np.arange(len(self.references))
        found = nearest(self.near_points[self.references], self.near_points, NEIGHBOURS, own=own)
        return Neighbours(self.references[found.places], found.distances)


def blocks_by_class(blocks: NDArray[np.int64], labels: Labels, classes: int) -> NDArray[np.int64]:
    """``(classes,)``: in how many blocks each class is found."""
    return np.bincount(np.unique(np.stack([blocks, labels]), axis=1)[1], minlength=classes)


def copy_numbers(*tables: Rows) -> NDArray[np.int64]:
    """The same number for records with exactly the same features, over one or more tables in turn."""
    stacked = np.ascontiguousarray(np.concatenate(tables)) + 0.0
    stacked[np.isnan(stacked)] = np.nan
    whole = stacked.view(np.dtype((np.void, stacked.dtype.itemsize * stacked.shape[1]))).ravel()
    return np.unique(whole, return_inverse=True)[1].astype(np.int64)
