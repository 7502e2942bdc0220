"""The defence of a gateway, measured: its configuration taken apart, attacked, and stated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import ArtefactError, InputError
from bartizan.core.statement import make
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway import registry
from bartizan.lifecycle.deploy.gateway.configuration import DOCUMENT, Configuration, GuardUse
from bartizan.lifecycle.deploy.gateway.configuration import read as read_configuration
from bartizan.lifecycle.deploy.gateway.evaluation import attacked
from bartizan.lifecycle.deploy.gateway.evaluation.defence import Table, Variant, measure
from bartizan.lifecycle.deploy.gateway.evaluation.guarded import MANNERS
from bartizan.lifecycle.deploy.gateway.guard import Material
from bartizan.lifecycle.deploy.gateway.pipeline import Pipeline, Placed
from bartizan.lifecycle.deploy.gateway.roles import Role
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.simba import SimBA
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.evasion.transfer import Transfer
from bartizan.redteam.check import material_of
from bartizan.redteam.family import Material as Declared
from bartizan.redteam.statistics import proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.detail import Detail
from bartizan.targets.protocol import Target, Targets
from bartizan.wiring.assure import situation
from bartizan.wiring.gateway_parts import Parts, document_of, reports
from bartizan.wiring.results import StoredReport
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import Workspace

CHECK, VERSION = "gateway.defence", "1"
ASKING = tuple(manner for manner in MANNERS if not manner.noise)
"""Manners that are of use against budgets: they look at who asks and when, and not at what."""
WHOLE = "everything"
MEDIA_TYPE = "application/vnd.bartizan.report.v1+json"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    model: str = ""
    role: str = ""
    """Attackers ask in it; empty: the one that is told least."""
    samples: int = 20
    queries: int = 300
    """For each row."""
    honest: int = 400
    """Rows of honest callers."""
    seed: int = 20261121
    parts: bool = True
    """Each guard, the role's detail and its budgets alone as well: where the worth of the whole comes from."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    model: str
    role: str
    queries: int
    """For each row: what is wanted, and no more than the declaration lets an attacker spend."""
    table: Any
    statement: Digest
    """Envelope of the assessment."""


def defend(workspace: Workspace, wanted: Wanted, progress: Callable[[int, int, str], None]) -> Measured:
    """Attack the declared model without the gateway, with each guard alone and with everything, and state it.

    Raises:
        InputError: nothing is configured, or no such model or role.
        ArtefactError: a guard was not fitted, or the model cannot be opened.
    """
    system = workspace.system()
    now = situation(workspace, system)
    model = _model(now.system, wanted.model)
    data = document_of(now.system, DOCUMENT, "configuration")
    if data is None:
        raise InputError("no configuration of a gateway is declared", remedy="run `bartizan gateway init`.")
    configuration = read_configuration(data, now.system)
    role = _role(configuration, wanted.role)
    declared = material_of(now.system, model)
    wanted = msgspec.structs.replace(wanted, queries=min(wanted.queries, declared.settings.query_budget))
    parts = Parts(workspace, {part.name: part.classes for part in now.system.declaration.model})
    material = parts.material(now.system, model, declared, reports(workspace, now.evidence, model))
    settings = workspace.settings
    clean = frozenset({model.digest}) if _scanned(now.evidence, model) else frozenset()
    services = CheckServices(settings.path("journals"), clean, settings.values["confinement"])
    with services(Targets).open(now.system, model) as target:
        table = _attacked(target, configuration, role, material, declared, wanted, progress)
    statement = _state(workspace, now.system, model, role=role, table=table, wanted=wanted)
    return Measured(model=model.id, role=role.name, queries=wanted.queries, table=table, statement=statement)


def _scanned(evidence: Any, model: Artefact) -> bool:
    return any(
        item.check == "scan" and item.holds and item.statement and model.digest in item.statement.about()
        for item in evidence
    )


def _model(system: System, name: str) -> Artefact:
    models = {artefact.name: artefact for artefact in system.of_kind("model")}
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        raise InputError(f"no model is called {name!r}", remedy=f"declared are: {', '.join(models)}.")
    return models[name]


def _role(configuration: Configuration, name: str) -> Role:
    asking = [role for role in configuration.roles.values() if role.may("infer")]
    if name:
        asking = [role for role in asking if role.name == name]
    if not asking:
        raise InputError("no role may ask a model", remedy="configure one, or name one of those that may.")
    return min(asking, key=lambda role: role.shown.bits(10))


def _attacked(  # noqa: PLR0917 - everything that a measurement rests on
    target: Target,
    configuration: Configuration,
    role: Role,
    material: Material,
    declared: Declared,
    wanted: Wanted,
    progress: Callable[[int, int, str], None],
) -> Table:
    rng = np.random.default_rng(wanted.seed)
    order = rng.permutation(len(declared.evaluation))
    labels = target.labels(declared.evaluation.rows[order])
    right = order[labels == declared.evaluation.labels[order]]
    if len(right) < 2 * wanted.samples:
        raise ArtefactError("too few evaluation records are answered rightly", remedy="evaluate on more records.")
    task = attacked.task_of(declared, right[: wanted.samples], right[wanted.samples :], budget=wanted.queries)
    some = order[-wanted.honest :]
    honest = declared.evaluation.rows[some], declared.evaluation.labels[some]
    return measure(
        target,
        variants(configuration, role, material, parts=wanted.parts),
        [attack for attack in _every(task, rng) if attacked.searches(attack, task)],
        task,
        honest,
        seed=wanted.seed,
        progress=progress,
    )


