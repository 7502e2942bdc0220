"""Lower bounds of epsilon: how much privacy a training run has been seen to give away.

Each canary is put in or left out by its own coin. A mechanism that is (epsilon, delta)-private
allows only so many of the coins to be guessed right, so that many right guesses refute a small
epsilon. Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run",
arXiv:2305.08846, theorem 5.2. Several runs with coins of their own are one run on the data side by
side, so their guesses add up.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam.statistics import CONFIDENCE

LARGEST_EPSILON = 50.0


def right_by_chance(right: int, guesses: int, coins: int, epsilon: float, delta: float = 0.0) -> float:
    """Upper bound of the chance of at least so many ``right`` guesses against an (epsilon, delta)-private mechanism."""
    if right <= 0:
        return 1.0
    share = float(scipy.special.expit(epsilon))
    least = float(scipy.stats.binom.sf(right - 1, guesses, share))
    if delta == 0:
        return min(1.0, least)
    near = np.arange(1, right + 1)
    between = scipy.stats.binom.sf(right - near - 1, guesses, share) - least
    return min(1.0, least + 2 * coins * delta * float((between / near).max()))


def epsilon_bound(right: int, guesses: int, coins: int, delta: float = 0.0, confidence: float = CONFIDENCE) -> float:
    """Largest epsilon that is refuted at this confidence; 0 when the guesses refute none."""

    def excess(epsilon: float) -> float:
        return right_by_chance(right, guesses, coins, epsilon, delta) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    if excess(LARGEST_EPSILON) < 0:
        return LARGEST_EPSILON
    return float(scipy.optimize.brentq(excess, 0.0, LARGEST_EPSILON, xtol=1e-6))


def epsilon_from_rates(hits: tuple[int, int], alarms: tuple[int, int], confidence: float = CONFIDENCE) -> float:
    """Lower bound of epsilon from independent trials: ``(right, members)`` and ``(wrong, others)``, delta 0.

    Clopper-Pearson at both rates, each with half the error (Jagielski et al. 2020, arXiv:2006.07709).
    """
    tail = (1 - confidence) / 2
    found = scipy.special.betaincinv(hits[0], hits[1] - hits[0] + 1, tail) if hits[0] else 0.0
    false = scipy.special.betaincinv(alarms[0] + 1, alarms[1] - alarms[0], 1 - tail) if alarms[0] < alarms[1] else 1.0
    with np.errstate(divide="ignore"):
        return float(max(0.0, np.log(found) - np.log(false), np.log1p(-false) - np.log1p(-found)))


def best_bound(
    scores: NDArray[np.float64],
    inside: NDArray[np.bool_],
    shares: tuple[float, ...],
    delta: float = 0.0,
    confidence: float = CONFIDENCE,
) -> tuple[float, int, int]:
    """The largest bound over a few shares of coins that are guessed, with the error divided among them.

    Args:
        scores: ``(runs, coins)``, higher where a canary seems to have been trained on. A run's scores
            may rest on other runs only if those are not in ``scores``.
        inside: ``(runs, coins)``: how the coins fell.
        shares: In each run, this share of the highest scores is called in and as many of the lowest out.

    Returns:
        Epsilon, right guesses and guesses.
    """
    confidence = 1 - (1 - confidence) / len(shares)
    results = []
    for share in shares:
        right, guesses = _guessed(scores, inside, share)
        results.append((epsilon_bound(right, guesses, inside.size, delta, confidence), right, guesses))
    return max(results)


def _guessed(scores: NDArray[np.float64], inside: NDArray[np.bool_], share: float) -> tuple[int, int]:
    """Right guesses, and guesses, when the extremes of each run are guessed; ties fall by position.

    No coin is guessed twice: of an odd number that are all to be guessed the middle one is left out.
    """
    coins = scores.shape[1]
    each = min(max(1, round(share * coins / 2)), coins // 2)
    order = np.argsort(scores, axis=1, kind="stable")
    called_in = np.take_along_axis(inside, order[:, coins - each :], axis=1)
    called_out = np.take_along_axis(inside, order[:, :each], axis=1)
    return int(called_in.sum() + (~called_out).sum()), called_in.size + called_out.size
