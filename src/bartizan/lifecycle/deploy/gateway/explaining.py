"""Explanations of single answers over HTTP, for roles that are granted them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Numbers
from bartizan.lifecycle.deploy.gateway.protocol import Description
from bartizan.targets.explanation import Explanation, explain
from bartizan.targets.protocol import Rows, Target

MOST_ROWS = 8
"""Rows that one request has explained: each asks the model thousands of times."""
MOST_FEATURES = 20
"""Features that are told one by one, those that count most; the others are told together."""
DIGITS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What explanations compare with."""

    columns: tuple[str, ...]
    """Names of the features."""
    row: Rows
    """``(features,)``: medians of the training data, most frequent values of categories."""


def explained(target: Target, rows: Numbers, usual: Usual, described: Description) -> list[dict[str, Any]]:
    """An explanation of each row. Blocks.

    Raises:
        RequestError: these are too many rows.
        WorkError: the model cannot answer.
    """
    if len(rows) > MOST_ROWS:
        raise RequestError(413, f"at most {MOST_ROWS} rows are explained at once")
    return [_plain(explain(target, row, usual.row), row, usual, described) for row in rows]


def _plain(found: Explanation, row: Rows, usual: Usual, described: Description) -> dict[str, Any]:
    order = np.argsort(-np.abs(found.contributions), kind="stable")
    told, rest = order[:MOST_FEATURES], order[MOST_FEATURES:]
    return {
        "label": described.classes[found.answered],
        "unit": str(found.unit),
        "usual": _round(found.usual),
        "here": _round(found.here),
        "exact": found.exact,
        "contributions": [_part(found, place, row, usual) for place in told.tolist() if found.contributions[place]],
        "rest": _round(found.contributions[rest].sum()),
        "path": [
            f"{usual.columns[step.feature]} {'>' if step.above else '<='} {step.threshold:.6g}" for step in found.path
        ],
    }


def _part(found: Explanation, place: int, row: Rows, usual: Usual) -> dict[str, Any]:
    return {
        "feature": usual.columns[place],
        "value": _round(row[place]),
        "usual": _round(usual.row[place]),
        "adds": _round(found.contributions[place]),
        "standard_error": _round(found.errors[place]),
    }


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


__all__ = ["Usual", "explained"]
