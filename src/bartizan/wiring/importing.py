"""Results of other tools as assessments: signed as claims, and settled only by a second person."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bartizan.catalogue.load import catalogue
from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.errors import InputError, TrustError
from bartizan.core.ports import Signer
from bartizan.core.statement import make
from bartizan.core.system import Artefact
from bartizan.redteam import registry
from bartizan.redteam.imports import External, read_results
from bartizan.wiring import results
from bartizan.wiring.serving import choose
from bartizan.wiring.workspace import Workspace

EXTERNAL = "external"
"""Family of what was not measured here."""
NOT_SAID = "not said"
"""Stands for the model of a result that names none by its digest."""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that was recorded."""

    envelope: Digest
    about: str
    signer: str
    """Id of the principal who signed it."""
    summary: str


def import_result(
    workspace: Workspace, data: bytes, *, about: str = "", techniques: Sequence[str] = (), key: str = ""
) -> list[Imported]:
    """Record what another tool says, as one assessment for each of its attacks.

    Raises:
        InputError: the file cannot be read, is about another model, or names an unknown technique.
        TrustError: the key may not sign assessments; nothing is recorded.
    """
    found = read_results(data)
    system = workspace.system()
    model = choose(system, about.removeprefix("model:"))
    for each in found:
        _check(each, model, techniques)
    signer = workspace.signer(key or workspace.settings.values["service"])
    who = _allowed(workspace, signer)
    return [_record(workspace, model, each, data, tuple(techniques), signer, who) for each in found]


def _check(each: External, model: Artefact, techniques: Sequence[str]) -> None:
    known = _known_techniques()
    for technique in (*each.techniques, *techniques):
        if technique not in known:
            raise InputError(
                f"the catalogue has no technique {technique!r}",
                remedy="name one of `bartizan catalogue`, or an ATLAS or NIST technique that it knows.",
            )
    if each.model_sha256 and each.model_sha256 != model.digest:
        raise InputError(
            f"this result is about a model {each.model_sha256[:12]}, and {model.id} is {model.digest[:12]}",
            remedy="attack the model as it is now, or name another one with --about.",
        )


def _known_techniques() -> frozenset[str]:
    """Ids of the catalogue's techniques, and those of other lists by which it, or an installed attack, knows them."""
    ids = {name for entry in catalogue().techniques.values() for name in (entry.id, *entry.atlas, *entry.nist)}
    ids.update(name for attack in registry.attacks() for name in (attack.technique, *attack.atlas))
    return frozenset(ids | {name.rpartition(".")[0] for name in ids if name.count(".") > 1})


def _allowed(workspace: Workspace, signer: Signer) -> str:
    with workspace.view() as view:
        reason = view.trust.why_not(signer.keyid, predicates.ASSESSMENT, workspace.now(view))
        who = view.trust.principal_of(signer.keyid)
    if reason or who is None:
        raise TrustError(
            f"this key may not sign assessments: {reason}", remedy="leave out --key, or see `bartizan trust show`."
        )
    return str(who.id)


def _record(  # noqa: PLR0917 - one private step of what is above
    workspace: Workspace,
    model: Artefact,
    each: External,
    data: bytes,
    techniques: tuple[str, ...],
    signer: Signer,
    who: str,
) -> Imported:
    name = f"{EXTERNAL}.{each.tool}.{each.attack}".replace(" ", "-")
    blob = Blob(_report(name, model, each, data), results.MEDIA_TYPE)
    predicate = assessment(name, model, each, techniques, digest_bytes(data))
    said = msgspec.structs.replace(
        predicate,
        report=predicates.Resource(digest={"sha256": blob.digest}, media_type=blob.media_type),
        performed_at=workspace.clock(),
    )
    envelope = workspace.publish(make(predicates.ASSESSMENT, model, said), signer, [blob])
    return Imported(envelope=envelope, about=model.id, signer=who, summary=predicate.summary)


def assessment(
    name: str, model: Artefact, each: External, techniques: tuple[str, ...], source: Digest
) -> predicates.Assessment:
    """The claim as a statement."""
    tool = f"{each.tool} {each.version}".strip()
    threat = predicates.Threat(position=each.position, access=each.access) if each.position else None
    return predicates.Assessment(
        method=each.attack,
        summary=f"Claimed by {tool}, not measured here: {each.summary or each.attack}.{_about(each)}",
        check=predicates.CheckRef(name=name, version=each.version or "unknown"),
        inputs=(predicates.Input.of(model.id, model.digest),),
        metrics=each.metrics,
        techniques=tuple(dict.fromkeys((*each.techniques, *techniques))),
        family=EXTERNAL,
        threat=threat,
        budget=each.budget,
        seed=each.seed,
        settings={
            "tool": tool,
            "claimed": each.claimed,
            "source": source,
            "attacked_model": each.model_sha256 or NOT_SAID,
        },
    )


def _about(each: External) -> str:
    """What to say of a claim that does not say which model it is about."""
    if each.model_sha256:
        return ""
    return " The result does not say by a digest which model was attacked; whoever signed it says that it was this one."


def _report(name: str, model: Artefact, each: External, data: bytes) -> bytes:
    """The claim in full; the file itself only by digest, since it may hold prompts or personal data."""
    report = {"result": msgspec.to_builtins(each), "source_sha256": digest_bytes(data), "bytes": len(data)}
    return canonical_json({"check": name, "subject": model.id, "report": report})
