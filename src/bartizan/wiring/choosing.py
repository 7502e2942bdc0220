"""Model choice for a declared model: compare, recommend, state, and record who chose what and why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.durations import deadline
from bartizan.core.errors import ArtefactError, InputError
from bartizan.core.finding import Finding, Severity
from bartizan.core.statement import make
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.develop.choose.candidate import Candidate, Supply
from bartizan.lifecycle.develop.choose.comparison import ALWAYS, COLUMNS, Bench, Comparison, Listener, compare
from bartizan.lifecycle.develop.choose.opened import GivenCandidate, Opened
from bartizan.lifecycle.develop.choose.page import to_html
from bartizan.lifecycle.develop.choose.recommend import Demands, Recommendation, reason_needed, recommend
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.targets.protocol import Targets
from bartizan.wiring import measuring
from bartizan.wiring.code import code_digest
from bartizan.wiring.deciding import key_for, may_decide
from bartizan.wiring.families import families
from bartizan.wiring.networks import networks
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import Workspace

CHECK = "choice.compare"
DECLARED = "declared"
"""Name under which the declared model takes part."""
BASELINES = ("floor", "logistic")
"""Families that take part in every comparison: classical first."""
ORDERED = measuring.Ordered(
    CHECK,
    "1",
    "Comparison of model families",
    ("2.4-G1", "2.4-G2", "2.4-G4", "2.4-G5", "2.4-a", "A-MLSG-001-C003", "GL-1.12", "GL-1.13", "GL-1.14"),
)
STATED = (
    "accuracy",
    "recall",
    "generalisation_gap",
    "calibration_error",
    "robust_accuracy",
    "membership_tpr_at_1_percent_fpr",
    "membership_auc",
    "membership_advantage",
    "fidelity",
    "parameters",
)
"""Metrics that go into the statement itself; the report has all."""


def ordered() -> list[tuple[measuring.Ordered, str]]:
    """What can be ordered here, with the command that does it."""
    return [(ORDERED, "bartizan compare")]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison as somebody asked for it."""

    model: str = ""
    only: tuple[str, ...] = ()
    """Candidates; empty takes all. The baselines always take part."""
    columns: tuple[str, ...] = ()
    """Columns; empty takes all."""
    files: tuple[str, ...] = ()
    """Further candidates, as ``NAME=FILE``."""
    quick: bool = False
    fresh: bool = False
    demands: Demands = Demands()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; also the report of the statement."""

    comparison: Comparison
    recommendation: Recommendation


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison and where it is recorded."""

    compared: Compared
    envelope: Digest
    page: Path


def run(workspace: Workspace, wanted: Wanted, listener: Listener, page: Path | None = None) -> Done:
    """Compare, recommend, record an assessment, write the page.

    Raises:
        InputError: a candidate, column or model is named that there is not.
        ArtefactError: data or a model file cannot be used.
        WorkError: a measurement could not be done; what was done before is kept.
    """
    system = workspace.system()
    subject = measuring.model_named(system, wanted.model)
    _ = workspace.service  # fail before the work, not after it
    material = measuring.material(system, subject, quick=wanted.quick)
    inputs = ORDERED.inputs(system, subject)
    with ExitStack() as stack:
        candidates = _candidates(workspace, system, subject, wanted, stack)
        bench = Bench(
            material=material,
            basis={name: digest for name, digest in inputs.items() if name.startswith("dataset:")}
            | {"code": code_digest()},
            keep=measuring.kept(workspace, "compare", fresh=wanted.fresh),
            listener=listener,
            quick=wanted.quick,
            suite=[column() for column in COLUMNS if column.name in _columns(wanted.columns)],
        )
        comparison = compare(candidates, bench)
    demands = msgspec.structs.replace(wanted.demands, expected=material.expected.metrics)
    compared = Compared(comparison=comparison, recommendation=recommend(comparison, demands))
    said = _assessment(compared, material.settings.seed)
    envelope = measuring.record(
        workspace, ORDERED, system, subject, said=said, report=compared, findings=_findings(compared, subject)
    )
    target = page or workspace.settings.path("report") / "model-choice.html"
    write(target, to_html(comparison, compared.recommendation))
    return Done(compared=compared, envelope=envelope, page=target)


