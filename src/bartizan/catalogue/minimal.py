"""The cheapest set of controls that prevents all that can be prevented.

Which techniques can be prevented at all is known beforehand: those reached without controls and not
reached with all of them. The others are settled whatever is chosen, so each alternative of a
preventable technique must lose a token or be blocked. That is a small covering problem: one binary
variable for each mitigation, one for each token that can be taken away, solved exactly by HiGHS
through ``scipy.optimize.milp``. The answer is checked with the fixpoint, not believed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

import msgspec
import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.catalogue.graph import INTRUDER, AttackGraph, Holding, members
from bartizan.core.errors import InputError, WorkError

TOLERANCE = 1e-6
"""Costs closer than this are the same; HiGHS works to 1e-6 absolute."""
MAX_COST = 1e6


class ControlSet(msgspec.Struct, frozen=True, kw_only=True):
    """A cheapest set of controls, and why nothing cheaper will do."""

    controls: tuple[str, ...]
    """To be put in place, in the order of the catalogue; what was in place already is not repeated."""
    cost: float
    """Sum of their costs."""
    prevents: tuple[str, ...]
    """Techniques that were reached and no longer are."""
    lower_bound: float
    """No set of controls that prevents the same costs less: proved by branch and bound."""
    returns_without: dict[str, tuple[str, ...]]
    """For each control, the techniques that come back if only it is left out: never empty."""

    @property
    def proved(self) -> bool:
        """Whether the lower bound meets the cost."""
        return self.lower_bound >= self.cost - TOLERANCE * max(1.0, self.cost)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The covering problem as matrices: ``matrix @ x >= lower`` with ``x`` in ``[floor, 1]``.

    Columns are the mitigations in ``mitigations``, then the tokens that can be taken away.
    """

    mitigations: tuple[int, ...]
    """Indexes into the graph, one for each leading column."""
    matrix: scipy.sparse.csr_array
    lower: NDArray[np.float64]
    floor: NDArray[np.float64]
    """1 for mitigations in place already."""
    costs: NDArray[np.float64]
    integrality: NDArray[np.uint8]


def minimal_controls(
    graph: AttackGraph,
    holding: Holding,
    *,
    in_place: Collection[str] = (),
    costs: Mapping[str, float] | None = None,
    unavailable: Collection[str] = (),
) -> ControlSet:
    """The cheapest controls to add so that everything preventable is prevented.

    Among sets of equal cost the smaller one is taken, and among those always the same one.
    ``in_place`` are mitigations that already work, ``unavailable`` ones that cannot be had;
    ``costs`` replaces costs of the catalogue by id.

    Raises:
        InputError: an id is unknown, or a cost is negative, infinite or no number.
        WorkError: the solver failed, or its answer does not stand up to the fixpoint.
    """
    given = graph.mitigation_set(in_place)
    available = graph.mitigation_set(m.id for m in graph.mitigations if m.prevents) & ~graph.mitigation_set(unavailable)
    before, _ = graph.reach(holding, given)
    after, _ = graph.reach(holding, given | available)
    target = before & ~after
    prices = priced(graph, costs or {})
    problem = formulate(graph, holding, target=target, usable=available | given, given=given, costs=prices)
    chosen, bound = _solve(graph, problem)
    chosen &= ~given
    return ControlSet(
        controls=graph.mitigation_ids(chosen),
        cost=float(sum(prices[index] for index in members(chosen))),
        prevents=graph.technique_ids(target),
        lower_bound=bound,
        returns_without=_returning(graph, holding, given=given, chosen=chosen, target=target),
    )


def priced(graph: AttackGraph, costs: Mapping[str, float]) -> NDArray[np.float64]:
    """Cost of every mitigation of the graph, ``costs`` going before the catalogue.

    Raises:
        InputError: an id is unknown, or a cost is not between 0 and ``MAX_COST``.
    """
    graph.mitigation_set(costs)
    for entry_id, cost in costs.items():
        if not (math.isfinite(cost) and 0 <= cost <= MAX_COST):
            raise InputError(
                f"cost of mitigation {entry_id} is {cost!r}", remedy=f"give a number between 0 and {MAX_COST:g}."
            )
    return np.array([costs.get(mitigation.id, mitigation.cost) for mitigation in graph.mitigations], dtype=np.float64)


