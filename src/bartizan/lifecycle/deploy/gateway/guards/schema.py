"""The guard ``schema``: what does not look like an input of this model never reaches it (CWE-20).

Every number lies in the range of its column, is whole where only whole ones can be, and is one of those that stand
for a category. All columns are judged at once; which cell is wrong is worked out only when one is, and is for the
audit record alone: a client that is told where the bounds lie has been told what to forge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Column, Material, Numbers, Verdict

FACTORS = (1e-3, 1e-2, 0.1, 10.0, 100.0, 1e3, 0.45359237, 1 / 0.45359237, 2.54, 1 / 2.54)
"""Between units that are mistaken for one another: thousandths to thousands, pounds and inches."""
LARGEST = float(np.finfo(np.float64).max)
"""Bound of a column for which none is known: every number, and nothing that is none."""
MOST_NAMED = 80
"""Characters of a column's name in a reason."""
ACTIONS = {"flag": Action.FLAG, "hold": Action.HOLD, "refuse": Action.REFUSE}

Bound = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


class ColumnRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration says of one column, instead of what is declared and known of it."""

    low: Bound | None = None
    high: Bound | None = None
    whole: bool | None = None
    categories: Annotated[tuple[Bound, ...], msgspec.Meta(max_length=10_000)] = ()
    unit: Annotated[str, msgspec.Meta(max_length=40)] = ""


class SchemaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration may say of the guard ``schema``."""

    outside: Literal["flag", "hold", "refuse"] = "refuse"
    """What is done with a request of which a number is wrong."""
    most_rows: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 4_096
    """Rows of one request."""
    columns: dict[str, ColumnRule] = {}
    """By the name of the column."""


class SchemaGuard:
    """See ``Guard``."""

    Settings: ClassVar[type[msgspec.Struct]] = SchemaSettings
    name = "schema"
    cost = 4.0
    for_requests = True

    def __init__(self, settings: SchemaSettings, material: Material) -> None:
        """Raises InputError when the settings name what is not there, or leave nothing possible."""
        columns = _columns(settings, material)
        self._columns, self._most, self._action = columns, settings.most_rows, ACTIONS[settings.outside]
        self._low = np.array([-LARGEST if column.low is None else column.low for column in columns])
        self._high = np.array([LARGEST if column.high is None else column.high for column in columns])
        # Rows may come in single precision: a bound that single precision cannot hold is widened to one it can.
        self._low32 = _outwards(self._low, -np.inf)
        self._high32 = _outwards(self._high, np.inf)
        self._whole = np.flatnonzero([column.whole and not column.categories for column in columns])
        self._codes = _Codes(columns)

    def on_request(self, asked: Asked) -> Verdict | None:
        """Refuse what is no input of this model."""
        rows = asked.rows
        if rows.ndim != 2 or rows.shape[1] != len(self._columns) or not 1 <= len(rows) <= self._most:  # noqa: PLR2004
            reason = f"rows of shape {rows.shape} are not 1 to {self._most} of {len(self._columns)} columns"
            return Verdict(action=Action.REFUSE, reason=reason)
        inside = self._inside(rows)
        return None if self._is_right(rows, inside) else self._refused(rows, inside)

    def clears(self, rows: Numbers, most: int) -> bool:
        """See ``Guard.on_request``."""
        fits = rows.ndim == 2 and rows.shape[1] == len(self._columns) and most <= self._most  # noqa: PLR2004
        return fits and self._is_right(rows, self._inside(rows))

    def _inside(self, rows: Numbers) -> NDArray[np.bool_]:
        single = rows.dtype == np.float32
        inside = rows >= (self._low32 if single else self._low)
        inside &= rows <= (self._high32 if single else self._high)
        return inside

    def _is_right(self, rows: Numbers, inside: NDArray[np.bool_]) -> bool:
        # The bytes of an array of truths: quicker than asking the array whether all hold. NaN lies nowhere.
        return not (
            b"\x00" in inside.tobytes()
            or (self._whole.size and not _all_whole(rows.take(self._whole, axis=1)))
            or (self._codes.columns.size and b"\x00" in self._codes.known(rows).tobytes())
        )

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """Nothing."""

    def _refused(self, rows: Numbers, right: NDArray[np.bool_]) -> Verdict:
        """Name the first cell that is wrong."""
        with np.errstate(invalid="ignore"):
            values = rows[:, self._whole]
            right[:, self._whole] &= np.rint(values) == values
        if self._codes.columns.size:
            right[:, self._codes.columns] &= self._codes.known(rows)
        place = int(np.argmin(right))
        return Verdict(action=self._action, reason=self._reason(rows, *divmod(place, rows.shape[1])))

    def _reason(self, rows: Numbers, row: int, place: int) -> str:
        """What is wrong with a cell. Its value is left out: inputs are kept nowhere."""
        column, value = self._columns[place], float(rows[row, place])
        where = f"row {row}, column {column.name[:MOST_NAMED]!r}"
        unit = f" {column.unit}" if column.unit else ""
        if not np.isfinite(value):
            return f"{where} is not finite"
        if column.low is not None and value < column.low:
            return f"{where} is below {column.low:g}{unit}{_mistaken(column, value)}"
        if column.high is not None and value > column.high:
            return f"{where} is above {column.high:g}{unit}{_mistaken(column, value)}"
        if column.categories:
            return f"{where} is none of its {len(column.categories)} categories"
        return f"{where} is no whole number"


