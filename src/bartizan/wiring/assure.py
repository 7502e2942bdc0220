"""The main job: do what is stale, decide, and show what there is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

import bartizan
from bartizan.core import predicates
from bartizan.core.check import Outcome
from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, InputError, LedgerMovedError
from bartizan.core.evidence import Evidence
from bartizan.core.gate import GateResult, evaluate, verdict
from bartizan.core.system import Gate, System
from bartizan.core.view import View
from bartizan.lifecycle.design.guidance.check import needs_register
from bartizan.lifecycle.design.guidance.register import without_unbriefed
from bartizan.lifecycle.plan import Job, answer, current_digests, documents, plan, why_due
from bartizan.lifecycle.runner import Ending, Listener, Work, run
from bartizan.wiring import coverage, guided, registry, results
from bartizan.wiring.claims import needs_claims, with_claims
from bartizan.wiring.guided import with_lessons
from bartizan.wiring.origins import with_origins
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import ATTEMPTS, Workspace


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """The system and its evidence at one moment."""

    system: System
    jobs: tuple[Job, ...]
    current: dict[str, Digest]
    evidence: tuple[Evidence, ...]
    now: datetime
    note: str
    """Checkpoint of the ledger that this was read from."""

    def due(self) -> list[tuple[Job, str]]:
        """Jobs that must run, with the reason."""
        gates = self.system.declaration.gate
        pairs = [(job, why_due(job, self.evidence, gates, self.now)) for job in self.jobs]
        return [(job, why) for job, why in pairs if why]


class Assured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the main job."""

    situation: Situation
    due: tuple[tuple[Job, str], ...]
    endings: dict[str, Ending]
    result: GateResult
    verdict: Digest

    @property
    def failed(self) -> bool:
        """Whether some work could not be done."""
        return any(hasattr(ending, "message") for ending in self.endings.values())


def situation(workspace: Workspace, system: System, *, only: tuple[str, ...] = ()) -> Situation:
    """Look at the system and at everything the ledger says about it now."""
    with workspace.view() as view:
        system = with_lessons(workspace, view, with_origins(workspace, view, system))
        if needs_claims(system) or needs_register(system):
            said = weigh(workspace, view, system, plan(system, registry.checks()))[1]
            system = with_claims(system, said) if needs_claims(system) else system
            system = guided.with_register(system, said) if needs_register(system) else system
        jobs = [job for job in plan(system, registry.checks(only)) if only or registry.selected(job.check, system)]
        everything = plan(system, registry.checks())
        current, evidence = weigh(workspace, view, system, everything)
        now, note = workspace.now(view), view.note
    return Situation(system=system, jobs=tuple(jobs), current=current, evidence=tuple(evidence), now=now, note=note)


def weigh(
    workspace: Workspace, view: View, system: System, jobs: Sequence[Job]
) -> tuple[dict[str, Digest], list[Evidence]]:
    """Every digest in play, and the evidence about the system's artefacts, judged against them."""
    about = [*(artefact.digest for artefact in system.artefacts), guided.subject(system)[1]]
    current = current_digests(system, jobs)
    said = workspace.evidence(view, about, current)
    current |= documents(said) | guided.current(system, said)
    evidence = without_unbriefed(system, workspace.evidence(view, about, current))
    if stands := coverage.standing_now(workspace, system, evidence):
        current |= stands
        evidence = without_unbriefed(system, workspace.evidence(view, about, current))
    return current, evidence


def assure(
    workspace: Workspace, listener: Listener, *, gate: str = "release", only: tuple[str, ...] = (), fresh: bool = False
) -> Assured:
    """Run what is due, record it, evaluate the gate and record its verdict.

    Raises:
        BartizanError: the declaration, the ledger or the keys cannot be used.
    """
    system = workspace.system()
    policy = gate_of(system, gate)
    _ = workspace.service  # fail before the work, not after it
    before = situation(workspace, system, only=only)
    due = [(job, "asked for") for job in before.jobs] if fresh else before.due()
    endings = run_jobs(workspace, before, [job for job, _ in due], listener)
    after = situation(workspace, system, only=only) if endings else before
    if coverage.state(workspace, system, after.evidence):
        after = situation(workspace, system, only=only)
    after, result, digest = decide(workspace, after, gate, policy)
    return Assured(situation=after, due=tuple(due), endings=endings, result=result, verdict=digest)