def _every(task: EvasionTask, rng: np.random.Generator) -> tuple[Attack, ...]:
    """Searches, and one that needs none: what fools the attacker's own networks is tried on the model."""
    searches = (HopSkipJump(), Square(), SimBA())
    if len(np.unique(task.start_labels)) == 1:
        return searches  # nothing to learn from
    return (*searches, Transfer().rehearsed(task, rng))


def variants(configuration: Configuration, role: Role, material: Material, *, parts: bool = True) -> list[Variant]:
    """Nothing; each guard alone, the role's detail alone, the role's budgets alone (``parts``); everything."""
    full, uses = Detail("scores"), configuration.guards(material.model)
    budgets = {name: each for name, each in configuration.budget.items() if name in role.budgets or each.always}

    def made(*chosen: GuardUse) -> Callable[[], Pipeline]:
        return lambda: Pipeline([Placed(registry.make(use, material)) for use in chosen])

    alone = [Variant(f"guard {use.use}", made(use), full, manners=MANNERS) for use in uses]
    alone.append(Variant(f"detail {role.shown.name}", made(), role.shown))
    if budgets:
        alone.append(Variant(f"budgets {', '.join(budgets)}", made(), full, tuple(budgets.values()), ASKING))
    whole = Variant(WHOLE, made(*uses), role.shown, tuple(budgets.values()), MANNERS)
    return [Variant("no gateway", made(), full), *(alone if parts else ()), whole]


def _state(
    workspace: Workspace, system: System, model: Artefact, *, role: Role, table: Table, wanted: Wanted
) -> Digest:
    document = system.artefact(f"document:{DOCUMENT}")
    inputs = {model.id: model.digest, document.id: document.digest}
    part = system.model_part(model.name)
    inputs |= {
        f"dataset:{name}": system.artefact(f"dataset:{name}").digest for name in (part.trained_on, part.evaluated_on)
    }
    report = StoredReport(check=CHECK, subject=document.id, report=msgspec.Raw(canonical_json(plain(table))))
    blob = Blob(msgspec.json.encode(report), MEDIA_TYPE)
    said = predicates.Assessment(
        check=predicates.CheckRef(name=CHECK, version=VERSION),
        inputs=tuple(predicates.Input.of(name, digest) for name, digest in sorted(inputs.items())),
        report=predicates.Resource(digest={"sha256": blob.digest}, media_type=blob.media_type),
        performed_at=workspace.clock(),
        method="defence delta",
        summary=summary(table),
        metrics=metrics(table),
        techniques=("T07", "T08", "T09"),
        family="evasion",
        threat=predicates.Threat(position="user", access=("labels",), knowledge="knows the guards, not their memory"),
        budget={"queries_allowed_per_sample": float(wanted.queries), "samples": float(wanted.samples)},
        seed=wanted.seed,
        settings={"role": role.name, "parts": "each" if wanted.parts else "none"},
    )
    about = {document.id: document.digest, model.id: model.digest}
    return workspace.publish(make(predicates.ASSESSMENT, about, said), workspace.service, [blob])


def metrics(table: Table) -> dict[str, predicates.Metric]:
    """Share of rows that stood, by variant, attack and manner; and what honest callers pay."""
    found = {
        _key("robust", cell.variant, cell.attack.rpartition(".")[2], cell.manner): cell.robust.metric()
        for cell in table.cells
    }
    worst = min((cell for cell in table.cells if cell.variant == WHOLE), key=lambda cell: cell.robust.value)
    found["robust_worst"] = worst.robust.metric()
    for price in table.prices:
        found[_key("honest_stopped", price.variant)] = _share(price.stopped, price.of)
        found[_key("honest_right", price.variant)] = _share(price.right, price.of)
    return found


def _share(count: int, of: int) -> predicates.Metric:
    return proportion(count, of).metric()


def _key(*parts: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else "_" for letter in part) for part in parts)


def summary(table: Table) -> str:
    """One sentence for a risk owner."""
    bare = min((cell for cell in table.cells if cell.variant == "no gateway"), key=lambda cell: cell.robust.value)
    worst = min((cell for cell in table.cells if cell.variant == WHOLE), key=lambda cell: cell.robust.value)
    price = next(each for each in table.prices if each.variant == WHOLE)
    return (
        f"Without the gateway {bare.of - bare.lost} of {bare.of} rows stand the best attack ({bare.attack}); with it "
        f"{worst.of - worst.lost} of {worst.of} stand the best one that knows it ({worst.attack}, {worst.manner}), and "
        f"{price.stopped} of {price.of} honest questions are not answered."
    )


def plain(table: Table) -> dict[str, Any]:
    """For a report."""
    return {
        "attacks": [
            {
                "variant": cell.variant,
                "attack": cell.attack,
                "manner": cell.manner,
                "stood": cell.of - cell.lost,
                "of": cell.of,
                "low": round(cell.robust.interval.low, 4),
                "high": round(cell.robust.interval.high, 4),
                "median_queries": cell.queries if np.isfinite(cell.queries) else None,
                "answered": round(cell.answered, 4) if np.isfinite(cell.answered) else None,
            }
            for cell in table.cells
        ],
        "honest": [
            {
                "variant": price.variant,
                "stopped": price.stopped,
                "coarsened": price.coarsened,
                "right": price.right,
                "of": price.of,
            }
            for price in table.prices
        ],
    }


__all__ = ["CHECK", "Measured", "Wanted", "defend", "metrics", "plain", "summary", "variants"]
