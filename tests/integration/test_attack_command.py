"""``bartizan attack`` as people use it: what applies, the plan and how its items end, trials, other tools' results."""

from __future__ import annotations

import importlib.util
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from bartizan.core.predicates import ASSESSMENT
from bartizan.redteam import registry
from bartizan.wiring.assure import gate_of, judge, situation
from bartizan.wiring.workspace import Workspace, utc_now

SACRO = Path(__file__).parents[1] / "assets" / "redteam" / "sacroml.json"
COVERED = """
[gate.covered]
valid_for = "30d"
[[gate.covered.rule]]
id = "plan-done"
about = "system"
type = "test-result"
check = "redteam.coverage"

"""


@pytest.fixture(scope="module")
def planned_once(tmp_path_factory, assured_once):
    """The assured example with a gate that asks what has become of the plan."""
    folder = tmp_path_factory.mktemp("attack") / "project"
    shutil.copytree(assured_once, folder, symlinks=True)
    path = folder / "bartizan.toml"
    path.write_text(path.read_text().replace("[gate.release]", COVERED + "[gate.release]", 1))
    return folder


@pytest.fixture
def planned(planned_once, tmp_path):
    """A copy of it to do with as you like."""
    folder = tmp_path / "planned"
    shutil.copytree(planned_once, folder, symlinks=True)
    return folder


def standing(ask_in, folder):
    """Exit code, and technique to what has become of it."""
    code, output, errors = ask_in(folder, "attack", "--plan", "--json")
    assert output, errors
    answer = json.loads(output)
    return code, {each["technique"]: each for each in answer["standing"]}, answer["plan"]


def decided(ask_in, folder, kind, concerns, *, role="risk-owner", about="model:tumour", **more):
    arguments = [f"--{name}={value}" for name, value in more.items()]
    named = [f"--concerns={concern}" for concern in concerns]
    code, _, errors = ask_in(
        folder, "decide", kind, "--about", about, "--role", role, "--reason", "as agreed", *named, *arguments
    )
    assert code == 0, errors


def test_list_says_what_applies_and_for_the_rest_in_one_sentence_what_access_is_missing(planned_once, ask_in):
    code, output, _ = ask_in(planned_once, "attack", "--list", "--json")
    assert code == 0
    lines = {line["name"]: line for line in json.loads(output)}
    assert set(lines) == set(registry.names())
    assert lines["evasion.hopskipjump"] | {"applies": True, "selected": True} == lines["evasion.hopskipjump"]
    assert not lines["poisoning.feature-collision"]["applies"]
    assert "needs activations" in lines["poisoning.feature-collision"]["why_not"]
    for line in lines.values():
        assert line["applies"] == (not line["why_not"])
        assert line["technique"].startswith("T")
        assert line["references"]
        assert line["cost"]
    shown = ask_in(planned_once, "attack", "--list")[1]
    assert "do not apply:" in shown
    assert "poisoning.feature-collision needs activations, and the target offers" in shown


def test_list_needs_no_declaration(tmp_path, ask_in):
    code, output, _ = ask_in(tmp_path, "attack", "--list", "--json")
    assert code == 0
    assert {line["name"] for line in json.loads(output)} == set(registry.names())


def test_an_interface_that_answers_labels_only_leaves_the_attacks_that_need_no_more(planned, ask_in):
    path = planned / "bartizan.toml"
    path.write_text(path.read_text().replace('output = "scores"', 'output = "label"'))
    lines = {line["name"]: line for line in json.loads(ask_in(planned, "attack", "--list", "--json")[1])}
    assert not lines["evasion.square"]["applies"]
    assert "scores" in lines["evasion.square"]["why_not"]
    assert lines["privacy.membership-labels"]["applies"]


@pytest.mark.control("1.4-a")
def test_the_plan_comes_from_the_attack_map_and_each_item_ends_as_run_waived_or_accepted(planned, ask_in):
    code, items, plan = standing(ask_in, planned)
    assert code == 1, "some items are open"
    survey = json.loads(ask_in(planned, "evidence", "list", "system:tumour-triage", "--json")[1])
    mapped = next(row for row in survey if row["what"] == "design.attackmap" and row["standing"] == "holds")
    facts = json.loads(ask_in(planned, "evidence", "show", mapped["envelope"])[1])["predicate"]["facts"]
    reachable = set(facts["reachable"])
    assert {item["technique"] for item in plan["items"]} == reachable == set(items)
    for item in plan["items"]:
        if any(check.startswith("redteam.") for check in item.get("checks", [])):
            assert item["access"]
            assert item["budget"]["seed"] == 20261121
            assert item["knowledge"]
    assert {each["state"] for each in items.values()} == {"run", "open"}
    assert items["T08"]["state"] == items["T35"]["state"] == "run"
    assert items["T08"]["roles"]
    left = sorted(technique for technique, each in items.items() if each["state"] == "open")
    decided(ask_in, planned, "exception", left[:1], expires="30d")
    decided(ask_in, planned, "risk", left[1:], expires="60d")
    code, items, _ = standing(ask_in, planned)
    assert code == 0
    assert items[left[0]]["state"] == "waived"
    assert items[left[0]]["until"] > utc_now().isoformat()
    assert {items[technique]["state"] for technique in left[1:]} == {"accepted"}
    assert {each["state"] for each in items.values()} == {"run", "waived", "accepted"}