def formulate(
    graph: AttackGraph,
    holding: Holding,
    *,
    target: int,
    usable: int,
    given: int,
    costs: NDArray[np.float64],
) -> Problem:
    """The covering problem for preventing the techniques in ``target``.

    Rows: for each alternative of each target, a lost token or a blocking mitigation; for each
    removable token and each holder of it, a mitigation that takes it from that holder.
    """
    columns = {index: column for column, index in enumerate(members(usable))}
    _, everything = graph.reach(holding)
    reached, remaining = graph.reach(holding, usable)
    removable = {bit: len(columns) + offset for offset, bit in enumerate(members(everything & ~remaining))}
    rows = _Rows(len(columns), len(columns) + len(removable))
    for technique in members(target):
        blockers = [column for index, column in columns.items() if graph.blocks[index] >> technique & 1]
        for need in graph.needs[technique]:
            if need & everything == need:
                rows.add(1.0, [*blockers, *(removable[bit] for bit in members(need) if bit in removable)])
    for position, held in _holders(graph, holding, reached).items():
        for bit in members(held):
            if bit in removable:
                takers = [c for index, c in columns.items() if graph.guards[index].get(position, 0) >> bit & 1]
                rows.add(0.0, takers, minus=removable[bit])
    floor = np.array([float(given >> index & 1) for index in columns])
    prices = np.array([costs[index] for index in columns]) * (1 - floor)
    return rows.problem(tuple(columns), floor, prices)


def _holders(graph: AttackGraph, holding: Holding, reached: int) -> dict[str, int]:
    """Who holds which tokens, intruders with what the techniques in ``reached`` yield."""
    holders = {position: graph.token_set(tokens) for position, tokens in holding.items()}
    for technique in members(reached):
        holders[INTRUDER] = holders.get(INTRUDER, 0) | graph.yields[technique]
    return holders


class _Rows:
    """Rows of the covering problem while they are collected."""

    def __init__(self, binaries: int, width: int) -> None:
        self.binaries = binaries
        self.width = width
        self.columns: list[int] = []
        self.values: list[float] = []
        self.starts = [0]
        self.lower: list[float] = []

    def add(self, lower: float, columns: list[int], minus: int | None = None) -> None:
        """One row: the sum over ``columns``, less the column ``minus``, is at least ``lower``."""
        self.columns += columns
        self.values += [1.0] * len(columns)
        if minus is not None:
            self.columns.append(minus)
            self.values.append(-1.0)
        self.starts.append(len(self.columns))
        self.lower.append(lower)

    def problem(self, mitigations: tuple[int, ...], floor: NDArray[np.float64], prices: NDArray[np.float64]) -> Problem:
        """Everything as matrices; columns of tokens cost nothing and need not be whole."""
        spare = self.width - self.binaries
        return Problem(
            mitigations=mitigations,
            matrix=scipy.sparse.csr_array(
                (self.values, self.columns, self.starts), shape=(len(self.lower), self.width)
            ),
            lower=np.array(self.lower),
            floor=np.pad(floor, (0, spare)),
            costs=np.pad(prices, (0, spare)),
            integrality=np.repeat(np.array([1, 0], dtype=np.uint8), (self.binaries, spare)),
        )


def _solve(graph: AttackGraph, problem: Problem) -> tuple[int, float]:
    """The mitigations of the best solution as a set, and the proved lower bound of its cost."""
    if not problem.lower.size:
        return 0, 0.0
    best = cheapest(problem)
    ceiling = scipy.optimize.LinearConstraint(
        scipy.sparse.csr_array(problem.costs[np.newaxis]), -np.inf, best.fun + TOLERANCE
    )
    tie = cheapest(msgspec.structs.replace(problem, costs=_preference(graph, problem)), ceiling)
    chosen = (index for column, index in enumerate(problem.mitigations) if tie.x[column] > 0.5)  # noqa: PLR2004 - binary
    return sum(1 << index for index in chosen), float(best.mip_dual_bound)


def cheapest(problem: Problem, *further: scipy.optimize.LinearConstraint) -> scipy.optimize.OptimizeResult:
    """Solve a problem to optimality. Raises WorkError when the solver does not."""
    result = scipy.optimize.milp(
        problem.costs,
        constraints=[scipy.optimize.LinearConstraint(problem.matrix, problem.lower, np.inf), *further],
        bounds=scipy.optimize.Bounds(problem.floor, np.ones_like(problem.floor)),
        integrality=problem.integrality,
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise WorkError(f"no minimal control set was found: {result.message}", remedy="report it with the declaration.")
    return result


def _preference(graph: AttackGraph, problem: Problem) -> NDArray[np.float64]:
    """Second objective: fewest controls, then a fixed order that no two sets are likely to share."""
    weights = np.zeros_like(problem.costs)
    for column, index in enumerate(problem.mitigations):
        name = hashlib.sha256(graph.mitigations[index].id.encode()).digest()
        weights[column] = 1.0 + int.from_bytes(name[:4]) / 2**32 / 100
    return weights * (1 - problem.floor)


def _returning(
    graph: AttackGraph, holding: Holding, *, given: int, chosen: int, target: int
) -> dict[str, tuple[str, ...]]:
    """For each chosen control, the targets that are reached again without it.

    Raises:
        WorkError: the chosen controls do not prevent the target.
    """
    if graph.reach(holding, given | chosen)[0] & target:
        raise WorkError(
            "the solver's control set does not prevent its target", remedy="report it with the declaration."
        )
    returning = {}
    for index in members(chosen):
        back = graph.reach(holding, given | chosen & ~(1 << index))[0] & target
        returning[graph.mitigations[index].id] = graph.technique_ids(back)
    return returning
