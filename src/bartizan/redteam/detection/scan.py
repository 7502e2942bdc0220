"""A backdoor scan of a model with its training data, and the comparison of two scans.

The detector finds what suspicious training records share; the scan puts that on rows that training did
not see and asks the model. What turns them is a backdoor, however it came in. After pruning, fine-tuning or
training again on cleansed data the same patterns are put on the same rows again, beside what a new scan finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.redteam.detection.combined import Combined
from bartizan.redteam.detection.inspected import Detector, Inspected, Pattern, Suspicion
from bartizan.redteam.statistics import Estimate, crossed, proportion
from bartizan.targets.protocol import Labels, Rows, Target

BACKDOOR = 0.5
"""Lower end of the share of rows turned, from which a pattern is called a backdoor."""


@dataclass(frozen=True, slots=True, eq=False)
class Trigger:
    """A pattern, and what it does to a model."""

    pattern: Pattern
    turned: Estimate
    """Share of the rows of other classes, answered otherwise without it, that it turns to its class."""

    @property
    def is_backdoor(self) -> bool:
        """Whether it is sure to turn more than half of the rows."""
        return self.turned.interval.low >= BACKDOOR


@dataclass(frozen=True, slots=True, eq=False)
class BackdoorScan:
    """What a scan saw of one model."""

    suspicion: Suspicion
    """Of the training records."""
    triggers: tuple[Trigger, ...]
    right: tuple[bool, ...]
    """For each evaluation row whether it is answered rightly."""

    @property
    def accuracy(self) -> Estimate:
        """On rows that training did not see."""
        return proportion(sum(self.right), len(self.right))

    @property
    def backdoors(self) -> tuple[Trigger, ...]:
        """The triggers that work."""
        return tuple(trigger for trigger in self.triggers if trigger.is_backdoor)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The same model before and after it was hardened."""

    before: BackdoorScan
    after: BackdoorScan
    """Its triggers are those of ``before``, asked again, and behind them what is new."""

    @property
    def accuracy_lost(self) -> Estimate:
        """Row by row; negative where hardening helped."""
        gap = np.array(self.before.right, np.float64) - np.array(self.after.right, np.float64)
        return crossed(gap[None], (-1.0, 1.0))

    @property
    def is_clean(self) -> bool:
        """Whether no pattern, old or new, is a backdoor any longer."""
        return not self.after.backdoors

    def metrics(self) -> dict[str, Metric]:
        """Parts of a statement."""
        numbers = {
            "accuracy_before": self.before.accuracy,
            "accuracy_after": self.after.accuracy,
            "accuracy_lost": self.accuracy_lost,
        }
        for place, (old, new) in enumerate(zip(self.before.triggers, self.after.triggers, strict=False), start=1):
            numbers[f"trigger_{place}_turns_before"] = old.turned
            numbers[f"trigger_{place}_turns_after"] = new.turned
        return {name: number.metric() for name, number in numbers.items()}

    @property
    def summary(self) -> str:
        """One sentence."""
        worst = max((trigger.turned.value for trigger in self.before.triggers), default=0.0)
        left = max((trigger.turned.value for trigger in self.after.triggers), default=0.0)
        lost = self.accuracy_lost
        return (
            f"The strongest trigger found turned {worst:.0%} of rows before and {left:.0%} after; "
            f"accuracy changed by {-lost.value:+.1%} ({-lost.interval.high:+.1%} to {-lost.interval.low:+.1%})."
        )


def scan(
    target: Target,
    inspected: Inspected,
    evaluation: tuple[Rows, Labels],
    rng: np.random.Generator,
    *,
    detector: Detector | None = None,
    patterns: Sequence[Pattern] = (),
) -> BackdoorScan:
    """Look for patterns in the training records and try them, and the ``patterns`` given, on ``evaluation``.

    Raises:
        InputError: there are no evaluation rows.
    """
    rows, labels = evaluation
    if not len(rows):
        raise InputError("a backdoor scan needs rows that training did not see", remedy="give evaluation rows.")
    suspicion = (detector or Combined()).inspect(inspected, rng)
    answers = target.labels(rows)
    tried = [*patterns, *suspicion.patterns]
    triggers = tuple(Trigger(pattern, turned(target, pattern, rows, labels, answers)) for pattern in tried)
    return BackdoorScan(suspicion, triggers, tuple(bool(right) for right in answers == labels))


def compare(
    before: BackdoorScan,
    hardened: Target,
    inspected: Inspected,
    evaluation: tuple[Rows, Labels],
    rng: np.random.Generator,
    *,
    detector: Detector | None = None,
) -> Comparison:
    """Scan again after hardening, with the patterns that were found before and whatever is found now.

    Raises:
        InputError: the evaluation rows are others than before.
    """
    if len(before.right) != len(evaluation[0]):
        raise InputError("the scans must be made on the same evaluation rows", remedy="scan both models on them.")
    known = [trigger.pattern for trigger in before.triggers]
    return Comparison(before, scan(hardened, inspected, evaluation, rng, detector=detector, patterns=known))


def turned(target: Target, pattern: Pattern, rows: Rows, labels: Labels, answers: Labels) -> Estimate:
    """Share of rows of other classes that get the pattern's class with it and do not without it."""
    counted = (labels != pattern.label) & (answers != pattern.label)
    if not counted.any():
        return proportion(0, 0)
    with_it = target.labels(pattern(rows[counted]))
    return proportion(int((with_it == pattern.label).sum()), int(counted.sum()))
