"""Rows of another kind, made from the user's own: what a detector of unusual inputs has to notice.

Images: ``turned`` by a quarter, ``inverted``, ``shuffled`` pixels, a ``mosaic`` of four images, ``noise``.
Tables: ``recombined`` (every value is usual and comes from another record), ``moved`` (every number by two standard
deviations), ``mixed`` (half way between two records of different classes), ``noise`` (anything within the ranges).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.family import Material
from bartizan.targets.feasible import Space

STEP = 2.0
"""Standard deviations by which rows are moved."""
PLANES = 3
"""Dimensions of an image."""

Rows = NDArray[np.floating[Any]]


def shifted(material: Material, rows: Rows, labels: NDArray[np.int64], rng: np.random.Generator) -> dict[str, Rows]:
    """Each kind of shifted rows, as many as there are ``rows`` ``(records, features)``."""
    if len(material.shape) == PLANES:
        return _images(rows, material.shape, material.space, rng)
    return _tables(rows, labels, material.space, rng)


def _images(rows: Rows, shape: Sequence[int], space: Space, rng: np.random.Generator) -> dict[str, Rows]:
    images = rows.reshape(-1, *shape)
    square = shape[1] == shape[2]
    turned = np.rot90(images, 1, (2, 3)) if square else images[:, :, ::-1, ::-1]
    return {
        "turned": turned.reshape(rows.shape),
        "inverted": (space.low + space.high - rows).astype(rows.dtype),
        "shuffled": rng.permuted(rows, axis=1),
        "mosaic": _mosaic(images, rng).reshape(rows.shape),
        "noise": rng.uniform(space.low, space.high, rows.shape).astype(rows.dtype),
    }


def _mosaic(images: Rows, rng: np.random.Generator) -> Rows:
    """Images of which every quarter comes from another one."""
    made = images.copy()
    middle, centre = images.shape[2] // 2, images.shape[3] // 2
    for high in (slice(None, middle), slice(middle, None)):
        for wide in (slice(None, centre), slice(centre, None)):
            made[:, :, high, wide] = images[rng.permutation(len(images))][:, :, high, wide]
    return made


def _tables(rows: Rows, labels: NDArray[np.int64], space: Space, rng: np.random.Generator) -> dict[str, Rows]:
    blocks = _blocks(space)
    others = _of_other_classes(labels, rng)
    number = ~space.categorical
    moved = rows + number * STEP * space.scale * rng.choice([-1.0, 1.0], rows.shape)
    mixed = np.where(number, (rows + rows[others]) / 2, rows)
    return {
        "recombined": _by_block(rows, blocks, lambda: rng.permutation(len(rows))),
        "moved": moved,
        "mixed": mixed,
        "noise": np.where(
            number,
            rng.uniform(np.minimum(space.low, space.high), space.high, rows.shape),
            _by_block(rows, blocks, lambda: rng.integers(0, len(rows), len(rows))),
        ),
    }


def _blocks(space: Space) -> list[NDArray[np.int64]]:
    """Columns that belong together: those of one category, and every other one alone."""
    groups = [group.columns for group in space.one_hot]
    grouped = {int(column) for group in groups for column in group}
    return [*groups, *(np.array([place]) for place in range(len(space.columns)) if place not in grouped)]


def _by_block(rows: Rows, blocks: Sequence[NDArray[np.int64]], draw: Any) -> Rows:
    made = rows.copy()
    for block in blocks:
        made[:, block] = rows[draw()][:, block]
    return made


def _of_other_classes(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """``(records,)``: for each record another one, of another class where there is one."""
    found = rng.permutation(len(labels))
    for label in np.unique(labels):
        mine, theirs = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if theirs.size:
            found[mine] = rng.choice(theirs, len(mine))
    return found


__all__ = ["shifted"]
