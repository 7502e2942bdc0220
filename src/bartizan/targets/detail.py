"""Detail: how much of an answer is given away, as arithmetic on scores. Nothing here asks a model.

The gateway tailors answers by it, and the red team attacks through the same code.

What is shown of scores is rounded together: whole units (hundredths, tenths) are shared out by the largest
remainder (Hamilton's method), so that they always sum to 1 and their sum tells nothing of what was cut off. Every
detail below ``rounded-scores`` is computed from scores that were rounded to hundredths before, and from the label: it
can tell no more than those do, whatever is asked how often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import sub
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.protocol import Labels, Scores

Kind = Literal[
    "label",
    "top-k",
    "summary",
    "buckets",
    "graphic",
    "noisy-scores",
    "confidence",
    "rounded-scores",
    "scores",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Roughly from the least to the most."""
FINEST = 100
"""Units to which scores are rounded before anything that tells less is made of them: hundredths."""
FIRMEST = math.log(FINEST - 1)
"""Log-odds of the highest score below 1 on that grid; noise is added within it."""
BUCKETS = (("low", 0.0), ("medium", 0.6), ("high", 0.9))
"""Names of confidence, and where each begins."""
MOST_DECIMALS = 6
NOTHING = 1e-12
"""Scores that sum to no more are none."""
NUMBER_BITS = 53
"""Bits of a number that is not rounded: those of a float64's significand."""

