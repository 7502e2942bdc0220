"""What is learnt of natural rows before anything is served: the map, local spacing, and where the tails begin."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, InputError
from bartizan.lifecycle.deploy.gateway.guards.sequence.encoder import (
    WIDE,
    WIDTH,
    Encoder,
    Encoding,
    Floats,
    Pooling,
)

LEAST = 60
"""Natural rows below which no spacing can be told."""
MOST = 3_000
"""Rows that are compared with one another."""
REFERENCES = 1_000
"""Rows that are kept to tell the local spacing by."""
NEIGHBOUR = 3
"""The spacing at a reference row is the distance of its so many-th neighbour: a duplicate or two do not hide it."""
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Shares of natural rows at which the distance to the nearest earlier one is kept."""
STRANGE = 0.99
"""Of natural rows lie nearer to the reference than what is called strange."""
EDGE = 0.03
"""Of natural rows are answered with less lead than what is called near the boundary."""
DIMENSIONS = (1.0, 64.0)
NEIGHBOURS = 20
MOST_KNOWN = 200_000


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What is usual in the streams of one role, as learnt from recorded ones."""

    low: float
    """Spacing of a frame from the nearest earlier one, in local units, that is seldom gone below."""
    high: float
    """And seldom exceeded."""
    unusual: float
    """Share of the frames close to an earlier one that are outside of that, or are answered otherwise than it."""
    slack: float
    """Points that such streams reach by themselves: where the model is unsure of a scene, answers go to and fro."""
    frames: int


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """All that the guard is made from. Holds no row, but sixteen numbers of each of up to a thousand."""

    encoding: Encoding
    rows: bytes
    """``(references, width)``: short forms, little-endian float32."""
    spacing: bytes
    """``(references,)``: how far apart natural rows lie there."""
    compared: int
    """Rows among which the following was measured."""
    dimension: bytes
    """``(references,)``: how many dimensions natural rows fill there (Levina and Bickel 2004). Distances shrink with
    their number as ``n ** (-1 / dimension)``; a stroke that only turns fills one or two, most rows five or more."""
    near: dict[str, float]
    """Share of natural rows -> distance to the nearest other, in units of the local spacing, that they undercut."""
    strange: float
    """Distance from the nearest reference row, in units of its spacing, that 1 % of natural rows exceed."""
    edge: float = 0.0
    """Lead of the first score over the second that 3 % of natural rows stay below; 0 when there were no scores."""
    known: bytes = b""
    """CRC-32 of the rows that the model was trained on, rising, four bytes each; empty when they were not given."""
    known_usual: float = 0.0
    """Share of natural rows that are among them all the same."""
    expected: dict[str, Expectation] = {}
    """Role -> what is usual in its streams."""

    def limit(self, share: float) -> float:
        """The distance, in local units, below which a row is too close, so that ``share`` of natural rows are."""
        shares = np.array([float(name) for name in self.near])
        return float(np.interp(share, shares, np.array(list(self.near.values()))))


class Spacing:
    """Local spacing around a row: natural rows lie dense here and thin there, and so does what is too close."""

    def __init__(self, rows: Floats, spacing: Floats, shrink: Floats) -> None:
        """Take short forms ``(references, width)``, and how far apart natural rows lie at each.

        ``shrink`` is what becomes of that when there are as many rows as are remembered.
        """
        self._table = np.ascontiguousarray(table_of(rows))
        self._spacing: list[float] = [float(value) for value in spacing]
        self._shrink: list[float] = [float(value) for value in shrink]
        self._products = np.empty(len(rows), np.float32)

    def one(self, query: Floats, norm: float) -> tuple[float, float]:
        """For a query ``(width + 1,)`` and its squared length: local spacing, and distance in units of it."""
        np.dot(query, self._table, out=self._products)
        nearest = int(self._products.argmax())
        return self._of(nearest, norm - 2 * float(self._products[nearest]))

    def many(self, queries: Floats, norms: list[float]) -> list[tuple[float, float]]:
        """The same for ``(batch, width + 1)``."""
        products = queries @ self._table
        nearest = products.argmax(axis=1)
        best = products[np.arange(len(products)), nearest].tolist()
        return [
            self._of(place, norm - 2 * product)
            for place, norm, product in zip(nearest.tolist(), norms, best, strict=True)
        ]

    def _of(self, nearest: int, squared: float) -> tuple[float, float]:
        distance = squared**0.5 if squared > 0 else 0.0
        spacing = self._spacing[nearest]
        return 0.5 * (spacing + distance) * self._shrink[nearest], distance / spacing


def spacing_of(reference: Reference, memory: int) -> Spacing:
    """Local spacing among so many rows.

    Raises:
        ArtefactError: the reference contradicts itself.
    """
    spacing, dimension = (
        np.frombuffer(part, "<f4").astype(np.float32) for part in (reference.spacing, reference.dimension)
    )
    rows = np.frombuffer(reference.rows, "<f4").astype(np.float32).reshape(len(spacing), -1)
    return Spacing(rows, spacing, shrunk(len(spacing), memory, dimension))


def shrunk(count: int, memory: int, dimension: NDArray[Any]) -> Floats:
    """What is left of distances among ``count`` rows when there are ``memory`` of them."""
    factor: Floats = ((count / max(memory, count)) ** (1 / dimension)).astype(np.float32)
    return factor


def table_of(rows: Floats) -> Floats:
    """Short forms ``(rows, width)`` as columns, with ``-|x|^2 / 2`` below: the greatest product is the nearest."""
    return np.vstack([rows.T, -0.5 * (rows * rows).sum(axis=1)])


def learn(
    rows: NDArray[np.floating],
    *,
    shape: tuple[int, ...] = (),
    value_range: tuple[float, float] | None = None,
    scores: NDArray[np.float64] | None = None,
    trained_on: NDArray[np.floating] | None = None,
    seed: int = 0,
) -> Reference:
    """Learn from natural rows ``(n, features)`` that are not those which are to be answered later.

    ``scores`` ``(n, classes)`` are the model's answers to them; ``trained_on`` its training rows, if asking about
    those is to count.

    Raises:
        InputError: there are too few rows, they are not finite, or all alike.
    """
    single = _checked(rows)
    order = np.random.default_rng(seed).permutation(len(single))[:MOST]
    encoder = Encoder(_encoding(single[order], shape, value_range))
    short = encoder.many(encoder.left(single[order]))[:, : encoder.width]
    apart = _distances(short)
    references = min(len(short), REFERENCES)
    own = np.sort(apart[:references, :references], axis=1)[:, NEIGHBOUR - 1]
    spacing = np.maximum(own, np.median(own) * 1e-3)
    dimension = dimensions_of(apart)[:references]
    ratio, strange = _ratios(apart, spacing, shrunk(references, len(short), dimension))
    return Reference(
        encoding=encoder.kept,
        rows=short[:references].astype("<f4").tobytes(),
        spacing=spacing.astype("<f4").tobytes(),
        compared=len(short),
        dimension=dimension.astype("<f4").tobytes(),
        near={f"{level:g}": float(np.quantile(ratio, level)) for level in LEVELS},
        strange=float(np.quantile(strange, STRANGE)),
        edge=_edge(scores),
        known=(known := _known(trained_on)).tobytes(),
        known_usual=float(np.isin([crc_of(row) for row in single], known).mean()),
    )


def _checked(rows: NDArray[np.floating]) -> Floats:
    single = np.ascontiguousarray(rows, np.float32)
    if single.ndim != 2 or not np.isfinite(single).all():  # noqa: PLR2004 - a matrix
        raise InputError("natural rows have to be a finite matrix", remedy="fill or leave out missing values first.")
    single = np.unique(single, axis=0)
    if len(single) < LEAST:
        raise InputError(
            f"{len(single)} different natural rows do not show how far apart such rows lie",
            remedy=f"give at least {LEAST}.",
        )
    return single


def _encoding(rows: Floats, shape: tuple[int, ...], value_range: tuple[float, float] | None) -> Encoding:
    """Scale, centre and directions of natural rows."""
    pooled = shape if len(shape) == 3 and rows.shape[1] > WIDE else ()  # noqa: PLR2004 - channels, height, width
    pool = Pooling(pooled) if pooled else None
    left = np.stack([pool(row) for row in rows]) if pool else rows
    if shape:
        low, high = value_range or (float(rows.min()), float(rows.max()))
        scale = np.full(left.shape[1], max(high - low, 1e-12), np.float32)
    else:
        spread = left.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0).astype(np.float32)
    scaled = left.astype(np.float64) / scale
    centre = scaled.mean(axis=0)
    _, lengths, directions = np.linalg.svd(scaled - centre, full_matrices=False)
    if not lengths[0] > 0:
        raise InputError("natural rows are all alike", remedy="give rows that differ.")
    return Encoding(
        features=rows.shape[1],
        shape=pooled,
        scale=scale.astype("<f4").tobytes(),
        centre=(centre * scale).astype("<f4").tobytes(),
        directions=directions[:WIDTH].T.astype("<f4").tobytes(),
    )


def _distances(short: Floats) -> NDArray[np.float64]:
    """``(n, n)``, infinite between a row and itself, and between rows that are the same in short."""
    wide = short.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    squared = np.maximum(squares[:, None] + squares - 2 * wide @ wide.T, 0.0)
    apart: NDArray[np.float64] = np.sqrt(squared)
    apart[squared <= 1e-12 * squares.max()] = np.inf
    return apart


def _ratios(
    apart: NDArray[np.float64], spacing: NDArray[np.float64], shrink: Floats
) -> tuple[NDArray[np.float64], ...]:
    """Distance to the nearest row, and to the nearest reference row, each in local units."""
    nearest = apart[:, : len(spacing)].argmin(axis=1)
    to_reference = apart[:, : len(spacing)].min(axis=1)
    local = 0.5 * (spacing[nearest] + to_reference) * shrink[nearest]
    return apart.min(axis=1) / local, to_reference / spacing[nearest]


def dimensions_of(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intrinsic dimension around each row, by maximum likelihood (Levina and Bickel 2004), from distances ``(n, n)``.

    The inverse is averaged over the row's neighbours, as MacKay and Ghahramani advise for all rows.
    """
    count = min(NEIGHBOURS, len(apart) - 1)
    order = np.argsort(apart, axis=1)[:, :count]
    near = np.take_along_axis(apart, order, axis=1)
    inverse = np.log(near[:, -1:] / near[:, :-1]).mean(axis=1)
    smooth = inverse[order].mean(axis=1)
    dimensions: NDArray[np.float64] = np.clip(1 / np.maximum(smooth, 1 / DIMENSIONS[1]), *DIMENSIONS)
    return dimensions


