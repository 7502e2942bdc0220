"""The recommendation: the simplest adequate candidate, why each other one is not it, and what a choice beyond it needs.

Adequate means: it beats the floor, is not shown to be worse than the most accurate candidate and at most
``MARGIN`` behind it, and meets what the declaration expects and whoever asked demands. *Not shown to be
worse* is not *shown to be as good*; the intervals say how much the data leave open. Simplest means: most
open first (glass before grey before black box), then fewest numbers learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Interpretability
from bartizan.lifecycle.develop.choose.comparison import Comparison, Entry
from bartizan.lifecycle.develop.choose.paired import SIGNIFICANT, Pair

MARGIN = 0.02
"""Accuracy that simplicity may cost at most, as measured."""
FRONT = {"accuracy": 1, "robust_accuracy": 1, "membership_tpr_at_1_percent_fpr": -1, "parameters": -1}
"""What the front is drawn over: metric to 1 where more is better, -1 where less is."""
RECALL = "recall."
"""Before the name of a class: its recall."""
NUMBER_BYTES = 8
"""Bytes of a number; bounds the parameters of a model that could not be looked into."""


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must meet beside accuracy."""

    interpretability: Interpretability | None = None
    """Least open class that is accepted; None accepts all."""
    at_least: dict[str, float] = {}
    """Metric to its least value."""
    at_most: dict[str, float] = {}
    expected: dict[str, float] = {}
    """From the declaration: ``accuracy``, ``recall.CLASS``. Nobody who asks can demand less."""

    @property
    def least(self) -> dict[str, float]:
        """Metric to its least value: of what is expected and what is asked for, the stricter."""
        names = {**self.expected, **self.at_least}
        return {name: max(each[name] for each in (self.expected, self.at_least) if name in each) for name in names}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one candidate stands."""

    name: str
    adequate: bool
    reasons: tuple[str, ...]
    """Why it is not adequate; or, when it is, what the data leave open."""
    complexity: tuple[int, int]
    """Rank of interpretability and number of parameters; compared in this order."""


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """What is recommended, and on what grounds."""

    recommended: str
    """Name of the simplest adequate candidate; empty when there is none."""
    most_accurate: str
    words: str
    """The recommendation in a few sentences."""
    standings: tuple[Standing, ...]
    front: tuple[str, ...]
    """Candidates that no other one beats in accuracy, robustness, leakage and parameters at once."""
    trade: tuple[str, ...]
    """What other candidates are surely better at than the recommended one."""
    demands: Demands

    def standing(self, name: str) -> Standing:
        """Of the candidate called ``name``; KeyError when there is none."""
        for standing in self.standings:
            if standing.name == name:
                return standing
        raise KeyError(name)


def recommend(comparison: Comparison, demands: Demands) -> Recommendation:
    """Weigh a comparison.

    Raises:
        InputError: something is demanded that was measured of nobody.
    """
    measured = {name for entry in comparison.entries for name in entry.metrics}
    for name in (*demands.at_least, *demands.at_most):
        if name not in measured and not name.startswith(RECALL):
            raise InputError(
                f"{name!r} was measured of no candidate",
                remedy=f"demand one of: {', '.join(sorted(measured))}; or {RECALL}CLASS.",
            )
    real = [entry for entry in comparison.entries if not entry.is_floor]
    best = max(real, key=lambda entry: (entry.metrics["accuracy"].value, -complexity(entry)[0], -complexity(entry)[1]))
    standings = tuple(_standing(comparison, entry, best, demands) for entry in comparison.entries)
    adequate = [standing for standing in standings if standing.adequate]
    simplest = min(adequate, key=lambda standing: standing.complexity) if adequate else None
    name = simplest.name if simplest else ""
    return Recommendation(
        recommended=name,
        most_accurate=best.name,
        words=_words(comparison, name, best, standings),
        standings=standings,
        front=front(comparison.entries),
        trade=_trade(comparison, name) if name else (),
        demands=demands,
    )


def complexity(entry: Entry) -> tuple[int, int]:
    """Rank of interpretability and number of parameters; an unread model counts by the size of its file."""
    parameters = entry.value("parameters")
    if parameters is None:
        parameters = (entry.value("size_bytes") or math.inf) / NUMBER_BYTES
    return entry.interpretability.rank, int(min(parameters, 2**53))


def reason_needed(recommendation: Recommendation, name: str) -> str:
    """Why choosing ``name`` has to be given a reason; empty when it has not.

    Raises:
        KeyError: there is no such candidate.
    """
    standing = recommendation.standing(name)
    if not recommendation.recommended:
        return "no candidate is adequate, so whichever is chosen falls short of something"
    if not standing.adequate:
        return f"{name} is not adequate: {'; '.join(standing.reasons)}"
    if standing.complexity > recommendation.standing(recommendation.recommended).complexity:
        return f"{name} has more capacity than {recommendation.recommended}, the simplest adequate candidate"
    return ""


def front(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Candidates that no other one equals or beats in everything and beats in something (Pareto)."""
    points = {entry.name: _point(entry) for entry in entries if not entry.is_floor}
    return tuple(
        name
        for name, point in points.items()
        if not any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in points.values()
        )
    )


