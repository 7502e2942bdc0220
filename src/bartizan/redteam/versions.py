"""Two versions of a model under the same attacks: is the new one more robust, by how much, how surely.

Where both were attacked on the same records with the same allowance, the comparison is paired: McNemar's exact test
and Newcombe's interval for paired shares. Elsewhere the two intervals are combined as those of independent
measurements, which is careful where they are not. All tests of one comparison are corrected together (Holm 1979),
so that twenty attacks do not find a difference by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import scipy

from bartizan.core.predicates import Metric
from bartizan.redteam.planning import holm, paired
from bartizan.redteam.statistics import Estimate, Interval, apart

LEVEL = 0.05
"""Corrected p-value from which on a difference is called shown."""
BETTER: Mapping[str, int] = {
    "robust_accuracy": 1,
    "robust_recall": 1,
    "worst_corruption_accuracy": 1,
    "clean_accuracy": 1,
    "tpr_at_1_percent_fpr": -1,
    "exposure_bits": -1,
    "epsilon_lower_bound": -1,
    "leak": -1,
    "advantage": -1,
    "similarity": -1,
    "fidelity": -1,
    "attack_success_beyond_clean_models_at_10_percent": -1,
    "accuracy_drop_at_10_percent": -1,
    "positive_recall_drop_at_10_percent": -1,
    "slowdown": -1,
}
"""Metrics that are compared: 1 where more is better, -1 where less is."""
PAIRED = "robust_accuracy"
"""The metric of which reports hold what became of every record."""
CLEAN = "clean_accuracy"
Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of one version."""

    check: str
    title: str
    digest: str
    """Of the statement."""
    metrics: Mapping[str, Metric]
    robust: Mapping[int, bool] = field(default_factory=dict)
    """Record of the evaluation data to whether it stayed right under attack; empty where that is not known."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What must be equal for a fair comparison: allowance, evaluation data, access. Name to value."""
    records: str = ""
    """What ``robust`` counts records of: digest of the evaluation data."""


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one attack in both versions; differences are new minus old."""

    check: str
    title: str
    metric: str
    old: Metric
    new: Metric
    difference: float
    low: float
    high: float
    """Interval at 95 %, of this one line."""
    p_value: float
    corrected: float
    """The p-value after correction for all lines."""
    method: str
    n: int
    """Records that were paired; 0 where none were."""
    better: int
    """1 where more is better, -1 where less is."""
    old_digest: str = ""
    new_digest: str = ""
    caveat: str = ""
    """Why the comparison is not quite fair; empty when it is."""

    @property
    def verdict(self) -> Verdict:
        """Whether the new version is shown to be better or worse."""
        if self.corrected > LEVEL or not self.difference:
            return "no difference shown"
        return "better" if self.difference * self.better > 0 else "worse"


def compare(old: Iterable[Measured], new: Iterable[Measured]) -> tuple[Change, ...]:
    """Every metric that both versions have, by check and metric, corrected for their number."""
    before = {each.check: each for each in old}
    both = [(before[each.check], each) for each in sorted(new, key=lambda each: each.check) if each.check in before]
    changes = [
        _change(one, two, name)
        for place, (one, two) in enumerate(both)
        for name in BETTER
        if name in one.metrics and name in two.metrics and not (name == CLEAN and _told(both[:place]))
    ]
    corrected = holm([change.p_value for change in changes])
    return tuple(replace(change, corrected=value) for change, value in zip(changes, corrected, strict=True))


def _told(pairs: Sequence[tuple[Measured, Measured]]) -> bool:
    """Whether accuracy without an attack was compared already: the attack has no part in it."""
    return any(CLEAN in one.metrics and CLEAN in two.metrics for one, two in pairs)


def _change(old: Measured, new: Measured, name: str) -> Change:
    one, two = old.metrics[name], new.metrics[name]
    difference, low, high, p_value, method, n = _independent(one, two)
    common = sorted(old.robust.keys() & new.robust.keys()) if old.records and old.records == new.records else []
    if name == PAIRED and common:
        found = paired([new.robust[record] for record in common], [old.robust[record] for record in common])
        interval = found.difference.interval
        difference, low, high = found.difference.value, interval.low, interval.high
        p_value, method, n = found.p_value, "the same records, exactly", len(common)
    return Change(
        check=new.check,
        title=new.title,
        metric=name,
        old=one,
        new=two,
        difference=difference,
        low=low,
        high=high,
        p_value=p_value,
        corrected=p_value,
        method=method,
        n=n,
        better=BETTER[name],
        old_digest=old.digest,
        new_digest=new.digest,
        caveat=_caveat(old, new),
    )


def _independent(old: Metric, new: Metric) -> tuple[float, float, float, float, str, int]:
    """Difference of two measurements from their intervals alone (Zou and Donner 2008).

    The p-value asks how far the interval would have to be widened to reach 0, as if its half were normal.
    """
    both = apart(_estimate(new), _estimate(old))
    gap, low, high = both.value, both.interval.low, both.interval.high
    towards_zero = gap - low if gap > 0 else high - gap
    z = float(scipy.stats.norm.isf((1 - min(old.confidence, new.confidence)) / 2))
    p_value = float(2 * scipy.stats.norm.sf(z * abs(gap) / towards_zero)) if towards_zero else float(gap == 0)
    return gap, low, high, min(1.0, p_value), both.method, 0


def _estimate(metric: Metric) -> Estimate:
    return Estimate(metric.value, Interval(metric.low, metric.high), metric.n, metric.method, metric.confidence)


def _caveat(old: Measured, new: Measured) -> str:
    names = [name for name in new.conditions if old.conditions.get(name) != new.conditions[name]]
    names += [name for name in old.conditions if name not in new.conditions]
    before, now = (defaultdict(lambda: "not said", each.conditions) for each in (old, new))
    return "; ".join(f"{name} {before[name]}, now {now[name]}" for name in names)


def summary(changes: Sequence[Change]) -> str:
    """What the comparison says, in one or two sentences for a risk owner."""
    if not changes:
        return "Nothing was measured on both versions, so nothing can be compared."
    robust = [change for change in changes if change.metric == PAIRED]
    better, worse = (
        [change for change in changes if change.verdict == verdict and not change.caveat]
        for verdict in ("better", "worse")
    )
    return f"{_robust_words(robust)} {_counts(len(changes), better, worse)}".strip()


def _robust_words(robust: Sequence[Change]) -> str:
    """The strongest paired finding on robustness: the attack under which the new version does worst."""
    fair = [change for change in robust if not change.caveat]
    if not fair:
        return "No evasion attack was run on both versions under equal conditions."
    weakest = min(fair, key=lambda change: (change.new.value, change.check))
    words = {"better": "more robust", "worse": "less robust", "no difference shown": "not shown to differ"}
    return (
        f"Under {weakest.check.removeprefix('redteam.')}, which does most to it, the new version is "
        f"{words[weakest.verdict]}: {weakest.difference:+.1%} of records withstand "
        f"({weakest.low:+.1%} to {weakest.high:+.1%}, p = {weakest.corrected:.2g} after correction)."
    )


def _counts(total: int, better: Sequence[Change], worse: Sequence[Change]) -> str:
    return f"Of {total} numbers compared, {len(better)} are shown to be better and {len(worse)} worse."