def test_a_gate_demands_that_no_item_is_open_and_stops_relying_on_a_waiver_that_has_run_out(planned, ask_in):
    rule = _rule(planned)
    assert rule.state == "unmet"
    code, output, _ = ask_in(planned, "assure", "--gate", "covered", "--only", "redteam.coverage", "--json")
    assert code == 1
    assert "FAILED" in json.loads(output)["rules"][0]["reason"]
    _, items, _ = standing(ask_in, planned)
    decided(ask_in, planned, "risk", [name for name, each in items.items() if each["state"] == "open"], expires="5d")
    assert "does not count" in _rule(planned).reason, "what was said before is stale at once"
    code, output, _ = ask_in(planned, "assure", "--gate", "covered", "--only", "redteam.coverage", "--json")
    assert code == 0, output
    assert _rule(planned).state == "met"
    later = _rule(planned, after=timedelta(days=6))
    assert later.state == "unmet"


def _rule(folder, after=timedelta(0)):
    workspace = Workspace(folder, clock=lambda: utc_now() + after)
    try:
        system = workspace.system()
        (result,) = judge(situation(workspace, system), "covered", gate_of(system, "covered")).results
    finally:
        workspace.close()
    return result


def test_an_exception_that_names_no_technique_and_a_refusal_end_nothing(planned, ask_in):
    _, before, _ = standing(ask_in, planned)
    decided(ask_in, planned, "exception", [])
    code, _, errors = ask_in(
        planned,
        "decide",
        "risk",
        "--no",
        "--about",
        "model:tumour",
        "--role",
        "risk-owner",
        "--reason",
        "no",
        "--concerns",
        "T01",
    )
    assert code == 0, errors
    _, after, _ = standing(ask_in, planned)
    assert {name: each["state"] for name, each in after.items()} == {n: each["state"] for n, each in before.items()}


@pytest.mark.control("1.4-f")
def test_results_of_an_external_tool_import_as_assessment_that_says_whose_claim_it_is(planned, ask_in):
    code, output, errors = ask_in(planned, "attack", "import", str(SACRO), "--json")
    assert code == 0, errors
    (made,) = json.loads(output)
    said = json.loads(ask_in(planned, "evidence", "show", made["envelope"])[1])
    predicate = said["predicate"]
    assert said["predicateType"] == ASSESSMENT
    assert predicate["settings"]["tool"] == "sacro-ml 2.0.1"
    assert predicate["summary"].startswith("Claimed by sacro-ml 2.0.1, not measured here")
    assert predicate["techniques"] == ["T35"]
    assert predicate["metrics"]["TPR"]["n"] == 57
    assert (
        predicate["metrics"]["TPR"]["low"] < predicate["metrics"]["TPR"]["value"] < predicate["metrics"]["TPR"]["high"]
    )
    assert predicate["settings"]["claimed"]["AUC"] == pytest.approx(0.63388735)
    rows = json.loads(ask_in(planned, "evidence", "list", "model:tumour", "--json")[1])
    assert any(row["envelope"] == made["envelope"] and row["standing"] == "holds" for row in rows)
    own = [row for row in rows if row["what"] == "redteam.privacy.membership" and row["standing"] == "holds"]
    assert own, "a claim replaces no measurement"


