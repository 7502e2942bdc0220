"""Which number of a measurement stands for it, and whether its observations carry what is said."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bartizan.assurance.model import Headline
from bartizan.assurance.text import counted, number, words
from bartizan.core.predicates import Metric

HEADLINES = (
    "robust_accuracy",
    "worst_corruption_accuracy",
    "attack_success_beyond_clean_models_at",
    "accuracy_drop_at",
    "tpr_at_1_percent_fpr",
    "exposure_bits",
    "epsilon_lower_bound",
    "leak",
    "advantage",
    "similarity",
    "fidelity",
    "attack_success",
    "slowdown",
)
"""Metrics that stand for a measurement, the most telling first; one that ends in ``at`` for its largest share."""
WIDEST = 0.5
"""Width of the interval of a share from which on it says nothing: half of all that is possible."""
_AT = re.compile(r"_at_(\d+(?:_\d+)?)_percent")


def headline(metrics: Mapping[str, Metric]) -> Headline | None:
    """The number that stands for a measurement; None when it has none."""
    name = next((found for wanted in HEADLINES if (found := _named(metrics, wanted))), min(metrics, default=""))
    return Headline(name=name, metric=metrics[name], carried=carried(metrics[name])) if name else None


def carried(metric: Metric) -> bool:
    """Whether the observations carry a claim about a share. Other numbers are shown with their interval as they are."""
    share = not metric.unit and metric.low >= 0 and metric.high <= 1
    return metric.n > 0 and not (share and metric.high - metric.low > WIDEST)


def claim(said: str, first: Headline | None) -> str:
    """The summary of a measurement, or the refusal to repeat it where the observations are too few."""
    if first is None or first.carried:
        return said
    metric = first.metric
    fits = f": anything from {number(metric.low)} to {number(metric.high)} fits what was seen" if metric.n else ""
    return f"{counted(metric.n, 'observation')} cannot carry a claim about {words(first.name)}{fits}."


def _named(metrics: Mapping[str, Metric], wanted: str) -> str:
    if not wanted.endswith("_at"):
        return wanted if wanted in metrics else ""
    found = [name for name in metrics if name.startswith(f"{wanted}_") and _AT.search(name)]
    return max(found, key=_share, default="")


def _share(name: str) -> float:
    match = _AT.search(name)
    return float(match.group(1).replace("_", ".")) if match else 0.0
