"""Hardening as one self-contained HTML page: the trade of every defence as a picture and a table."""

from __future__ import annotations

import functools

import jinja2
from markupsafe import Markup

from bartizan.assurance.figures.axes import Axis
from bartizan.assurance.figures.chart import Frame, chart, plot_area
from bartizan.assurance.model import Point as Dot
from bartizan.assurance.model import Series
from bartizan.lifecycle.develop.choose.page import TABLE, environment
from bartizan.lifecycle.develop.choose.scatter import Spot, Trade, letter, scatter
from bartizan.lifecycle.develop.harden.report import Hardening
from bartizan.redteam.family import Point

TRADES = (
    ("accuracy", "robust_accuracy", Trade("robust", "Accuracy against robust accuracy", "accuracy", "robust accuracy")),
    (
        "accuracy",
        "membership_tpr_at_1_percent_fpr",
        Trade("leak", "Accuracy against what training gives away", "accuracy", "members found at 1 % false alarms"),
    ),
    (
        "parameters",
        "robust_accuracy",
        Trade("capacity", "Capacity against robust accuracy", "numbers learnt", "robust accuracy", log_x=True),
    ),
    (
        "microseconds_in_batch",
        "robust_accuracy",
        Trade(
            "time", "Time against robust accuracy", "processor microseconds an answer", "robust accuracy", log_x=True
        ),
    ),
)
MORE = (
    ("epsilon_lower_bound", "Epsilon seen", 1.0, ""),
    ("linked", "Records linked", 100.0, "%"),
    ("certified_accuracy", "Certified", 100.0, "%"),
    ("member_transfer", "Transfer between members", 100.0, "%"),
)
LEFT_OUT = ("records_per_parameter", "shifted_auroc", "far_sure")


def to_html(hardening: Hardening) -> str:
    """The page. It needs nothing else: no script, no font, no request."""
    entries = hardening.comparison.entries
    table = [each for each in (*TABLE, *MORE) if any(each[0] in entry.metrics for entry in entries)]
    return (
        _environment()
        .get_template("hardening.html.j2")
        .render(
            hardening=hardening,
            comparison=hardening.comparison,
            letters={entry.name: letter(index) for index, entry in enumerate(entries)},
            pictures=_pictures(hardening),
            table=table,
            certified=_certified(hardening),
        )
    )


def _pictures(hardening: Hardening) -> list[tuple[Trade, Markup]]:
    drawn = []
    entries = hardening.comparison.entries
    for x, y, trade in TRADES:
        spots = [
            Spot(letter(index), entry.title, entry.metrics[x], entry.metrics[y], index == 0)
            for index, entry in enumerate(entries)
            if x in entry.metrics and y in entry.metrics
        ]
        if len(spots) > 1:
            drawn.append((trade, scatter(trade, spots)))
    return drawn


def _certified(hardening: Hardening) -> Markup:
    """Certified beside attacked accuracy: the truth lies between the two curves."""
    for entry in hardening.comparison.entries:
        part = entry.parts.get("certified")
        if part is None or not part.curves:
            continue
        names = {"certified_accuracy_by_radius": "proved", "attacked_accuracy_by_change": "left by the attack"}
        series = [Series(name=words, points=_dots(part.curves[name])) for name, words in names.items()]
        across, up = plot_area(len(series))
        most = max(point.x for each in series for point in each.points)
        frame = Frame(
            name="certified",
            title="What is proved, and what an attack left",
            description="Share of rows that stay right over the size of the change.",
            x=Axis(0.0, max(most, 1e-6), *across),
            y=Axis(0.0, 1.0, *up),
            x_label="change (L2, standard deviations)",
            y_label="share of rows that stay right",
        )
        return chart(frame, series)
    return Markup("")


def _dots(points: tuple[Point, ...]) -> tuple[Dot, ...]:
    return tuple(Dot(x=point.x, y=point.value, low=point.low, high=point.high) for point in points)


@functools.cache
def _environment() -> jinja2.Environment:
    made = environment(__package__)
    made.globals["left_out"] = LEFT_OUT
    return made
