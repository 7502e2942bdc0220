"""What the catalogue rests on: standards to watch, and releases of ATLAS; what is out of date, and stating it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from bartizan.catalogue.atlas import AtlasContent, Outdated
from bartizan.catalogue.entries import Standard
from bartizan.catalogue.load import CATALOGUE_ID, catalogue
from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest
from bartizan.core.durations import parse_duration
from bartizan.wiring import guided
from bartizan.wiring.workspace import Workspace

KIND = "standards"
RELEASE = "atlas-release"


def overdue(standards: Iterable[Standard], max_age: str, now: datetime) -> tuple[Standard, ...]:
    """Standards that were last checked longer ago than ``max_age``.

    Raises:
        InputError: ``max_age`` is no duration.
    """
    longest = parse_duration(max_age)
    return tuple(
        entry for entry in standards if datetime.fromisoformat(entry.checked).replace(tzinfo=UTC) + longest < now
    )


def state_standards(workspace: Workspace, standards: Sequence[Standard]) -> Digest:
    """Sign the list, as it is in the catalogue in use; gives the envelope."""
    blob = Blob(msgspec.json.format(msgspec.json.encode(standards, order="deterministic"), indent=1))
    said = guided.reference(
        KIND,
        {f"{KIND}:{catalogue().version}": blob.digest, **dict([guided.subject(workspace.system())])},
        {"standards.json": blob},
        summary=f"{len(standards)} standards are watched.",
        inputs=(predicates.Input.of(CATALOGUE_ID, catalogue().digest),),
        facts={entry.id: [entry.version, entry.status, entry.checked] for entry in standards},
    )
    return workspace.publish(said, workspace.service, [blob])


def state_release(workspace: Workspace, release: AtlasContent, found: Sequence[Outdated]) -> Digest:
    """Sign which ids of the catalogue in use a release of ATLAS knows otherwise; gives the envelope."""
    blob = Blob(msgspec.json.format(msgspec.json.encode(found, order="deterministic"), indent=1))
    known = catalogue()
    said = guided.reference(
        RELEASE,
        {f"{RELEASE}:{release.version}": blob.digest, **dict([guided.subject(workspace.system())])},
        {"outdated.json": blob},
        summary=f"Of the ids in the catalogue ATLAS {release.version} knows {len(found)} otherwise.",
        inputs=(predicates.Input.of(CATALOGUE_ID, known.digest),),
        facts={
            "catalogue": known.version,
            "atlas": known.entries.atlas.content,
            "release": release.version,
            "outdated": [entry.id for entry in found],
        },
    )
    return workspace.publish(said, workspace.service, [blob])
