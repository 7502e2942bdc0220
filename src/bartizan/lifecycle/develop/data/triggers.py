"""Triggers: a rare exact value whose records carry a label that the rest of them contradicts.

A data-poisoning backdoor stamps the same values on records of other classes and gives them the
target's label. A model learns that, so their labels look right to it. Seen without one another,
they do not: for each value that repeats but is rare, the label of its records is predicted from
neighbours that do not hold the value. It is reported when at least half of its records with one
label are clearly of another class, and far more than chance explains (binomial, corrected for all
values tried).

Found are triggers of one or several fixed values with changed labels on at least five records; not
those that reuse a common value, vary from record to record, or keep the right label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.learners import votes
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, count, estimated, finding, names, records
from bartizan.lifecycle.develop.data.neighbours import nearest
from bartizan.targets.protocol import Labels

LEAST_RECORDS = 5
RAREST, COMMONEST = 0.004, 0.2
"""Shares of the set between which a repeated value may be a trigger."""
MAX_VALUES = 5_000
"""Values tried; the rarest come first."""
MAX_CARRIERS = 500
"""Records looked at for one value."""
MAX_DISTANCES = 2_000_000_000
"""Distances computed beyond the shared neighbours; the commonest values are left out when they are spent."""
FALSE_ALARMS = 0.001
"""Chance of naming any value in a set whose wrong labels fell at random."""
VOTERS = 10
OWN_VOTES, OTHER_VOTES = 0.1, 0.7
"""A label is clearly contradicted when at most the first share of the neighbours have it, and the second another."""
CONTRADICTED = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Trigger:
    """One suspicious value."""

    column: int
    label: int
    carriers: NDArray[np.int64]
    """Places within the chosen records that hold the value and the label."""
    contradicted: int
    chance: float
    """Probability of as many contradictions, before correction."""


def measure(exam: Examination) -> Measure | NotMeasured:
    """Records that share a value which seems to decide their label against everything else."""
    if exam.sample.classes <= 1 or len(exam.chosen) <= 2 * VOTERS or not exam.encoder.dimensions:
        return NotMeasured(name="triggers", reason="needs two classes, some twenty records and a column that varies")
    search = Search(exam)
    found = search.run()
    carriers = np.unique(np.concatenate([np.empty(0, np.int64), *(trigger.carriers for trigger in found)]))
    return Measure(
        name="triggers",
        dimension="integrity",
        method=(
            f"Each exact value held by {RAREST:.1%} to {COMMONEST:.0%} of the records: labels against the vote of "
            f"{VOTERS} neighbours without the value; binomial test at {FALSE_ALARMS} over all values and labels."
        ),
        examined=search.tried,
        faults=len(found),
        metrics={"trigger_share": estimated(len(carriers), len(exam.chosen))},
        records=records(exam.chosen[carriers]),
        details={
            "sampled": exam.sampled,
            "valuesLeftOut": search.left_out,
            "triggers": [_described(exam, trigger) for trigger in found],
        },
        findings=_findings(exam, found, carriers),
    )


def _described(exam: Examination, trigger: Trigger) -> dict[str, str | int | float]:
    """A trigger for the report; the value itself is left out, because it may be somebody's."""
    return {
        "column": exam.sample.columns[trigger.column],
        "label": exam.sample.label_values[trigger.label],
        "carriers": len(trigger.carriers),
        "contradicted": trigger.contradicted,
        "chance": float(f"{trigger.chance:.3g}"),
    }


def _findings(exam: Examination, found: list[Trigger], carriers: NDArray[np.int64]) -> tuple[Finding, ...]:
    if not found:
        return ()
    columns = sorted({exam.sample.columns[trigger.column] for trigger in found})
    return (
        finding(
            exam.sample,
            "trigger",
            Severity.HIGH,
            title=f"{count(len(carriers), 'record')} share a rare value that seems to decide their label",
            detail=f"Column: {names(columns)}; {records(exam.chosen[carriers])}. By everything else they belong to "
            "another class: this is how a planted backdoor looks.",
            remedy="do not train on these records; find out who contributed them, and what else they sent.",
            techniques=("T19", "T22"),
        ),
    )


