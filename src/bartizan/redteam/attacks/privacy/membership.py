"""Membership inference by likelihood ratio (LiRA), beside the simpler rules that it has to beat.

The adversary trains shadow models of the target's own kind on random halves of the records in
question, so that it sees how sure such a model is of each record when it was trained on it and when
it was not. Then it asks the target once about each record and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Fit, Query, Search
from bartizan.redteam.tasks import MembershipGuess, MembershipResult, MembershipTask
from bartizan.targets.protocol import Access, Labels

ENOUGH_FOR_ONLINE = 16
"""Shadow models from which on the online rule is the headline; with fewer its two means are too rough."""
CALIBRATION_MODELS = 8
"""Shadow models on which the adversary sets its thresholds, playing the target with each in turn."""
PRIOR_MODELS = 8.0
"""Weight, in models, of the spread over all records in the estimated spread of one record."""
LEAST_VARIANCE = 1e-3
"""On the logit scale; keeps a record on which all shadow models agree from counting without bound."""
CERTAIN = 0.01
"""Distance from 0 and 1 assumed for models that only ever answer 0 or 1."""
ROUNDING = 1e-12
"""Distance from 0 and 1 below which a probability is taken to be 0 or 1, such as a sum of fiftieths."""

Floats = NDArray[np.float64]
Rule = Callable[["Shadows", Floats], Floats]
"""Scores each record ``(records,)`` by the target's confidence ``(records,)``, higher for likelier members."""


@dataclass(frozen=True, slots=True)
class Shadows:
    """How sure each shadow model is of the true class of each record, as logits."""

    confidence: Floats
    """``(models, records)``"""
    inside: NDArray[np.bool_]
    """``(models, records)``: which records each was trained on."""

    def without(self, pair: int) -> Shadows:
        """All but one pair of models with complementary halves.

        A single model must not be left out: the numbers of the others trained on a record would
        then betray what that model was trained on.
        """
        kept = np.arange(len(self.inside)) // 2 != pair
        return Shadows(self.confidence[kept], self.inside[kept])

    @property
    def seen(self) -> Floats:
        """``(records,)``: mean confidence of the models trained on the record."""
        means: Floats = self.confidence.mean(axis=0, where=self.inside)
        return means

    @property
    def unseen(self) -> Floats:
        """``(records,)``: mean confidence of the models not trained on the record."""
        means: Floats = self.confidence.mean(axis=0, where=~self.inside)
        return means

    def variance(self, *, both: bool) -> Floats:
        """``(records,)``: spread around the means above, drawn towards the spread over all records.

        With few shadow models this comes close to the fixed variance of Carlini et al. 2022, with
        many to a variance for each record. ``both`` takes in the models trained on the record.
        """
        squares = (self.confidence - self.unseen) ** 2 * ~self.inside
        freedom = (~self.inside).sum(axis=0) - 1.0
        if both:
            squares = squares + (self.confidence - self.seen) ** 2 * self.inside
            freedom = freedom + self.inside.sum(axis=0) - 1.0
        summed: Floats = squares.sum(axis=0)
        common = summed.sum() / max(1.0, freedom.sum()) + LEAST_VARIANCE
        drawn: Floats = (summed + PRIOR_MODELS * common) / (freedom + PRIOR_MODELS)
        return drawn


def loss_threshold(_: Shadows, target: Floats) -> Floats:
    """The surer the target, the likelier a member (Yeom et al. 2018, arXiv:1709.01604)."""
    return target


def calibrated(shadows: Shadows, target: Floats) -> Floats:
    """The loss against what is usual for the record, because some are easy for every model.

    Watson et al. 2022, "On the importance of difficulty calibration in membership inference
    attacks", arXiv:2111.08440.
    """
    usual = np.mean(_log_chance(shadows.confidence), axis=0, where=~shadows.inside)
    gained: Floats = _log_chance(target) - usual
    return gained


def lira_offline(shadows: Shadows, target: Floats) -> Floats:
    """How improbable such confidence is for models that were not trained on the record."""
    return (target - shadows.unseen) / np.sqrt(shadows.variance(both=False))


def lira_online(shadows: Shadows, target: Floats) -> Floats:
    """Log likelihood ratio of the confidence under models trained on the record and others.

    One spread serves both, which makes the ratio linear in the confidence: a record far outside of
    what any shadow model showed cannot get an absurd score.
    """
    seen, unseen = shadows.seen, shadows.unseen
    return (seen - unseen) * (target - (seen + unseen) / 2) / shadows.variance(both=True)


