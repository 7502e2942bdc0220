"""What was measured on an earlier version of a model, beside what is measured on the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bartizan.assurance.measured import assessments
from bartizan.assurance.model import ChangeLine, Versions
from bartizan.assurance.text import moment
from bartizan.core import envelope, predicates
from bartizan.core.digest import Digest, short
from bartizan.core.errors import BartizanError, EvidenceError, InputError
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.statement import Statement, decode
from bartizan.core.system import Artefact, System
from bartizan.redteam.versions import Change, Measured, compare, summary
from bartizan.wiring import registry, results
from bartizan.wiring.assure import Situation
from bartizan.wiring.workspace import Workspace

PREVIOUS = "previous"
MOST_STATEMENTS = 5_000
"""Newest assessments among which earlier versions are looked for."""
LEAST_PREFIX = 6
USABLE = frozenset({Standing.HOLDS, Standing.STALE})
"""Old measurements are stale: the model has changed since, which is why they are asked for."""
_OWN_SETTINGS = frozenset({"samples", "stopped_after", "samples_planned", "stopping"})
"""Settings that may differ: fewer samples widen an interval and bias nothing."""


def against(workspace: Workspace, now: Situation, version: str) -> tuple[Versions, ...]:
    """Each declared model compared with its earlier ``version``: ``previous``, or the digest of one.

    Raises:
        InputError: no declared model has such a version with measurements.
    """
    system = now.system
    found = [
        _versions(workspace, now, model, old)
        for model in system.of_kind("model")
        if (old := _earlier(workspace, model, version))
    ]
    if not found:
        models = system.of_kind("model")
        known = [f"{short(digest)} ({model.id})" for model in models for digest in earlier(workspace, model)]
        raise InputError(
            f"no version {version!r} of a declared model was measured",
            remedy=f"measured versions: {', '.join(known[:10])}."
            if known
            else "attack a version, replace the model, attack it again; then there are two to compare.",
        )
    return tuple(found)


def earlier(workspace: Workspace, model: Artefact) -> list[Digest]:
    """Digests of other versions of a model that something was measured on, newest first."""
    with workspace.records.snapshot() as snapshot:
        seqs = snapshot.search(predicate_type=predicates.ASSESSMENT, limit=MOST_STATEMENTS)
        entries = sorted(snapshot.entries(seqs), key=lambda entry: -entry.seq)
    found: dict[Digest, None] = {}
    for entry in entries:
        said = _statement(entry.body)
        for subject in said.subject if said else ():
            digest = subject.digest.get("sha256", "")
            if subject.name == model.id and digest != model.digest:
                found[Digest(digest)] = None
    return list(found)


def _statement(body: bytes) -> Statement | None:
    try:
        return decode(envelope.parse(body).payload)
    except EvidenceError:
        return None


def _earlier(workspace: Workspace, model: Artefact, version: str) -> Digest | None:
    known = earlier(workspace, model)
    if version == PREVIOUS:
        return known[0] if known else None
    found = [digest for digest in known if digest.startswith(version.lower())]
    return found[0] if len(found) == 1 and len(version) >= LEAST_PREFIX else None


def _versions(workspace: Workspace, now: Situation, model: Artefact, old: Digest) -> Versions:
    with workspace.view() as view:
        before = workspace.evidence(view, [old], now.current)
    present = [item for item in now.evidence if item.holds and model.digest in _about(item)]
    past = _newest([item for item in before if item.standing in USABLE and old in _about(item)])
    changes = compare(_measured(workspace, now.system, model, past), _measured(workspace, now.system, model, present))
    return Versions(
        about=model.id,
        old=old,
        new=model.digest,
        old_measured=moment(max((item.received_at for item in past), default=now.now)),
        summary=summary(changes),
        changes=tuple(_line(change) for change in changes),
        again=f"bartizan attack compare {short(old)}",
    )


def _about(item: Evidence) -> tuple[Digest, ...]:
    return item.statement.about() if item.statement else ()


def _newest(items: Sequence[Evidence]) -> list[Evidence]:
    """The newest word of each check."""
    return list({item.check: item for item in sorted(items, key=lambda item: item.seq)}.values())


def _measured(workspace: Workspace, system: System, model: Artefact, items: Sequence[Evidence]) -> list[Measured]:
    titles = {check.name: check.title for check in registry.checks()}
    data = f"dataset:{system.model_part(model.name).evaluated_on}"
    found = []
    for item, said in assessments(items):
        if not item.check:
            continue
        records = item.statement.inputs().get(data, "") if item.statement else ""
        found.append(
            Measured(
                check=item.check,
                title=titles.get(item.check, said.method),
                digest=item.digest,
                metrics=said.metrics,
                robust=_robust(_report(workspace, item)),
                conditions=_conditions(said, records),
                records=records,
            )
        )
    return found


def _conditions(said: predicates.Assessment, records: str) -> dict[str, str]:
    """What must be equal for two measurements to be comparable, as text."""
    allowed = {name: value for name, value in said.budget.items() if name.endswith("_allowed_per_sample")}
    settings = {name: value for name, value in said.settings.items() if name not in _OWN_SETTINGS}
    return {
        "attack": said.method,
        "access": ", ".join(said.threat.access) if said.threat else "",
        "evaluation data": short(records),
        **{name.replace("_", " "): _plain(value) for name, value in {**settings, **allowed}.items()},
    }


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:80]


def _report(workspace: Workspace, item: Evidence) -> dict[str, Any]:
    if item.report is None:
        return {}
    try:
        found = msgspec.json.decode(results.read_report(workspace.blobs.get(item.report)).flat())
    except (BartizanError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _robust(report: dict[str, Any]) -> dict[int, bool]:
    """Record to whether it withstood, as far as the report says so."""
    samples = report.get("samples")
    entries = [entry for entry in samples if isinstance(entry, dict)] if isinstance(samples, list) else []
    return {
        entry["record"]: entry["robust"]
        for entry in entries
        if type(entry.get("record")) is int and type(entry.get("robust")) is bool
    }


def _line(change: Change) -> ChangeLine:
    return ChangeLine(
        check=change.check,
        title=change.title,
        metric=change.metric,
        old=change.old,
        new=change.new,
        difference=change.difference,
        low=change.low,
        high=change.high,
        p_value=change.p_value,
        corrected=change.corrected,
        verdict=change.verdict,
        better=change.better,
        method=change.method,
        paired=change.n,
        caveat=change.caveat,
        old_digest=change.old_digest,
        new_digest=change.new_digest,
    )
