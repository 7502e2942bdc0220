"""Feasible rows: what an adversary can turn a row into, and how large a change is.

A change that makes a row impossible (half a child, two marital states, a negative dose) is no
attack. ``Space.project`` gives the nearest possible row. Changes are measured in standard
deviations of each feature as seen in training; another category counts as a change of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.core.system import DatasetPart
from bartizan.targets.dependent import Dependent, read_dependents
from bartizan.targets.protocol import Rows
from bartizan.targets.table import Table

CATEGORY_CHANGE = 1.0
"""Size of the change from one category to another; standard deviations mean nothing between names."""
TOLERANCE = 1e-9
"""Rounding error that is forgiven when a change is compared with a bound."""
SINGLE_RELATIVE, SINGLE_ABSOLUTE = 2e-6, 2e-7
"""What rounding to single precision can add to a change, of rows with values of about 1."""
OFF_FORMULA = 0.1
"""How far, in standard deviations, the middle record may lie beside the formula of a dependent column."""
_HALF = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class OneHot:
    """Columns of which one holds 1 and the others 0."""

    columns: NDArray[np.int64]
    may_be_empty: bool
    """All zeros stand for the category that has no column of its own."""

    def nearest(self, values: Rows) -> Rows:
        """The nearest encoding of each row of ``values`` ``(batch, columns)``."""
        encoded = np.zeros_like(values)
        encoded[np.arange(len(values)), values.argmax(axis=1)] = 1.0
        if self.may_be_empty:
            encoded[values.max(axis=1) < _HALF] = 0.0
        return encoded


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A column that holds one of a few numbers, each the name of a category."""

    column: int
    values: NDArray[np.float64]
    """Those seen in training, rising."""

    def nearest(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest code to each of ``values`` ``(batch,)``."""
        middles = (self.values[1:] + self.values[:-1]) / 2
        nearest: NDArray[np.float64] = self.values[np.searchsorted(middles, values)]
        return nearest


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """All possible rows of a table."""

    columns: tuple[str, ...]
    scale: NDArray[np.float64]
    """``(features,)``: standard deviation in training; 1 for categories."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    integer: NDArray[np.bool_]
    immutable: NDArray[np.bool_]
    """Declared so, or never varied in training."""
    codes: tuple[Codes, ...] = ()
    one_hot: tuple[OneHot, ...] = ()
    channels: int = 1
    """Colours of an image, whose rows lie flat by channel: the norm 0 counts a pixel once."""
    dependent: tuple[Dependent, ...] = ()
    """Columns that follow from others. They are ``immutable`` by themselves, and cost nothing."""

    def project(self, rows: Rows, origin: Rows, radius: NDArray[np.float64] | None = None) -> Rows:
        """The nearest possible rows that an adversary can make of ``origin``.

        Values that do not differ from the origin's stay as they are, even where training never saw
        them: nature made that row.

        Args:
            rows: ``(batch, features)``.
            origin: ``(batch, features)`` or ``(features,)``: what the adversary starts from.
            radius: ``(batch,)``: largest change allowed, in standard deviations (Linf).
        """
        if self.is_plain and radius is None:
            return np.clip(rows, np.minimum(self.low, origin), np.maximum(self.high, origin))
        origin = np.broadcast_to(origin, rows.shape)
        projected = self._in_range(rows, origin, radius)
        for codes in self.codes:
            projected[:, codes.column] = codes.nearest(rows[:, codes.column])
        fixed = (rows == origin) | self.immutable
        for group in self.one_hot:
            projected[:, group.columns] = group.nearest(rows[:, group.columns])
            fixed[:, group.columns] = fixed[:, group.columns].all(axis=1, keepdims=True)
        if radius is not None:
            fixed |= (radius < CATEGORY_CHANGE)[:, None] & self.categorical
        np.copyto(projected, origin, where=fixed)
        return self._followed(projected, origin) if self.dependent else projected

    def _followed(self, rows: Rows, origin: Rows) -> Rows:
        """The rows with what follows from their changes; those for which that is impossible are not changed at all."""
        moved = (rows != origin).any(axis=1)
        for each in self.dependent:
            rows[:, each.column] = np.where(moved, each.follow(rows, origin), origin[:, each.column])
        columns = [each.column for each in self.dependent]
        low, high = np.minimum(self.low, origin)[:, columns], np.maximum(self.high, origin)[:, columns]
        odd = np.logical_not(np.all((rows[:, columns] >= low) & (rows[:, columns] <= high), axis=1, keepdims=True))
        return np.where(odd, origin, rows)

    def within(self, rows: Rows, origin: Rows, radius: NDArray[np.float64], norm: float = np.inf) -> Rows:
        """The nearest possible rows whose change is at most ``radius`` ``(batch,)`` by a norm: inf, 2, 1 or 0.

        For tables with whole numbers and categories the result is possible and within, though another
        row may be a little nearer. The norm 0 counts features, or all channels of a pixel as one
        where the space has several ``channels``.
        """
        radius = inside(radius, rows.dtype) if norm else radius
        if norm == np.inf:
            return self._in_cube(rows, origin, radius) if self.is_plain else self.project(rows, origin, radius)
        change: Rows = np.asarray((rows - origin) / self.scale)
        change[:, [each.column for each in self.dependent]] = 0.0
        change = shrunk(change, radius, norm, self.channels)
        moved = origin + change * self.scale
        if self.is_plain:
            return np.clip(moved, np.minimum(self.low, origin), np.maximum(self.high, origin))
        projected = self.project(moved, origin)
        # Rounding and categories may have added to the change; what then goes beyond is not moved at all.
        beyond = self.change(projected, origin, norm) > radius * (1 + TOLERANCE)
        return np.where(beyond[:, None], origin, projected)

    def _in_cube(self, rows: Rows, origin: Rows, radius: NDArray[np.float64]) -> Rows:
        """``within`` for a plain space, by the norm inf."""
        reach = np.asarray(radius, dtype=rows.dtype)[:, None] * self.scale
        clipped = np.clip(rows, origin - reach, origin + reach)
        return np.clip(clipped, np.minimum(self.low, origin), np.maximum(self.high, origin), out=clipped)

    @property
    def is_plain(self) -> bool:
        """Whether every row within the ranges is possible: no whole numbers, categories or fixed features."""
        return not (self.codes or self.one_hot or self.integer.any() or self.immutable.any())

    def possible(self, rows: Rows, origin: Rows) -> NDArray[np.bool_]:
        """``(batch,)``: which rows an adversary could have made of ``origin``."""
        off = np.abs(self.project(rows, origin) - rows)
        possible: NDArray[np.bool_] = np.all(off <= TOLERANCE * (self.scale + np.abs(rows)), axis=1)
        return possible

    def change(self, rows: Rows, origin: Rows, norm: float = np.inf) -> NDArray[np.float64]:
        """``(batch,)``: size of the change in units of ``scale``, by the norm inf, 2, 1 or 0 (features changed)."""
        size = np.abs(np.subtract(rows, origin, dtype=np.float64)) / self.scale
        for codes in self.codes:
            size[:, codes.column] = CATEGORY_CHANGE * (size[:, codes.column] != 0)
        size[:, [each.column for each in self.dependent]] = 0.0
        return lengths(size, norm, self.channels)

    @property
    def categorical(self) -> NDArray[np.bool_]:
        """``(features,)``: which columns hold categories."""
        mask = np.zeros(len(self.columns), dtype=np.bool_)
        mask[[codes.column for codes in self.codes]] = True
        for group in self.one_hot:
            mask[group.columns] = True
        return mask

    def _in_range(self, rows: Rows, origin: Rows, radius: NDArray[np.float64] | None) -> Rows:
        """Clipped to range and radius; whole numbers rounded, inwards at the radius."""
        low, high = np.minimum(self.low, origin), np.maximum(self.high, origin)
        if radius is not None:
            reach = radius[:, None] * self.scale
            low, high = np.maximum(low, origin - reach), np.minimum(high, origin + reach)
        clipped = np.clip(rows, low, high)
        if self.integer.any():
            whole = self.integer
            floor, ceiling = np.floor(high[:, whole] + TOLERANCE), np.ceil(low[:, whole] - TOLERANCE)
            rounded = np.clip(np.rint(clipped[:, whole]), ceiling, floor)
            clipped[:, whole] = np.where(ceiling <= floor, rounded, origin[:, whole])
        return clipped


def inside(radius: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """A hair less than the radius where rows are in single precision: what is rounded then is still within."""
    if dtype != np.float32:
        return radius
    return np.maximum(radius * (1 - SINGLE_RELATIVE) - SINGLE_ABSOLUTE, 0.0)


def lengths(change: Rows, norm: float, channels: int = 1) -> NDArray[np.float64]:
    """``(batch,)``: length of each change ``(batch, features)`` by the norm inf, 2, 1 or 0."""
    if norm == 0:
        pixels = (change != 0).reshape(len(change), channels, change.shape[1] // channels).any(axis=1)
        return np.asarray(pixels.sum(axis=1), dtype=np.float64)
    if norm == 2:  # noqa: PLR2004 - the norm
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", change, change, dtype=np.float64)))
    size = np.abs(change)
    return np.asarray(size.max(axis=1, initial=0.0) if norm == np.inf else size.sum(axis=1, dtype=np.float64))


def shrunk(change: Rows, radius: NDArray[np.float64], norm: float, channels: int = 1) -> Rows:
    """The nearest change ``(batch, features)`` whose length by the norm is at most ``radius`` ``(batch,)``.

    The norm 1 by sorting (Duchi et al. 2008); the norm 0 keeps the largest entries.
    """
    radius = np.asarray(radius, dtype=np.float64)
    if norm == np.inf:
        return np.clip(change, -radius[:, None], radius[:, None]).astype(change.dtype, copy=False)
    if norm == 2:  # noqa: PLR2004 - the norm
        length = np.maximum(lengths(change, norm), np.finfo(np.float64).tiny)
        return change * np.minimum(1.0, radius / length).astype(change.dtype)[:, None]
    return _simplex(change, radius) if norm == 1 else _largest(change, radius, channels)


def _simplex(change: Rows, radius: NDArray[np.float64]) -> Rows:
    size = np.abs(change)
    falling = -np.sort(-size, axis=1).astype(np.float64)
    excess = (np.cumsum(falling, axis=1) - radius[:, None]) / np.arange(1, size.shape[1] + 1)
    last = np.maximum((falling > excess).sum(axis=1) - 1, 0)
    cut = np.maximum(excess[np.arange(len(size)), last], 0.0)
    cut[lengths(change, 1) <= radius] = 0.0
    return np.asarray(np.sign(change) * np.maximum(size - cut[:, None].astype(change.dtype), 0))


def _largest(change: Rows, radius: NDArray[np.float64], channels: int) -> Rows:
    stack = change.reshape(len(change), channels, -1)
    weight = np.square(stack).sum(axis=1)
    rank = np.argsort(np.argsort(-weight, axis=1, kind="stable"), axis=1)
    kept = rank < np.floor(radius + TOLERANCE)[:, None]
    return (stack * kept[:, None]).reshape(change.shape)


def image_space(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Space:
    """Images ``(channels, height, width)`` that lie flat, in single precision; changes are in units of intensity."""
    features = math.prod(shape)
    return Space(
        columns=tuple(f"p{place}" for place in range(features)),
        scale=np.ones(features, dtype=np.float32),
        low=np.full(features, low, dtype=np.float32),
        high=np.full(features, high, dtype=np.float32),
        integer=np.zeros(features, dtype=np.bool_),
        immutable=np.zeros(features, dtype=np.bool_),
        channels=shape[0],
    )


def space_of(part: DatasetPart, table: Table) -> Space:
    """The space that a declaration describes, completed by what ``table`` (the training data) shows.

    A name in ``categorical`` or ``immutable`` that is no column stands for the one-hot columns
    ``name=...`` or ``name_...``.

    Of images it is all that have their values within the declared range, and changes are in its units.

    Raises:
        ArtefactError: the declaration names a column that is not there, or says what the data contradict.
    """
    if part.shape:
        return image_space(part.shape, *(part.value_range or (float(table.rows.min()), float(table.rows.max()))))
    places = {name: _places(part, table, name) for name in (*part.integer, *part.categorical, *part.immutable)}
    one_hot = tuple(_one_hot(part, table, name, places[name]) for name in part.categorical if name not in table.columns)
    codes = tuple(_codes(table, places[name]) for name in part.categorical if name in table.columns)
    deviation = table.rows.std(axis=0)
    immutable = _mask(table, [places[name] for name in part.immutable]) | (deviation == 0)
    categorical = _mask(table, [places[name] for name in part.categorical])
    for group in one_hot:
        immutable[group.columns] = immutable[group.columns].any()
    low, high = _ranges(part, table)
    dependent = _dependents(part, table, np.flatnonzero(categorical))
    immutable[[each.column for each in dependent]] = True
    return Space(
        columns=table.columns,
        scale=np.where((deviation > 0) & ~categorical, deviation, 1.0),
        low=low,
        high=high,
        integer=_mask(table, [places[name] for name in part.integer]) & ~categorical,
        immutable=immutable,
        codes=codes,
        one_hot=one_hot,
        dependent=dependent,
    )


def _dependents(part: DatasetPart, table: Table, categorical: NDArray[np.int64]) -> tuple[Dependent, ...]:
    """Declared dependent columns, when the data bear them out."""
    found = read_dependents(part.dependent, table.columns)
    for each in found:
        name, values = table.columns[each.column], table.rows[:, each.column]
        if each.column in categorical:
            _refuse(part, f"says that {name!r} is a category and depends on other columns")
        with np.errstate(all="ignore"):
            off = np.abs(each.formula(table.rows) - values)
        if not np.median(np.nan_to_num(off, nan=np.inf)) <= OFF_FORMULA * max(values.std(), np.finfo(float).tiny):
            _refuse(part, f"says that {name!r} is {each.text}, and for most records it is not")
    return found


def _places(part: DatasetPart, table: Table, name: str) -> NDArray[np.int64]:
    """The column called ``name``, or the one-hot columns whose category it is."""
    if name in table.columns:
        return np.array([table.columns.index(name)])
    prefixes = (f"{name}=", f"{name}_")
    places = [place for place, column in enumerate(table.columns) if column.startswith(prefixes)]
    if not places:
        _refuse(part, f"names the column {name!r}, which the table has not, nor one-hot columns '{name}=...'")
    return np.array(places)


def _mask(table: Table, places: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    mask = np.zeros(len(table.columns), dtype=np.bool_)
    for place in places:
        mask[place] = True
    return mask


def _one_hot(part: DatasetPart, table: Table, name: str, places: NDArray[np.int64]) -> OneHot:
    """A group of columns, checked; columns of categories that never occur are no choice."""
    values = table.rows[:, places]
    sums = values.sum(axis=1)
    if not np.isin(values, (0.0, 1.0)).all() or not np.isin(sums, (0.0, 1.0)).all():
        _refuse(part, f"says that {name!r} is one-hot, but its columns are not 0 and 1 with at most one 1 in a row")
    return OneHot(places[values.any(axis=0)], may_be_empty=bool((sums == 0).any()))


def _codes(table: Table, places: NDArray[np.int64]) -> Codes:
    column = int(places[0])
    return Codes(column, np.unique(table.rows[:, column]))


def _ranges(part: DatasetPart, table: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = table.rows.min(axis=0), table.rows.max(axis=0)
    for name, (least, most) in part.ranges.items():
        if name not in table.columns:
            _refuse(part, f"gives a range for the column {name!r}, which the table has not")
        if not least <= most:
            _refuse(part, f"gives the column {name!r} the range {least} to {most}")
        place = table.columns.index(name)
        low[place], high[place] = least, most
    return low, high


def _refuse(part: DatasetPart, fault: str) -> NoReturn:
    raise ArtefactError(f"dataset {part.name!r} {fault}", remedy="mend its [[dataset]] table in bartizan.toml.")
