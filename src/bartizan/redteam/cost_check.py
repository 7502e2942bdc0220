"""Attacks on the cost of answers as checks of declared models: processor time of the model's own process, by turns.

The numbers are times, measured now on this machine: the same run gives others, within the interval. What the kernel
counts for the process that holds the model is taken; what else the machine does is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bartizan.core.check import Context, Outcome
from bartizan.core.errors import WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.core.system import Artefact, RedTeam, System
from bartizan.redteam.availability import Clock, CostAttack, CostTask, Slowdown, play_cost
from bartizan.redteam.check import ALL, AttackCheck, check_target, material_of, offered, outcome_of, stream, why_not
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Interval, metric
from bartizan.redteam.text_check import check_text_target, declares_texts, text_material_of
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Clocked, Targets
from bartizan.targets.text import TextTargets

LONGEST = 10_000
"""Characters of the longest text that is tried."""
ORDINARY = 200
"""Ordinary items that are compared with, at most."""
MOST_ITEMS = 5_000
"""Items that a search may ask at most; below it, as many as an evasion attack may ask altogether."""
FINDINGS = ((100.0, Severity.HIGH), (10.0, Severity.MEDIUM), (3.0, Severity.LOW))
"""Least slowdown, at the lower end of its interval, for each severity."""
ROWS, TEXTS, BYTES = "rows", "texts", "bytes"


def measured_cost(found: Slowdown, task: CostTask, attack: CostAttack, model: str) -> Measurement:
    """A slowdown as a measurement: the ratio of times, and that ratio per character where items have a length."""
    ratio = found.ratio
    metrics = {"slowdown": ratio.metric()}
    size = ""
    if isinstance(found.item, str) and found.item:
        length = float(np.median([len(item) for item in task.ordinary]))
        share = max(length, 1.0) / len(found.item)
        interval = Interval(ratio.interval.low * share, ratio.interval.high * share)
        metrics["slowdown_per_character"] = metric(ratio.value * share, interval, ratio.n, ratio.method)
        size = f" of {len(found.item)} characters"
    verdict = "" if found.is_slow else " This is within chance."
    return Measurement(
        summary=(
            f"The costliest item{size} takes {ratio.value:.3g} times as long as ordinary ones "
            f"({ratio.interval.low:.3g} to {ratio.interval.high:.3g}): {found.seconds:.2g} s instead of "
            f"{found.ordinary_seconds:.2g} s.{verdict}"
        ),
        metrics=metrics,
        tables={
            "p_value": float(f"{found.p_value:.3g}"),
            "median_seconds": found.seconds,
            "median_seconds_of_ordinary_items": found.ordinary_seconds,
        },
        findings=_findings(found, attack, model),
    )


def _findings(found: Slowdown, attack: CostAttack, model: str) -> tuple[Finding, ...]:
    low = found.ratio.interval.low
    severity = next((severity for least, severity in FINDINGS if low >= least), None)
    if severity is None or not found.is_slow:
        return ()
    return (
        Finding(
            rule="redteam/availability",
            severity=severity,
            title=f"one item costs {found.ratio.value:.3g} times as much as ordinary ones",
            where=model,
            detail=f"{found.seconds:.2g} s of processor time, found by {attack.name} within {found.queries} questions.",
            remedy="Bound the length of what is taken and the time of an answer; put a price on cost, not on requests, "
            "in each caller's budget; replace patterns that backtrack; then measure again.",
        ),
    )


def cost_case(items: Sequence[Any], settings: RedTeam, space: Space | None, rng: np.random.Generator) -> Case:
    """The task: some ordinary items, and as many questions as an evasion attack has altogether, within limits."""
    places = np.sort(rng.permutation(len(items))[:ORDINARY])
    budget = min(settings.samples * settings.query_budget, MOST_ITEMS)
    ordinary = tuple(items[place] for place in places.tolist())
    return Case(
        task=CostTask(ordinary=ordinary, max_size=LONGEST, budget=budget, space=space),
        budget=Budget(samples=1, per_sample=budget),
        knowledge=f"owns {len(ordinary)} ordinary items and a clock",
        settings={"longest": LONGEST},
    )


class Availability:
    """See ``Family``. Its check drives the attacks itself, because they measure time."""

    name = "availability"
    settings: tuple[str, ...] = ("seed", "samples", "query_budget")

    def case(self, attack: Any, material: Material, rng: np.random.Generator) -> Case:
        """See ``Family.case``: ordinary rows are those of the evaluation data."""
        del attack
        return cost_case(tuple(material.evaluation.rows), material.settings, material.space, rng)

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """See ``Family.measure``. Raises WorkError: the engine tells no times."""
        del case, run, rng
        yield from ()
        raise WorkError("costs are measured by their check", remedy="use redteam.availability.play_cost.")

    @property
    def check(self) -> type[AttackCheck]:
        """Kind of the checks of this family."""
        return CostCheck


class CostCheck(AttackCheck):
    """One attack on costs as a check. See ``AttackCheck``."""

    @property
    def items(self) -> str:
        """What the attack sends: rows, texts or bytes."""
        return str(getattr(self.variants[0], "items", ROWS))

    def why_not(self, system: System) -> str:
        """See ``AttackCheck.why_not``."""
        declaration, first = system.declaration, self.variants[0]
        written = declares_texts(declaration)
        if self.items == BYTES:
            return f"{first.name} sends packed bytes to a server, and a declared model is a file; play it from Python."
        if self.items == TEXTS and not written:
            return f"{first.name} sends texts, and the declared data are none (text in [[dataset]])."
        if self.items == ROWS and written:
            return f"{first.name} sends rows of numbers, and the declared data are texts."
        if first.position not in declaration.exposure.consider:
            return f"{first.name} is an attack by a {first.position}, which the declaration does not consider."
        return why_not(first, offered(declaration.exposure))

    def selected(self, system: System) -> bool:
        """See ``AttackCheck.selected``."""
        declaration, name = system.declaration, self.variants[0].name
        if any(rule.check == self.name for gate in declaration.gate.values() for rule in gate.rule):
            return True
        named = declaration.redteam.attacks
        return name in named or (ALL in named and not self.why_not(system))

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        attack: Any = self.variants[0]
        settings = system.declaration.redteam
        drawn = int(stream(settings.seed, attack.name, "search").integers(2**31))
        context.progress(0, 1, attack.name)
        if self.items == TEXTS:
            case, found = self._on_texts(system, subject, context, drawn)
        else:
            case, found = self._on_rows(system, subject, context, drawn)
        run = Run(iter(()), budget=case.budget)  # type: ignore[arg-type]  # it only carries the ledger
        run.ledger.spent[0] = found.queries
        measured = measured_cost(found, case.task, attack, system.model_part(subject.name).name)
        return outcome_of(attack, case, run, measured, seed=settings.seed)

    def _on_texts(self, system: System, subject: Artefact, context: Context, seed: int) -> tuple[Case, Slowdown]:
        attack: Any = self.variants[0]
        material = text_material_of(system, subject)
        rng = stream(material.settings.seed, self.family.name)
        case = cost_case(material.evaluation.texts, material.settings, None, rng)
        targets = context.service(TextTargets)  # type: ignore[type-abstract]  # a protocol is what a port is
        with targets.open(system, subject) as target:
            check_text_target(target, material)
            return case, play_cost(
                lambda text: target.scores([text]), attack, case.task, seed=seed, clock=_clock(target)
            )

    def _on_rows(self, system: System, subject: Artefact, context: Context, seed: int) -> tuple[Case, Slowdown]:
        attack: Any = self.variants[0]
        material = material_of(system, subject)
        case = self.family.case(attack, material, stream(material.settings.seed, self.family.name))
        targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
        with targets.open(system, subject) as target:
            check_target(target, attack, material)
            return case, play_cost(
                lambda row: target.labels(row[None]), attack, case.task, seed=seed, clock=_clock(target)
            )


def _clock(target: Any) -> Clock:
    """Processor time of the model's process where that can be told, else the clock on the wall."""
    if isinstance(target, Clocked):
        try:
            target.clock()
        except WorkError:
            return time.perf_counter
        return target.clock
    return time.perf_counter