class Search:
    """Tries every rare value of one dataset."""

    def __init__(self, exam: Examination) -> None:
        self._exam = exam
        self._suspicious = _contradicted(
            votes(exam.labels[exam.neighbours.places[:, :VOTERS]], exam.sample.classes), exam.labels
        )
        self._distances = 0
        self.tried = 0
        self.left_out = 0

    def run(self) -> list[Trigger]:
        """The values that look like triggers, least probable first."""
        values = self._rare_values()
        found = list[Trigger]()
        for column, holders in values:
            if self._distances < MAX_DISTANCES:
                self.tried += 1
                found.extend(self._triggers(column, holders, len(values) * self._exam.sample.classes))
        self.left_out += len(values) - self.tried
        return sorted(found, key=lambda trigger: (trigger.chance, trigger.column, trigger.label))

    def _rare_values(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Column and holders (places within the chosen records) of each value that repeats but is rare."""
        rows = self._exam.sample.rows[self._exam.chosen]
        least, most = max(LEAST_RECORDS, int(np.ceil(RAREST * len(rows)))), int(COMMONEST * len(rows))
        candidates = []
        for column in range(rows.shape[1]):
            order = np.argsort(rows[:, column], kind="stable")
            ordered = rows[order, column]
            starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
            lengths = np.diff(np.append(starts, len(ordered)))
            for place in np.flatnonzero((lengths >= least) & (lengths <= most)):
                start, length = int(starts[place]), int(lengths[place])
                candidates.append((length, column, start, np.sort(order[start : start + length])))
        candidates.sort(key=lambda candidate: candidate[:3])
        self.left_out = max(0, len(candidates) - MAX_VALUES)
        return [(column, holders) for _, column, _, holders in candidates[:MAX_VALUES]]

    def _triggers(self, column: int, holders: NDArray[np.int64], tests: int) -> Iterator[Trigger]:
        """The labels for which this value looks like a trigger."""
        labels = self._exam.labels
        seen = holders[:: -(-len(holders) // MAX_CARRIERS)]
        inside = np.zeros(len(labels), np.bool_)
        inside[holders] = True
        contradicted = _contradicted(self._votes_without(seen, inside), labels[seen])
        for label in np.flatnonzero(np.bincount(labels[seen][contradicted], minlength=1) >= LEAST_RECORDS):
            with_label = labels[seen] == label
            against = int((contradicted & with_label).sum())
            elsewhere = int((self._suspicious & ~inside & (labels == label)).sum())
            usual = (elsewhere + 1) / (len(labels) - len(holders) + 2)
            chance = float(scipy.stats.binom.sf(against - 1, len(seen), usual))
            if against >= CONTRADICTED * with_label.sum() and chance < FALSE_ALARMS / tests:
                yield Trigger(column, int(label), holders[labels[holders] == label], against, chance)

    def _votes_without(self, seen: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Votes ``(seen, classes)`` of the nearest neighbours that do not hold the value."""
        exam, classes = self._exam, self._exam.sample.classes
        near = exam.neighbours.places[seen]
        voting = ~inside[near]
        voting &= np.cumsum(voting, axis=1) <= VOTERS
        found = votes(np.where(voting, exam.labels[near], classes), classes + 1)[:, :classes]
        short = np.flatnonzero(voting.sum(axis=1) < VOTERS)
        others = exam.references[~inside[exam.references]]
        if len(short) and len(others):
            self._distances += len(short) * len(others)
            places = nearest(exam.near_points[others], exam.near_points[seen[short]], VOTERS).places
            found[short] = votes(exam.labels[others[places]], classes)
        return found


def _contradicted(voted: NDArray[np.float64], labels: Labels) -> NDArray[np.bool_]:
    """``(records,)``: hardly a neighbour has the label, and most agree on another one."""
    total = voted.sum(axis=1)
    own = voted[np.arange(len(labels)), labels]
    clear: NDArray[np.bool_] = (own <= OWN_VOTES * total) & (voted.max(axis=1) >= OTHER_VOTES * total) & (total > 0)
    return clear
