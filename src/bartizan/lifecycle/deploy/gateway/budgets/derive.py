"""How many answers buy a copy: long-horizon budgets out of extraction attacks that were really run.

For each detail of output the attacks that apply are run with several seeds, and the copies compared with the model on
rows that no adversary had. The bound at a number of answers is the highest upper end of all intervals there and below
it, at a confidence shared out among all comparisons (Bonferroni); so it rises and holds for all of them together. A
budget is the largest number of answers that was tried with the bound under what is wanted. A stronger attack than
these, or an adversary with more data of its own, needs fewer: set a budget lower than this, not at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from bartizan.core.errors import InputError
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.extraction.active import ActiveExtraction, ActiveExtractionFromLabels
from bartizan.redteam.attacks.extraction.knockoff import Copycat, Knockoff
from bartizan.redteam.attacks.extraction.random import RandomExtraction, RandomExtractionFromLabels
from bartizan.redteam.statistics import CONFIDENCE, wilson
from bartizan.redteam.stealing import steal
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.detail import Detail
from bartizan.targets.protocol import Access, Labels, Rows, Target
from bartizan.targets.tailored import DETAILS, Tailored

FROM_SCORES: tuple[Attack, ...] = (ActiveExtraction(), RandomExtraction(), Knockoff())
FROM_LABELS: tuple[Attack, ...] = (ActiveExtractionFromLabels(), RandomExtractionFromLabels(), Copycat())
SEEDS = 2
"""Runs of each attack."""
REFINEMENTS = 3
"""Numbers of answers that are tried between the last one that holds and the first one that does not."""
SHORTEST = 5
"""Answers fewer than which buy nothing that could be measured."""
Tell = Callable[[int, int, str], None]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a curve."""

    queries: int
    fidelity: float
    """Share of rows on which the best attack's copies answer like the model; fitted so that it never falls."""
    bound: float
    """What no copy of any run reaches, beyond chance."""
    attack: str
    """The best attack there."""


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """The budget of one detail of output."""

    detail: str
    limit: int
    """Answers; 0 when even the fewest that were tried buy too much."""
    too_many: int
    """The fewest answers tried that may buy too much; 0 when none did."""
    curve: tuple[Mark, ...]
    constant: float
    """Share of rows on which a copy agrees that always answers the commonest class: that much is free."""
    rows: int
    """Rows on which copies were compared."""
    bits: float
    """log2 of the answers that can be told apart: what one answer tells at most."""


@dataclass(slots=True)
class _Trials:
    """All runs against one detail."""

    target: Target
    detail: Detail
    task: ExtractionTask
    kept: tuple[Rows, Labels]
    seeds: int
    confidence: float
    found: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    """Number of answers to attack to rows on which its copies agree, one for each run."""

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """Those that use all that is told."""
        offers = Tailored(self.target, self.detail).offers
        return FROM_SCORES if Access.SCORES in offers else FROM_LABELS

    def play(self, marks: Sequence[int], first: int) -> None:
        """Run every attack with every seed, reading the curve at ``marks``."""
        task = replace(self.task, budget=marks[-1], checkpoints=tuple(marks))
        shown = Tailored(self.target, self.detail)
        for attack in self.attacks:
            for seed in range(first, first + self.seeds):
                for copy in steal(shown, attack, task, self.kept, seed=seed).copies:
                    alike = round(copy.fidelity.value * len(self.kept[0]))
                    self.found.setdefault(copy.queries, {}).setdefault(attack.name, []).append(alike)

    def bound(self, queries: int) -> float:
        """What no copy made from so many answers or fewer reaches, beyond chance."""
        most = max(max(runs) for at, found in self.found.items() if at <= queries for runs in found.values())
        return wilson(most, len(self.kept[0]), self.confidence).high

    def curve(self) -> tuple[Mark, ...]:
        """The fitted curve with its bound."""
        marks = sorted(self.found)
        shares = [
            max((float(np.mean(runs)) / len(self.kept[0]), name) for name, runs in self.found[queries].items())
            for queries in marks
        ]
        fitted = rising([share for share, _ in shares])
        return tuple(
            Mark(
                queries=queries,
                fidelity=float(f"{value:.4g}"),
                bound=float(f"{self.bound(queries):.4g}"),
                attack=name,
            )
            for queries, value, (_, name) in zip(marks, fitted, shares, strict=True)
        )