def write(path: Path, text: str) -> None:
    """A page, whole or not at all.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy="name another file.") from error


# -- candidates ------------------------------------------------------------------------------------


def _columns(asked: Sequence[str]) -> tuple[str, ...]:
    known = tuple(column.name for column in COLUMNS)
    for name in asked:
        if name not in known:
            raise InputError(f"no column is called {name!r}", remedy=f"choose from: {', '.join(known)}.")
    return tuple(name for name in known if not asked or name in asked or name in ALWAYS)


def _candidates(
    workspace: Workspace, system: System, subject: Artefact, wanted: Wanted, stack: ExitStack
) -> list[Candidate]:
    """The families that are installed, the declared model, and the files that were named."""
    installed = [*families(), *networks()]
    given = [declared(workspace, system, subject, stack)]
    given += [_file(workspace, system, subject, text, stack) for text in wanted.files]
    everything = [*installed, *given]
    names = [candidate.name for candidate in everything]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two candidates are called {doubled[0]!r}", remedy="name the file otherwise.")
    if unknown := [name for name in wanted.only if name not in names]:
        raise InputError(f"no candidate is called {unknown[0]!r}", remedy=f"choose from: {', '.join(names)}.")
    chosen = {*wanted.only, *BASELINES, *(candidate.name for candidate in given[1:])}
    return [candidate for candidate in everything if not wanted.only or candidate.name in chosen]


def declared(workspace: Workspace, system: System, subject: Artefact, stack: ExitStack) -> Candidate:
    """The declared model as a candidate, opened when it is asked first and closed with ``stack``."""
    base = system.model_part(subject.name).base_model
    supply = Supply(
        code="whatever its file needs",
        weights=f"the declared file {Path(subject.path).name}" + (f", made from {base}" if base else ""),
        kind="declared model",
        risk="as far as its provenance is recorded" + (f"; flaws and backdoors of {base} carry over" if base else ""),
    )
    return _given(
        workspace, system, subject, named=(DECLARED, f"Declared model ({subject.name})"), supply=supply, stack=stack
    )


def _file(workspace: Workspace, system: System, subject: Artefact, text: str, stack: ExitStack) -> Candidate:
    name, _, place = text.partition("=")
    path = Path(place)
    if not name or not place or not path.exists():
        raise InputError(f"{text!r} names no model file", remedy="write NAME=FILE with a file that is there.")
    digest = workspace.files.digest(path)
    guest = Artefact(kind="model", name=subject.name, digest=digest, path=str(path.resolve()))
    supply = Supply(
        code="whatever its file needs",
        weights=f"file {path.name}, SHA-256 {digest[:12]}",
        kind="file",
        risk="whoever made the file chose its training data; see `bartizan intake` before relying on it",
    )
    return _given(workspace, system, guest, named=(name, f"{name} (from a file)"), supply=supply, stack=stack)


def _given(
    workspace: Workspace,
    system: System,
    artefact: Artefact,
    *,
    named: tuple[str, str],
    supply: Supply,
    stack: ExitStack,
) -> Candidate:
    """A model file, scanned before it is opened, asked in a process of its own."""

    def opened() -> Opened:
        report = scan_path(Path(artefact.path))
        if report.exit_code or report.digest != artefact.digest:
            raise ArtefactError(
                f"{Path(artefact.path).name} is not loaded: its scan found something",
                remedy=f"see `bartizan scan {artefact.path}`.",
            )
        settings = workspace.settings
        services = CheckServices(
            settings.path("journals"), frozenset({artefact.digest}), settings.values["confinement"]
        )
        target = stack.enter_context(services(Targets).open(system, artefact))
        return Opened(target, report.size)

    return GivenCandidate(*named, supply, artefact.digest, opened)


# -- statements ------------------------------------------------------------------------------------


def _assessment(compared: Compared, seed: int) -> predicates.Assessment:
    comparison, recommendation = compared.comparison, compared.recommendation
    metrics = {
        f"{entry.name}_{name}": entry.metrics[name]
        for entry in comparison.entries
        for name in STATED
        if name in entry.metrics
    }
    return predicates.Assessment(
        method="comparison",
        family="comparison",
        summary=recommendation.words,
        metrics=metrics,
        seed=seed,
        settings={
            "candidates": [entry.name for entry in comparison.entries],
            "interpretability": {entry.name: entry.interpretability for entry in comparison.entries},
            "supply": {entry.name: entry.supply.weights for entry in comparison.entries},
            "recommended": recommendation.recommended,
            "front": list(recommendation.front),
            "demands": msgspec.to_builtins(recommendation.demands),
            "quick": comparison.quick,
        },
        findings={"low": len(found)} if (found := _findings(compared, None)) else {},
    )


def _findings(compared: Compared, subject: Artefact | None) -> tuple[Finding, ...]:
    """A note when the declared model has more capacity than the simplest adequate candidate, or falls short."""
    recommendation = compared.recommendation
    if not any(standing.name == DECLARED for standing in recommendation.standings):
        return ()
    needed = reason_needed(recommendation, DECLARED)
    if not needed:
        return ()
    return (
        Finding(
            rule="choice/needs-a-reason",
            severity=Severity.LOW,
            title=f"the declared model is not the simplest adequate one: {needed}",
            where=subject.name if subject else compared.comparison.model,
            detail=recommendation.words,
            remedy=f"take {recommendation.recommended or 'another model'}, or record why not: "
            f'bartizan compare choose {DECLARED} --role ROLE --reason "..."',
            controls=("2.4-G3",),
        ),
    )


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A choice as somebody made it."""

    name: str
    model: str = ""
    role: str
    reason: str = ""
    expires: str = "365d"
    key: str = ""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A choice that was recorded."""

    envelope: Digest
    name: str
    recommended: str
    reason: str
    expires: datetime


def choose(workspace: Workspace, asked: Asked) -> Chosen:
    """Record which candidate is taken, with every alternative that was weighed.

    Raises:
        InputError: there is no comparison that stands or no such candidate, or a reason is needed and none is given.
        TrustError: the key may not decide in that role; nothing is recorded.
    """
    system = workspace.system()
    subject = measuring.model_named(system, asked.model)
    evidence, report = measuring.newest(workspace, system, subject, CHECK)
    compared = msgspec.json.decode(report, type=Compared)
    try:
        needed = reason_needed(compared.recommendation, asked.name)
    except KeyError:
        known = ", ".join(entry.name for entry in compared.comparison.entries)
        raise InputError(f"no candidate is called {asked.name!r}", remedy=f"choose from: {known}.") from None
    if needed and not asked.reason.strip():
        raise InputError(f"this choice needs a reason: {needed}", remedy='give --reason "...".')
    signer = workspace.signer(asked.key or key_for(workspace, asked.role))
    may_decide(workspace, signer.keyid, asked.role, "scope")
    now = workspace.clock()
    expires = deadline(asked.expires, now)
    if expires <= now:
        raise InputError(f"{asked.expires} is over already", remedy="give a later end, such as 365d.")
    reason = asked.reason.strip() or compared.recommendation.words
    decision = msgspec.convert(
        {
            "kind": "scope",
            "outcome": "yes",
            "reason": reason,
            "role": asked.role,
            "expires": expires,
            "inputs": [
                predicates.Input.of(name, digest) for name, digest in sorted(ORDERED.inputs(system, subject).items())
            ],
            "details": {
                "chosen": asked.name,
                "simplestAdequate": compared.recommendation.recommended,
                "reasonNeeded": needed,
                "comparison": evidence.digest,
                "choices": msgspec.to_builtins(compared.comparison.choices(asked.name)),
            },
            "decidedAt": now,
        },
        predicates.Decision,
    )
    envelope = workspace.publish(make(predicates.DECISION, subject, decision), signer)
    return Chosen(
        envelope=envelope,
        name=asked.name,
        recommended=compared.recommendation.recommended,
        reason=reason,
        expires=expires,
    )