def _point(entry: Entry) -> tuple[float, ...]:
    """Each measure turned so that more is better; what was not measured counts for nothing."""
    values = {name: entry.value(name) for name in FRONT}
    values["parameters"] = float(complexity(entry)[1])
    return tuple(0.0 if (value := values[name]) is None else sign * value for name, sign in FRONT.items())


# -- adequacy --------------------------------------------------------------------------------------


def _standing(comparison: Comparison, entry: Entry, best: Entry, demands: Demands) -> Standing:
    faults = [*_against_floor(comparison, entry), *_against_best(comparison, entry, best), *_unmet(entry, demands)]
    return Standing(
        name=entry.name,
        adequate=not faults,
        reasons=tuple(faults) if faults else tuple(_open(comparison, entry, best)),
        complexity=complexity(entry),
    )


def _against_floor(comparison: Comparison, entry: Entry) -> list[str]:
    if entry.is_floor:
        return ["it is the floor: it answers without looking at the row"]
    floors = [other for other in comparison.entries if other.is_floor]
    beaten = all(ahead(pair_of(comparison.pairs, entry.name, floor.name), entry.name) for floor in floors)
    return [] if beaten else ["it is not shown to be better than answering the most frequent class"]


def _against_best(comparison: Comparison, entry: Entry, best: Entry) -> list[str]:
    if entry is best:
        return []
    pair = pair_of(comparison.pairs, best.name, entry.name)
    behind = _behind(pair, best.name)
    if behind > MARGIN:
        return [f"it is {behind:.1%} less accurate than {best.name}, more than {MARGIN:.0%}"]
    # Not corrected for the number of pairs: here a false alarm only makes the choice more careful.
    return [f"it is shown to be less accurate than {best.name} (p = {pair.p:g})"] if pair.p < SIGNIFICANT else []


def _unmet(entry: Entry, demands: Demands) -> list[str]:
    faults = []
    if demands.interpretability and entry.interpretability.rank > demands.interpretability.rank:
        faults.append(f"it is a {entry.interpretability} ({entry.why}), and {demands.interpretability} is required")
    for name, least in demands.least.items():
        found = _named(entry, name)
        if found is None:
            faults.append(f"{name} was not measured, and at least {least:g} is required")
        elif found.value < least:
            faults.append(f"its {_plain(name)} is {found.value:.3f}, and at least {least:g} is required")
    for name, most in demands.at_most.items():
        found = _named(entry, name)
        if found is None:
            faults.append(f"{name} was not measured, and at most {most:g} is required")
        elif found.value > most:
            faults.append(f"its {_plain(name)} is {found.value:.3g}, and at most {most:g} is required")
    return faults


