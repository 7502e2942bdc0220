"""The guard ``outliers``: says how unusual a row is, before and after the model was asked, and what follows.

What it says is calibrated: a threshold of 0.01 lets one usual row in a hundred be taken for unusual, as measured on
rows that training did not see. The further out a row is, the less of the model's confidence is passed on. See
``outliers.detectors`` for the detectors and `gateway.outliers` for the check that fits and evaluates them.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Material, Numbers, Verdict
from bartizan.lifecycle.deploy.gateway.guards.outliers.confidence import USUAL, shrunk, trust_of
from bartizan.lifecycle.deploy.gateway.guards.outliers.detectors import BY_SCORES, FEW, Detector, Scores, energy_of
from bartizan.lifecycle.deploy.gateway.guards.outliers.reference import TWO, Reference
from bartizan.lifecycle.deploy.gateway.guards.outliers.surprise import MOST
from bartizan.lifecycle.deploy.gateway.guards.outliers.wire import CHECK, unpacked

MEASURE = "decades"
"""How rare the worst row is among usual ones: 2 is one in a hundred, 3 one in a thousand."""
MOST_PENDING = 256
"""Batches whose distances are kept until they are answered; of further ones they are worked out anew."""

Share = Annotated[float, msgspec.Meta(ge=0.0, le=0.5)]
"""Of usual rows that are taken for unusual; 0 for never."""


class OutlierSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration may say of the guard ``outliers``."""

    detector: Detector = "combined"
    flag: Share = 0.01
    """Rarer rows are looked at by a person afterwards."""
    coarsen: Share = 0.001
    """Rarer rows are answered with the label alone."""
    hold: Share = 0.0
    """Rarer rows wait for a person."""
    refuse: Share = 0.0
    """Rarer rows are not answered."""
    shrink: bool = True
    """Whether confidence falls with distance."""
    strangers: Annotated[float, msgspec.Meta(gt=0.0, le=0.5)] = 0.01
    """Share of all rows that may be of a kind on which the model's word is worth nothing."""


