"""What the gate makes of measured quality and of cards."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from bartizan.core import predicates
from bartizan.core.digest import digest_bytes
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.gate import GateResult, evaluate
from bartizan.core.statement import make
from bartizan.core.system import Condition, Gate, Provenance, Rule, System
from bartizan.lifecycle.develop.data.quality import DataQuality
from fixtures.tables import Silent, part, system_of, write_csv

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RNG = np.random.default_rng(4)


def decide(system: System, artefact_id: str, *conditions: Condition) -> GateResult:
    """Run the check and let a gate with one rule judge its signed, standing result."""
    artefact, check = system.artefact(artefact_id), DataQuality()
    predicate = msgspec.structs.replace(
        check.run(system, artefact, Silent()).predicate,
        check=predicates.CheckRef(name=check.name, version=check.version),
        performed_at=NOW,
    )
    evidence = Evidence(
        seq=0,
        digest=digest_bytes(b"envelope"),
        statement=make(predicates.ASSESSMENT, artefact, predicate),
        signers=("service",),
        keyids=("0" * 64,),
        roles=("assurer",),
        received_at=NOW,
        standing=Standing.HOLDS,
    )
    rule = Rule(id="quality", about=artefact_id, type="assessment", check=check.name, where=conditions)
    return evaluate("release", Gate(rule=(rule,)), [artefact], [evidence], NOW)


def hospitals(tmp_path, evaluated_at: str, shared: int) -> System:
    """Training data of one hospital, and a holdout set of which ``shared`` records come from a site of it."""

    def origin(host: str) -> Provenance:
        return Provenance(host=host, contributors=f"staff of {host}", independent_sources=1, collected="2020")

    rows = RNG.normal(size=(120, 5))
    labels = np.arange(120) % 2
    sites = np.array([f"own-{place % 4}" for place in range(80)] + ["own-1"] * shared + ["other"] * (40 - shared))
    cells = [[*row, site] for row, site in zip(rows.tolist(), sites.tolist(), strict=True)]
    columns = ("a", "b", "c", "d", "e", "site")
    train = write_csv(tmp_path / "train.csv", cells[:80], labels[:80].tolist(), columns)
    held = write_csv(tmp_path / "holdout.csv", cells[80:], labels[80:].tolist(), columns)
    return system_of(
        (train, part(group="site", provenance=origin("North"))),
        (held, part("holdout", split="holdout", group="site", provenance=origin(evaluated_at))),
    )


@pytest.mark.control("A-MLSG-002-D002")
@pytest.mark.parametrize(
    ("evaluated_at", "shared", "passes"), [("South", 4, True), ("South", 30, False), ("north ", 0, False)]
)
def test_too_much_source_overlap_of_training_and_evaluation_data_fails(tmp_path, evaluated_at, shared, passes):
    system = hospitals(tmp_path, evaluated_at, shared)
    limit = Condition(field="metrics.source_overlap.high", at_most=0.5)
    result = decide(system, "dataset:holdout", limit)
    assert result.passed is passes
    assert passes or "source_overlap" in result.results[0].reason


def test_leakage_above_the_limit_is_refused(tmp_path):
    limit = Condition(field="metrics.leakage_share.high", at_most=0.01)
    assert decide(hospitals(tmp_path, "South", 0), "dataset:holdout", limit).passed
    assert not decide(hospitals(tmp_path, "South", 1), "dataset:holdout", limit).passed


def test_what_was_not_measured_meets_no_condition(tmp_path):
    system = hospitals(tmp_path, "South", 0)
    assert not decide(system, "dataset:train", Condition(field="metrics.source_overlap.high", at_most=0.5)).passed
