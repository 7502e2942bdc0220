"""Numbers with honest intervals: proportions, means, any statistic, and ROC curves at low error rates.

Every interval here is two-sided, holds at its stated confidence under simulation (see the tests),
and stays valid in the corners where the textbook formula has no width: no success at all, perfect
separation, a single repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from bartizan.core.errors import InputError, WorkError
from bartizan.core.predicates import Metric

CONFIDENCE = 0.95
"""Confidence of an interval when nothing else is asked for."""
DIGITS = 6
"""Significant digits kept in a metric: far below any interval, above the noise of linear algebra."""
NEGLIGIBLE = 1e-12
"""Probability below which a case is left out; also the slack for rounding in sums of shares."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two-sided confidence interval, ``low <= high``."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured number, its interval, and how both came about."""

    value: float
    interval: Interval
    n: int
    """Independent observations behind the number."""
    method: str
    """How the interval was computed, such as ``wilson``."""
    confidence: float = CONFIDENCE

    def metric(self, unit: str = "") -> Metric:
        """The same as part of a statement."""
        return metric(self.value, self.interval, self.n, self.method, unit=unit, confidence=self.confidence)

    def plain(self) -> list[float]:
        """Value, lower and upper end, rounded as in a statement, for a report."""
        rounded = self.metric()
        return [rounded.value, rounded.low, rounded.high]


def metric(
    value: float, interval: Interval, n: int, method: str, *, unit: str = "", confidence: float = CONFIDENCE
) -> Metric:
    """A number as part of a statement, rounded to ``DIGITS`` significant digits.

    Raises:
        WorkError: the number or its interval is not finite; JSON has no way to say it.
    """
    numbers = (value, interval.low, interval.high)
    if not np.isfinite(numbers).all():
        raise WorkError(
            f"measured {value} in [{interval.low}, {interval.high}], which is not finite",
            remedy="measure on more rows or report the share of rows without a result instead.",
        )
    value, low, high = (float(f"{number:.{DIGITS}g}") for number in numbers)
    return Metric(value=value, low=low, high=high, n=n, unit=unit, confidence=confidence, method=method)


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a proportion (Wilson 1927): near its nominal coverage on average, for any ``n``.

    Raises:
        InputError: there are more successes than trials, or fewer than none.
    """
    if not 0 <= successes <= n:
        raise InputError(f"{successes} successes of {n}", remedy="count each trial once.")
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = float(scipy.stats.norm.isf((1 - confidence) / 2)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, float(centre - half))
    high = 1.0 if successes == n else min(1.0, float(centre + half))
    return Interval(low, high)


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934): never below its nominal coverage."""
    tail = (1 - confidence) / 2
    low = float(scipy.special.betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(scipy.special.betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(low, high)


def proportion(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share with its Wilson interval; 0 with an interval of [0, 1] when nothing was observed."""
    return Estimate(successes / n if n else 0.0, wilson(successes, n, confidence), n, "wilson", confidence)


def difference(first: tuple[int, int], second: tuple[int, int], confidence: float = CONFIDENCE) -> Estimate:
    """Share of ``first`` minus share of ``second``, each ``(successes, n)``, of independent samples.

    Newcombe 1998, method 10: the two Wilson intervals combined.
    """
    both = apart(proportion(*first, confidence), proportion(*second, confidence))
    interval = Interval(max(-1.0, both.interval.low), min(1.0, both.interval.high))
    return Estimate(both.value, interval, both.n, "newcombe", confidence)


def apart(one: Estimate, two: Estimate) -> Estimate:
    """``one`` minus ``two``, which are independent, by their intervals alone (Zou and Donner 2008)."""
    gap = one.value - two.value
    down = float(np.hypot(one.value - one.interval.low, two.interval.high - two.value))
    up = float(np.hypot(one.interval.high - one.value, two.value - two.interval.low))
    interval = Interval(gap - down, gap + up)
    return Estimate(gap, interval, min(one.n, two.n), "intervals combined", min(one.confidence, two.confidence))


