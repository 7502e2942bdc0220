"""Membership inference by likelihood ratio (LiRA) and its relatives, beside the simpler rules that they have to beat.

The adversary trains shadow models of the target's own kind on random halves of the records in
question, so that it sees how sure such a model is of each record when it was trained on it and when
it was not. Then it asks the target once about each record and compares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Fit, Query, Search
from bartizan.redteam.membership import HEADLINE, RULES, Floats, Rule, Shadows, chance_of, logits
from bartizan.redteam.tasks import MembershipGuess, MembershipResult, MembershipTask
from bartizan.targets.protocol import Access, Labels, Rows

CALIBRATION_MODELS = 8
"""Shadow models on which the adversary sets its thresholds, playing the target with each in turn."""

OWN_WEIGHT = 0.3
"""Of the label of the record itself among those of its neighbours, whose weight falls with their distance."""


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
        "Zarifzadeh et al. 2024, Low-cost high-power membership inference attacks, arXiv:2312.03262",
        "Yeom et al. 2018, Privacy risk in machine learning, arXiv:1709.01604",
        "Watson et al. 2022, Difficulty calibration in membership inference attacks, arXiv:2111.08440",
    )

    def search(self, task: MembershipTask, rng: np.random.Generator) -> Search:  # noqa: ARG002 - nothing is drawn
        """Train and ask each shadow model, ask the target once about each record, apply the rules."""
        rows, sample = self.asked(task)
        models, answers = [], []
        for shadow in task.shadows:
            models.append((yield Fit(task.rows[shadow.inside], task.labels[shadow.inside], shadow.seed)))  # noqa: PERF401 - a comprehension cannot yield
        for model in models:
            answers.append((yield Query(rows, sample, scores=Access.SCORES in self.needs, model=model)))  # noqa: PERF401 - a comprehension cannot yield
        target = yield Query(rows, sample, scores=Access.SCORES in self.needs)
        confidence = logits(np.array([_chance(answer, task.labels) for answer in (*answers, target)]))
        shadows = Shadows(confidence[:-1], np.array([shadow.inside for shadow in task.shadows]))
        return MembershipResult(_guesses(shadows, confidence[-1]), tuple(answers))

    def asked(self, task: MembershipTask) -> tuple[Rows, NDArray[np.int64]]:
        """What every model is asked, ``(queries, features)``, and which record each row is charged to."""
        return task.rows, np.arange(len(task.rows))


class MembershipFromLabels(Membership):
    """The same where only labels are answered: confidence is the share of rows nearby that keep the right class.

    Choquette-Choo et al. 2021, "Label-only membership inference attacks", arXiv:2007.14321, with
    random noise of several sizes. Right or wrong on the record itself (gap attack, Yeom et al. 2018)
    is one of these answers.
    """

    name = "privacy.membership-labels"
    title = "Membership inference from labels alone"
    needs = frozenset({Access.LABELS, Access.TRAINING})
    references: tuple[str, ...] = (
        "Choquette-Choo et al. 2021, Label-only membership inference attacks, arXiv:2007.14321",
        *Membership.references,
    )

    def asked(self, task: MembershipTask) -> tuple[Rows, NDArray[np.int64]]:
        """See ``Membership.asked``: the records, then their neighbours."""
        views = 1 + len(task.neighbours) // len(task.rows)
        return np.concatenate([task.rows, task.neighbours]), np.tile(np.arange(len(task.rows)), views)


def _chance(answer: NDArray[np.float64] | Labels, labels: Labels) -> Floats:
    """``(records,)``: how much of the answers about each record, the nearer the more, goes to its class."""
    views = len(answer) // len(labels)
    given = chance_of(answer, np.tile(labels, views)).reshape(views, -1)
    if views == 1:
        own: Floats = given[0]
        return own
    falling = np.arange(views - 1, 0, -1.0)
    share: Floats = OWN_WEIGHT * given[0] + (1 - OWN_WEIGHT) * (falling / falling.sum()) @ given[1:]
    return share


def _guesses(shadows: Shadows, target: Floats) -> tuple[MembershipGuess, ...]:
    """What each rule says, with the threshold that it learnt from the adversary's own models."""
    trials = [
        (shadows.without(model // 2), shadows.confidence[model], shadows.inside[model])
        for model in range(min(CALIBRATION_MODELS, len(shadows.inside)))
    ]
    return tuple(_guess(name, rule(shadows, target), _threshold(rule, trials)) for name, rule in RULES.items())


def _guess(name: str, scores: Floats, threshold: float) -> MembershipGuess:
    return MembershipGuess(name, scores, scores >= threshold, headline=name == HEADLINE)


def _threshold(rule: Rule, trials: Sequence[tuple[Shadows, Floats, NDArray[np.bool_]]]) -> float:
    """Where members and others are told apart best when shadow models play the target."""
    scores = np.concatenate([rule(shadows, confidence) for shadows, confidence, _ in trials])
    truth = np.concatenate([inside for _, _, inside in trials])
    order = np.argsort(-scores, kind="stable")
    gain = np.cumsum(np.where(truth[order], 1 / truth.sum(), -1 / (~truth).sum()))
    gain[:-1][scores[order][1:] == scores[order][:-1]] = -np.inf
    return float(scores[order][gain.argmax()])
