"""Hardening of a declared model or of a family on its data: defend, measure before and after, state."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.develop.choose.candidate import Candidate
from bartizan.lifecycle.develop.choose.comparison import Bench, Entry, Listener, compare, tuned
from bartizan.lifecycle.develop.choose.copying import Copying
from bartizan.lifecycle.develop.choose.cost import Cost
from bartizan.lifecycle.develop.choose.leakage import Leakage
from bartizan.lifecycle.develop.choose.quality import Quality
from bartizan.lifecycle.develop.choose.trial import Column
from bartizan.lifecycle.develop.harden.anonymise import Anonymise, Linkage
from bartizan.lifecycle.develop.harden.answers import Clip, Quantise, Rounding, Temperature
from bartizan.lifecycle.develop.harden.audit import Audit
from bartizan.lifecycle.develop.harden.box_forest import RobustTrees
from bartizan.lifecycle.develop.harden.defence import Base, Defence, Defended
from bartizan.lifecycle.develop.harden.ensemble import MemberTransfer, Redundancy
from bartizan.lifecycle.develop.harden.networks import WORDS as WAYS
from bartizan.lifecycle.develop.harden.networks import NetworkTraining, PrivateTraining
from bartizan.lifecycle.develop.harden.page import to_html
from bartizan.lifecycle.develop.harden.private import Private
from bartizan.lifecycle.develop.harden.private_forest import PrivateTrees
from bartizan.lifecycle.develop.harden.report import Hardening, Row, row_of
from bartizan.lifecycle.develop.harden.robustness import DefendedRobustness
from bartizan.lifecycle.develop.harden.simpler import Distil, Features, Prune
from bartizan.lifecycle.develop.harden.sites import Sites, compare_sites, parts_by_site
from bartizan.lifecycle.develop.harden.smoothing import Certified, Smoothing
from bartizan.redteam.family import Material
from bartizan.targets.table import Table, read_table
from bartizan.wiring import choosing, measuring
from bartizan.wiring.code import code_digest
from bartizan.wiring.families import families
from bartizan.wiring.networks import NAME as NETWORK
from bartizan.wiring.networks import TorchNetwork
from bartizan.wiring.workspace import Workspace

SUITE = ("quality", "cost", "robustness", "leakage", "audit", "copying", "certified", "linkage", "members")
"""Columns, in the order in which they are measured."""
MITIGATIONS = {"pruning": "pruning", "training": "robustness", "input": "robustness", "output": "robustness"}
"""Kind of defence to the family of its statement."""
TRANSFER = "evasion.transfer"
CONTROLS = {
    "pruning": ("A-MLSG-003-C001",),
    "prune": ("2.4-h", "A-MLSG-003-C001"),
    "private": ("GL-3.4",),
    "private-forest": ("GL-3.4",),
    "dp-sgd": ("GL-3.4",),
    "anonymise": ("4.2-q",),
    "ensemble": ("A-MLSG-001-N001",),
}
"""Defence, or kind of defence, to the controls that its statement is evidence for."""
SITES = measuring.Ordered("harden.sites", "1", "Shared model against one for each site", ("A-MLSG-001-C004",))
MEASURED = (
    "accuracy",
    "recall",
    "robust_accuracy",
    "membership_tpr_at_1_percent_fpr",
    "membership_auc",
    "epsilon_lower_bound",
    "fidelity",
    "size_bytes",
    "parameters",
    "microseconds_in_batch",
    "certified_accuracy",
    "linked",
    "singled_out",
    "member_transfer",
    "whole_transfer",
)
"""Metrics of the statement, each before and after."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Hardening as somebody asked for it."""

    model: str = ""
    base: str = choosing.DECLARED
    """A family, or ``declared``."""
    only: tuple[str, ...] = ()
    """Defences; empty takes all that apply."""
    columns: tuple[str, ...] = ()
    epsilon: tuple[float, ...] = (1.0,)
    """Privacy budgets, each of which makes a private model of every kind."""
    identifying: tuple[str, ...] = ()
    quick: bool = False
    fresh: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, and where it is recorded."""

    hardening: Hardening
    envelopes: dict[str, Digest]
    """Defence to the statement about it."""
    page: Path


def defences(wanted: Wanted) -> list[Defence]:
    """Every defence there is, with the dials that were asked for."""
    for epsilon in wanted.epsilon:
        if not (epsilon > 0 and math.isfinite(epsilon)):
            raise InputError(f"epsilon is {epsilon:g}", remedy="give a number above 0, such as 1.")
    budgets = sorted(set(wanted.epsilon))
    return [
        Features(),
        Prune(),
        Distil(),
        Temperature(),
        Rounding(),
        Quantise(),
        Clip(),
        Smoothing(),
        RobustTrees(),
        *(Private(epsilon) for epsilon in budgets),
        *(PrivateTrees(epsilon) for epsilon in budgets),
        *(PrivateTraining(epsilon) for epsilon in budgets),
        Anonymise(wanted.identifying),
        Redundancy(),
        *(NetworkTraining(way) for way in WAYS),
    ]


def run(workspace: Workspace, wanted: Wanted, listener: Listener, page: Path | None = None) -> Done:
    """Apply each defence, measure before and after, record, write the page.

    Raises:
        InputError: a base, defence or column is named that there is not.
        WorkError: a measurement could not be done; what was done before is kept.
    """
    system = workspace.system()
    subject = measuring.model_named(system, wanted.model)
    _ = workspace.service
    chosen = _chosen(wanted)
    with ExitStack() as stack:
        bench = _bench(workspace, system, subject, wanted, listener)
        base = _base(workspace, system, subject, name=wanted.base, bench=bench, stack=stack)
        target, material = base.target(), bench.material
        reasons = {defence.name: defence.why_not(target, material) for defence in chosen}
        applying = [defence for defence in chosen if not reasons[defence.name]]
        comparison = compare([base, *(Defended(base, defence) for defence in applying)], bench)
    hardening = Hardening(
        comparison=comparison,
        rows=tuple(row_of(comparison, defence) for defence in applying),
        not_applied={name: reason for name, reason in reasons.items() if reason},
    )
    envelopes = {row.defence: _record(workspace, system, subject, hardening, row) for row in hardening.rows}
    path = page or workspace.settings.path("report") / "hardening.html"
    choosing.write(path, to_html(hardening))
    return Done(hardening=hardening, envelopes=envelopes, page=path)


def _chosen(wanted: Wanted) -> list[Defence]:
    known = defences(wanted)
    names = [defence.name for defence in known]
    if unknown := [name for name in wanted.only if not any(_called(each, name) for each in names)]:
        raise InputError(f"no defence is called {unknown[0]!r}", remedy=f"choose from: {', '.join(names)}.")
    return [each for each in known if not wanted.only or any(_called(each.name, name) for name in wanted.only)]


def _called(name: str, asked: str) -> bool:
    """Whether a defence is meant: by its name, or by what comes before its budget (``private-3``)."""
    return name == asked or re.fullmatch(rf"{re.escape(asked)}-[0-9][0-9.e+-]*", name) is not None


def _bench(workspace: Workspace, system: System, subject: Artefact, wanted: Wanted, listener: Listener) -> Bench:
    inputs = measuring.inputs(system, subject)
    every: list[Column] = [
        Quality(),
        Cost(),
        DefendedRobustness(),
        Leakage(),
        Audit(),
        Copying(),
        Certified(),
        Linkage(Anonymise(wanted.identifying)),
        MemberTransfer(),
    ]
    names = [column.name for column in every]
    if unknown := [name for name in wanted.columns if name not in names]:
        raise InputError(f"no column is called {unknown[0]!r}", remedy=f"choose from: {', '.join(names)}.")
    basis = {name: digest for name, digest in inputs.items() if name.startswith("dataset:")}
    return Bench(
        material=measuring.material(system, subject, quick=wanted.quick),
        basis=basis | {"identifying": " ".join(wanted.identifying), "code": code_digest()},
        keep=measuring.kept(workspace, "harden", fresh=wanted.fresh),
        listener=listener,
        quick=wanted.quick,
        suite=[each for each in every if not wanted.columns or each.name in {*wanted.columns, "quality", "cost"}],
    )


def _base(
    workspace: Workspace, system: System, subject: Artefact, *, name: str, bench: Bench, stack: ExitStack
) -> Base:
    """What is hardened, with its settings chosen first."""
    candidate = _candidate(workspace, system, subject, name, stack)
    return Base(candidate, bench.material, tuned(candidate, bench).settings)


def _candidate(workspace: Workspace, system: System, subject: Artefact, name: str, stack: ExitStack) -> Candidate:
    if name == choosing.DECLARED:
        return choosing.declared(workspace, system, subject, stack)
    if name == NETWORK:
        return TorchNetwork()
    known = {family.name: family for family in families() if not family.is_floor}
    if name not in known:
        names = ", ".join([choosing.DECLARED, *known, NETWORK])
        raise InputError(f"no family is called {name!r}", remedy=f"choose --base from: {names}.")
    return known[name]


def ordered() -> list[tuple[measuring.Ordered, str]]:
    """What can be ordered here, with the command that does it."""
    each = [
        (_ordered(defence.name, defence.kind, defence.title), f"bartizan harden --only {defence.name}")
        for defence in defences(Wanted())
    ]
    return [*each, (SITES, "bartizan harden sites --by COLUMN")]


def _ordered(defence: str, kind: str, title: str) -> measuring.Ordered:
    controls = CONTROLS.get(defence, CONTROLS.get(kind, ()))
    return measuring.Ordered(f"harden.{defence}", "1", f"Before and after: {title}", controls)


# -- statements ------------------------------------------------------------------------------------


def _record(workspace: Workspace, system: System, subject: Artefact, hardening: Hardening, row: Row) -> Digest:
    """One statement for each defence: the metrics before and after it."""
    comparison = hardening.comparison
    before, after = comparison.entries[0], comparison.entry(row.name)
    ordered = _ordered(row.defence, row.kind, row.title)
    said = predicates.Assessment(
        method=TRANSFER if row.defence == "ensemble" else f"harden.{row.defence}",
        family=_family(row),
        summary=row.words,
        metrics=_before_and_after(before, after),
        seed=comparison.seed,
        settings={"base": before.name, "preventionCredit": row.credit, "quick": comparison.quick, **row.settings},
    )
    report = {"before": before, "after": after, "row": row, "references": row.references, "comparison": comparison}
    return measuring.record(workspace, ordered, system, subject, said=said, report=report)


def _family(row: Row) -> str:
    if row.defence == "anonymise":
        return "anonymising"
    if row.defence.startswith(("private", "dp-sgd")):
        return "privacy-training"
    return "transfer" if row.defence == "ensemble" else MITIGATIONS.get(row.kind, "robustness")


def _before_and_after(before: Entry, after: Entry) -> dict[str, predicates.Metric]:
    named: dict[str, predicates.Metric] = {}
    for when, entry in (("before", before), ("after", after)):
        named |= {f"{name}_{when}": entry.metrics[name] for name in MEASURED if name in entry.metrics}
    return named


# -- sites -----------------------------------------------------------------------------------------


class Sited(msgspec.Struct, frozen=True, kw_only=True):
    """Transfer between sites, and where it is recorded."""

    base: str
    column: str
    sites: Sites
    envelope: Digest


def sites(workspace: Workspace, wanted: Wanted, column: str, listener: Listener) -> Sited:
    """Compare one shared model with one for each site, told apart by a column of both datasets.

    Raises:
        ArtefactError: the column is not there, or the sites are too small.
    """
    system = workspace.system()
    subject = measuring.model_named(system, wanted.model)
    _ = workspace.service
    bench = _bench(workspace, system, subject, wanted, listener)
    model = system.model_part(subject.name)
    training = _by_site(system, model.trained_on, column, ())
    evaluation = _by_site(system, model.evaluated_on, column, training[0].label_values)
    material = _without(bench.material, training[0], evaluation[0])
    with ExitStack() as stack:
        candidate = _candidate(workspace, system, subject, wanted.base, stack)
        if wanted.base == choosing.DECLARED:
            raise InputError(
                "a model of each site has to be trained here", remedy="name a family with --base, such as logistic."
            )
        settings = tuned(candidate, bench).settings
        found = compare_sites(
            candidate,
            material,
            parts_by_site(training, evaluation),
            settings=settings,
            tell=lambda done, total, note: listener.tell(wanted.base, "sites", done, total, note),
        )
    said = predicates.Assessment(
        method=TRANSFER,
        family="transfer",
        summary=(
            f"Of the rows made at one site, {found.shared_transfer.value:.0%} work at another one when all share a "
            f"model, {found.own_transfer.value:.0%} when each of {len(found.sites)} has its own."
        ),
        metrics={
            "shared_transfer": found.shared_transfer,
            "own_transfer": found.own_transfer,
            "reduction": found.reduction,
        },
        seed=material.settings.seed,
        settings={"base": wanted.base, "column": column, "sites": [site.name for site in found.sites]},
    )
    envelope = measuring.record(workspace, SITES, system, subject, said=said, report={"sites": found})
    return Sited(base=wanted.base, column=column, sites=found, envelope=envelope)


def _by_site(system: System, name: str, column: str, label_values: Sequence[str]) -> tuple[Table, Table]:
    """A dataset's records without the column that tells sites apart, and the same with the site as label."""
    part, artefact = system.dataset_part(name), system.artefact(f"dataset:{name}")
    if part.group and part.group != column:
        raise InputError(
            f"dataset {name!r} declares {part.group!r} as its group, which is no feature either",
            remedy=f"name the sites by that column: --by {part.group}.",
        )
    plain = msgspec.structs.replace(part, group=column)
    turned = msgspec.structs.replace(part, target=column, group=part.target)
    records = read_table(artefact.path, plain, label_values=label_values, digest=artefact.digest)
    return records, read_table(artefact.path, turned, digest=artefact.digest)


def _without(material: Material, training: Table, evaluation: Table) -> Material:
    """The material without the column that tells sites apart."""
    if training.columns == material.training.columns:
        return material
    kept = [material.training.columns.index(name) for name in training.columns]
    space = measuring.fewer_columns(material.space, kept)
    return Material(material.model, material.settings, material.expected, training, evaluation, space)
