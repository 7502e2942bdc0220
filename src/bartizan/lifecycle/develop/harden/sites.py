"""Sites: whether an attack that was prepared at one site works at the others, with one shared model or one for each.

A shared model breaks everywhere at once. Models trained on each site's own records differ, and so do
the rows that fool them; the price is fewer records for each. Both are measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bartizan.core.errors import ArtefactError
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Candidate
from bartizan.lifecycle.develop.choose.trial import Tell, stream
from bartizan.lifecycle.develop.harden.transfer import asked_of, broken, evasion_task
from bartizan.redteam.family import Material
from bartizan.redteam.statistics import difference, proportion
from bartizan.targets.protocol import Target
from bartizan.targets.table import Table

LEAST_RECORDS = 20
"""Of a site, to learn from and to measure on."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One site."""

    name: str
    records: int
    shared_accuracy: Metric
    """Of the shared model on this site's evaluation records."""
    own_accuracy: Metric
    """Of the site's own model on the same records."""


class Sites(msgspec.Struct, frozen=True, kw_only=True):
    """Transfer between sites."""

    sites: tuple[Site, ...]
    shared_transfer: Metric
    """Share of rows made at one site that work at another one, when all use one model."""
    own_transfer: Metric
    """The same when each has its own."""
    reduction: Metric
    """Difference of the two."""
    table: dict[str, dict[str, float | None]]
    """From site to site, with own models."""
    left_out: tuple[str, ...]
    """Sites with too few records."""


def compare_sites(
    candidate: Candidate,
    material: Material,
    parts: Mapping[str, tuple[Table, Table]],
    *,
    settings: dict[str, Any],
    tell: Tell,
) -> Sites:
    """Transfer between sites for one family.

    Args:
        parts: name of a site to its training and its evaluation records.

    Raises:
        ArtefactError: fewer than two sites have enough records.
    """
    enough = {name: part for name, part in parts.items() if min(map(len, part)) >= LEAST_RECORDS}
    if len(enough) < 2:  # noqa: PLR2004 - from one to another
        raise ArtefactError(
            f"{len(enough)} of {len(parts)} sites have {LEAST_RECORDS} records to learn from and to measure on",
            remedy="name a column with larger sites.",
        )

    def fit(table: Table) -> Target:
        seed = material.settings.seed % 2**32
        count = len(material.model.classes)
        return candidate.fit(table.rows, table.labels, classes=count, seed=seed, settings=settings)

    shared = fit(_together([training for training, _ in enough.values()]))
    own = {name: fit(training) for name, (training, _) in enough.items()}
    counts = _transfers(material, enough, own, tell)
    same = _transfers(material, enough, dict.fromkeys(enough, shared), tell)
    pooled, pooled_same = _sum(counts), _sum(same)
    return Sites(
        sites=tuple(
            Site(
                name=name,
                records=len(training),
                shared_accuracy=_accuracy(shared, evaluation),
                own_accuracy=_accuracy(own[name], evaluation),
            )
            for name, (training, evaluation) in enough.items()
        ),
        shared_transfer=proportion(*pooled_same).metric("share"),
        own_transfer=proportion(*pooled).metric("share"),
        reduction=difference(pooled_same, pooled).metric("share"),
        table={
            here: {
                there: (counts[here, there][0] / counts[here, there][1] if counts[here, there][1] else None)
                for there in enough
                if there != here
            }
            for here in enough
        },
        left_out=tuple(sorted(set(parts) - set(enough))),
    )


def _transfers(
    material: Material, parts: Mapping[str, tuple[Table, Table]], models: Mapping[str, Target], tell: Tell
) -> dict[tuple[str, str], tuple[int, int]]:
    """From site and to site, to how many rows made at the first fool the second, of how many."""
    counts = {}
    for step, (here, (_, evaluation)) in enumerate(parts.items()):
        tell(step, len(parts), f"attacking the model of {here}")
        task = evasion_task(material, stream(material.settings.seed, "sites", here), evaluation)
        rows, found = broken(models[here], task, material.settings.seed)
        for there in parts:
            if there != here:
                counts[here, there] = asked_of(models[there], rows, task, found)
    return counts


def _sum(counts: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[int, int]:
    return sum(fooled for fooled, _ in counts.values()), sum(count for _, count in counts.values())


def _accuracy(model: Target, table: Table) -> Metric:
    return proportion(int((model.labels(table.rows) == table.labels).sum()), len(table)).metric("share")


def _together(tables: list[Table]) -> Table:
    first = tables[0]
    rows, labels = np.concatenate([each.rows for each in tables]), np.concatenate([each.labels for each in tables])
    return Table(first.columns, rows, labels, first.label_values)


def parts_by_site(training: tuple[Table, Table], evaluation: tuple[Table, Table]) -> dict[str, tuple[Table, Table]]:
    """Site to its training and evaluation records, from tables of records and tables whose labels are the sites."""
    names = list(dict.fromkeys(itertools.chain(training[1].label_values, evaluation[1].label_values)))

    def of(pair: tuple[Table, Table], name: str) -> Table:
        records, sites = pair
        place = sites.label_values.index(name) if name in sites.label_values else -1
        return records.take(np.flatnonzero(sites.labels == place))

    return {name: (of(training, name), of(evaluation, name)) for name in names}
