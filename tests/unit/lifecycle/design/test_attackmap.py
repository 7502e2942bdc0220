"""The attack map of a declared system."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from bartizan.catalogue.atlas import AtlasContent, adopt
from bartizan.catalogue.attackmap import FORMAT, MAX_BYTES
from bartizan.catalogue.load import catalogue
from bartizan.core import statement
from bartizan.core.check import Check
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import InputError
from bartizan.core.finding import Severity
from bartizan.core.predicates import REFERENCE, Metric
from bartizan.lifecycle.design.attackmap import AttackMapCheck, attack_map, difference, read_attack_map, with_evidence
from fixtures.effort import quickest
from fixtures.systems import Quiet, declared, make_system

EXPOSURE = {"interface": "partners", "output": "label", "profile": "public-api-classifier"}
EVERYTHING = [mitigation.id for mitigation in catalogue().entries.mitigations]


def exposed(**changes):
    return make_system(exposure={**EXPOSURE, **changes})


def reachable(document):
    return set(document.scenarios["nothing"].reachable)


@pytest.fixture(scope="module")
def document():
    return attack_map(make_system())


def test_equal_declarations_give_equal_bytes_in_any_process(document):
    program = (
        "import sys; from fixtures.systems import make_system;"
        "from bartizan.lifecycle.design.attackmap import attack_map;"
        "sys.stdout.buffer.write(attack_map(make_system()).encode())"
    )
    tests = str(Path(__file__).parents[3])
    for seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": tests},
        )
        assert done.stdout == document.encode()


def test_the_document_survives_a_round_trip(document):
    again = read_attack_map(document.encode())
    assert again == document
    assert again.encode() == document.encode()
    assert again.format == FORMAT


def test_a_newer_document_with_more_fields_is_still_read(document):
    plain = msgspec.json.decode(document.encode())
    plain["new"] = 1
    plain["techniques"][0]["new"] = 2
    plain["mitigations"][0]["new"] = 3
    plain["points"][0]["new"] = 4
    assert read_attack_map(msgspec.json.encode(plain)) == document


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b'{"format": 3}', b"\xff"])
def test_bytes_that_are_no_map_are_refused(data):
    with pytest.raises(InputError, match="not an attack map"):
        read_attack_map(data)


def test_a_map_of_another_format_is_refused(document):
    other = msgspec.structs.replace(document, format="bartizan-attack-map/9")
    with pytest.raises(InputError, match="format"):
        read_attack_map(other.encode())


def test_a_map_beyond_all_measure_is_refused():
    with pytest.raises(InputError, match="at most"):
        read_attack_map(b" " * (MAX_BYTES + 1))


def test_what_is_not_on_the_map_is_a_key_error(document):
    for lookup in (document.technique, document.point, document.position, document.mitigation):
        with pytest.raises(KeyError):
            lookup("nothing")


def test_every_reachable_technique_has_a_route_that_can_be_walked(document):
    graph_techniques = {technique.id: technique for technique in document.techniques}
    held_by = document.holding()
    for technique in document.techniques:
        assert technique.reachable == (technique.route is not None)
        if technique.route is None:
            continue
        for token, source in technique.route.uses.items():
            assert token in (graph_techniques[source].yields if source in graph_techniques else held_by[source])


def test_positions_alone_reach_no_more_than_together(document):
    together = reachable(document)
    for position in document.positions:
        if position.considered:
            assert set(position.routes) <= together
    only_together = [t.id for t in document.techniques if t.reachable and not t.positions]
    for technique in only_together:
        assert not any(technique in p.routes for p in document.positions if p.considered)


def test_every_access_point_is_on_the_map_with_what_passes_it(document):
    assert [point.id for point in document.points] == list(catalogue().access_points)
    together = reachable(document)
    for point in document.points:
        assert set(point.after_all) <= set(point.before) <= together
        assert 0 <= point.heat_after <= point.heat <= 1
        assert point.heat == pytest.approx(len(point.before) / len(together), abs=1e-4)
        for technique in point.before:
            assert point.id in document.technique(technique).points
    hottest = max(document.points, key=lambda point: point.heat)
    assert hottest.id == "serving-input"


def test_one_point_alone_opens_what_chains_from_it(document):
    store = document.point("model-store")
    assert {"T26", "T29", "T57"} <= set(store.opens_alone)
    assert len(store.opens_alone) > len(store.before)


@pytest.mark.control("1.2-i")
def test_moving_from_internal_to_public_adds_reachable_techniques():
    internal, public = attack_map(exposed(interface="internal")), attack_map(exposed(interface="public"))
    changes = difference(internal, public)
    assert {"T02", "T08", "T14", "T38"} <= set(changes.added)
    assert changes.removed == ()
    assert "serving-input.query" in changes.rights["outsider"]
    assert "T08" in changes.by_position["outsider"]
    assert reachable(public) == reachable(internal) | set(changes.added)
    back = difference(public, internal)
    assert set(back.removed) == set(changes.added)


def test_finer_output_adds_score_attacks():
    changes = difference(attack_map(exposed(output="label")), attack_map(exposed(output="scores")))
    assert "serving-output.scores" in changes.rights["user"]
    assert "T07" in changes.by_position["user"]


@pytest.mark.control("4.1-G2")
def test_enabling_continual_learning_adds_routes_through_the_feedback_loop():
    without, learning = attack_map(exposed()), attack_map(exposed(continual_learning=True))
    assert without.point("feedback-loop").before == ()
    assert {"T16", "T17", "T19", "T25"} <= set(learning.point("feedback-loop").before)
    assert "T25" in difference(without, learning).added
    assert learning.technique("T25").route.uses == {"feedback-loop.write": "user"}


@pytest.mark.control("2.1-G4")
def test_the_insider_is_a_toggle():
    system = make_system()
    without = attack_map(system)
    considered = (*system.declaration.exposure.consider, "insider")
    by_argument = attack_map(system, consider=considered)
    by_declaration = attack_map(exposed(consider=list(considered)))
    assert not without.position("insider").considered
    assert by_argument.position("insider").considered
    assert {"T21", "T62", "T65"} <= set(difference(without, by_argument).added)
    assert reachable(by_argument) == reachable(by_declaration) > reachable(without)
    assert len(by_argument.control_set.prevents) < len(without.control_set.prevents)
    assert "T21" in without.position("insider").routes


@pytest.mark.control("1.4-G1")
def test_every_reachable_technique_shows_what_prevents_weakens_and_detects_it(document):
    graph, holding = document.graph(), document.holding()
    for technique in document.techniques:
        if not technique.reachable:
            continue
        assert technique.cutting or technique.preventing or technique.weakening or technique.detecting
        if technique.preventable:
            controls = graph.mitigation_set(technique.preventing)
            assert technique.id not in graph.technique_ids(graph.reach(holding, controls)[0])
        else:
            assert technique.preventing == ()
        for mitigation in document.mitigations:
            assert (technique.id in mitigation.weakens) == (mitigation.id in technique.weakening)
            assert (technique.id in mitigation.detects) == (mitigation.id in technique.detecting)


@pytest.mark.control("GL-2.5")
def test_every_declared_asset_sits_at_an_access_point_with_what_it_opens(document):
    system = make_system()
    assert {asset.id for asset in document.assets} == {artefact.id for artefact in system.artefacts}
    for asset in document.assets:
        assert asset.access_points
        assert asset.opens
        for point in asset.access_points:
            assert asset.id in document.point(point).assets
            assert set(document.point(point).opens_alone) <= set(asset.opens)
    placed = {asset.id: (asset.access_points, asset.placed_by) for asset in document.assets}
    assert placed["dataset:train"] == (("dataset-store",), "records")
    assert placed["dataset:holdout"] == (("dataset-store",), "")
    assert placed["model:tumour"][1] == "classifier"
    assert "records" in document.point("dataset-store").components


@pytest.mark.control("A-MLSG-001-C002")
def test_data_that_leaves_the_site_is_on_the_map_with_the_local_alternative():
    flows = declared("flow")
    flows[0]["leaves_site"] = True
    before, after = attack_map(make_system()), attack_map(make_system(flow=flows))
    assert before.leaving == ()
    (leaving,) = after.leaving
    assert (leaving.source, leaving.target, leaving.carries) == ("records", "classifier", "cell measurements")
    assert leaving.techniques == ("T44",)
    assert leaving.alternative == "M33"
    assert leaving.trade_off == ("M56",)
    assert difference(before, after).added == ("T44",)
    kept_near = with_evidence(after, ["M33"])
    assert [entry.technique for entry in kept_near.lists.prevented] == ["T44"]


@pytest.mark.control("GL-1.5")
def test_the_map_can_be_asked_about_a_stronger_adversary_and_a_newer_catalogue():
    system = make_system(exposure={**EXPOSURE, "profile": "internal-batch-scoring", "interface": "internal"})
    today = attack_map(system)
    stronger = attack_map(system, beyond={"outsider": ["know.weights", "serving-input.query"]})
    assert "T06" in difference(today, stronger).by_position["outsider"]
    assert reachable(stronger) > reachable(today)

    entries = catalogue().entries
    novel = msgspec.structs.replace(
        catalogue().technique("T10"), id="T68", name="A technique found later", needs=(("public-info.read",),)
    )
    later = type(catalogue())(msgspec.structs.replace(entries, techniques=(*entries.techniques, novel)))
    tomorrow = attack_map(system, later)
    assert difference(today, tomorrow).added == ("T68",)
    assert tomorrow.catalogue.digest != today.catalogue.digest


def test_what_the_system_is_not_does_not_apply(document):
    assert document.kinds == ()
    assert {t.id for t in document.techniques if not t.applies} >= {"T47", "T48", "T51"}
    assert document.technique("T47").state == "not-applicable"
    agent = attack_map(exposed(profile="llm-rag-agent"))
    assert agent.kinds == ("generative",)
    assert all(technique.applies for technique in agent.techniques)
    assert {"T47", "T48", "T51"} <= reachable(agent)
    components = declared("component")
    components[2]["access_points"] = ["agent-tools"]
    assert attack_map(make_system(component=components)).kinds == ("generative",)


def test_claims_alone_change_nothing_but_the_claimed_scenario():
    claimed = attack_map(make_system(mitigations=EVERYTHING))
    plain = attack_map(make_system())
    assert reachable(claimed) == reachable(plain)
    assert claimed.lists.prevented == ()
    assert claimed.lists.claimed_only == tuple(EVERYTHING)
    assert claimed.scenarios["claimed"] == claimed.scenarios["all"]
    assert plain.scenarios["claimed"] == plain.scenarios["nothing"]
    assert all(technique.state in {"residual", "unreachable", "not-applicable"} for technique in claimed.techniques)


def test_own_costs_replace_those_of_the_catalogue():
    dear = attack_map(make_system(mitigation_cost={"M15": 50}))
    usual = attack_map(make_system())
    assert "M15" in usual.control_set.controls
    assert dear.mitigation("M15").cost == 50
    assert "M15" not in dear.control_set.controls
    assert dear.control_set.proved


def test_a_trade_off_within_the_control_set_is_said():
    flows = declared("flow")
    flows[0]["leaves_site"] = True
    system = make_system(exposure={**EXPOSURE, "profile": "edge-vision-device"}, flow=flows)
    document = attack_map(system)
    assert {"M33", "M56"} <= set(document.control_set.controls)
    assert document.trade_offs == (("M33", "M56"),)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mitigations": ["M99"]}, "no mitigation 'M99'"),
        ({"mitigation_cost": {"M99": 1}}, "no mitigation 'M99'"),
        ({"mitigation_cost": {"M01": -1}}, "cost of mitigation M01"),
        ({"exposure": {"profile": "none"}}, "no profile 'none'"),
    ],
)
def test_a_declaration_that_names_nothing_known_is_refused(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        attack_map(make_system(**changes))


def test_a_component_at_no_known_access_point_is_refused():
    components = declared("component")
    components[0]["access_points"] = ["cellar"]
    with pytest.raises(InputError, match="no access point 'cellar'"):
        attack_map(make_system(component=components))


def test_an_unknown_position_to_consider_is_refused():
    with pytest.raises(InputError, match="no adversary position"):
        attack_map(make_system(), consider=["everybody"])


# ---- live evidence


def rate(value):
    return Metric(value=value, low=max(0.0, value - 0.05), high=min(1.0, value + 0.05), n=200, method="wilson")


def test_live_evidence_fills_three_lists_that_part_the_reachable_techniques(document):
    live = {"M01", "M05", "M17"}
    until = datetime(2027, 1, 31, 12, tzinfo=UTC)
    weighed = with_evidence(document, live, {"T08": rate(0.3), "T41": rate(0.0)}, {"T08": until, "T11": until})
    lists = weighed.lists
    prevented = {entry.technique for entry in lists.prevented}
    weakened = {entry.technique: entry for entry in lists.weakened}
    residual = {entry.technique: entry for entry in lists.residual}
    assert prevented | weakened.keys() | residual.keys() == reachable(document)
    assert len(prevented) + len(weakened) + len(residual) == len(reachable(document))
    assert "T14" in prevented
    assert weakened["T08"].measured.value == 0.3
    assert weakened["T08"].accepted_until == "2027-01-31T12:00:00Z"
    assert "M05" in weakened["T08"].by
    assert residual["T11"].accepted_until == "2027-01-31T12:00:00Z"
    assert residual["T11"].measured is None
    assert lists.live == ("M01", "M05", "M17")
    assert weighed.mitigation("M05").live


def test_what_prevents_is_named_and_none_of_it_is_superfluous(document):
    weighed = with_evidence(document, EVERYTHING)
    graph, holding = weighed.graph(), weighed.holding()
    for entry in weighed.lists.prevented:
        assert entry.by
        for left_out in entry.by:
            rest = graph.mitigation_set(set(entry.by) - {left_out})
            assert entry.technique in graph.technique_ids(graph.reach(holding, rest)[0])


def test_states_and_heat_follow_the_evidence(document):
    weighed = with_evidence(document, ["M05", "M27"])
    assert weighed.technique("T14").state == "prevented"
    assert weighed.technique("T08").state == "weakened"
    assert weighed.technique("T06").state == "detected"
    assert weighed.technique("T22").state == "residual"
    assert weighed.technique("T47").state == "not-applicable"
    assert weighed.point("serving-input").heat_after < weighed.point("serving-input").heat
    assert "T14" not in weighed.point("serving-input").after
    again = with_evidence(weighed, [])
    assert again == with_evidence(document, [])


def test_claims_with_evidence_count_and_claims_without_are_listed():
    document = attack_map(make_system(mitigations=["M05", "M17"]))
    weighed = with_evidence(document, ["M05", "M16"])
    assert weighed.lists.claimed_only == ("M17",)
    assert weighed.lists.live == ("M05", "M16")


def test_controls_still_to_add_leave_out_what_is_live(document):
    weighed = with_evidence(document, ["M01", "M05"])
    assert not {"M01", "M05"} & set(weighed.lists.to_add.controls)
    assert weighed.lists.to_add.cost < document.control_set.cost
    assert weighed.lists.to_add.proved
    complete = with_evidence(document, document.control_set.controls)
    assert complete.lists.to_add.controls == ()


def test_a_prevented_technique_that_was_measured_to_work_as_deployed_is_a_contradiction(document):
    assert with_evidence(document, ["M05"], {"T14": rate(0.4)}, deployed=["T14"]).lists.contradicted == ("T14",)
    assert with_evidence(document, ["M05"], {"T14": rate(0.0)}, deployed=["T14"]).lists.contradicted == ()
    beside_the_controls = with_evidence(document, ["M05"], {"T14": rate(0.4)})
    assert beside_the_controls.lists.contradicted == ()
    assert next(e for e in beside_the_controls.lists.prevented if e.technique == "T14").measured == rate(0.4)


def test_evidence_is_weighed_against_the_stored_document_alone(document):
    stored = read_attack_map(document.encode())
    assert with_evidence(stored, ["M05"]).encode() == with_evidence(document, ["M05"]).encode()


def test_evidence_about_nothing_on_the_map_changes_nothing(document):
    end = datetime(2027, 1, 1, tzinfo=UTC)
    weighed = with_evidence(document, ["M99"], {"AML.T0043": rate(0.1), "T47": rate(0.2)}, {"2.1-n": end})
    assert weighed == with_evidence(document, [])


def test_an_acceptance_that_ends_at_no_known_time_is_refused(document):
    with pytest.raises(InputError, match="time zone"):
        with_evidence(document, [], {}, {"T08": datetime(2027, 1, 1)})  # noqa: DTZ001 - the point of the test


def test_acceptances_are_given_in_any_time_zone(document):
    end = datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    weighed = with_evidence(document, [], {}, {"T08": end})
    assert {entry.technique: entry for entry in weighed.lists.residual}["T08"].accepted_until == "2027-01-01T00:00:00Z"


# ---- the check


def run(system, checked=None):
    check = checked or AttackMapCheck()
    (subject,) = check.subjects(system)
    return check.run(system, subject, Quiet())


def test_the_check_has_the_shape_of_a_check_and_can_go_to_another_process():
    check = AttackMapCheck()
    assert isinstance(check, Check)
    assert all(catalogue().control(entry_id) for entry_id in check.controls)
    again = pickle.loads(pickle.dumps(check))
    system = make_system()
    assert run(system, again).report == run(system).report


def test_the_check_yields_a_reference_to_the_document():
    system = make_system()
    outcome = run(system)
    assert outcome.predicate_type == REFERENCE
    said = statement.make(outcome.predicate_type, system.of_kind("system")[0], outcome.predicate)
    assert said.predicate["kind"] == "attack-map"
    assert said.predicate["references"][0]["digest"]["sha256"] == digest_bytes(outcome.report.data)
    document = read_attack_map(outcome.report.data)
    assert said.predicate["facts"]["reachable"] == list(document.scenarios["nothing"].reachable)
    assert said.predicate["facts"]["catalogue"] == catalogue().version
    assert document.system == system.declaration.name


def test_what_nothing_is_declared_against_is_a_finding_until_it_is():
    bare = run(make_system())
    claimed = run(make_system(mitigations=EVERYTHING))
    findings = [finding for finding in bare.findings if finding.rule == "design/unmitigated"]
    assert {finding.techniques[0] for finding in findings} == set(bare.predicate.facts["unmitigated"])
    assert all(finding.severity is Severity.MEDIUM and "M" in finding.remedy for finding in findings)
    assert [finding.rule for finding in claimed.findings] == ["design/trade-off"]
    assert claimed.predicate.facts["unmitigated_count"] == 0


def test_inputs_follow_what_the_map_reads_and_nothing_else():
    check = AttackMapCheck()

    def inputs(**changes):
        system = make_system(**changes)
        return check.inputs(system, system.of_kind("system")[0])

    plain = inputs()
    assert set(plain) == {"catalogue:bartizan", "settings:design.attackmap"}
    assert inputs(description="Said better", expected={"monitoring": "more"}) == plain
    for change in (
        {"exposure": {**EXPOSURE, "output": "scores"}},
        {"mitigations": ["M05"]},
        {"mitigation_cost": {"M05": 2}},
        {"flow": declared("flow")[:1]},
        {"component": declared("component")[:2]},
    ):
        changed = inputs(**change)
        assert changed["settings:design.attackmap"] != plain["settings:design.attackmap"]
        assert changed["catalogue:bartizan"] == plain["catalogue:bartizan"]


def test_a_newer_catalogue_is_another_input():
    names = catalogue().entries.atlas
    newer = adopt(
        catalogue(),
        AtlasContent(
            version="2026.12",
            legacy=False,
            tactics=names.tactics,
            techniques={**names.techniques, "AML.T0136": "Something new"},
            mitigations=names.mitigations,
            achieves={},
            mitigates={},
        ),
    )
    system = make_system()
    (subject,) = system.of_kind("system")
    before = AttackMapCheck().inputs(system, subject)
    after = AttackMapCheck(newer).inputs(system, subject)
    assert before["catalogue:bartizan"] != after["catalogue:bartizan"]
    assert run(system, AttackMapCheck(newer)).predicate.facts["atlas"] == "2026.12"


def test_reaching_and_minimising_take_less_than_50_ms(document):
    from bartizan.catalogue.minimal import minimal_controls  # noqa: PLC0415 - imported before the clock starts

    def work():
        graph = document.graph()
        graph.reach(document.holding())
        graph.routes(document.holding())
        minimal_controls(graph, document.holding())

    assert quickest(work) < 0.050