RULES: dict[str, Rule] = {
    "loss_threshold": loss_threshold,
    "calibrated": calibrated,
    "lira_offline": lira_offline,
    "lira_online": lira_online,
}


def headline(models: int) -> str:
    """The rule whose result counts, settled before any target is asked."""
    return "lira_online" if models >= ENOUGH_FOR_ONLINE else "lira_offline"


class Membership:
    """Applies every rule and names one in advance. Stateless."""

    name = "privacy.membership"
    title = "Membership inference with shadow models (LiRA)"
    family = "privacy"
    technique = "T35"
    atlas: tuple[str, ...] = ("AML.T0024.000",)
    needs = frozenset({Access.SCORES, Access.TRAINING})
    position = "user"
    references: tuple[str, ...] = (
        "Carlini et al. 2022, Membership inference attacks from first principles, arXiv:2112.03570",
        "Yeom et al. 2018, Privacy risk in machine learning, arXiv:1709.01604",
        "Watson et al. 2022, Difficulty calibration in membership inference attacks, arXiv:2111.08440",
    )

    def search(self, task: MembershipTask, rng: np.random.Generator) -> Search:  # noqa: ARG002 - nothing is drawn
        """Train and ask each shadow model, ask the target once about each record, apply the rules."""
        answers, each = [], np.arange(len(task.rows))
        scores = Access.SCORES in self.needs
        for shadow in task.shadows:
            model = yield Fit(task.rows[shadow.inside], task.labels[shadow.inside], shadow.seed)
            answers.append((yield Query(task.rows, each, scores=scores, model=model)))
        target = yield Query(task.rows, each, scores=scores)
        confidence = logits(np.array([_chance(answer, task.labels) for answer in (*answers, target)]))
        shadows = Shadows(confidence[:-1], np.array([shadow.inside for shadow in task.shadows]))
        named = headline(len(task.shadows))
        guesses = tuple(_guess(name, rule, shadows, confidence[-1], named) for name, rule in RULES.items())
        return MembershipResult(guesses, tuple(answers))


class MembershipFromLabels(Membership):
    """The same where only labels are answered: confidence is then either right or wrong.

    Yeom et al. 2018 (gap attack), with the record's own difficulty as in Choquette-Choo et al. 2021,
    arXiv:2007.14321.
    """

    name = "privacy.membership-labels"
    title = "Membership inference from labels alone"
    needs = frozenset({Access.LABELS, Access.TRAINING})


def logits(chance: Floats) -> Floats:
    """``log(p / (1 - p))`` of ``chance``, any shape, kept finite.

    Probabilities are drawn in by half the smallest distance from 0 or 1 that occurs: an ensemble of
    fifty trees answers in steps of 0.02, a network in far smaller ones, and both keep their detail.
    """
    distance = np.minimum(chance, 1 - chance)
    smallest = distance.min(where=distance > ROUNDING, initial=2 * CERTAIN)
    edge = smallest / 2
    finite: Floats = np.log(chance + edge) - np.log1p(edge - chance)
    return finite


def _chance(answer: NDArray[np.float64] | Labels, labels: Labels) -> Floats:
    """``(records,)``: probability that the answer gives to the true class; of a label, 0 or 1."""
    given = answer == labels if answer.ndim == 1 else answer[np.arange(len(labels)), labels]
    chance: Floats = np.clip(given.astype(np.float64), 0.0, 1.0)
    return chance


def _log_chance(confidence: Floats) -> Floats:
    """Log probability of logits; minus the loss."""
    chance: Floats = -np.logaddexp(0.0, -confidence)
    return chance


def _guess(name: str, rule: Rule, shadows: Shadows, target: Floats, named: str) -> MembershipGuess:
    scores = rule(shadows, target)
    return MembershipGuess(name, scores, scores >= _threshold(rule, shadows), headline=name == named)


def _threshold(rule: Rule, shadows: Shadows) -> float:
    """Where members and others are told apart best when shadow models play the target."""
    models = range(min(CALIBRATION_MODELS, len(shadows.inside)))
    played = [rule(shadows.without(model // 2), shadows.confidence[model]) for model in models]
    scores, truth = np.concatenate(played), shadows.inside[list(models)].ravel()
    order = np.argsort(-scores, kind="stable")
    gain = np.cumsum(np.where(truth[order], 1 / truth.sum(), -1 / (~truth).sum()))
    gain[:-1][scores[order][1:] == scores[order][:-1]] = -np.inf
    return float(scores[order][gain.argmax()])
