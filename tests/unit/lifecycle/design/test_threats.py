"""The threat model of a declared system."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bartizan.catalogue.atlas import adopt, outdated, read_atlas
from bartizan.catalogue.load import catalogue
from bartizan.core import predicates, statement
from bartizan.core.check import Check
from bartizan.core.digest import digest_bytes
from bartizan.core.evidence import Standing, gather
from bartizan.core.finding import Severity
from bartizan.core.predicates import REFERENCE
from bartizan.lifecycle.design.attackmap import attack_map
from bartizan.lifecycle.design.flaws import FLAWS
from bartizan.lifecycle.design.threatmodel import THREATENS, ThreatModel, downstream
from bartizan.lifecycle.design.threats import _USUAL_ADVERSARIES, ThreatModelCheck
from bartizan.lifecycle.plan import current_digests, documents, plan
from bartizan.wiring.results import statement_of, store_form
from fixtures.atlas_releases import newer_release
from fixtures.systems import Quiet, declared, make_system

EXPOSURE = {"interface": "partners", "output": "label", "profile": "public-api-classifier"}


def run(system, check=None):
    check = check or ThreatModelCheck()
    (subject,) = check.subjects(system)
    return check.run(system, subject, Quiet())


def model_of(system) -> ThreatModel:
    return msgspec.json.decode(run(system).report.data, type=ThreatModel)


def found(rule, system):
    return [finding for finding in run(system).findings if finding.rule == rule]


@pytest.mark.control("1.2-a")
def test_the_model_covers_the_whole_system_by_cia_and_equal_input_gives_equal_bytes():
    system = make_system()
    model = model_of(system)
    assert {part.name for part in model.components} == {part.name for part in system.declaration.component}
    assert set(model.at_stake) == {"confidentiality", "integrity", "availability"}
    assert all(model.at_stake.values())
    program = (
        "import sys; from fixtures.systems import Quiet, make_system;"
        "from bartizan.lifecycle.design.threats import ThreatModelCheck;"
        "system = make_system(); check = ThreatModelCheck();"
        "outcome = check.run(system, check.subjects(system)[0], Quiet());"
        "sys.stdout.buffer.write(outcome.report.data)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONHASHSEED": "4242"}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
    assert done.stdout == run(system).report.data
    assert done.stdout == model.encode()


def test_the_model_lists_assets_boundaries_adversaries_and_techniques():
    system = make_system()
    model, document = model_of(system), attack_map(system)
    assert [asset.id for asset in model.assets] == [asset.id for asset in document.assets]
    train = next(asset for asset in model.assets if asset.id == "dataset:train")
    assert (train.sensitivity, train.personal_data, train.access_points) == ("confidential", True, ("dataset-store",))
    tumour = next(asset for asset in model.assets if asset.id == "model:tumour")
    assert (tumour.sensitivity, tumour.personal_data) == ("confidential", True)
    assert [(crossing.source, crossing.target) for crossing in model.crossings] == [
        ("records", "classifier"),
        ("classifier", "worklist"),
    ]
    assert {adversary.id for adversary in model.adversaries if adversary.considered} == set(
        system.declaration.exposure.consider
    )
    assert [technique.id for technique in model.techniques] == [t.id for t in document.techniques if t.reachable]
    for technique in model.techniques:
        entry = document.technique(technique.id)
        assert (technique.preventing, technique.weakening, technique.detecting) == (
            entry.preventing,
            entry.weakening,
            entry.detecting,
        )


def test_every_goal_of_a_technique_says_what_it_threatens():
    assert {technique.goal for technique in catalogue().entries.techniques} == set(THREATENS)


def test_a_sound_declaration_leaves_no_gaps():
    claims = [answer for flaw in FLAWS for answer in flaw.answers]
    rules = {finding.rule for finding in run(make_system(mitigations=claims)).findings}
    assert rules == {"design/reverse-engineering"}


@pytest.mark.control("1.2-G2")
def test_every_component_downstream_of_a_model_needs_an_impact_on_c_i_and_a():
    assert found("design/impact-missing", make_system()) == []
    model = model_of(make_system())
    assert {part.name: part.downstream_of for part in model.components} == {
        "records": (),
        "classifier": (),
        "worklist": ("classifier",),
        "pathologist": ("classifier",),
    }
    for part in model.components:
        if part.downstream_of:
            assert part.impact.confidentiality
            assert part.impact.integrity
            assert part.impact.availability

    components = declared("component")
    del components[2]["impact"]
    components[3]["impact"]["integrity"] = "  "
    first, second = found("design/impact-missing", make_system(component=components))
    assert "pathologist" in first.title
    assert "integrity" in first.title
    assert "confidentiality" not in first.title
    assert "worklist" in second.title
    assert "confidentiality, integrity, availability" in second.title
    assert {first.severity, second.severity} == {Severity.MEDIUM}


def test_downstream_follows_flows_around_a_circle():
    flows = [*declared("flow"), {"source": "pathologist", "target": "classifier", "carries": "corrections"}]
    reached = downstream(make_system(flow=flows).declaration)
    assert reached == {
        "records": (),
        "classifier": ("classifier",),
        "worklist": ("classifier",),
        "pathologist": ("classifier",),
    }


def test_a_model_that_no_component_holds_is_a_finding():
    components = declared("component")
    components[1]["asset"] = ""
    (finding,) = found("design/model-without-component", make_system(component=components))
    assert "tumour" in finding.title
    assert found("design/model-without-component", make_system()) == []


@pytest.mark.control("1.2-G4")
@pytest.mark.control("GL-1.4")
@pytest.mark.parametrize("field", ["users", "organisation", "society"])
def test_impact_covers_users_organisation_and_society(field):
    model = model_of(make_system())
    assert getattr(model.impact, field) == getattr(make_system().declaration.impact, field)
    assert found("design/societal-impact-missing", make_system()) == []
    (finding,) = found("design/societal-impact-missing", make_system(impact={field: " "}))
    assert field in finding.title


@pytest.mark.control("INTRO-5")
def test_reinforcement_learning_is_warned_about_and_asks_for_its_own_decision():
    assert found("design/reinforcement-learning", make_system()) == []
    system = make_system(exposure={"reinforcement_learning": True})
    (finding,) = found("design/reinforcement-learning", system)
    assert "outside the principles" in finding.title
    assert "sign a decision of kind 'scope' that concerns INTRO-5" in finding.remedy
    assert "reinforcement-learning" in run(system).predicate.facts["assumptions"]


def test_leaving_out_an_adversary_is_a_finding_and_the_insider_is_a_choice():
    (some,) = found("design/adversary-left-out", make_system(exposure={"consider": ["outsider", "user", "insider"]}))
    assert "contributor, supplier, neighbour, finder" in some.title
    nobody = make_system(exposure={"consider": []})
    assert model_of(nobody).techniques == ()
    assert found("design/adversary-left-out", nobody)
    assert found("design/adversary-left-out", make_system()) == []


def test_the_usual_adversaries_are_those_that_a_declaration_considers_by_default():
    assert make_system().declaration.exposure.consider == _USUAL_ADVERSARIES


def test_an_unprotected_crossing_is_a_finding_but_an_inner_flow_is_not():
    flows = declared("flow")
    flows[1]["protected_by"] = []
    (finding,) = found("design/unprotected-crossing", make_system(flow=flows))
    assert "predicted diagnoses" in finding.title
    assert "classifier -> worklist" in finding.where


def test_data_that_leaves_the_site_is_noted_with_the_local_alternative():
    flows = declared("flow")
    flows[2]["leaves_site"] = True
    system = make_system(flow=flows)
    (finding,) = found("design/data-leaves-site", system)
    assert "M33" in finding.title
    assert finding.severity is Severity.NOTE
    crossing = model_of(system).crossings[-1]
    assert (crossing.from_zone, crossing.to_zone, crossing.alternative) == ("clinic", "clinic", "M33")


def test_rights_that_contradict_the_rest_of_the_declaration_are_found():
    system = make_system(exposure={**EXPOSURE, "positions": {"user": ["serving-output.scores"]}})
    (finding,) = found("design/contradiction", system)
    assert "serving-output.scores" in finding.title
    assert "the output is label" in finding.title


def flaw_found(rule, **changes):
    findings = found(rule, make_system(**changes))
    return findings[0] if findings else None


@pytest.mark.control("ROKE-7")
def test_the_three_common_flaws_are_seen_in_a_declaration():
    closed = {"exposure": {**EXPOSURE, "interface": "internal", "profile": "internal-batch-scoring"}}
    rules = {finding.rule for finding in run(make_system(**closed)).findings}
    assert not rules & {flaw.rule for flaw in FLAWS}

    learning = flaw_found("design/retraining-on-user-input", exposure={**EXPOSURE, "continual_learning": True})
    assert learning.severity is Severity.HIGH
    assert "user" in learning.detail

    open_model = flaw_found("design/reverse-engineering")
    assert open_model.severity is Severity.HIGH
    assert "may query" in open_model.detail

    datasets = declared("dataset")
    datasets[0]["provenance"].update(host="unknown", contributors=" ", independent_sources=0)
    datasets[1]["trust"] = "untrusted"
    stray = flaw_found("design/unknown-data-source", dataset=datasets)
    assert stray.severity is Severity.HIGH
    assert stray.detail == (
        "Dataset train does not say who hosts it. Dataset train does not say who contributed to it. "
        "Dataset train does not say which source it was drawn from. Dataset holdout comes from an untrusted source."
    )


@pytest.mark.parametrize(
    ("exposure", "sign"),
    [
        ({"positions": {"contributor": ["feedback-loop.write"]}}, "Position contributor writes into the feedback loop"),
        ({"continual_learning": True, "consider": ["finder"]}, "keeps learning in operation"),
    ],
)
def test_retraining_is_seen_from_rights_and_from_the_switch(exposure, sign):
    assert sign in flaw_found("design/retraining-on-user-input", exposure={**EXPOSURE, **exposure}).detail


@pytest.mark.parametrize(
    ("exposure", "sign"),
    [
        ({"profile": "edge-vision-device"}, "has a device with the model in hand"),
        ({"positions": {"finder": ["know.weights"]}}, "knows the weights"),
    ],
)
def test_reverse_engineering_is_seen_without_queries_too(exposure, sign):
    closed = {**EXPOSURE, "interface": "internal", "profile": "internal-batch-scoring", **exposure}
    assert sign in flaw_found("design/reverse-engineering", exposure=closed).detail


def test_a_flaw_that_a_declared_control_answers_weighs_less():
    answered = flaw_found("design/reverse-engineering", mitigations=["M05"])
    assert answered.severity is Severity.MEDIUM
    assert answered.remedy.startswith("show evidence for")


def test_flaws_name_entries_of_the_catalogue():
    for flaw in FLAWS:
        assert all(catalogue().technique(entry) for entry in flaw.techniques)
        assert all(catalogue().mitigation(entry) for entry in flaw.answers)


def test_assumptions_are_said():
    facts = run(make_system()).predicate.facts
    assert set(facts["assumptions"]) == {
        "trusted-positions",
        "trusted-data",
        "no-learning-in-operation",
        "no-base-model",
        "no-generative-model",
        "positions-act-together",
    }
    internal = run(make_system(exposure={**EXPOSURE, "interface": "offline", "continual_learning": True}))
    assert "users-are-staff" in internal.predicate.facts["assumptions"]
    assert "no-learning-in-operation" not in internal.predicate.facts["assumptions"]


# ---- as a check, and over time


def test_the_check_has_the_shape_of_a_check_and_can_go_to_another_process():
    check = ThreatModelCheck()
    assert isinstance(check, Check)
    assert all(catalogue().control(entry_id) for entry_id in check.controls)
    system = make_system()
    assert run(system, pickle.loads(pickle.dumps(check))).report == run(system).report


def test_the_check_yields_a_reference_to_the_document():
    system = make_system()
    outcome = run(system)
    assert outcome.predicate_type == REFERENCE
    said = statement.make(outcome.predicate_type, system.of_kind("system")[0], outcome.predicate)
    assert said.predicate["kind"] == "threat-model"
    assert said.predicate["references"][0]["digest"]["sha256"] == digest_bytes(outcome.report.data)
    assert said.predicate["facts"]["findings"] == {"high": 1}


def test_inputs_follow_what_the_model_reads_and_nothing_else():
    check = ThreatModelCheck()

    def inputs(**changes):
        system = make_system(**changes)
        return check.inputs(system, system.of_kind("system")[0])

    plain = inputs()
    assert set(plain) == {"catalogue:bartizan", "settings:design.threats", "lessons"}
    assert inputs(description="Said better", mitigation_cost={"M05": 2}) == plain
    datasets = declared("dataset")
    datasets[0]["provenance"]["host"] = "unknown"
    for change in (
        {"exposure": {**EXPOSURE, "output": "scores"}},
        {"impact": {"society": "None"}},
        {"flow": declared("flow")[:1]},
        {"dataset": datasets},
        {"expected": {"failure_plan": "None"}},
    ):
        assert inputs(**change)["settings:design.threats"] != plain["settings:design.threats"]


def test_the_catalogue_version_is_stored_and_a_newer_release_flags_outdated_ids():
    outcome = run(make_system())
    assert outcome.predicate.facts["catalogue"] == catalogue().version
    assert outcome.predicate.facts["atlas"] == "2026.09"
    assert ThreatModelCheck().inputs(make_system(), make_system().artefacts[-1])["catalogue:bartizan"] == (
        catalogue().digest
    )
    release = read_atlas(newer_release(**{"AML.T0015": "Evade Predictive Model", "AML.T0013": None, "AML.T0063": None}))
    assert [(entry.id, entry.state) for entry in outdated(catalogue(), release)] == [
        ("AML.T0013", "unknown"),
        ("AML.T0015", "renamed"),
        ("AML.T0063", "unknown"),
    ]


def keep(world, check, system):
    """Run the check as the runner does and put its signed statement into the ledger."""
    (job,) = plan(system, [check])
    outcome = check.run(system, job.subject, Quiet())
    said = statement_of(job, outcome, store_form(job, outcome), world.now)
    world.say(said.predicate_type, said.read(), about=job.subject)
    return job.subject.digest


def standings(world, check, system, digests):
    """Standing of every statement about ``digests``, seen from ``system`` as it is now."""
    current = current_digests(system, plan(system, [check]))
    evidence = gather(world.view(), digests, current, world.now)
    evidence = gather(world.view(), digests, {**current, **documents(evidence)}, world.now)
    return [(item.check or item.kind, item.standing, item.reason) for item in evidence]


@pytest.mark.control("1.4-G2")
def test_importing_a_newer_catalogue_marks_threat_models_stale(world):
    system = make_system()
    subject = keep(world, ThreatModelCheck(), system)
    assert [standing for _, standing, _ in standings(world, ThreatModelCheck(), system, [subject])] == [Standing.HOLDS]

    newer = adopt(catalogue(), read_atlas(newer_release(**{"AML.T0136": "A technique found later"})))
    ((name, standing, reason),) = standings(world, ThreatModelCheck(newer), system, [subject])
    assert (name, standing) == ("design.threats", Standing.STALE)
    assert reason.startswith("catalogue:bartizan changed from")

    keep(world, ThreatModelCheck(newer), system)
    assert [s for _, s, _ in standings(world, ThreatModelCheck(newer), system, [subject])][-1] is Standing.HOLDS


@pytest.mark.control("1.2-b")
def test_a_changed_declaration_marks_the_threat_model_and_what_was_approved_on_it_stale(world):
    check, before = ThreatModelCheck(), make_system()
    old = keep(world, check, before)
    evidence = gather(world.view(), [old], current_digests(before, plan(before, [check])), world.now)
    (document,) = documents(evidence).items()
    decision = predicates.Decision(
        kind="risk",
        outcome="yes",
        reason="the residual risk is accepted",
        role="risk-owner",
        decided_at=world.now,
        expires=world.now.replace(year=2027),
        concerns=("T08",),
        inputs=(predicates.Input.of(*document),),
    )
    world.say(predicates.DECISION, decision, about=before.of_kind("system")[0], by="owner")
    assert [s for _, s, _ in standings(world, check, before, [old])] == [Standing.HOLDS, Standing.HOLDS]

    after = make_system(exposure={**EXPOSURE, "interface": "public"})
    threat_model, approval = standings(world, check, after, [old])
    assert threat_model[:2] == ("design.threats", Standing.STALE)
    assert "settings:design.threats" in threat_model[2]
    assert approval[:2] == ("risk", Standing.STALE)

    new = keep(world, check, after)
    again = standings(world, check, after, [old, new])
    assert [standing for _, standing, _ in again] == [Standing.STALE, Standing.STALE, Standing.HOLDS]
    assert "document:design.threats changed" in again[1][2]
