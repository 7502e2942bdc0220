"""The comparison as one self-contained HTML page: recommendation, pictures, table, tests, choices."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources

import jinja2
from markupsafe import Markup

from bartizan.assurance.figures.axes import Axis, logarithmic
from bartizan.assurance.figures.chart import Frame, chart, plot_area
from bartizan.assurance.model import Point, Series
from bartizan.assurance.text import clean, counted, number, words
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.comparison import Comparison, Entry
from bartizan.lifecycle.develop.choose.recommend import Recommendation
from bartizan.lifecycle.develop.choose.scatter import Spot, Trade, letter, scatter

TRADES = (
    ("accuracy", "robust_accuracy", Trade("robust", "Accuracy against robust accuracy", "accuracy", "robust accuracy")),
    (
        "accuracy",
        "membership_tpr_at_1_percent_fpr",
        Trade("leak", "Accuracy against what training gives away", "accuracy", "members found at 1 % false alarms"),
    ),
    (
        "parameters",
        "accuracy",
        Trade("capacity", "Capacity against accuracy", "numbers learnt", "accuracy", log_x=True),
    ),
    (
        "microseconds_in_batch",
        "accuracy",
        Trade("time", "Time against accuracy", "processor microseconds an answer", "accuracy", log_x=True),
    ),
)
"""Metrics across and up, and their picture."""
TABLE = (
    ("accuracy", "Accuracy", 100.0, "%"),
    ("recall", "Recall", 100.0, "%"),
    ("generalisation_gap", "Gap", 100.0, "points"),
    ("calibration_error", "ECE", 100.0, "points"),
    ("brier", "Brier", 1.0, ""),
    ("robust_accuracy", "Robust accuracy", 100.0, "%"),
    ("membership_tpr_at_1_percent_fpr", "Members found at 1 % FPR", 100.0, "%"),
    ("membership_auc", "Membership AUC", 1.0, ""),
    ("fidelity", "Copy agrees", 100.0, "%"),
    ("queries_for_90_percent_fidelity", "Queries for 90 %", 1.0, ""),
    ("shifted_auroc", "Outside AUROC (shifted)", 1.0, ""),
    ("far_sure", "Sure far outside", 100.0, "%"),
    ("parameters", "Numbers learnt", 1.0, ""),
    ("records_per_parameter", "Records for each", 1.0, ""),
    ("size_bytes", "Bytes", 1.0, ""),
    ("microseconds_in_batch", "µs in batch", 1.0, ""),
    ("microseconds_alone", "µs alone", 1.0, ""),
)
"""Metric, heading, factor and unit of each column of the table."""
CURVES = 6


def to_html(comparison: Comparison, recommendation: Recommendation) -> str:
    """The page. It needs nothing else: no script, no font, no request."""
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            recommendation=recommendation,
            letters={entry.name: letter(index) for index, entry in enumerate(comparison.entries)},
            pictures=pictures(comparison.entries, recommendation.front),
            curves=learning_curves(comparison.entries),
            table=[
                (name, heading, factor, unit) for name, heading, factor, unit in TABLE if _is_measured(comparison, name)
            ],
            choices=comparison.choices(recommendation.recommended or recommendation.most_accurate),
            apart=[pair for pair in comparison.pairs if pair.told_apart],
        )
    )


def pictures(entries: Sequence[Entry], front: Sequence[str]) -> list[tuple[Trade, Markup]]:
    """One picture for each trade that was measured."""
    drawn = []
    for x, y, trade in TRADES:
        spots = [
            Spot(letter(index), entry.title, entry.metrics[x], entry.metrics[y], entry.name in front)
            for index, entry in enumerate(entries)
            if x in entry.metrics and y in entry.metrics and not entry.is_floor
        ]
        if len(spots) > 1:
            drawn.append((trade, scatter(trade, spots)))
    return drawn


def learning_curves(entries: Sequence[Entry]) -> Markup:
    """Accuracy over the number of training records, of the first few candidates."""
    series = []
    for entry in entries:
        part = entry.parts.get("capacity")
        points = part.curves.get("accuracy_by_records", ()) if part else ()
        if points and not entry.is_floor:
            series.append(
                Series(name=entry.title, points=tuple(Point(x=p.x, y=p.value, low=p.low, high=p.high) for p in points))
            )
    if not series:
        return Markup("")
    shown = series[:CURVES]
    across, up = plot_area(len(shown))
    values = [point.y for each in shown for point in each.points]
    frame = Frame(
        name="learning",
        title="Accuracy after learning from fewer records",
        description="; ".join(f"{each.name}: {number(each.points[-1].y)} with all" for each in shown),
        x=logarithmic([point.x for each in shown for point in each.points], *across),
        y=Axis(min(values) - 0.02, min(1.0, max(values) + 0.01), *up),
        x_label="training records",
        y_label="accuracy",
    )
    return chart(frame, shown)


def _is_measured(comparison: Comparison, name: str) -> bool:
    return any(name in entry.metrics for entry in comparison.entries)


def cell(metric: Metric | None, factor: float) -> str:
    """A metric as it stands in the table, with its interval."""
    if metric is None:
        return "not measured"
    if metric.low == metric.high:
        return number(metric.value * factor)
    low, high = number(_short(metric.low * factor)), number(_short(metric.high * factor))
    return f"{number(_short(metric.value * factor))} [{low}, {high}]"


def _short(value: float) -> float:
    """Three significant digits, which is more than any interval here supports."""
    return float(f"{value:.3g}")


@functools.cache
def stylesheet() -> str:
    """The report's own style and what these pages add to it."""
    base = resources.files("bartizan.assurance").joinpath("templates/style.css").read_text("utf-8")
    own = resources.files(__package__).joinpath("templates/choose.css").read_text("utf-8")
    return f"{base}\n{own}"


@functools.cache
def _environment() -> jinja2.Environment:
    return environment(__package__)


def environment(package: str) -> jinja2.Environment:
    """Templates of a package, which may use the macros of this one."""
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(__package__)])
    made = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    made.filters |= {"clean": clean, "number": number, "words": words}
    made.globals |= {"cell": cell, "counted": counted, "style": lambda: Markup(stylesheet())}  # noqa: S704 - our own file
    return made
