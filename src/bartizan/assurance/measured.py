"""What the red team measured, read out of statements and their full reports.

A report is somebody else's JSON: a curve that is not there, or cannot be read, is said to be so in
words and never made up. Only statements that count now are drawn.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bartizan.assurance.cases import LARGEST, parts, pictures, worst_cases
from bartizan.assurance.claims import claim, headline
from bartizan.assurance.exhibits import CheckFacts
from bartizan.assurance.model import Absence, AttackLine, Confusion, Curves, FigureKind, Point, Series
from bartizan.assurance.taxonomy import named
from bartizan.assurance.text import moment, span, words
from bartizan.catalogue.load import Catalogue
from bartizan.core import predicates
from bartizan.core.errors import StatementError
from bartizan.core.evidence import Evidence, Standing

MAX_REPORT_BYTES = 64 * 1024 * 1024
MAX_POINTS = 200
"""Points of one curve that a report keeps; longer curves are thinned evenly, ends kept."""
MAX_CLASSES = 40
FAMILIES = (
    "evasion",
    "corruption",
    "poisoning",
    "backdoor",
    "privacy",
    "extraction",
    "text",
    "availability",
    "external",
)
"""In the order in which they are shown; ``external`` is what other tools claim."""

EVERY = "*"
"""In the place of a curve's name: all curves of the report."""
_CURVES: dict[FigureKind, tuple[str, dict[str, str]]] = {
    "change": ("evasion", {"robust_accuracy_by_change": ""}),
    "queries": ("evasion", {"robust_accuracy_by_queries": ""}),
    "corruption": ("corruption", {EVERY: ""}),
    "poison": ("poisoning", {"accuracy_by_poison_rate": ""}),
    "recall": ("poisoning", {"positive_recall_by_poison_rate": ""}),
    "backdoor": ("backdoor", {"attack_success_by_poison_rate": ""}),
    "roc": ("privacy", {"roc": ""}),
    "exposure": ("privacy", {"exposure_by_copies": ""}),
    "fidelity": (
        "extraction",
        {"fidelity_by_queries": "all records", "fidelity_near_boundary_by_queries": "near the boundary"},
    ),
}
"""Figure to the family that measures it, and its curves in the report with what to call them.

A report may hold several curves of a kind, as ``roc_lira`` and ``roc_loss`` or one level deeper.
"""
OPTIONAL: frozenset[FigureKind] = frozenset({"corruption", "backdoor", "exposure"})
"""Figures of attacks that are run only where they are named: that they are not there is not worth a line."""
_X, _Y = ("x", "fpr", "rate", "queries"), ("value", "tpr", "y")


def read_report(item: Evidence, reports: Mapping[str, bytes]) -> dict[str, Any]:
    """The full report of a statement as JSON; empty when there is none or it cannot be read."""
    data = reports.get(item.report) if item.report else None
    if data is None or len(data) > MAX_REPORT_BYTES:
        return {}
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def attacks(
    evidence: Sequence[Evidence],
    checks: Mapping[str, CheckFacts],
    reports: Mapping[str, bytes],
    catalogue: Catalogue,
    now: datetime,
) -> tuple[AttackLine, ...]:
    """Every red-team measurement that was not superseded, by family and name."""
    lines = [
        _with_cases(_attack(item, said, checks, catalogue, now), read_report(item, reports))
        for item, said in assessments(evidence)
        if item.standing is not Standing.SUPERSEDED
    ]
    return tuple(sorted(lines, key=lambda line: (FAMILIES.index(line.family), line.title, line.about, line.digest)))


def figures(
    evidence: Sequence[Evidence], checks: Mapping[str, CheckFacts], reports: Mapping[str, bytes]
) -> tuple[tuple[Curves, ...], tuple[Absence, ...]]:
    """The red-team curves, and for each figure that cannot be drawn the reason."""
    drawn, absent = [], []
    said = list(assessments(evidence))
    for kind, (family, names) in _CURVES.items():
        standing = [(item, what) for item, what in said if what.family == family and item.holds and _fits(kind, what)]
        found = {
            item.digest: (_title(item, what, checks), curves)
            for item, what in standing
            if (curves := _series(read_report(item, reports).get("curves"), names))
        }
        if found:
            unit = _unit(what for item, what in standing if item.digest in found) if kind == "change" else ""
            series = tuple(_named(list(found.values())))
            drawn.append(Curves(kind=kind, series=series, sources=tuple(found), unit=unit))
        elif kind not in OPTIONAL:
            measured = any(what.family == family for _, what in said)
            absent.append(Absence(kind=kind, reason=_why_absent(family, measured, bool(standing))))
    return tuple(drawn), tuple(absent)


def _fits(kind: FigureKind, said: predicates.Assessment) -> bool:
    """Whether a measurement has a place in a figure: what was paid in gradients says nothing over queries."""
    return kind != "queries" or not said.budget.get("gradients_spent")


def assessments(evidence: Iterable[Evidence]) -> Iterable[tuple[Evidence, predicates.Assessment]]:
    """The red team's statements among others."""
    for item in evidence:
        if item.statement is None or item.statement.predicate_type != predicates.ASSESSMENT:
            continue
        try:
            said: predicates.Assessment = item.statement.read()
        except StatementError:
            continue
        if said.family in FAMILIES:
            yield item, said