@pytest.mark.control("1.4-d")
def test_a_red_team_assessment_records_roles_and_is_not_approved_by_its_author_alone(planned, ask_in, tmp_path):
    assert ask_in(planned, "trust", "grant", "security", "--role", "security", "--role", "assurer")[0] == 0
    _, items, _ = standing(ask_in, planned)
    assert items["T36"]["state"] == "open"
    file = tmp_path / "inversion.json"
    file.write_text(json.dumps(NEUTRAL | {"techniques": ["T36"]}))
    code, _, errors = ask_in(planned, "attack", "import", str(file), "--key", "security")
    assert code == 0, errors
    _, items, _ = standing(ask_in, planned)
    assert items["T36"]["state"] == "open"
    assert "signed by its author alone (security)" in items["T36"]["why"]
    decided(ask_in, planned, "review", ["T36"], role="security")
    assert standing(ask_in, planned)[1]["T36"]["state"] == "open", "who made it approves it alone"
    decided(ask_in, planned, "review", ["T36"], role="risk-owner")
    settled = standing(ask_in, planned)[1]["T36"]
    assert settled["state"] == "run"
    assert settled["signers"] == ["security", "risk-owner"]
    assert {"security", "assurer", "risk-owner"} <= set(settled["roles"])
    assert settled["why"].startswith("claimed by some-tool 1.0, not measured here")


NEUTRAL = {
    "format": "bartizan-external-result/1",
    "tool": {"name": "some-tool", "version": "1.0"},
    "attack": "inversion",
    "metrics": {"share_reconstructed": {"successes": 3, "n": 50}},
}


def test_a_claim_about_another_model_is_refused(planned_once, ask_in, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps(NEUTRAL | {"model_sha256": "ab" * 32}))
    code, _, errors = ask_in(planned_once, "attack", "import", str(file))
    assert code == 2
    assert "is about a model abababababab" in errors


@pytest.mark.parametrize("technique", ["X99", "T999", "AML.T9999", "AML", "t06"])
def test_a_claim_about_a_technique_that_nobody_knows_is_refused(planned_once, ask_in, tmp_path, technique):
    file = tmp_path / "other.json"
    before = ask_in(planned_once, "evidence", "list", "--json")[1]
    file.write_text(json.dumps(NEUTRAL | {"techniques": ["T06", technique]}))
    code, _, errors = ask_in(planned_once, "attack", "import", str(file))
    assert code == 2
    assert f"no technique '{technique}'" in errors
    file.write_text(json.dumps(NEUTRAL))
    assert ask_in(planned_once, "attack", "import", str(file), "--technique", technique)[0] == 2
    assert ask_in(planned_once, "evidence", "list", "--json")[1] == before


def test_a_claim_about_a_technique_of_atlas_is_recorded_with_what_it_does_not_say(planned, ask_in, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps(NEUTRAL | {"techniques": ["AML.T0043", "AML.T0043.001", "T06"]}))
    code, output, errors = ask_in(planned, "attack", "import", str(file), "--json")
    assert code == 0, errors
    said = json.loads(ask_in(planned, "evidence", "show", json.loads(output)[0]["envelope"])[1])["predicate"]
    assert said["techniques"] == ["AML.T0043", "AML.T0043.001", "T06"]
    assert said["settings"]["attacked_model"] == "not said"


def test_a_trial_with_another_budget_is_shown_and_recorded_nowhere(planned, ask_in):
    before = json.loads(ask_in(planned, "evidence", "list", "--json")[1])
    code, output, errors = ask_in(planned, "attack", "--only", "evasion.square", "--budget", "30", "--json")
    assert code in {0, 1}, errors
    (tried,) = json.loads(output)
    assert tried["assessment"]["budget"]["queries_allowed_per_sample"] == 30
    assert tried["assessment"]["budget"]["most_queries_spent_on_a_sample"] <= 30
    assert json.loads(ask_in(planned, "evidence", "list", "--json")[1]) == before


def test_a_budget_bounds_gradients_as_well_as_queries(planned, ask_in):
    code, output, errors = ask_in(planned, "attack", "--only", "evasion.pgd", "--budget", "3", "--json")
    assert code in {0, 1}, errors
    budget = json.loads(output)[0]["assessment"]["budget"]
    assert budget["gradients_allowed_per_sample"] == budget["queries_allowed_per_sample"] == 3
    assert 0 < budget["gradients_spent"] <= 3 * budget["samples"]


@pytest.mark.parametrize(
    "arguments", [("--budget", "0"), ("--budget", "-4"), ("--seconds", "0"), ("--seconds", "-1"), ("--seconds", "nan")]
)
def test_no_budget_is_no_budget_and_never_the_declared_one(planned, ask_in, arguments):
    before = json.loads(ask_in(planned, "evidence", "list", "--json")[1])
    code, output, errors = ask_in(planned, "attack", "--only", "evasion.square", *arguments)
    assert (code, output) == (2, "")
    assert arguments[0] in errors or "seconds" in errors
    assert json.loads(ask_in(planned, "evidence", "list", "--json")[1]) == before


