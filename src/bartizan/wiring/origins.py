"""Where models come from: provenance that stands, read into the system that checks look at."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import HEX, Digest
from bartizan.core.evidence import Evidence
from bartizan.core.system import Artefact, Origin, System
from bartizan.core.view import View
from bartizan.wiring.workspace import Workspace

MAX_INPUTS = 10_000


def with_origins(workspace: Workspace, view: View, system: System) -> System:
    """The same system, with the recorded origin of each model."""
    models = system.of_kind("model")
    evidence = workspace.evidence(view, [model.digest for model in models], {})
    found = {model.id: origin for model in models if (origin := _origin(model, evidence))}
    return msgspec.structs.replace(system, origins=found)


def _origin(model: Artefact, evidence: list[Evidence]) -> Origin | None:
    """The newest provenance of these very bytes that counts."""
    for item in reversed(evidence):
        said = item.statement
        made = item.holds and said is not None and said.predicate_type == predicates.PROVENANCE
        if made and said is not None and model.digest in said.about():
            inputs = dict.fromkeys(_inputs(said.predicate))
            return Origin(statement=item.digest, inputs=tuple(inputs)[:MAX_INPUTS])
    return None


def _inputs(predicate: dict[str, object]) -> Iterator[tuple[str, Digest]]:
    """Name and digest of every build dependency that has a SHA-256; others wrote the rest, in any shape."""
    build = predicate.get("buildDefinition")
    listed = build.get("resolvedDependencies") if isinstance(build, dict) else None
    for entry in listed if isinstance(listed, list) else ():
        digest = entry.get("digest") if isinstance(entry, dict) else None
        text = digest.get("sha256") if isinstance(digest, dict) else None
        if isinstance(text, str) and HEX.match(text):
            name = entry.get("name") or entry.get("uri")
            yield (name if isinstance(name, str) else "unnamed"), Digest(text)
