"""Fixpoint and cheapest control set, beside one bare ``scipy.optimize.milp`` call on the same matrices.

The promise: reaching and minimising together in less than 50 ms for every shipped profile. The floor
is what the solver alone needs once the matrices are there; everything above it is ours: two
fixpoints, the matrices, the second solve that makes the choice unique, and the proof.

``python benchmarks/attack_map.py`` prints medians and exits 1 when the promise is broken.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from bartizan.catalogue.graph import AttackGraph
from bartizan.catalogue.load import catalogue
from bartizan.catalogue.minimal import formulate, minimal_controls, priced

PROMISE_MS = 50.0
REPEATS = 31


def median_ms(work):
    """Median of ``REPEATS`` timings in milliseconds, after one to warm up."""
    work()
    timings = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        timings.append((time.perf_counter() - start) * 1e3)
    return statistics.median(timings)


def prebuilt(graph, holding):
    """A call of the bare solver on matrices made beforehand."""
    before, _ = graph.reach(holding)
    usable = graph.mitigation_set(entry.id for entry in graph.mitigations if entry.prevents)
    target = before & ~graph.reach(holding, usable)[0]
    problem = formulate(graph, holding, target=target, usable=usable, given=0, costs=priced(graph, {}))
    constraint = LinearConstraint(problem.matrix, problem.lower, np.inf)
    bounds = Bounds(problem.floor, np.ones_like(problem.floor))
    return lambda: milp(problem.costs, constraints=constraint, bounds=bounds, integrality=problem.integrality)


def main():
    entries = catalogue().entries
    worst = 0.0
    print(
        f"{'profile':<34}{'graph':>8}{'reach':>8}{'routes':>8}{'controls':>10}{'all':>8}{'floor':>8}{'ratio':>7}   ms"
    )
    for profile in entries.profiles:
        for everybody in (False, True):
            holding = {who: held for who, held in profile.positions.items() if everybody or who != "insider"}
            graph = AttackGraph(entries.techniques, entries.mitigations)
            parts = (
                median_ms(lambda: AttackGraph(entries.techniques, entries.mitigations)),
                median_ms(lambda graph=graph, holding=holding: graph.reach(holding)),
                median_ms(lambda graph=graph, holding=holding: graph.routes(holding)),
                median_ms(lambda graph=graph, holding=holding: minimal_controls(graph, holding)),
            )
            floor = median_ms(prebuilt(graph, holding))
            total = sum(parts)
            worst = max(worst, total)
            name = f"{profile.id}{', with insider' if everybody else ''}"
            print(f"{name:<34}{''.join(f'{part:8.2f}' for part in parts[:3])}{parts[3]:10.2f}{total:8.2f}", end="")
            print(f"{floor:8.2f}{total / floor:7.1f}")
    kept = worst < PROMISE_MS
    print(f"worst {worst:.1f} ms of {PROMISE_MS:.0f} ms: {'kept' if kept else 'BROKEN'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