def test_a_search_that_the_clock_ends_says_so(planned, ask_in):
    code, output, errors = ask_in(planned, "attack", "--only", "evasion.square", "--seconds", "1e-6", "--json")
    assert code in {0, 1}, errors
    (tried,) = json.loads(output)
    said = tried["assessment"]
    assert "stopped after 1e-06 s" in said["summary"]
    assert said["settings"]["stopped"] == "after 1e-06 s"
    assert "were asked about" in said["settings"]["no_claim"]
    assert said["budget"]["seconds_allowed"] == 1e-6
    assert said["budget"]["queries_spent"] == 0
    whole = json.loads(ask_in(planned, "attack", "--only", "evasion.square", "--seconds", "9000", "--json")[1])
    assert "stopped" not in whole[0]["assessment"]["settings"]


def test_an_attack_that_is_named_is_run_recorded_and_then_answered_by_the_ledger(planned, ask_in):
    code, output, errors = ask_in(planned, "attack", "--only", "extraction.active-labels", "--json")
    assert code in {0, 1}, errors
    assert json.loads(output)["endings"]["redteam.extraction.active-labels model:tumour"]["ending"] == "done"
    code, output, _ = ask_in(planned, "attack", "--only", "redteam.extraction.active-labels", "--json")
    assert (code, json.loads(output)["ran"]) == (0, [])
    assert list(json.loads(output)["answered"]) == ["redteam.extraction.active-labels model:tumour"]
    due = json.loads(ask_in(planned, "evidence", "due", "--json")[1])
    assert not any(item["check"].startswith("redteam.extraction") for item in due)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "evasion.nothing"), "no attack is called"),
        (("--only", "poisoning.feature-collision"), "needs activations"),
        (("--only", "evasion.square", "--budget", "20000000"), "a budget of 20000000"),
        (("--only", "privacy.membership", "--budget", "3"), "privacy.membership, which is limited by shadow_models"),
        (("--only", "poisoning.labelflip", "--budget", "3"), "limited by poison_rates and repeats"),
        (("--only", "evasion.tree-exact", "--budget", "3"), "asks no queries"),
        (("--budget", "30"), "changes nothing about poisoning.labelflip"),
        (("--only", "availability.sponge", "--seconds", "3"), "times answers"),
        (("--header", "A: b"), "--header has no effect by itself"),
        (("--speaks", "json", "--only", "evasion.square"), "--speaks has no effect by itself"),
        (("--allow-remote", "--budget", "3"), "--allow-remote has no effect beside --budget"),
        (("--plan", "--only", "evasion.square"), "--only has no effect beside --plan"),
        (("--list", "--budget", "3"), "--budget has no effect beside --list"),
        (("--list", "--plan"), "--plan has no effect beside --list"),
        (("--url", "http://127.0.0.1:1/x", "--fresh"), "--fresh has no effect beside --url"),
        (("--external", "art:X", "--only", "evasion.square"), "--only has no effect beside --external"),
        (("--with", "a=b"), "--with has no effect by itself"),
        (("--power", "0.9"), "--power has no effect by itself"),
        (("--anew", "--seconds", "3"), "--anew has no effect beside --seconds"),
        (("evasion.square",), "neither a bartizan.toml nor a folder"),
        (("--samples-for", "1.4"), "no share"),
        (("--samples-for", "0.6", "--expected", "0.5"), "no number of samples"),
        (("--url", "http://192.0.2.9/x", "--only", "evasion.square"), "another machine"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(planned_once, ask_in, arguments, words):
    code, _, errors = ask_in(planned_once, "attack", *arguments)
    assert code == 2
    assert words in errors
    assert "next:" in errors


def test_sample_sizes_are_answered_without_a_project(tmp_path, ask_in):
    code, output, _ = ask_in(tmp_path, "attack", "--samples-for", "0.6", "--expected", "0.7", "--json")
    assert code == 0
    assert json.loads(output)["needed"] == [{"expected": 0.7, "samples": 186}]


def test_all_selects_every_attack_that_needs_no_more_than_the_interface_gives(planned, ask_in):
    path = planned / "bartizan.toml"
    path.write_text(path.read_text().replace("[redteam]", '[redteam]\nattacks = ["all"]', 1))
    lines = json.loads(ask_in(planned, "attack", "--list", "--json")[1])
    for line in lines:
        assert line["selected"] == (line["applies"] and not line["upper_bound"])
    path.write_text(path.read_text().replace('["all"]', '["evasion.squar"]'))
    code, _, errors = ask_in(planned, "attack", "--list")
    assert code == 2
    assert "evasion.square" in errors


def test_the_page_does_what_it_says(project):
    place = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("test_documentation.py"))
    pages = importlib.util.module_from_spec(place)
    place.loader.exec_module(pages)
    pages.follow(pages.DOCS / "redteam" / "index.md", project)
