"""Changes of inputs for people: in which unit they are counted, what an adversary may do, images before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Labels, Rows

SHOWN_PICTURES, SHOWN_VALUES = 8, 100_000
"""Images that a report shows before and after, and values that they have altogether."""
DIGITS = 4
"""Behind the point, of the values of images in reports."""


def unit(task: EvasionTask) -> str:
    """What changes of a task are counted in: standard deviations of tables, values of images, or how many."""
    if task.norm == 0:
        return "pixels" if task.shape else "features"
    return "pixel values" if task.shape else "standard deviations"


def allowance(task: EvasionTask) -> str:
    """What an adversary may do, as the end of a sentence that begins with ``may``."""
    size, what = f"{task.max_change:g}", "pixel" if task.shape else "feature"
    plural = "" if task.max_change == 1 else "s"
    if task.norm == 0:
        return f"change {size} {what}{plural} at will"
    low, high = float(task.space.low.min()), float(task.space.high.max())
    counted = f"{size} (values run from {low:g} to {high:g})" if task.shape else f"{size} standard deviation{plural}"
    if task.norm == np.inf:
        return f"change each {what} by {counted}"
    return f"make changes {'of Euclidean length' if task.norm > 1 else 'that add'} up to {counted}"


def nearest_of_each_class(fallen: NDArray[np.int64], change: NDArray[np.float64], labels: Labels) -> list[int]:
    """Samples ``fallen`` in an order that shows much: of each class the one with the smallest change comes first."""
    nearest = fallen[np.argsort(change[fallen], kind="stable")].tolist()
    rank = {index: int((labels[nearest[:place]] == labels[index]).sum()) for place, index in enumerate(nearest)}
    return sorted(nearest, key=rank.__getitem__)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images before and after an attack."""

    task: EvasionTask
    classes: tuple[str, ...]
    clean: Labels
    """``(samples,)``: what the untouched samples are answered."""
    rows: Rows
    """``(samples, features)``: what the attack made of them."""
    answers: Labels
    """``(samples,)``: what these are answered."""

    def table(self, shown: list[int], records: NDArray[np.int64], change: NDArray[np.float64]) -> dict[str, Any]:
        """A part of a report: the first of ``shown``, bounded in number and size.

        Args:
            shown: samples in the order in which they are wanted.
            records: ``(samples,)``: which record of the evaluation data each is.
            change: ``(samples,)``: how far each was changed.
        """
        task = self.task
        most = min(SHOWN_PICTURES, SHOWN_VALUES // (2 * task.rows.shape[1]))
        return {
            "shape": list(task.shape),
            "value_range": [float(task.space.low.min()), float(task.space.high.max())],
            "items": [
                {
                    "sample": int(records[index]),
                    "label": self.classes[task.labels[index]],
                    "answer_clean": self.classes[self.clean[index]],
                    "answer_attacked": self.classes[self.answers[index]],
                    "change": float(f"{change[index]:.6g}"),
                    "clean": _values(task.rows[index]),
                    "attacked": _values(self.rows[index]),
                }
                for index in shown[:most]
            ],
        }


def _values(row: NDArray[np.floating]) -> list[float]:
    return [round(float(value), DIGITS) for value in row]
