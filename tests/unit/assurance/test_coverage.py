"""Evidence against catalogue: what is shown, what no longer counts, what is missing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bartizan.assurance.exhibits import CheckFacts
from bartizan.catalogue.load import catalogue
from bartizan.core import predicates, statement
from bartizan.core.errors import StatementError
from bartizan.core.evidence import Standing, gather
from bartizan.core.system import Gate, Rule
from fixtures.hospital import Hospital, hospital
from fixtures.world import World


@pytest.fixture(scope="module")
def report():
    return hospital().model()


def control(report, control_id):
    chapters = (*report.principles, *report.sources)
    return next(line for chapter in chapters for line in chapter.controls if line.id == control_id)


def passed(made, check, *, days=1.0, standing=Standing.HOLDS, result="PASSED", reason=""):
    predicate = predicates.TestResult(result=result, **made.result(check))
    return made.add(predicates.TEST_RESULT, "model:triage", predicate, days=days, standing=standing, reason=reason)


def bare(**checks):
    made = Hospital()
    made.checks = {name.replace("_", "."): CheckFacts(name, controls) for name, controls in checks.items()}
    return made


@pytest.mark.control("1.1-G1")
def test_all_fifteen_principles_are_listed_with_evidence_or_an_explicit_gap(report):
    assert [chapter.id for chapter in report.principles] == list(catalogue().principles)
    assert len(report.principles) == 15
    for chapter in report.principles:
        assert [line.id for line in chapter.controls] == list(catalogue().principle(chapter.id).controls)
        for line in chapter.controls:
            assert line.holds or line.gaps or line.scoped_out or line.here, line.id


def test_every_control_of_every_other_source_is_listed(report):
    listed = {line.id for chapter in report.sources for line in chapter.controls}
    assert listed == {control.id for control in catalogue().controls.values() if not control.principle}


def test_without_any_evidence_every_control_has_a_gap():
    report = Hospital().model()
    for chapter in (*report.principles, *report.sources):
        assert all(line.gaps or line.here for line in chapter.controls)
        assert not any(line.holds or line.ended for line in chapter.controls)


def test_a_result_is_shown_with_the_controls_of_its_check():
    made = bare(scan=("2.1-n",))
    digest = passed(made, "scan")
    line = control(made.model(), "2.1-n")
    assert [(link.digest, link.basis) for link in line.holds] == [(digest, "check")]
    assert line.gaps == ()


def test_a_check_that_never_ran_is_missing_and_its_command_named():
    line = control(bare(scan=("2.1-n",)).model(), "2.1-n")
    assert [(gap.what, gap.command) for gap in line.gaps] == [
        ("No result yet of check scan.", "bartizan assure --only scan")
    ]


def test_a_stale_result_is_shown_as_ended_with_its_reason_and_counts_for_nothing():
    made = bare(scan=("2.1-n",))
    digest = passed(made, "scan", standing=Standing.STALE, reason="model:triage has changed")
    report = made.model()
    line = control(report, "2.1-n")
    assert line.holds == ()
    assert [link.digest for link in line.ended] == [digest]
    assert report.line(digest).reason == "model:triage has changed"
    assert line.gaps[0].what == "No result that still counts of check scan."


def test_a_superseded_result_is_not_shown_beside_the_newer_one():
    made = bare(scan=("2.1-n",))
    passed(made, "scan", days=9, standing=Standing.SUPERSEDED)
    newer = passed(made, "scan")
    line = control(made.model(), "2.1-n")
    assert [link.digest for link in line.holds] == [newer]
    assert line.ended == ()


def test_a_failed_result_is_shown_and_said_to_speak_against():
    made = bare(scan=("2.1-n",))
    digest = passed(made, "scan", result="FAILED")
    report = made.model()
    assert [link.digest for link in control(report, "2.1-n").holds] == [digest]
    assert report.line(digest).against


def test_a_check_with_nothing_to_examine_asks_for_a_word_about_scope():
    made = Hospital()
    made.checks = {"gateway.filters": CheckFacts("Filters", ("4.2-a",), applies=False)}
    gap = control(made.model(), "4.2-a").gaps[0]
    assert "Nothing here for check gateway.filters to examine" in gap.what
    assert gap.command.startswith("bartizan decide scope ")


def test_a_control_that_nothing_supplies_says_so_and_how_to_record_it_by_hand():
    gap = control(Hospital().model(), "3.1-d").gaps[0]
    assert gap.what.startswith("No command supplies this yet")
    assert gap.command == (
        'bartizan decide review --about system:breast-mass-triage --role security --concerns 3.1-d --reason "..."'
    )


def test_a_human_control_names_the_kind_of_decision_that_it_asks_for():
    gap = control(Hospital().model(), "1.1-a").gaps[0]
    assert gap.what.startswith("A person must act")
    assert gap.command.startswith("bartizan decide briefing ")


def test_a_decision_counts_for_the_controls_that_it_names_and_for_no_other():
    made = Hospital()
    digest = made.decide("briefing", "Briefed.", role="ml", signer="k-ml", days=1, ends_in=9, concerns=("1.1-a",))
    report = made.model()
    assert [(link.digest, link.basis) for link in control(report, "1.1-a").holds] == [(digest, "decision")]
    assert control(report, "1.1-a").gaps == ()
    assert control(report, "1.1-h").holds == ()


def test_what_a_gate_rule_relied_on_is_shown_with_the_controls_of_the_rule():
    made = Hospital(gate=Gate(rule=(Rule(id="r", about="model", type="test-result", controls=("2.2-b",)),)))
    digest = passed(made, "elsewhere")
    assert [(link.digest, link.basis) for link in control(made.model(), "2.2-b").holds] == [(digest, "rule")]


def test_statements_of_just_the_kind_asked_for_are_shown_but_do_not_close_the_gap():
    made = Hospital()
    manifest = predicates.ModelSignature(
        resources=({"name": "triage.joblib", "algorithm": "sha256", "digest": "0" * 64},), serialization={}
    )
    digest = made.add(predicates.MODEL_SIGNATURE, "model:triage", manifest, days=1)
    line = control(made.model(), "2.3-y")
    assert [(link.digest, link.basis) for link in line.holds] == [(digest, "kind")]
    assert line.gaps[0].what.startswith("Statements of the kind asked for stand: read whether they show this")


def test_a_verdict_of_any_gate_is_not_taken_for_the_one_asked_for(report):
    for chapter in report.principles:
        for line in chapter.controls:
            assert not any(report.line(link.digest).type == "verdict" for link in line.holds), line.id


def test_evidence_of_a_check_that_is_no_longer_installed_is_in_the_register_only():
    made = bare()
    digest = passed(made, "gone.check")
    report = made.model()
    assert report.line(digest) is not None
    assert not any(line.holds for chapter in report.principles for line in chapter.controls)


@pytest.mark.control("ROKE-5")
def test_each_principle_lists_the_techniques_that_the_catalogue_ties_to_it(report):
    for chapter in report.principles:
        tied = [entry.id for entry in catalogue().techniques.values() if chapter.id in entry.ncsc]
        assert [technique.id for technique in chapter.techniques] == tied
        assert tied


def test_techniques_carry_their_state_on_the_map_and_the_assessments_that_tried_them(report):
    techniques = {entry.id: entry for chapter in report.principles for entry in chapter.techniques}
    assert techniques["T08"].state == "weakened"
    assert techniques["T58"].state == "residual"
    assert techniques["T24"].state == "out of reach"
    assert [report.line(digest).check for digest in techniques["T08"].tried] == ["redteam.evasion.hopskipjump"]
    assert techniques["T09"].tried == ()  # the transfer measurement is stale


def test_an_accepted_risk_is_named_with_its_technique(report):
    techniques = {entry.id: entry for chapter in report.principles for entry in chapter.techniques}
    assert report.line(techniques["T11"].accepted).says.startswith("Physical manipulation of slides")
    assert techniques["T58"].accepted == ""


def scoped(world, digest_of_decision=""):
    """Whether principle 4.1 is out of scope in the report about the world's evidence."""
    made = Hospital()
    made.now = world.now
    made.evidence = gather(world.view(), [world.model.digest], world.current, world.now, lambda _: True)
    chapter = next(entry for entry in made.model().principles if entry.id == "4.1")
    return all(line.scoped_out for line in chapter.controls)


