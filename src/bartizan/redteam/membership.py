"""Membership rules: how likely each record is a member, from how sure the target and shadow models are of it.

A rule takes what the adversary's own models showed (``Shadows``) and how sure the target is, and
scores each record, higher for likelier members. None of them sees who is a member of the target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.targets.protocol import Labels

PRIOR_MODELS = 8.0
"""Weight, in models, of the spread over other records in the estimated spread of one record."""
LEAST_VARIANCE = 1e-3
"""On the logit scale; keeps a record on which all shadow models agree from counting without bound."""
ALIKE_SHARE, FEWEST_ALIKE = 1 / 40, 20
"""Records taken for alike: this share of them, and at least so many."""
CERTAIN = 0.01
"""Distance from 0 and 1 assumed for models that only ever answer 0 or 1."""
ROUNDING = 1e-12
"""Distance from 0 and 1 below which a probability is taken to be 0 or 1, such as a sum of fiftieths."""
PAIRWISE_MARGIN = 2.0
"""How much more a record must gain than another one to dominate it (gamma of Zarifzadeh et al. 2024)."""
OFFLINE_SLOPE = 0.3
"""Assumed in place of models that saw a record (a of Zarifzadeh et al. 2024): seen = a * unseen + 1 - a."""

Floats = NDArray[np.float64]
Rule = Callable[["Shadows", Floats], Floats]
"""Scores each record ``(records,)`` by the target's confidence ``(records,)``, higher for likelier members."""


@dataclass(frozen=True)
class Shadows:
    """How sure each shadow model is of the true class of each record, as logits.

    What rules need of it is computed once.
    """

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

    @cached_property
    def seen(self) -> Floats:
        """``(records,)``: mean confidence of the models trained on the record."""
        return _mean(self.confidence, self.inside)

    @cached_property
    def unseen(self) -> Floats:
        """``(records,)``: mean confidence of the models not trained on the record."""
        return _mean(self.confidence, ~self.inside)

    @cached_property
    def chance_seen(self) -> Floats:
        """``(records,)``: mean probability of the true class by the models trained on the record."""
        return _mean(self._chance, self.inside)

    @cached_property
    def chance_unseen(self) -> Floats:
        """``(records,)``: mean probability of the true class by the models not trained on the record."""
        return _mean(self._chance, ~self.inside)

    @cached_property
    def usual_gain(self) -> Floats:
        """``(records,)``: mean log probability by the models not trained on the record."""
        return _mean(_log_chance(self.confidence), ~self.inside)

    @cached_property
    def squares_seen(self) -> tuple[Floats, Floats]:
        """``(records,)`` each: squared deviations summed over models trained on the record, degrees of freedom."""
        return _squares(self.confidence, self.seen, self.inside)

    @cached_property
    def squares_unseen(self) -> tuple[Floats, Floats]:
        """``(records,)`` each: the same for models not trained on the record."""
        return _squares(self.confidence, self.unseen, ~self.inside)

    @cached_property
    def _chance(self) -> Floats:
        chance: Floats = scipy.special.expit(self.confidence)
        return chance

    def variance(self, *, both: bool) -> Floats:
        """``(records,)``: spread around the means above, drawn towards the spread over all records.

        With few shadow models this comes close to the fixed variance of Carlini et al. 2022, with
        many to a variance for each record. ``both`` takes in the models trained on the record.
        """
        summed, freedom = self.squares_unseen
        if both:
            more, degrees = self.squares_seen
            summed, freedom = summed + more, freedom + degrees
        return drawn_in(summed, freedom, fixed(summed, freedom))


def fixed(summed: Floats, freedom: Floats) -> float:
    """One variance for all records."""
    return float(summed.sum() / max(1.0, freedom.sum())) + LEAST_VARIANCE


def drawn_in(summed: Floats, freedom: Floats, usual: Floats | float) -> Floats:
    """``(records,)``: variance of each record, drawn towards the ``usual`` one."""
    drawn: Floats = (summed + PRIOR_MODELS * usual) / (freedom + PRIOR_MODELS)
    return drawn


# -- rules -----------------------------------------------------------------------------------------


def loss_threshold(_: Shadows, target: Floats) -> Floats:
    """The surer the target, the likelier a member (Yeom et al. 2018, arXiv:1709.01604)."""
    return target