def confusion(labels: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> list[list[int]]:
    """How often each true class ``(samples,)``, a row, is answered as each class, a column."""
    counts = np.bincount(labels * classes + answers, minlength=classes**2)
    table: list[list[int]] = counts.reshape(-1, classes).tolist()
    return table


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float],
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
    resamples: int = 1000,
) -> Interval:
    """Expanded percentile interval of any statistic of independent observations.

    ``values`` is resampled along its first axis, ``(n, ...)``. The tails are widened as in Hesterberg
    2015 (section 5.3, arXiv:1411.5279), because plain percentiles are too narrow for small ``n``. Quantiles are taken
    outwards without interpolation, so infinite values (no attack found) are welcome.
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:  # noqa: PLR2004 - one value says nothing about its spread
        return Interval(-np.inf, np.inf)
    drawn = np.array([statistic(values[rng.integers(0, n, n)]) for _ in range(resamples)])
    low, high = np.sort(drawn)[_outward(resamples, expanded_tail(n, confidence))]
    return Interval(float(low), float(high))


def jackknife(value: float, without: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a statistic of few independent groups, from its values ``without`` each group in turn.

    Tukey 1958; Student's distribution with one degree of freedom less than there are groups.
    """
    values = np.asarray(without, float)
    groups = len(values)
    if groups < 2:  # noqa: PLR2004 - one value says nothing about its spread
        return Interval(-np.inf, np.inf)
    deviation = np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum())
    half = float(scipy.stats.t.isf((1 - confidence) / 2, groups - 1) * deviation)
    return Interval(value - half, value + half)


def crossed(values: ArrayLike, bounds: tuple[float, float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean over repeats and rows ``(repeats, rows)`` as it would be over other repeats and other rows.

    Both were drawn: training runs by their seeds, rows from the population. The variance of the row
    means and that of the repeat means are added, with Satterthwaite's degrees of freedom (1946). One
    pseudo-row at each of the ``bounds`` of a value keeps rows that all agree from promising
    certainty (Agresti and Caffo 2000). A single repeat shows nothing of the spread between repeats;
    ``method`` then says so.
    """
    table = np.asarray(values, float)
    repeats, rows = table.shape
    per_row = np.append(table.mean(axis=0), bounds)
    parts = [(per_row.var(ddof=1) / len(per_row), len(per_row) - 1)]
    if repeats > 1:
        parts.append((table.mean(axis=1).var(ddof=1) / repeats, repeats - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts) if variance else 1.0
    value = float(table.mean())
    half = float(scipy.stats.t.isf((1 - confidence) / 2, freedom) * np.sqrt(variance))
    interval = Interval(max(bounds[0], value - half), min(bounds[1], value + half))
    method = "crossed repeats and rows" if repeats > 1 else "rows of a single repeat"
    return Estimate(value, interval, rows, method, confidence)


def expanded_tail(n: int, confidence: float) -> float:
    """Tail probability of a percentile interval that makes up for resampling only ``n`` values."""
    return float(scipy.stats.norm.sf(np.sqrt(n / (n - 1)) * scipy.stats.t.isf((1 - confidence) / 2, n - 1)))


def _outward(count: int, tail: float) -> list[int]:
    """Positions of the lower and upper quantile among ``count`` sorted values, rounded outwards."""
    below = min(int(tail * (count - 1)), count - 1)
    return [below, count - 1 - below]


@dataclass(frozen=True, slots=True)
class Roc:
    """How many members an attack finds (``tpr``) at each share of false alarms (``fpr``).

    The three arrays have one entry per distinct score, after a first point at the origin whose
    threshold is infinite; a record counts as member when its score is at least the threshold.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    members: int
    """Number of members scored."""
    others: int
    """Number of non-members scored: ``1 / others`` is the finest false positive rate that can be seen."""

    @property
    def area(self) -> float:
        """The chance that a member scores above a non-member; ties count half."""
        return float(np.trapezoid(self.tpr, self.fpr))

    def found(self, fpr: float) -> float:
        """Share of members found by the loosest threshold that accuses at most ``fpr`` of the others."""
        return float(self.tpr[np.searchsorted(self.fpr, fpr + NEGLIGIBLE, side="right") - 1])


def roc(scores: ArrayLike, members: ArrayLike) -> Roc:
    """ROC curve of ``scores`` ``(records,)``, higher for likelier members, against the truth ``(records,)``.

    Raises:
        WorkError: one of the two kinds is missing, or a score is not a number.
    """
    scores, truth = np.asarray(scores, float), np.asarray(members, bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives == 0 or negatives == 0:
        raise WorkError("a ROC curve needs members and non-members", remedy="score records of both kinds.")
    if np.isnan(scores).any():
        raise WorkError("a ROC curve needs scores that are numbers", remedy="mend the attack that scored NaN.")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], truth[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], [True]))
    tpr = np.cumsum(hits)[last] / positives
    fpr = np.cumsum(~hits)[last] / negatives
    return Roc(np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, ranked[last]), positives, negatives)