class OutlierGuard:
    """See ``Guard``."""

    Settings: ClassVar[type[msgspec.Struct]] = OutlierSettings
    name = "outliers"
    cost = 20.0

    def __init__(self, settings: OutlierSettings, material: Material) -> None:
        """Raises ArtefactError when the model's reference is missing, broken, or of another model."""
        self._settings = settings
        self._reference = _fitting(unpacked(material.fitted(CHECK)), settings, material)
        self._steps = _steps(settings)
        self._by_scores = settings.detector in BY_SCORES
        self._by_rows = settings.detector not in {"energy", "softmax"}
        self.wants_scores = self._by_scores or settings.shrink
        """Whether the model has to be asked for scores even where only labels are told."""
        self.foretells = self._by_scores
        self._pending: dict[str, NDArray[np.float64]] = {}
        self._measure = f"{self.name}.{MEASURE}"

    def on_request(self, asked: Asked) -> Verdict | None:
        """What can be said before the model was asked: a bound from below where scores count too."""
        if not self._by_rows:
            return None
        if len(asked.rows) == 1:
            ahead: float | None = asked.ahead(self.name)
            return self._verdict(self._one(asked.rows) if ahead is None else ahead)
        decades = self._many(asked.rows)
        if len(self._pending) >= MOST_PENDING:
            self._pending.pop(next(iter(self._pending)))
        self._pending[asked.id] = decades
        return self._verdict(float(decades.max(initial=0.0)))

    def foresee(self, rows: Numbers) -> list[float]:
        """Decades of each row, by the rows alone. See ``Guard.on_request``."""
        return self._many(rows).tolist() if self._by_rows else [0.0] * len(rows)

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """What scores add to it, and scores that are as sure as the row is usual; None when nothing is new."""
        if len(asked.rows) == 1:
            return self._single(asked, answer)
        known = asked.measures.get(self._measure, -1.0)
        decades = self._final(asked, answer.scores)
        return self._concluded(float(decades.max(initial=0.0)), known, answer, decades)

    def foretell(self, labels: NDArray[np.int64], scores: Scores) -> list[float]:
        """Decades of each answer, by its scores alone. See ``Guard.on_response``."""
        del labels
        return self._by_answers(scores).tolist()  # type: ignore[no-any-return]

    def _single(self, asked: Asked, answer: Answer) -> Verdict | None:
        """``on_response`` for one row, without arrays as long as it is usual."""
        known = decades = asked.measures.get(self._measure, -1.0)
        if decades < 0:
            decades = self._one(asked.rows) if self._by_rows else 0.0
        if self._by_scores and answer.scores is not None:
            ahead = answer.ahead(self.name)
            decades = max(decades, self._by_answer(answer.scores) if ahead is None else ahead)
        return self._concluded(decades, known, answer, None)

    def _concluded(
        self, worst: float, known: float, answer: Answer, decades: NDArray[np.float64] | None
    ) -> Verdict | None:
        """The verdict on ``worst``, when before the answer ``known`` was said; all rows in ``decades`` when several."""
        if worst <= USUAL or answer.scores is None or not self._settings.shrink:
            return None if worst == known else self._verdict(worst)
        scores = self._less_sure(answer, answer.scores, np.array([worst]) if decades is None else decades)
        return Verdict(action=Action.ALLOW, scores=scores) if worst == known else self._verdict(worst, scores)

    def _less_sure(self, answer: Answer, scores: Scores, decades: NDArray[np.float64]) -> NDArray[np.float64]:
        return shrunk(scores, answer.labels, trust_of(decades, self._settings.strangers), self._reference.prior)

    def _final(self, asked: Asked, scores: Scores | None) -> NDArray[np.float64]:
        """``(batch,)``: decades of each row, by rows and scores."""
        by_rows = self._pending.pop(asked.id, None)
        if by_rows is None:
            by_rows = self._many(asked.rows) if self._by_rows else np.zeros(len(asked.rows))
        if not self._by_scores or scores is None:
            return by_rows
        return np.maximum(by_rows, self._by_answers(scores))

    def _one(self, rows: Numbers) -> float:
        """Decades of a single row, by the row alone."""
        reference = self._reference
        point = reference.encoding.points(rows)
        if reference.turned or self._settings.detector == "mahalanobis":
            point = point @ reference.whitening
        if self._settings.detector == "mahalanobis":
            return reference.rarities["mahalanobis"].of(reference.nearest_class.one(point[0]))
        found = reference.rarities["neighbours"].of(reference.nearest.one(point[0]))
        return max(found - TWO, 0.0) if self._by_scores else found

    def _by_answer(self, scores: Scores) -> float:
        """Decades of a single row, by its scores alone."""
        reference, detector = self._reference, self._settings.detector
        name: Detector = "softmax" if detector == "softmax" else "energy"
        if name == "energy" and scores.shape[1] <= FEW:
            raw = energy_of(scores[0].tolist())
        else:
            raw = float(reference.raw(name, scores, scores)[0])
        found = reference.rarities[name].of(raw)
        return max(found - TWO, 0.0) if detector == "combined" else found

    def _by_answers(self, scores: Scores) -> NDArray[np.float64]:
        """``(batch,)``: decades of each row, by the scores alone."""
        reference, detector = self._reference, self._settings.detector
        name: Detector = "softmax" if detector == "softmax" else "energy"
        found = reference.decades(name, scores, scores)
        return np.asarray(np.maximum(found - TWO, 0.0)) if detector == "combined" else found

    def _many(self, rows: Numbers) -> NDArray[np.float64]:
        reference, detector = self._reference, self._settings.detector
        if detector == "mahalanobis":
            return reference.rarities["mahalanobis"].many(reference.mahalanobis(rows))
        found = reference.rarities["neighbours"].many(reference.neighbours(rows))
        return np.asarray(np.maximum(found - TWO, 0.0)) if self._by_scores else found

    def _verdict(self, decades: float, scores: NDArray[np.float64] | None = None) -> Verdict:
        measures = {MEASURE: decades}
        for least, action, share in self._steps:
            if decades >= least:
                reason = (
                    f"at {decades:.1f} decades it is rarer than {share:g} of usual rows ({self._settings.detector})"
                )
                return Verdict(action=action, reason=reason, measures=measures, scores=scores)
        return Verdict(action=Action.ALLOW, measures=measures, scores=scores)


def _steps(settings: OutlierSettings) -> list[tuple[float, Action, float]]:
    """Decades from which something follows, with what; the strictest first."""
    said = (
        (settings.refuse, Action.REFUSE),
        (settings.hold, Action.HOLD),
        (settings.coarsen, Action.COARSEN),
        (settings.flag, Action.FLAG),
    )
    return [(min(-math.log10(share), MOST), action, share) for share, action in said if share]


def _fitting(reference: Reference, settings: OutlierSettings, material: Material) -> Reference:
    """The reference, when it is for rows and classes such as the model's."""
    remedy = f"run `bartizan assure --only {CHECK}` for this model."
    columns = len(material.columns)
    if (reference.features, len(reference.prior)) != (columns, len(material.classes)):
        raise ArtefactError(
            f"the reference of {material.model} is for {reference.features} columns and {len(reference.prior)} "
            f"classes, and the model has {columns} and {len(material.classes)}",
            remedy=remedy,
        )
    if settings.detector not in reference.detectors:
        raise ArtefactError(
            f"detector {settings.detector!r} was not fitted for {material.model}, which gives no scores",
            remedy=f"choose one of {', '.join(reference.detectors)}.",
        )
    return reference


__all__ = ["MEASURE", "OutlierGuard", "OutlierSettings"]