def calibrated(shadows: Shadows, target: Floats) -> Floats:
    """The loss against what is usual for the record, because some are easy for every model.

    Watson et al. 2022, "On the importance of difficulty calibration in membership inference
    attacks", arXiv:2111.08440.
    """
    gained: Floats = _log_chance(target) - shadows.usual_gain
    return gained


def lira_offline(shadows: Shadows, target: Floats) -> Floats:
    """How improbable such confidence is for models that were not trained on the record."""
    return (target - shadows.unseen) / np.sqrt(shadows.variance(both=False))


def lira_offline_fixed(shadows: Shadows, target: Floats) -> Floats:
    """The same with one variance for all records (Carlini et al. 2022, for few shadow models)."""
    unlikely: Floats = (target - shadows.unseen) / np.sqrt(fixed(*shadows.squares_unseen))
    return unlikely


def lira_online(shadows: Shadows, target: Floats) -> Floats:
    """Log likelihood ratio of the confidence under models trained on the record and others.

    One spread serves both, which makes the ratio linear in the confidence: a record far outside of
    what any shadow model showed cannot get an absurd score.
    """
    seen, unseen = shadows.seen, shadows.unseen
    return (seen - unseen) * (target - (seen + unseen) / 2) / shadows.variance(both=True)


def lira_fixed(shadows: Shadows, target: Floats) -> Floats:
    """Log likelihood ratio with one variance for all records, one for each kind of model (Carlini et al. 2022)."""
    inside, outside = fixed(*shadows.squares_seen), fixed(*shadows.squares_unseen)
    gained = (target - shadows.unseen) ** 2 / outside - (target - shadows.seen) ** 2 / inside
    ratio: Floats = (gained + np.log(outside / inside)) / 2
    return ratio


def lira_pooled(shadows: Shadows, target: Floats) -> Floats:
    """Log likelihood ratio with means and spreads drawn towards those of records that are as easy.

    What training on a record adds to the confidence is estimated from few models. Its estimate is
    drawn towards what it adds for records of the same mean confidence, by as much as its own noise
    exceeds the spread among them (empirical Bayes, Efron and Morris 1973); so are the two spreads.
    Both hypotheses are Student's distributions, because the estimates are themselves uncertain.
    Measured on networks and forests, 8 to 64 models: finds more members at 0.1 % false alarms than
    either choice of Carlini et al. 2022 (``benchmarks/privacy.py``).
    """
    counts = shadows.inside.sum(axis=0), (~shadows.inside).sum(axis=0)
    middle, gap = (shadows.seen + shadows.unseen) / 2, shadows.seen - shadows.unseen
    spreads = [_local_variance(middle, *squares) for squares in (shadows.squares_seen, shadows.squares_unseen)]
    noise = spreads[0] / counts[0] + spreads[1] / counts[1]
    usual = among_alike(middle, gap)
    between = np.maximum(among_alike(middle, (gap - usual) ** 2 - noise), 0.0)
    gap = usual + between / (between + noise) * (gap - usual)
    inside, outside = (
        _predicted(target, middle + side * gap / 2, spread, count)
        for side, spread, count in zip((1, -1), spreads, counts, strict=True)
    )
    ratio: Floats = inside - outside
    return ratio


def rmia(shadows: Shadows, target: Floats) -> Floats:
    """Share of other records that gain less from the target than this one does, by ``PAIRWISE_MARGIN``.

    Zarifzadeh et al. 2024, "Low-cost high-power membership inference attacks", arXiv:2312.03262.
    A record gains what the target gives its class above the mean of models that saw it and models that
    did not. The records in question serve as the population.
    """
    return _dominated(scipy.special.expit(target), (shadows.chance_seen + shadows.chance_unseen) / 2)


def rmia_offline(shadows: Shadows, target: Floats) -> Floats:
    """The same from models that did not see the record; what others would answer is assumed."""
    usual = ((1 + OFFLINE_SLOPE) * shadows.chance_unseen + 1 - OFFLINE_SLOPE) / 2
    return _dominated(scipy.special.expit(target), usual)


