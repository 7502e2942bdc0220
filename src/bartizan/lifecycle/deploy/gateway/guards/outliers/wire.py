"""A reference as bytes inside the report of the check that fitted it: JSON, arrays as base64, no pickle (CWE-502)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guards.outliers.encoding import Encoding
from bartizan.lifecycle.deploy.gateway.guards.outliers.reference import Reference
from bartizan.lifecycle.deploy.gateway.guards.outliers.surprise import Rarity

FORMAT = "bartizan-outliers-1"
MAX_BYTES = 16 << 20
"""Of a report; the largest that is fitted is far smaller."""
MAX_NUMBERS = 1 << 20
"""Of one array."""
LARGEST = 1e100
"""Standard deviations beyond this, or as small as one over it, are none."""
CHECK = "gateway.outliers"
_REMEDY = f"run `bartizan assure --only {CHECK}` and register the model anew."
_DTYPES: dict[str, np.dtype[Any]] = {"<f4": np.dtype("<f4"), "<f8": np.dtype("<f8"), "<i8": np.dtype("<i8")}


class Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An array."""

    dtype: Literal["<f4", "<f8", "<i8"]
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=2)]
    data: bytes


class Sheet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything of a ``Reference``."""

    format: Literal["bartizan-outliers-1"] = FORMAT  # type: ignore[assignment]  # the constant is that text
    features: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    prior: Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=1_000)]
    arrays: dict[str, Packed]
    turned: bool
    temperature: Annotated[float, msgspec.Meta(gt=0)]
    rarities: dict[str, Rarity]


class Report(msgspec.Struct, frozen=True):
    """What is read of the report; the rest of it is for people."""

    reference: Sheet


_REPORT = msgspec.json.Decoder(Report)
_ENCODED = ("numbers", "centre", "inverse", "code_columns", "code_values", "basis")
_REFERENCED = ("prototypes", "whitening", "middles")


def packed(reference: Reference) -> dict[str, Any]:
    """The reference as plain JSON values; equal references give equal values."""
    arrays = {name: getattr(reference.encoding, name) for name in _ENCODED}
    arrays |= {name: getattr(reference, name) for name in _REFERENCED}
    sheet = Sheet(
        features=reference.features,
        prior=reference.prior,
        arrays={name: _pack(array) for name, array in arrays.items()},
        turned=reference.turned,
        temperature=reference.temperature,
        rarities=reference.rarities,
    )
    plain: dict[str, Any] = msgspec.to_builtins(sheet)
    return plain


def _pack(array: NDArray[Any]) -> Packed:
    dtype: Any = array.dtype.newbyteorder("<").str
    return Packed(dtype, array.shape, np.ascontiguousarray(array, dtype=dtype).tobytes())


def unpacked(report: bytes) -> Reference:
    """The reference in a report.

    Raises:
        ArtefactError: there is none that is whole and fits together.
    """
    if len(report) > MAX_BYTES:
        raise ArtefactError(f"the report of {CHECK} is larger than {MAX_BYTES} bytes", remedy=_REMEDY)
    try:
        sheet = _REPORT.decode(report).reference
        return _checked(sheet)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, KeyError, RecursionError) as error:
        raise ArtefactError(f"the report of {CHECK} holds no reference: {error}", remedy=_REMEDY) from error


def _checked(sheet: Sheet) -> Reference:
    arrays = {name: _array(name, sheet.arrays[name]) for name in (*_ENCODED, *_REFERENCED)}
    encoding = Encoding(**{name: arrays[name] for name in _ENCODED})
    reference = Reference(
        features=sheet.features,
        prior=sheet.prior,
        encoding=encoding,
        turned=sheet.turned,
        temperature=sheet.temperature,
        rarities=sheet.rarities,
        **{name: arrays[name] for name in _REFERENCED},
    )
    if problem := _problem(reference):
        raise ValueError(problem)
    return reference


def _array(name: str, given: Packed) -> NDArray[Any]:
    count = math.prod(given.shape)
    dtype = _DTYPES[given.dtype]
    if count > MAX_NUMBERS or len(given.data) != count * dtype.itemsize:
        raise ValueError(f"{name} has not the bytes of its shape")
    array: NDArray[Any] = np.frombuffer(given.data, dtype=dtype).reshape(given.shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array


def _problem(reference: Reference) -> str:
    """What does not fit together; empty when all does."""
    encoding, wide = reference.encoding, reference.encoding.coordinates
    before = len(encoding.numbers) + len(encoding.code_columns)
    places = np.concatenate([encoding.numbers, encoding.code_columns])
    shapes = {
        "numbers": encoding.numbers.dtype == np.int64 and encoding.numbers.ndim == 1,
        "centre": encoding.centre.shape == encoding.numbers.shape,
        "inverse": encoding.inverse.shape == encoding.numbers.shape and _moderate(encoding.inverse),
        "code_columns": encoding.code_columns.dtype == np.int64 and encoding.code_columns.ndim == 1,
        "code_values": encoding.code_values.shape == encoding.code_columns.shape,
        "basis": not encoding.basis.size or encoding.basis.shape[1:] == (before,),
        "prototypes": reference.prototypes.shape[1:] == (wide,) and len(reference.prototypes) > 0,
        "whitening": reference.whitening.shape == (wide, wide),
        "middles": reference.middles.shape[1:] == (wide,) and len(reference.middles) > 0,
        "columns": not places.size or (places.min() >= 0 and places.max() < reference.features),
        "prior": min(reference.prior) >= 0,
        "rarities": bool(reference.rarities) and all(map(_rises, reference.rarities.values())),
    }
    wrong = [name for name, fits in shapes.items() if not fits]
    return f"{', '.join(wrong)} do not fit together" if wrong else ""


def _moderate(inverse: NDArray[Any]) -> bool:
    """Whether nothing overflows when a value is divided by it."""
    return bool(((inverse > 1 / LARGEST) & (inverse < LARGEST)).all())


def _rises(rarity: Rarity) -> bool:
    numbers, decades = np.asarray(rarity.numbers), np.asarray(rarity.decades)
    whole = len(numbers) == len(decades) > 0 and bool(np.isfinite([*numbers, *decades, rarity.slope]).all())
    return whole and rarity.slope > 0 and bool((np.diff(numbers) > 0).all() and (np.diff(decades) >= 0).all())


__all__ = ["CHECK", "FORMAT", "MAX_BYTES", "packed", "unpacked"]
