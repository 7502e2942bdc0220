"""How many samples a claim needs, whether two results differ, and when enough has been seen.

Whatever is claimed here can be defended: intervals are those that statements and gates use, tests are exact, and
what may be looked at after every block holds at every look.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.statistics import CONFIDENCE, Estimate, Interval, proportion, wilson

MOST_SAMPLES = 5_000_000
"""Beyond so many samples no number is looked for."""
POWER = 0.8
"""Chance of showing what is true, when nothing else is asked for."""


# ---- how many samples


def samples_for(at_least: float, expected: float, *, confidence: float = CONFIDENCE, power: float = POWER) -> int:
    """Samples with which ``at_least`` can be shown, when ``expected`` is true.

    The least number from which on the chance stays at ``power`` that the lower end of the Wilson interval, which a
    gate looks at, reaches ``at_least``. That end reaches it exactly when the score test does, so nothing is
    approximated: the chance is binomial.

    Raises:
        InputError: a share or chance is none, or ``expected`` is not above ``at_least``.
        WorkError: more than ``MOST_SAMPLES`` would be needed.
    """
    if not 0 < at_least < expected <= 1 or not 0 < confidence < 1 or not 0 < power < 1:
        raise InputError(
            f"no number of samples shows a share of {at_least:g} when {expected:g} is expected",
            remedy="expect more than is to be shown; both are shares between 0 and 1, as are confidence and power.",
        )
    z, limit = _z(confidence), _rough(at_least, expected, confidence, power)
    if limit > MOST_SAMPLES:
        raise WorkError(
            f"to tell {expected:g} from {at_least:g} takes more than {MOST_SAMPLES:,} samples",
            remedy="claim less, or accept that it cannot be shown.",
        )
    counts = np.arange(1, limit + 1, dtype=np.int64)
    needed = np.ceil(counts * at_least + z * np.sqrt(counts * at_least * (1 - at_least)) - 1e-9)
    chance = np.where(needed <= counts, scipy.stats.binom.sf(needed - 1, counts, expected), 0.0)
    short = np.flatnonzero(chance < power)
    return int(short[-1]) + 2 if short.size else 1


def _rough(at_least: float, expected: float, confidence: float, power: float) -> int:
    """A number of samples that is surely enough: twice the normal approximation, and some."""
    deviations = _z(confidence) * np.sqrt(at_least * (1 - at_least)) + scipy.stats.norm.ppf(power) * np.sqrt(
        expected * (1 - expected)
    )
    fewest = _z(confidence) ** 2 * at_least / (1 - at_least)
    return int(2 * max((deviations / (expected - at_least)) ** 2, fewest)) + 200


def fewest(at_least: float, confidence: float = CONFIDENCE) -> int:
    """Samples with which a share can be shown at all: when not a single one speaks against it."""
    if not 0 < at_least < 1:
        raise InputError(f"{at_least:g} is no share that could be shown", remedy="give one between 0 and 1.")
    # Wilson's lower end without a failure is n / (n + z^2)
    return int(np.ceil(_z(confidence) ** 2 * at_least / (1 - at_least) - 1e-9))


def _z(confidence: float) -> float:
    return float(scipy.stats.norm.isf((1 - confidence) / 2))


def claim(successes: int, n: int, at_least: float, *, what: str = "robust", confidence: float = CONFIDENCE) -> str:
    """A claim in words, when the sample carries it.

    Raises:
        WorkError: it does not; says what can be claimed, and how many samples the claim would take.
    """
    interval = wilson(successes, n, confidence)
    if interval.low >= at_least:
        return (
            f"at least {at_least:.0%} are {what}, with {confidence:.0%} confidence "
            f"({successes} of {n}; {interval.low:.1%} to {interval.high:.1%})"
        )
    seen = successes / n if n else 0.0
    remedy = "the model does not do what is to be shown."
    if seen > at_least:
        remedy = f"the share seen, {seen:.1%}, is too near to {at_least:.0%} for any sample that can be taken."
        with suppress(InputError, WorkError):
            more = samples_for(at_least, seen, confidence=confidence)
            remedy = f"attack about {more} samples; if the share stays at {seen:.0%} they are likely to show it."
    elif not n:
        remedy = f"attack at least {fewest(at_least, confidence)} samples."
    raise WorkError(
        f"{successes} of {n} samples do not show that at least {at_least:.0%} are {what}: "
        f"{interval.low:.1%} to {interval.high:.1%} fits what was seen",
        remedy=remedy,
    )


# ---- whether two results differ


@dataclass(frozen=True, slots=True)
class Paired:
    """Two results on the same samples."""

    difference: Estimate
    """Share of the first minus share of the second."""
    only_first: int
    """Samples that are right in the first only."""
    only_second: int
    p_value: float
    """Exact two-sided McNemar test: how likely at least such a difference is if there is none."""


def paired(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> Paired:
    """Compare two models, or one with and without a defence, on the same samples: ``(samples,)``, right or not.

    McNemar 1947, in its exact form on the samples in which they differ. Interval of the difference: Newcombe 1998
    (paired data, method 10).

    Raises:
        InputError: the two do not belong to the same samples, or there are none.
    """
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape or one.ndim != 1 or not one.size:
        raise InputError(f"results {one.shape} and {two.shape} are not of the same samples")
    b, c = int((one & ~two).sum()), int((~one & two).sum())
    p_value = float(min(1.0, 2 * scipy.stats.binom.cdf(min(b, c), b + c, 0.5))) if b + c else 1.0
    return Paired(_paired_difference(one, two, confidence), b, c, p_value)


def _paired_difference(one: NDArray[np.bool_], two: NDArray[np.bool_], confidence: float) -> Estimate:
    n = len(one)
    first, second = proportion(int(one.sum()), n, confidence), proportion(int(two.sum()), n, confidence)
    gap, phi = first.value - second.value, _correlation(one, two)
    down = _paired_half(first.value - first.interval.low, second.interval.high - second.value, phi)
    up = _paired_half(first.interval.high - first.value, second.value - second.interval.low, phi)
    interval = Interval(max(-1.0, gap - down), min(1.0, gap + up))
    return Estimate(gap, interval, n, "newcombe paired", confidence)


def _paired_half(first: float, second: float, phi: float) -> float:
    return float(np.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2)))


def _correlation(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    """Newcombe's phi: corrected for continuity where it is positive, and 0 where a margin is empty."""
    both, neither = int((one & two).sum()), int((~one & ~two).sum())
    b, c, n = int((one & ~two).sum()), int((~one & two).sum()), len(one)
    margins = float(both + b) * (c + neither) * (both + c) * (b + neither)
    if not margins:
        return 0.0
    product = both * neither - b * c
    return float((max(product - n / 2, 0.0) if product > 0 else product) / np.sqrt(margins))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for having tested several times (Holm 1979): compare each with the level as it is.

    Raises:
        InputError: one of them is no probability.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.size and not ((values >= 0) & (values <= 1)).all():
        raise InputError("a p-value lies between 0 and 1")
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


