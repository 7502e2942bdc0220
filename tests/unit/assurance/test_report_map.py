"""What the report draws of the attack map."""

from __future__ import annotations

import pytest

from bartizan.catalogue.attackmap import read_attack_map
from bartizan.catalogue.standing import with_evidence
from bartizan.core.predicates import Metric
from fixtures.hospital import hospital

CERTAIN = Metric(value=0.9, low=0.8, high=0.95, n=50)


@pytest.fixture(scope="module")
def document():
    return hospital().map


def drawn(document):
    made = hospital()
    made.map = document
    return made.model().attack_map


def test_points_carry_what_passes_them_before_and_after(document):
    for point, said in zip(drawn(document).points, document.points, strict=True):
        assert (point.id, point.before, point.after, point.opens) == (
            said.id,
            len(said.before),
            len(said.after),
            len(said.opens_alone),
        )
        assert {mark.technique for mark in point.marks if mark.passes} == set(said.after)


def test_a_control_without_live_evidence_cuts_nothing(document):
    bare = drawn(with_evidence(document, ()))
    assert all(point.before == point.after and not point.controls for point in bare.points)
    assert [control.id for control in bare.controls if control.live] == []
    assert {control.id for control in bare.controls if control.claimed} == set(
        hospital().system.declaration.mitigations
    )


def test_a_control_is_drawn_only_where_something_no_longer_passes(document):
    for point in drawn(document).points:
        assert bool(point.controls) <= (point.after < point.before)
    assert "M28" in next(point for point in drawn(document).points if point.id == "model-store").controls


def test_techniques_within_reach_are_listed_worst_first(document):
    listed = drawn(document).techniques
    order = ["residual", "detected", "weakened", "prevented"]
    assert [order.index(entry.state) for entry in listed] == sorted(order.index(entry.state) for entry in listed)
    assert {entry.id for entry in listed} == {entry.id for entry in document.techniques if entry.reachable}


def test_a_technique_that_works_although_it_should_be_prevented_is_marked(document):
    claimed = with_evidence(document, ("M05",), {"T14": CERTAIN, "T08": CERTAIN}, deployed=("T14", "T08"))
    marked = {entry.id: entry.contradicted for entry in drawn(claimed).techniques}
    assert marked["T14"]
    assert not marked["T08"]


def test_measured_success_and_acceptance_travel_along(document):
    listed = {entry.id: entry for entry in drawn(document).techniques}
    assert listed["T08"].measured.value == 0.41
    assert listed["T11"].accepted_until == "2026-12-31"
    assert listed["T58"].measured is None


def test_assets_and_what_leaves_the_site_are_said(document):
    shown = drawn(document)
    assert {asset.id for asset in shown.assets} == {artefact.id for artefact in hospital().system.artefacts}
    (sentence,) = shown.leaving
    assert sentence.startswith("confirmed diagnoses, pseudonymised leaves the site from Pathologist to Registry")
    assert sentence.endswith("Instead: Process near the data so that inputs do not leave (M33).")


def test_the_stored_document_can_be_drawn(document):
    assert drawn(read_attack_map(document.encode())) == drawn(document)