RULES: dict[str, Rule] = {
    "loss_threshold": loss_threshold,
    "calibrated": calibrated,
    "lira_offline": lira_offline,
    "lira_offline_fixed": lira_offline_fixed,
    "lira_online": lira_online,
    "lira_fixed": lira_fixed,
    "lira_pooled": lira_pooled,
    "rmia": rmia,
    "rmia_offline": rmia_offline,
}
HEADLINE = "lira_pooled"
"""The rule whose result counts, settled before any target is asked."""


# -- parts -----------------------------------------------------------------------------------------


def among_alike(order: Floats, values: Floats) -> Floats:
    """``(records,)``: mean of ``values`` over the records whose ``order`` is nearest in rank."""
    count = len(order)
    width = min(count, max(FEWEST_ALIKE, round(ALIKE_SHARE * count)))
    ranked = np.argsort(order, kind="stable")
    summed = np.append(0.0, np.cumsum(values[ranked]))
    first = np.clip(np.arange(count) - width // 2, 0, count - width)
    means = np.empty(count)
    means[ranked] = (summed[first + width] - summed[first]) / width
    return means


def _mean(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """``(records,)``: mean over the models that are chosen for each record."""
    means: Floats = np.einsum("ij,ij->j", values, chosen) / np.maximum(chosen.sum(axis=0), 1)
    return means


def _squares(values: Floats, centre: Floats, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    off = (values - centre) * chosen
    return np.einsum("ij,ij->j", off, off), chosen.sum(axis=0) - 1.0


def _local_variance(middle: Floats, summed: Floats, freedom: Floats) -> Floats:
    """``(records,)``: spread over the models of one kind, drawn towards that of records as easy."""
    usual = among_alike(middle, summed) / np.maximum(among_alike(middle, freedom), ROUNDING)
    return drawn_in(summed, freedom, usual + LEAST_VARIANCE)


def _predicted(target: Floats, centre: Floats, variance: Floats, count: NDArray[np.int64]) -> Floats:
    """Log density of the next answer, after ``count`` answers around ``centre``: Student's, moved and widened."""
    wide, freedom = variance * (1 + 1 / count), count - 1 + PRIOR_MODELS
    constant = (
        scipy.special.gammaln((freedom + 1) / 2)
        - scipy.special.gammaln(freedom / 2)
        - np.log(freedom * np.pi * wide) / 2
    )
    density: Floats = constant - (freedom + 1) / 2 * np.log1p((target - centre) ** 2 / (wide * freedom))
    return density


def _dominated(chance: Floats, usual: Floats) -> Floats:
    """Share of records that a record dominates; the gain itself decides among equals."""
    gain = chance / np.maximum(usual, ROUNDING)
    share = np.searchsorted(np.sort(gain), gain / PAIRWISE_MARGIN, side="right")
    ranked: Floats = (share + gain / (1 + gain)) / len(gain)
    return ranked


def logits(chance: Floats, edge: float | None = None) -> Floats:
    """``log(p / (1 - p))`` of ``chance``, any shape, kept finite: drawn in by ``edge``, or by its own if none is given.

    What must not be learnt from some of the models, such as those that an audit judges, must not move
    the edge either: give the edge of the others then.
    """
    drawn = edge_of(chance) if edge is None else edge
    finite: Floats = np.log(chance + drawn) - np.log1p(drawn - chance)
    return finite


def edge_of(chance: Floats) -> float:
    """Half the smallest distance from 0 or 1 that occurs in ``chance``, any shape.

    An ensemble of fifty trees answers in steps of 0.02, a network in far smaller ones, and both keep
    their detail.
    """
    distance = np.minimum(chance, 1 - chance)
    return float(distance.min(where=distance > ROUNDING, initial=2 * CERTAIN)) / 2


def chance_of(answer: NDArray[np.float64] | Labels, labels: Labels) -> Floats:
    """``(records,)``: probability that the answer gives to the true class; of a label, 0 or 1."""
    given = answer == labels if answer.ndim == 1 else answer[np.arange(len(labels)), labels]
    chance: Floats = np.clip(given.astype(np.float64), 0.0, 1.0)
    return chance


def _log_chance(confidence: Floats) -> Floats:
    """Log probability of logits; minus the loss."""
    chance: Floats = -np.logaddexp(0.0, -confidence)
    return chance