def derive(
    target: Target,
    task: ExtractionTask,
    kept: tuple[Rows, Labels],
    *,
    fidelity: float,
    details: Sequence[Detail] = DETAILS,
    seeds: int = SEEDS,
    tell: Tell = lambda _done, _total, _note: None,
) -> tuple[Derived, ...]:
    """The largest budget of each detail that buys no copy agreeing on ``fidelity`` of ``kept`` rows.

    ``task.checkpoints`` are the numbers of answers that are tried first.

    Raises:
        InputError: nothing can be compared, or what is wanted is no share.
        WorkError: the target cannot be asked.
    """
    if not 0 < fidelity < 1 or not len(kept[0]) or not task.checkpoints:
        raise InputError(f"a fidelity of {fidelity} on {len(kept[0])} rows", remedy="give a share between 0 and 1.")
    labels = target.labels(kept[0])
    constant = float(np.bincount(labels).max() / len(labels))
    derived = []
    for place, detail in enumerate(details):
        tell(place, len(details), detail.name)
        # As many comparisons as there can be: every run at every number of answers, those in between included.
        comparisons = len(FROM_SCORES) * seeds * (len(task.checkpoints) + REFINEMENTS)
        trials = _Trials(target, detail, task, kept, seeds, 1 - (1 - CONFIDENCE) / comparisons)
        limit, too_many = _limit(trials, fidelity)
        derived.append(
            Derived(
                detail=detail.name,
                limit=limit,
                too_many=too_many,
                curve=trials.curve(),
                constant=float(f"{constant:.4g}"),
                rows=len(labels),
                bits=float(f"{detail.bits(target.classes):.4g}"),
            )
        )
    tell(len(details), len(details), "")
    return tuple(derived)


def _limit(trials: _Trials, fidelity: float) -> tuple[int, int]:
    """The largest number of answers tried that holds, and the smallest that does not."""
    trials.play(trials.task.checkpoints, 0)
    holds = [queries for queries in sorted(trials.found) if trials.bound(queries) <= fidelity]
    limit = max(holds, default=0)
    too_many = min((queries for queries in trials.found if queries > limit), default=0)
    for refinement in range(REFINEMENTS if too_many else 0):
        between = round(float(np.sqrt(max(limit, 1) * too_many)))
        if not max(limit, SHORTEST - 1) < between < too_many:
            break
        trials.play((between,), (refinement + 1) * trials.seeds)
        if trials.bound(between) <= fidelity:
            limit = between
        else:
            too_many = between
    return limit, too_many


def rising(values: Sequence[float]) -> list[float]:
    """The closest curve that never falls: least squares by pooling neighbours (Ayer et al. 1955)."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            before, so_many = pools[-1]
            pools[-1] = [(before * so_many + mean * count) / (so_many + count), so_many + count]
    return [mean for mean, count in pools for _ in range(int(count))]


def as_toml(derived: Sequence[Derived], fidelity: float, window: str = "365d") -> str:
    """Budgets to be taken over into ``gateway.toml``, each with what it rests on."""
    parts = []
    for each in derived:
        name = each.detail.replace(" ", "-")
        if not each.limit:
            parts.append(
                f"# {each.detail}: no budget keeps copies below {fidelity:.0%}; {each.too_many} answers may buy more, "
                f"and a constant answer agrees on {each.constant:.0%}."
            )
            continue
        more = f"{each.too_many} may buy more" if each.too_many else "more were not tried"
        parts.append(
            f"# {each.detail}: no copy from so many answers agrees on {fidelity:.0%} of {each.rows} rows; {more}.\n"
            f"[budget.copy-from-{name}]\n"
            f'per = "caller"  # "attribute:organisation" holds the accounts of one owner together\n'
            f'unit = "labels"\nlimit = {each.limit}\nwindow = "{window}"\n'
        )
    return "\n".join(parts)


__all__ = ["Derived", "Mark", "as_toml", "derive", "rising"]