def gate_of(system: System, name: str) -> Gate:
    """The declared gate called ``name``. Raises InputError when there is none."""
    gates = system.declaration.gate
    if name not in gates:
        known = ", ".join(sorted(gates)) or "none"
        raise InputError(f"no gate is called {name!r}", remedy=f"declared gates: {known}; add [[gate.{name}.rule]].")
    return gates[name]


def judge(now: Situation, name: str, policy: Gate) -> GateResult:
    """Evaluate a gate without recording anything."""
    return evaluate(name, policy, now.system.artefacts, now.evidence, now.now)


def decide(workspace: Workspace, now: Situation, name: str, policy: Gate) -> tuple[Situation, GateResult, Digest]:
    """Evaluate a gate and record the verdict, unless the same one still stands.

    A verdict is recorded only onto the very ledger that it was reached from; when somebody says
    something meanwhile, it is reached again.
    """
    for _ in range(ATTEMPTS):
        with contextlib.suppress(LedgerMovedError):
            return now, *_decide_once(workspace, now, name, policy)
        now = situation(workspace, now.system)
    raise LedgerMovedError("others append without a pause", remedy="run the command again.")


def _decide_once(workspace: Workspace, now: Situation, name: str, policy: Gate) -> tuple[GateResult, Digest]:
    result = judge(now, name, policy)
    said = verdict(
        result,
        policy,
        now.system.artefacts,
        verifier="urn:bartizan:assure",
        version=bartizan.__version__,
        now=now.now,
    )
    new = said.read()
    for item in reversed(now.evidence):
        if item.holds and item.statement and _same(item.statement.read(), new):
            return result, item.digest
    return result, workspace.publish(said, workspace.service, seen=now.note)


def _same(old: object, new: predicates.Verdict) -> bool:
    """Whether an earlier verdict says the same, on the same grounds."""
    if not isinstance(old, predicates.Verdict):
        return False
    grounds = ("gate", "policy", "input_attestations", "verification_result", "inputs", "rules")
    return all(getattr(old, name) == getattr(new, name) for name in grounds)


def run_jobs(workspace: Workspace, before: Situation, jobs: Sequence[Job], listener: Listener) -> dict[str, Ending]:
    """Run jobs and record what comes of each. Returns how they ended, by key."""
    wanted = {job.key for job in jobs}
    answers = {
        job.key: found for job in before.jobs if job.key not in wanted and (found := answer(job, before.evidence))
    }
    reports = {key: item.report for key, item in answers.items() if item.report}
    clean = {
        item.statement.about()[0]
        for item in answers.values()
        if item.statement and item.check == "scan" and _passed(item.statement.read())
    }

    def record(job: Job, outcome: Outcome) -> Digest:
        _unchanged(workspace, before.system, job)
        blob = results.store_form(job, outcome)
        said = results.statement_of(job, outcome, blob, workspace.clock())
        reports[job.key] = blob.digest
        if job.check.name == "scan" and _passed(outcome.predicate):
            clean.add(job.subject.digest)
        return workspace.publish(said, workspace.service, [blob])

    def report(key: str) -> bytes | None:
        return results.read_report(workspace.blobs.get(reports[key])).inner() if key in reports else None

    work = Work(
        system=before.system,
        jobs=tuple(jobs),
        settled=_settled(answers),
        services=functools.partial(
            CheckServices,
            workspace.settings.path("journals"),
            confinement=workspace.settings.values["confinement"],
        ),
        reports=report,
        clean=lambda: frozenset(clean),
    )
    return run(
        work,
        record=record,
        stands_well=lambda outcome: results.stands_well(outcome.predicate),
        listener=listener,
        workers=workspace.settings.workers,
    )


def _passed(predicate: object) -> bool:
    return isinstance(predicate, predicates.TestResult) and predicate.result == "PASSED"


def _settled(answers: Mapping[str, Evidence]) -> dict[str, bool]:
    return {key: bool(item.statement and results.stands_well(item.statement.read())) for key, item in answers.items()}


def _unchanged(workspace: Workspace, system: System, job: Job) -> None:
    """What was examined must still be what was named, or the result speaks about nothing."""
    for artefact in system.artefacts:
        if artefact.id not in job.inputs or not artefact.path:
            continue
        now = workspace.files.digest(Path(artefact.path))
        if now != artefact.digest:
            raise ArtefactError(
                f"{artefact.id} changed from {short(artefact.digest)} to {short(now)} while it was examined",
                remedy="run the command again when nothing writes to it.",
            )