Units = NDArray[np.int64]
"""Scores in whole units, ``(batch, classes)``; rows sum to the number of units in 1."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of an answer is given; the numbers count for the kinds that use them."""

    kind: Kind = "label"
    k: int = 3
    """``top-k``: classes that are named, never all."""
    decimals: int = 2
    """``confidence``, ``noisy-scores`` and ``rounded-scores``: decimals of what is shown."""
    buckets: tuple[tuple[str, float], ...] = BUCKETS
    """``buckets`` and ``summary``: names and lower bounds, rising from 0."""
    noise: float = 1.0
    """``noisy-scores``: scale of the Laplace noise on the log-odds of the label's score."""
    steps: int = 10
    """``graphic``: heights that a bar can have above 0."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no detail is called {self.kind!r}", remedy=f"one of: {', '.join(KINDS)}.")
        if not 1 <= self.decimals <= MOST_DECIMALS or self.k < 1 or self.steps < 1 or self.noise <= 0:
            raise InputError(f"a detail with numbers out of range: {self}")

    @property
    def name(self) -> str:
        """For people."""
        digits = f"{self.decimals} digit{'s' if self.decimals > 1 else ''}"
        names = {
            "label": "labels only",
            "top-k": f"{self.k} likeliest labels",
            "summary": f"summary in {len(self.buckets)} words",
            "buckets": f"confidence in {len(self.buckets)} buckets",
            "graphic": f"picture of {self.steps} steps",
            "noisy-scores": f"best score with noise {self.noise:g}",
            "confidence": "best score" if self.decimals == MOST_DECIMALS else f"best score to {digits}",
            "rounded-scores": f"scores to {digits}",
            "scores": "all scores",
        }
        return names[self.kind]

    @property
    def scores(self) -> bool:
        """Whether anything but labels is told."""
        return self.kind != "label"

    @property
    def units(self) -> int:
        """How many units make 1 in what is shown of scores."""
        return self.steps if self.kind == "graphic" else int(10**self.decimals)

    def named(self, classes: int) -> int:
        """Classes that ``top-k`` names: not all, so that the last one is not given away."""
        return max(1, min(self.k, classes - 1))

    def bits(self, classes: int) -> float:
        """What one answer tells at most: log2 of the answers that can be told apart (for ``scores`` of float64)."""
        match self.kind:
            case "label":
                more = 0.0
            case "top-k":
                more = math.log2(math.comb(classes - 1, self.named(classes) - 1))
            case "summary" | "buckets":
                more = math.log2(len(self.buckets))
            case "noisy-scores":
                more = min(math.log2(self.units), epsilon(self.noise, classes) * math.log2(math.e))
            case "confidence":
                more = math.log2(self.units)
            case "graphic" | "rounded-scores":
                # The label is one of the highest: only among equal ones does it tell more than they do.
                return math.log2(math.comb(self.units + classes - 1, classes - 1) * min(classes, self.units))
            case "scores":
                more = float(NUMBER_BITS * (classes - 1))
        return math.log2(classes) + more


# ---- one row: no arrays, because each call of NumPy costs as much as all of this


def shared_out(scores: Sequence[float], units: int) -> list[int]:
    """Scores of one row in whole units that sum to ``units``: each to the nearest, then those that it moved most.

    That is the largest remainder (Hamilton's method) but for exact halves, which go to the even number. Among scores
    that were moved alike, a missing unit goes to the first class and one too many is taken from the last.

    Raises:
        WorkError: these are no probabilities.
    """
    shares = [score * units for score in scores]
    try:
        whole = list(map(round, shares))
    except (ValueError, OverflowError) as error:
        raise WorkError("scores that are no numbers cannot be rounded") from error
    missing = units - sum(whole)
    if min(whole) < 0 or abs(missing) * 2 > len(whole):
        shares = [score * units for score in _normalised(scores)]
        whole = list(map(round, shares))
        missing = units - sum(whole)
    return _evened(whole, shares, missing) if missing else whole


def _evened(whole: list[int], shares: list[float], missing: int) -> list[int]:
    """Give what is missing to those that were cut most, or take what is too much from those that were raised most."""
    moved = list(map(sub, whole, shares))
    step = 1 if missing > 0 else -1
    for _ in range(abs(missing)):
        place = moved.index(min(moved)) if missing > 0 else _last(moved, max(moved))
        whole[place] += step
        moved[place] += step
    return whole


def _last(values: Sequence[float], value: float) -> int:
    return next(place for place in range(len(values) - 1, -1, -1) if values[place] == value)


def _normalised(scores: Sequence[float]) -> list[float]:
    total = sum(scores)
    if not math.isfinite(total) or min(scores) < 0 or total < NOTHING:
        raise WorkError("scores that are no probabilities cannot be rounded")
    return [score / total for score in scores]


def recut(whole: Sequence[int], label: int, units: int) -> list[int]:
    """Hundredths of one row, as ``shared_out`` gives them, in fewer units; among equal ones the label comes first."""
    cut = [divmod(share * units, FINEST) for share in whole]
    fewer = [share for share, _ in cut]
    missing = units - sum(fewer)
    for place in sorted(range(len(cut)), key=lambda at: (-cut[at][1], at != label))[:missing]:
        fewer[place] += 1
    return fewer


def told(scores: Sequence[float], label: int, units: int) -> list[int]:
    """Scores of one row in units: what is coarser than hundredths is made of hundredths and the label."""
    return shared_out(scores, units) if units >= FINEST else recut(shared_out(scores, FINEST), label, units)


def bucket_of(units: int, buckets: Sequence[tuple[str, float]]) -> int:
    """Which bucket a score of so many hundredths belongs to."""
    place = len(buckets) - 1
    while place and units < buckets[place][1] * FINEST:
        place -= 1
    return place


def noisy(units: int, row: bytes, *, key: bytes, classes: int, noise: float) -> float:
    """The label's score, from its hundredths, with Laplace noise on its log-odds.

    The noise is a function of ``row`` and ``key`` alone: asked again, the same row gives the same answer, and
    nothing is averaged away. What comes out is to be rounded, so that its last digits tell nothing of the noise
    (Mironov 2012, "On significance of the least significant bits for differential privacy").
    """
    odds = _log_odds(units / FINEST, classes)
    drawn = (int.from_bytes(blake2b(row, digest_size=8, key=key).digest()) + 0.5) / 2**64 - 0.5
    moved = odds - math.copysign(noise * math.log1p(-2 * abs(drawn)), drawn)
    return 1 / (1 + math.exp(-min(max(moved, least_odds(classes)), FIRMEST)))


def _log_odds(share: float, classes: int) -> float:
    least = least_odds(classes)
    if share <= 1 / classes:
        return least
    return FIRMEST if share >= 1 else min(max(math.log(share / (1 - share)), least), FIRMEST)


def least_odds(classes: int) -> float:
    """Log-odds of the least score that a label can have: all classes alike."""
    return -math.log(classes - 1)


def epsilon(noise: float, classes: int) -> float:
    """What the noisy score of one row can change in anybody's belief: a factor of at most ``exp(epsilon)``.

    Whichever two models are compared, as long as both answer the row with the same label: local differential
    privacy of the score (Dwork, McSherry, Nissim, Smith 2006, Laplace mechanism; the log-odds are clipped, so that
    their range bounds the sensitivity). The label is told as it is and has no such bound.
    """
    return (FIRMEST - least_odds(classes)) / noise


def composed(one: float, rows: int, delta: float = 1e-6) -> float:
    """Epsilon of the noisy scores of ``rows`` different rows together; the same row asked again is free.

    The smaller of the plain sum and of advanced composition (Dwork, Rothblum, Vadhan 2010), which fails with
    probability ``delta``.
    """
    spread = one * math.sqrt(2 * rows * math.log(1 / delta))
    # Beyond that exponent the plain sum is smaller anyhow.
    drift = rows * one * math.expm1(one) if one < 50 else math.inf  # noqa: PLR2004
    return min(rows * one, spread + drift)


# ---- many rows: the same numbers


def shared_out_rows(scores: Scores, units: int) -> Units:
    """``shared_out`` of each row."""
    shares = np.asarray(scores, dtype=np.float64) * units
    if not np.isfinite(shares).all():
        raise WorkError("scores that are no numbers cannot be rounded")
    nearest = np.rint(shares)
    whole = nearest.astype(np.int64)
    missing = units - whole.sum(axis=1)
    odd = (np.abs(missing) * 2 > whole.shape[1]) | (whole.min(axis=1) < 0)
    if odd.any():
        whole[odd] = [shared_out(row, units) for row in scores[odd].tolist()]
        missing[odd] = 0
    if missing.any():
        _even_rows(whole, nearest - shares, missing)
    return whole


def _even_rows(whole: Units, moved: Scores, missing: NDArray[np.int64]) -> None:
    """``_evened`` of each row, in place; the last of those that were moved alike stands last in a stable order."""
    order, width = np.argsort(moved, axis=1, kind="stable"), whole.shape[1]
    ranks = np.arange(width)
    change = np.where(ranks < missing[:, None], 1, 0) - np.where(ranks >= width + missing[:, None], 1, 0)
    whole[np.arange(len(whole))[:, None], order] += change


def recut_rows(whole: Units, labels: Labels, units: int) -> Units:
    """``recut`` of each row."""
    fewer, rest = np.divmod(whole * units, FINEST)
    rank = -2 * rest
    rank[np.arange(len(rank)), labels] -= 1
    order = np.argsort(rank, axis=1, kind="stable")
    more = np.arange(whole.shape[1]) < (units - fewer.sum(axis=1))[:, None]
    fewer[np.nonzero(more)[0], order[more]] += 1
    return fewer


def told_rows(scores: Scores, labels: Labels, units: int) -> Units:
    """``told`` of each row."""
    if units >= FINEST:
        return shared_out_rows(scores, units)
    return recut_rows(shared_out_rows(scores, FINEST), labels, units)


def of_label(whole: Units, labels: Labels) -> NDArray[np.int64]:
    """Units of each row's label, ``(batch,)``."""
    found: NDArray[np.int64] = whole[np.arange(len(whole)), labels]
    return found


def likeliest(scores: Scores, labels: Labels, count: int) -> NDArray[np.int64]:
    """The label and behind it, in the order of the classes, the others that are likeliest, ``(batch, count)``.

    Their order among themselves is not told. Among equal scores the first classes are taken.
    """
    ranked = np.array(scores, dtype=np.float64)
    ranked[np.arange(len(ranked)), labels] = np.inf
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
    order[:, 1:].sort(axis=1)
    return order


def consistent(scores: Scores, labels: Labels) -> bool:
    """Whether each label has the highest score of its row: after a rule has overruled the model it has not."""
    return bool((scores[np.arange(len(scores)), labels] >= scores.max(axis=1)).all())


def keys_of(rows: NDArray[np.floating[Any]]) -> list[bytes]:
    """What noise is drawn from: the rows as the model takes them, ``-0.0`` as ``0.0``."""
    plain = np.ascontiguousarray(rows) + 0.0
    return [row.tobytes() for row in plain]


__all__ = [
    "BUCKETS",
    "FINEST",
    "KINDS",
    "Detail",
    "Kind",
    "bucket_of",
    "composed",
    "consistent",
    "epsilon",
    "keys_of",
    "least_odds",
    "likeliest",
    "noisy",
    "of_label",
    "recut",
    "recut_rows",
    "shared_out",
    "shared_out_rows",
    "told",
    "told_rows",
]
