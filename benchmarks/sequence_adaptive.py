"""Attackers who know the sequence guard: they lengthen their steps until nothing is refused.

After Feng et al. 2023, "Stateful defenses for machine learning models are not yet secure against black-box attacks"
(OARS, arXiv:2303.06280): the size of proposals is adapted by what is refused, before and while the attack runs. They
are told of every refusal, and ask every query from a new account.
"""

from __future__ import annotations

import numpy as np

GROW, SHRINK = 1.5, 0.97
"""Factor of the step after a refusal and after an answer."""


def oars_square(front, task, seed):
    """Random squares at the full change, whose side grows while no scores come back (Andriushchenko et al. 2020)."""
    rng = np.random.default_rng(seed)
    height, width = task.shape[1:]
    row, label, bound = task.rows[0].reshape(task.shape), int(task.labels[0]), task.max_change
    here, best, side = row, np.inf, 0.3 * height
    while True:
        there = here.copy()
        if best == np.inf:
            there = np.clip(row + bound * rng.choice([-1, 1], (len(row), 1, width)), 0, 1)
        extent = int(np.clip(side, 1, height))
        top, left = rng.integers(0, height - extent + 1), rng.integers(0, width - extent + 1)
        window = (slice(None), slice(top, top + extent), slice(left, left + extent))
        there[window] = np.clip(row[window] + bound * rng.choice([-1, 1]), 0, 1)
        scores = front.one(np.float32(there.ravel()))
        if scores is None or scores.max() == 1.0:
            side = min(side * GROW, height)
            continue
        side = max(side * SHRINK, 1.0)
        margin = scores[label] - np.delete(scores, label).max()
        if margin < best:
            here, best = there, margin


def oars_boundary(front, task, seed):
    """A walk along the boundary from a natural row of another class, in steps as short as come back answered.

    Brendel et al. 2018, arXiv:1712.04248.
    """
    rng = np.random.default_rng(seed)
    row, label = task.rows[0], int(task.labels[0])
    others = task.starts[task.start_labels != label]
    here = others[np.linalg.norm(others - row, axis=1).argmin()]
    across, towards = 0.1, 0.1
    while True:
        gap = row - here
        distance = np.linalg.norm(gap)
        turn = rng.standard_normal(len(row))
        turn -= (turn @ gap) / distance**2 * gap
        there = here + across * distance * turn / np.linalg.norm(turn)
        there = np.float32(np.clip(there + towards * (row - there), 0, 1))
        scores = front.one(there)
        if scores is None:
            across, towards = min(across * GROW, 1.0), min(towards * GROW, 0.5)
        elif scores.argmax() != label:
            here, towards = there, min(towards * 1.1, 0.5)
        else:
            across, towards = max(across * SHRINK, 0.01), max(towards * 0.9, 0.01)