def auc(curve: Roc, confidence: float = CONFIDENCE) -> Estimate:
    """Area under the curve.

    Interval: DeLong et al. 1988 on the logit scale. When the sample is separated perfectly DeLong has
    no width; then members and non-members are paired off and the exact interval of the pairs is taken.
    """
    value = curve.area
    pairs = min(curve.members, curve.others)
    deviation = _delong(curve, value)
    if deviation == 0:
        exact = clopper_pearson(round(value * pairs), pairs, confidence)
        return Estimate(value, exact, pairs, "clopper-pearson of pairs", confidence)
    centre, half = (
        scipy.special.logit(value),
        scipy.stats.norm.isf((1 - confidence) / 2) * deviation / (value * (1 - value)),
    )
    interval = Interval(float(scipy.special.expit(centre - half)), float(scipy.special.expit(centre + half)))
    return Estimate(value, interval, pairs, "delong on the logit scale", confidence)


def _delong(curve: Roc, area: float) -> float:
    """Standard error of the area, from the placements of each kind among the other."""
    hits, alarms = np.diff(curve.tpr), np.diff(curve.fpr)
    member_placement = 1 - (curve.fpr[1:] - alarms / 2)
    other_placement = curve.tpr[1:] - hits / 2
    spread_of_members = max(0.0, float(hits @ member_placement**2) - area**2)
    spread_of_others = max(0.0, float(alarms @ other_placement**2) - area**2)
    variance = spread_of_members / max(1, curve.members - 1) + spread_of_others / max(1, curve.others - 1)
    return float(np.sqrt(variance)) if variance > 1e-15 else 0.0  # noqa: PLR2004 - rounding error of sums


def tpr_at(curve: Roc, fpr: float, confidence: float = CONFIDENCE) -> Estimate:
    """Share of members found when at most ``fpr`` of the non-members are accused (Carlini et al. 2022).

    The threshold is itself estimated. The interval is therefore a mixture of Clopper-Pearson
    intervals, one for each number of non-members that may lie above the threshold of the true rate,
    weighted by its binomial probability. With fewer than about ``4 / fpr`` non-members no lower bound
    can exist, and it is 0.
    """
    tail = (1 - confidence) / 2
    few, many = (
        scipy.stats.binom.ppf(NEGLIGIBLE, curve.others, fpr),
        scipy.stats.binom.isf(NEGLIGIBLE, curve.others, fpr),
    )
    alarms = np.arange(int(few), int(many) + 1)
    weights = scipy.stats.binom.pmf(alarms, curve.others, fpr)
    strict, loose = _found(curve, alarms), _found(curve, alarms + 1)
    low = _mixture_quantile(weights, strict, curve.members - strict + 1, tail)
    high = _mixture_quantile(weights, loose + 1, curve.members - loose, 1 - tail)
    value = curve.found(fpr)
    interval = Interval(min(low, value), max(high, value))
    return Estimate(value, interval, curve.members, "clopper-pearson over thresholds", confidence)


def _found(curve: Roc, alarms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Members that score at least as high as the ``alarms``-th highest non-member; none for rank 0."""
    ranks = np.searchsorted(curve.fpr * curve.others, alarms - 0.5)
    hits = np.rint(curve.tpr[np.minimum(ranks, len(curve.tpr) - 1)] * curve.members).astype(np.int64)
    return np.where(alarms == 0, 0, hits)


def _mixture_quantile(weights: NDArray[np.float64], a: NDArray[np.int64], b: NDArray[np.int64], level: float) -> float:
    """Quantile of a mixture of beta distributions; those with ``a = 0`` sit at 0, those with ``b = 0`` at 1."""
    weights = weights / weights.sum()
    inner = (a > 0) & (b > 0)
    shares, alpha, beta = weights[inner], a[inner], b[inner]
    at_zero, at_one = float(weights[a == 0].sum()), float(weights[b == 0].sum())
    if level <= at_zero:
        return 0.0
    if level >= 1 - at_one:
        return 1.0

    def excess(x: float) -> float:
        return at_zero + float(shares @ scipy.special.betainc(alpha, beta, x)) - level

    return float(scipy.optimize.brentq(excess, 0.0, 1.0, xtol=1e-7))