@pytest.mark.control("INTRO-2")
def test_a_principle_leaves_the_scope_only_by_a_signed_reason_that_has_not_expired():
    world = World().begin()
    assert not scoped(world)
    world.decide(by="mallory", kind="scope", concerns=("4.1",))
    assert not scoped(world), "nobody trusts this signer"
    world.decide(kind="review", concerns=("4.1",))
    assert not scoped(world), "a review is no decision about scope"
    world.decide(kind="scope", concerns=("4.1",), days=30)
    assert scoped(world)
    world.now += timedelta(days=31)
    assert not scoped(world), "it has expired"


@pytest.mark.control("INTRO-2")
@pytest.mark.parametrize("missing", ["reason", "expires"])
def test_a_scope_decision_needs_a_reason_and_an_end(missing):
    fields = {"kind": "scope", "outcome": "yes", "reason": "no", "role": "ml", "expires": "2027-01-01T00:00:00Z"}
    fields["decidedAt"] = "2026-01-01T00:00:00Z"
    statement.make(predicates.DECISION, Hospital().system.artefacts[0], fields)
    del fields[missing]
    with pytest.raises(StatementError):
        statement.make(predicates.DECISION, Hospital().system.artefacts[0], fields)


def test_a_refused_scope_decision_changes_nothing():
    made = Hospital()
    made.decide("scope", "No.", role="security", signer="k", days=1, ends_in=9, concerns=("4.1",), outcome="no")
    assert not control(made.model(), "4.1-a").scoped_out


def test_building_twice_gives_the_same_report_whatever_order_things_come_in():
    made = hospital()
    made.gate = None
    first = made.model()
    made.evidence.reverse()
    made.reports = dict(reversed(made.reports.items()))
    made.checks = dict(reversed(made.checks.items()))
    assert made.model() == first
