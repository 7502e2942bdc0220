"""The check ``gateway.extraction-budget``: how many answers a caller may have before a copy is bought.

It measures and does not judge: a gate may ask for ``metrics.queries_at_labels_only.low``. It runs where a gate asks
for it, or when it is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from bartizan.core.check import Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.budgets.derive import FROM_LABELS, SEEDS, Derived, derive
from bartizan.lifecycle.deploy.gateway.evaluation.stating import stated
from bartizan.lifecycle.deploy.gateway.model_check import ModelCheck, opened
from bartizan.redteam.check import AttackCheck, material_of, offered, stream
from bartizan.redteam.extraction import Extraction
from bartizan.targets.detail import Detail
from bartizan.targets.protocol import Access
from bartizan.targets.tailored import DETAILS, LABELS

NAME = "gateway.extraction-budget"
FIDELITY = 0.8
"""Share of rows on which no copy may agree with the model, when nothing else is asked for."""
CONFIDENCE = 0.95


class ExtractionBudgetCheck(ModelCheck):
    """See ``core.check.Check``."""

    name = NAME
    version = "1"
    title = "How many answers buy a copy of the model, at each detail of output"
    controls: tuple[str, ...] = ("3.1-G2", "A-MLSG-004-D007")

    def __init__(self, fidelity: float = FIDELITY, details: tuple[Detail, ...] = DETAILS) -> None:
        self.fidelity, self.details = fidelity, details

    def why_not(self, system: System) -> str:
        """Why this check has nothing to do in a system, in one sentence; empty when it has."""
        return AttackCheck(Extraction(), FROM_LABELS[0]).why_not(system)

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: what an extraction attack rests on."""
        like = AttackCheck(Extraction(), FROM_LABELS[0])
        like.name = NAME
        return like.inputs(system, subject)

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        material = material_of(system, subject)
        seed = material.settings.seed
        case = Extraction().case(FROM_LABELS[0], material, stream(seed, NAME))
        details = self.details if Access.SCORES in offered(system.declaration.exposure) else (LABELS,)
        with opened(system, subject, context, material, FROM_LABELS[0]) as target:
            kept = case.truth.kept
            derived = derive(
                target,
                case.task,
                (kept.rows, kept.labels),
                fidelity=self.fidelity,
                details=details if Access.SCORES in target.offers else (LABELS,),
                tell=partial(_told, context),
            )
        return self._outcome(derived, case.knowledge, case.task.budget, seed)

    def _outcome(self, derived: Sequence[Derived], knowledge: str, most: int, seed: int) -> Outcome:
        said = "; ".join(f"{each.detail}: {_words(each, most)}" for each in derived)
        assessment = Assessment(
            method=NAME,
            summary=f"Answers that buy no copy agreeing with the model on {self.fidelity:.0%} of records: {said}.",
            metrics={f"queries_at_{_field(each.detail)}": _metric(each, most) for each in derived},
            techniques=(FROM_LABELS[0].technique, *FROM_LABELS[0].atlas),
            family="extraction",
            threat=Threat(position="user", access=("labels",), knowledge=knowledge),
            budget={"queries": most, "runs_of_each_attack": SEEDS},
            seed=seed,
            settings={"fidelity": self.fidelity},
        )
        return stated(assessment, {"derived": derived})


def _told(context: Context, done: int, total: int, note: str) -> None:
    context.progress(done, total, note)


def _words(each: Derived, most: int) -> str:
    if not each.limit:
        return f"none ({each.too_many} may be too many)"
    return str(each.limit) if each.too_many else f"{most} and perhaps more"


def _metric(each: Derived, most: int) -> Metric:
    """The budget; its interval ends at the fewest answers that may buy too much."""
    high = float(max(each.too_many or most, each.limit))
    return Metric(
        value=float(each.limit),
        low=float(each.limit),
        high=high,
        n=each.rows,
        unit="queries",
        confidence=CONFIDENCE,
        method="wilson, shared out among all runs",
    )


def _field(detail: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", detail.lower()).strip("_")


__all__ = ["FIDELITY", "NAME", "ExtractionBudgetCheck"]