class _Codes:
    """Columns that hold categories, and their codes, one after the other."""

    def __init__(self, columns: Sequence[Column]) -> None:
        found = [place for place, column in enumerate(columns) if column.categories]
        counts = [len(columns[place].categories) for place in found]
        self.columns = np.array(found, dtype=np.int64)
        self._starts = np.cumsum([0, *counts[:-1]]) if found else np.array([], dtype=np.int64)
        self._spread = np.repeat(self.columns, counts)
        self._values = np.array([code for place in found for code in columns[place].categories])
        self._values32 = self._values.astype(np.float32)

    def known(self, rows: Numbers) -> NDArray[np.bool_]:
        """``(batch, columns)``: whether each cell holds a code of its column."""
        values = self._values32 if rows.dtype == np.float32 else self._values
        same = rows.take(self._spread, axis=1) == values
        return np.logical_or.reduceat(same, self._starts, axis=1)


def _all_whole(values: Numbers) -> bool:
    return b"\x00" not in (np.rint(values) == values).tobytes()


def _outwards(bounds: NDArray[np.float64], towards: float) -> NDArray[np.float32]:
    """Finite bounds in single precision, none of them inside of what they were."""
    most = float(np.finfo(np.float32).max)
    single = np.clip(bounds, -most, most).astype(np.float32)
    inner = single > bounds if towards < 0 else single < bounds
    with np.errstate(over="ignore"):
        moved = np.nextafter(single, np.float32(towards))
    return np.where(inner & np.isfinite(moved), moved, single).astype(np.float32)


def _mistaken(column: Column, value: float) -> str:
    """Whether the value would be possible in another unit that is mistaken for the column's."""
    if not column.unit or column.low is None or column.high is None:
        return ""
    fits = any(column.low <= value * factor <= column.high for factor in FACTORS)
    return "; in another unit it would fit" if fits else ""


def _columns(settings: SchemaSettings, material: Material) -> tuple[Column, ...]:
    """What is known of each column, as the configuration overrules it.

    Raises:
        InputError: a column that is named is not there, or a range is empty.
    """
    known = {column.name for column in material.columns}
    if odd := sorted(set(settings.columns) - known):
        raise InputError(
            f"guard schema: the model has no column {odd[0]!r}",
            remedy="name columns as the dataset does that the model was trained on.",
        )
    columns = tuple(_overruled(column, settings.columns.get(column.name), material) for column in material.columns)
    for column in columns:
        if column.low is not None and column.high is not None and column.low > column.high:
            raise InputError(
                f"guard schema: column {column.name!r} can hold nothing from {column.low:g} to {column.high:g}",
                remedy="give the lower bound first.",
            )
    return columns


def _overruled(column: Column, rule: ColumnRule | None, material: Material) -> Column:
    low, high = material.value_range or (None, None)
    changes: dict[str, Any] = {}
    if column.low is None and low is not None:
        changes["low"] = low
    if column.high is None and high is not None:
        changes["high"] = high
    if rule is not None:
        said = {name: getattr(rule, name) for name in ("low", "high", "whole")}
        changes |= {name: value for name, value in said.items() if value is not None}
        changes |= {name: value for name in ("categories", "unit") if (value := getattr(rule, name))}
    return msgspec.structs.replace(column, **changes) if changes else column


__all__ = ["ColumnRule", "SchemaGuard", "SchemaSettings"]