def _edge(scores: NDArray[np.float64] | None) -> float:
    if scores is None:
        return 0.0
    first_two = np.sort(scores, axis=1)[:, -2:]
    return float(np.quantile(first_two[:, 1] - first_two[:, 0], EDGE))


def _known(trained_on: NDArray[np.floating] | None) -> NDArray[np.uint32]:
    """Which rows the model was trained on, as short digests; of 60,000, one in 70,000 other rows shares one."""
    rows = np.empty((0, 1), np.float32) if trained_on is None else np.asarray(trained_on[:MOST_KNOWN], np.float32)
    return np.unique(np.array([crc_of(row) for row in rows], "<u4"))


def crc_of(row: Floats) -> int:
    """Of a row in single precision."""
    return zlib.crc32(np.ascontiguousarray(row, "<f4").tobytes())


def read_reference(report: bytes) -> Reference:
    """The reference out of the report of the check ``gateway.sequence``.

    Raises:
        ArtefactError: it is none, or contradicts itself.
    """
    try:
        found = msgspec.json.decode(report, type=Mapping[str, msgspec.Raw])
        reference = msgspec.json.decode(found["reference"], type=Reference)
    except (msgspec.DecodeError, KeyError) as error:
        raise ArtefactError(
            f"the report of the check gateway.sequence cannot be read: {error}", remedy="run the check again."
        ) from error
    width = len(reference.encoding.directions) // 4 // max(1, len(reference.encoding.scale) // 4)
    references = len(reference.spacing) // 4
    fits = references * width == len(reference.rows) // 4 and len(reference.dimension) == len(reference.spacing)
    numbers = (reference.strange, *reference.near.values(), *np.frombuffer(reference.spacing, "<f4"))
    if not width or not references or not fits or not all(value > 0 for value in numbers):
        raise ArtefactError("the report of the check gateway.sequence contradicts itself", remedy="run it again.")
    return reference