# ---- when enough has been seen


def anytime(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a proportion that may be looked at after every sample: all of them hold together.

    Shares against which a bet could have been won too often (Robbins 1970; Ville 1939): the stakes are mixed by a
    uniform prior, so the capital against a share p is ``Beta(k + 1, n - k + 1) / (p^k (1 - p)^(n - k))``, and it
    exceeds ``1 / (1 - confidence)`` at any time with probability ``1 - confidence`` at most if p is true.
    """
    if not 0 <= successes <= n:
        raise InputError(f"{successes} of {n} is no share")
    if n == 0:
        return Interval(0.0, 1.0)

    def held(p: float) -> float:
        return -_bet(successes, n, p, confidence)

    centre = successes / n
    low = 0.0 if held(0.0) >= 0 else float(scipy.optimize.brentq(held, 0.0, centre, xtol=1e-12))
    high = 1.0 if held(1.0) >= 0 else float(scipy.optimize.brentq(held, centre, 1.0, xtol=1e-12))
    return Interval(low, high)


def _bet(successes: int, n: int, p: float, confidence: float) -> float:
    """Logarithm of the capital won against a share ``p``, over what it takes to call ``p`` refuted."""
    mixed = float(scipy.special.betaln(successes + 1, n - successes + 1))
    return (
        mixed
        - float(scipy.special.xlogy(successes, p) + scipy.special.xlog1py(n - successes, -p))
        + float(np.log1p(-confidence))
    )


Decided = Literal["met", "missed", ""]


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a gate asks of a share, for stopping as soon as it is decided."""

    at_least: float
    confidence: float = CONFIDENCE

    def decided(self, successes: int, n: int) -> Decided:
        """Whether the threshold is met or missed whatever the samples still to come will be; empty while it is open.

        Looking after every block does not spoil it; see ``anytime``.
        """
        if not n or _bet(successes, n, self.at_least, self.confidence) <= 0:
            return ""
        return "met" if successes / n > self.at_least else "missed"


def stopped(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share that was measured until enough had been seen, with the interval that allows for it."""
    interval = anytime(successes, n, confidence)
    return Estimate(successes / n if n else 0.0, interval, n, "anytime valid (mixture)", confidence)