def _named(entry: Entry, name: str) -> Metric | None:
    """A metric by its name, or the recall of one class by ``recall.CLASS``."""
    if name.startswith(RECALL):
        found = entry.parts["quality"].details["recall_by_class"].get(name.removeprefix(RECALL))
        return None if found is None else msgspec.convert(found, Metric)
    return entry.metrics.get(name)


def _open(comparison: Comparison, entry: Entry, best: Entry) -> list[str]:
    """What the data leave open about an adequate candidate."""
    if entry is best:
        return ["the most accurate one on these rows"]
    pair = pair_of(comparison.pairs, best.name, entry.name)
    low, high = -pair.difference.high, -pair.difference.low
    if pair.first != best.name:
        low, high = pair.difference.low, pair.difference.high
    return [f"not shown to be worse than {best.name}; the difference lies between {low:+.1%} and {high:+.1%}"]


def pair_of(pairs: Sequence[Pair], one: str, other: str) -> Pair:
    """The comparison of two candidates, in whichever order."""
    return next(pair for pair in pairs if {pair.first, pair.second} == {one, other})


def ahead(pair: Pair, name: str) -> bool:
    """Whether one of a pair is surely ahead, all comparisons considered."""
    return pair.told_apart and _behind(pair, name) > 0


def _behind(pair: Pair, name: str) -> float:
    """How far the other one of a pair is behind ``name``."""
    return pair.difference.value if pair.first == name else -pair.difference.value


# -- words -----------------------------------------------------------------------------------------


def _words(comparison: Comparison, name: str, best: Entry, standings: Sequence[Standing]) -> str:
    if not name:
        return "No candidate is adequate. " + "; ".join(
            f"{standing.name}: {standing.reasons[0]}" for standing in standings if standing.name == best.name
        )
    entry = comparison.entry(name)
    accuracy, passed = entry.metrics["accuracy"], sum(standing.adequate for standing in standings)
    words = (
        f"{entry.title} is the simplest of {passed} adequate candidates among {len(comparison.entries)}: a "
        f"{entry.interpretability} ({entry.why}) with accuracy {accuracy.value:.1%} "
        f"({accuracy.low:.1%} to {accuracy.high:.1%})"
    )
    if name == best.name:
        return words + ", and none is more accurate."
    (open_,) = next(standing.reasons for standing in standings if standing.name == name)
    return f"{words}; {open_}. Choosing more capacity than that needs a reason."


def _trade(comparison: Comparison, name: str) -> tuple[str, ...]:
    """What others are surely better at: by paired tests, or by intervals that do not touch."""
    found, ours = [], comparison.entry(name).metrics
    for entry in comparison.entries:
        if entry.is_floor or entry.name == name:
            continue
        found += [
            f"{entry.name} is more {word} ({_shown(entry, metric)} against {_shown(comparison.entry(name), metric)})"
            for word, metric, pairs in (
                ("accurate", "accuracy", comparison.pairs),
                ("robust", "robust_accuracy", comparison.robust_pairs),
            )
            if _has_pair(pairs, entry.name, name) and ahead(pair_of(pairs, entry.name, name), entry.name)
        ]
        found += _less(entry, ours)
    return tuple(found)


_LESS = {
    "membership_tpr_at_1_percent_fpr": "gives away fewer members at 1 % false alarms",
    "calibration_error": "is better calibrated",
}


def _less(entry: Entry, ours: Mapping[str, Metric]) -> list[str]:
    """Measures of which less is better, where the intervals do not touch."""
    return [
        f"{entry.name} {words} ({entry.metrics[name].value:.3f} against {ours[name].value:.3f})"
        for name, words in _LESS.items()
        if name in ours and name in entry.metrics and entry.metrics[name].high < ours[name].low
    ]


def _has_pair(pairs: Sequence[Pair], one: str, other: str) -> bool:
    return any({pair.first, pair.second} == {one, other} for pair in pairs)


def _shown(entry: Entry, name: str) -> str:
    found = entry.metrics[name]
    return f"{found.value:.1%}, {found.low:.1%} to {found.high:.1%}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