def _attack(
    item: Evidence,
    said: predicates.Assessment,
    checks: Mapping[str, CheckFacts],
    catalogue: Catalogue,
    now: datetime,
) -> AttackLine:
    threat = said.threat or predicates.Threat(position="", access=())
    first = headline(said.metrics)
    return AttackLine(
        digest=item.digest,
        title=_title(item, said, checks),
        family=said.family,
        method=said.method,
        about=tuple(subject.name for subject in item.statement.subject) if item.statement else (),
        says=said.summary,
        standing=item.standing,
        position=threat.position,
        access=threat.access,
        knowledge=threat.knowledge,
        techniques=said.techniques,
        metrics=tuple(sorted(said.metrics.items())),
        budget=tuple(sorted(said.budget.items())),
        seed=said.seed,
        again=_again(item, said),
        note=_note(said),
        unit=str(said.settings.get("unit", "")),
        claim=claim(said.summary, first),
        headline=first,
        named=named(said.techniques, catalogue),
        received=moment(item.received_at),
        age=span(item.received_at, now),
    )


def _with_cases(line: AttackLine, report: Mapping[str, Any]) -> AttackLine:
    """The same measurement with what its full report shows of single samples, classes and segments."""
    metric = dict(line.metrics).get("median_change")
    return msgspec.structs.replace(
        line,
        confusion=tuple(_confusions(report)),
        classes=parts(report.get("classes")),
        segments=parts(report.get("segments")),
        worst=worst_cases(report),
        unit=metric.unit if metric else line.unit,
        pictures=pictures(report),
    )


def _note(said: predicates.Assessment) -> str:
    seen, planned = said.settings.get("stopped_after"), said.settings.get("samples_planned")
    if not isinstance(seen, int) or not isinstance(planned, int):
        return ""
    return f"stopped after {seen} of {planned} samples, when gates were decided"


def _unit(said: Iterable[predicates.Assessment]) -> str:
    """What changes are counted in, when all measurements agree."""
    units = {
        each.metrics["median_change"].unit if "median_change" in each.metrics else str(each.settings.get("unit", ""))
        for each in said
    }
    known = units - {""}
    return known.pop() if len(known) == 1 else ""


def _again(item: Evidence, said: predicates.Assessment) -> str:
    """The command that measures again; one attack may have been run in the name of another that did not apply."""
    if said.family == "external":
        return ""
    name = item.check.removeprefix("redteam.") or said.method
    return f"bartizan attack --only {shlex.quote(name)} --fresh"


def _title(item: Evidence, said: predicates.Assessment, checks: Mapping[str, CheckFacts]) -> str:
    return checks[item.check].title if item.check in checks else words(said.method)


def _why_absent(family: str, measured: bool, standing: bool) -> str:
    if standing:
        return f"The {family} measurements that count now hold no such curve."
    if measured:
        return f"No {family} measurement counts any more; `bartizan assure` measures again."
    return f"No {family} attack has been run; `bartizan assure` runs those that apply."


def _series(curves: Any, names: Mapping[str, str]) -> list[Series]:
    """The curves of one figure: those with just these names, and those that begin with them."""
    found = []
    for key, points in curves.items() if isinstance(curves, dict) else ():
        base = next((n for n in names if n in {EVERY, key} or str(key).startswith(f"{n}_")), None)
        if base is None:
            continue
        own = words(str(key).removeprefix(base)) or names[base]
        nested = points if isinstance(points, dict) else {own: points}
        found += [Series(name=words(str(name)), points=_thinned(_points(entry))) for name, entry in nested.items()]
    return [series for series in found if series.points]


def _points(points: Any) -> list[Point]:
    found = []
    for entry in points if isinstance(points, list) else ():
        if not isinstance(entry, dict):
            continue
        x, y = _first_number(entry, _X), _first_number(entry, _Y)
        if x is not None and y is not None:
            low, high = _first_number(entry, ("low",)), _first_number(entry, ("high",))
            found.append(Point(x=x, y=y, low=low, high=high))
    return sorted(found, key=lambda point: point.x)


def _first_number(entry: Mapping[str, Any], names: Iterable[str]) -> float | None:
    for name in names:
        value = entry.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST:
            return float(value)
    return None


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    if len(points) <= MAX_POINTS:
        return tuple(points)
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return tuple(points[round(index * step)] for index in range(MAX_POINTS))


def _named(found: Sequence[tuple[str, Sequence[Series]]]) -> list[Series]:
    """Curves under the shortest names that tell them apart: the attack's, the curve's own, or both."""
    named = []
    for whole, series in found:
        title = whole.partition(": ")[0]
        for entry in series:
            own = entry.name if len(found) == 1 else f"{title}: {entry.name}"
            named.append((own if len(series) > 1 and entry.name else title, entry.points))
    names = [name for name, _ in named]
    apart = [
        Series(name=name if names.count(name) == 1 else f"{name} ({index + 1})", points=points)
        for index, (name, points) in enumerate(named)
    ]
    return sorted(apart, key=lambda entry: entry.name)


def _confusions(report: Mapping[str, Any]) -> Iterable[Confusion]:
    """The report's confusion matrices: one, or several by name."""
    found = report.get("confusion")
    if not isinstance(found, dict):
        return
    classes = found.get("classes", report.get("classes"))
    for name, counts in sorted(found.items()):
        matrix = _matrix(counts)
        if matrix:
            labels = tuple(str(entry) for entry in classes) if isinstance(classes, list) else ()
            if len(labels) != len(matrix):
                labels = tuple(f"class {index}" for index in range(len(matrix)))
            yield Confusion(title=words(name), classes=labels, counts=matrix)


def _matrix(counts: Any) -> tuple[tuple[int, ...], ...]:
    """A square matrix of counts, or nothing."""
    if not isinstance(counts, list) or not 2 <= len(counts) <= MAX_CLASSES:  # noqa: PLR2004 - one class is no choice
        return ()
    rows = [row for row in counts if isinstance(row, list) and len(row) == len(counts)]
    whole = all(isinstance(cell, int) and not isinstance(cell, bool) and cell >= 0 for row in rows for cell in row)
    return tuple(tuple(row) for row in rows) if len(rows) == len(counts) and whole else ()
