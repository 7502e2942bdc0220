"""``bartizan compare`` through the command line: the table, the statement, the choice and its reason."""

from __future__ import annotations

import json
import re

import pytest

from bartizan.lifecycle.develop.choose.candidate import Aspect
from bartizan.lifecycle.develop.choose.comparison import FIXED
from bartizan.wiring.workspace import Workspace
from fixtures.project import bartizan, declare

BUDGETS = {"samples = 60": "samples = 16", "query_budget = 1000": "query_budget = 80", "shadow_models = 32":
           "shadow_models = 8", "extraction_budget = 400": "extraction_budget = 40"}  # fmt: skip
QUICK = ("--quick", "--only", "tree", "--only", "forest", "--only", "declared", "--json")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A declared project with small budgets, and what a comparison of some candidates said."""
    folder = tmp_path_factory.mktemp("choice")
    declare(folder)
    declaration = folder / "bartizan.toml"
    text = declaration.read_text()
    for old, new in BUDGETS.items():
        text = text.replace(old, new)
    declaration.write_text(text)
    done = bartizan(folder, "compare", *QUICK)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def entries(said):
    return {entry["name"]: entry for entry in said["comparison"]["entries"]}


def metrics(entry):
    return {name: metric for part in entry["parts"].values() for name, metric in part.get("metrics", {}).items()}


@pytest.mark.control("2.4-G1")
def test_the_table_is_about_the_users_data_and_has_intervals(place, ask_in):
    folder, said, _ = place
    assert said["comparison"]["records"] == {"training": 426, "evaluation": 143}
    for entry in entries(said).values():
        for metric in metrics(entry).values():
            assert metric["low"] <= metric["value"] <= metric["high"]
        assert metrics(entry)["accuracy"]["n"] == 143
    code, table, _ = ask_in(folder, "compare", *QUICK[:-1])
    assert code == 0
    for name in entries(said):
        (line,) = [line for line in table.splitlines() if line.startswith(f"{name} ")]
        assert re.search(r"\d+\.\d% \[-?\d+\.\d%, \d+\.\d%\]", line)


@pytest.mark.control("2.4-G2")
def test_the_comparison_has_robustness_privacy_and_supply_columns(place):
    _, said, _ = place
    for entry in entries(said).values():
        assert {"robust_accuracy", "membership_tpr_at_1_percent_fpr"} <= set(metrics(entry))
        assert entry["supply"]["code"]
        assert entry["supply"]["weights"]
        assert entry["supply"]["risk"]
    assert entries(said)["declared"]["supply"]["kind"] == "declared model"
    assert "scikit-learn" in entries(said)["forest"]["supply"]["code"]


@pytest.mark.control("2.4-a")
def test_a_classical_baseline_is_in_every_comparison(place, ask_in):
    folder, said, _ = place
    assert {"floor", "logistic"} <= set(entries(said))
    _, output, _ = ask_in(folder, "compare", "--quick", "--column", "quality", "--only", "network", "--json")
    assert {"floor", "logistic", "network"} == set(entries(json.loads(output)))


@pytest.mark.control("2.4-G4")
def test_the_level_of_interpretability_is_recorded_for_each_candidate(place):
    folder, said, _ = place
    levels = {name: entry["interpretability"] for name, entry in entries(said).items()}
    assert levels["logistic"] == "glass-box"
    assert levels["forest"] == "black-box"
    statement = recorded(folder, said)
    assert statement["settings"]["interpretability"].items() >= {"logistic": "glass-box", "forest": "black-box"}.items()


@pytest.mark.control("A-MLSG-001-C003")
def test_interpretability_is_a_column_and_can_be_a_hard_requirement(place, ask_in):
    folder, said, _ = place
    _, table, _ = ask_in(folder, "compare", *QUICK[:-1])
    assert "INTERPRETABILITY" in table
    asked = ("compare", *QUICK, "--require-interpretability", "glass-box")
    code, output, _ = ask_in(folder, *asked)
    strict = json.loads(output)["recommendation"]
    refused = {each["name"]: each["reasons"] for each in strict["standings"] if not each["adequate"]}
    assert any("glass-box is required" in reason for reason in refused["forest"])
    assert code == 0
    assert entries(said)[strict["recommended"]]["interpretability"] == "glass-box"
    code, output, _ = ask_in(folder, *asked, "--at-least", "accuracy=0.9999")
    assert code == 1
    assert json.loads(output)["recommendation"]["recommended"] == ""


@pytest.mark.control("2.4-G5")
def test_the_generalisation_gap_and_the_membership_advantage_are_reported_together(place):
    folder, said, _ = place
    stated = recorded(folder, said)["metrics"]
    for name, entry in entries(said).items():
        assert {"generalisation_gap", "membership_advantage"} <= set(metrics(entry))
        assert f"{name}_generalisation_gap" in stated
        assert f"{name}_membership_advantage" in stated
    page = (folder / "bartizan-report" / "model-choice.html").read_text()
    assert page.index(">Gap") < page.index("Members found at 1 % FPR")


@pytest.mark.control("GL-1.13")
def test_capacity_is_put_beside_data_size_and_baseline(place):
    _, said, _ = place
    for name in ("floor", "logistic", "tree", "forest"):
        entry = entries(said)[name]
        capacity = entry["parts"]["capacity"]
        assert capacity["metrics"]["records_per_parameter"]["value"] == pytest.approx(
            426 / metrics(entry)["parameters"]["value"], rel=1e-3
        )
        rules = {rule["rule"]: rule for rule in capacity["details"]["rules_of_thumb"]}
        assert {"10 records for each parameter (1 in 10)", "1,000 records of each class"} == set(rules)
        assert [round(point["x"]) for point in capacity["curves"]["accuracy_by_records"]] == [53, 106, 213, 426]
    pairs = {(pair["first"], pair["second"]) for pair in said["comparison"]["pairs"]}
    assert ("floor", "logistic") in pairs


@pytest.mark.control("2.4-G3")
def test_more_capacity_than_the_simplest_adequate_model_needs_a_reason(place, ask_in):
    folder, said, _ = place
    ask_in(folder, "compare", *QUICK)
    simplest = said["recommendation"]["recommended"]
    assert simplest == "logistic"
    code, _, errors = ask_in(folder, "compare", "choose", "forest", "--role", "risk-owner")
    assert code == 2
    assert "needs a reason" in errors
    code, output, errors = ask_in(
        folder, "compare", "choose", "forest", "--role", "risk-owner", "--reason", "the ward trusts it", "--json"
    )
    assert code == 0, errors
    decision = decided(folder)
    assert decision["reason"] == "the ward trusts it"
    assert decision["details"]["simplestAdequate"] == simplest
    assert "forest" in decision["details"]["reasonNeeded"]
    assert json.loads(output)["name"] == "forest"
    code, _, _ = ask_in(folder, "compare", "choose", simplest, "--role", "risk-owner")
    assert code == 0
    assert decided(folder)["details"]["reasonNeeded"] == ""


@pytest.mark.control("GL-1.12")
def test_each_choice_is_recorded_with_its_alternatives(place, ask_in):
    folder, _, _ = place
    ask_in(folder, "compare", *QUICK)
    for name in ("tree", "forest", "logistic"):
        code, _, errors = ask_in(
            folder, "compare", "choose", name, "--role", "risk-owner", "--reason", "its rules fit on a card"
        )
        assert code == 0, errors
        choices = decided(folder)["details"]["choices"]
        # Architecture, configuration, data, algorithm and hyper-parameters, each of them, whatever was chosen.
        assert {choice["aspect"] for choice in choices} == set(Aspect)
        for choice in choices:
            assert len(choice["alternatives"]) > 1
            assert choice["chosen"] in [other["value"] for other in choice["alternatives"]]
            assert choice["why"]
    fixed = {choice["aspect"]: choice for choice in choices if choice["chosen"] == FIXED}
    assert set(fixed) == {"architecture"}  # a straight line has none; others of the comparison do
    assert {other["value"].partition(":")[0] for other in fixed["architecture"]["alternatives"][1:]} == {
        "tree",
        "forest",
    }


def test_what_was_measured_is_taken_over(place, ask_in):
    folder, _, before = place
    assert "kept from before" not in before
    _, _, talk = ask_in(folder, "compare", *QUICK)
    lines = [line for line in talk.splitlines() if re.match(r"  \w+: \w+", line)]
    assert lines
    assert all("kept from before" in line for line in lines)


def test_a_file_takes_part_once_it_is_scanned(place, ask_in, monkeypatch):
    folder, _, _ = place
    monkeypatch.chdir(folder)
    asked = ("compare", "--quick", "--column", "quality", "--only", "floor", "--json", "--candidate")
    _, output, _ = ask_in(folder, *asked, "guest=model/tumour.joblib")
    guest = entries(json.loads(output))["guest"]
    assert guest["supply"]["kind"] == "file"
    assert metrics(guest)["accuracy"]["value"] > 0.9
    (folder / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    code, _, errors = ask_in(folder, *asked, "evil=evil.pkl")
    assert code == 2
    assert "scan" in errors
    assert not (folder / "owned").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "oracle"), "no candidate is called 'oracle'"),
        (("--model", "none"), "no model is called"),
        (("--candidate", "x"), "names no model file"),
        (("--at-least", "accuracy"), "is no bound"),
        (("--candidate", "tree=model/tumour.joblib"), "two candidates are called"),
    ],
)
def test_what_cannot_be_done_is_said(place, ask_in, monkeypatch, arguments, words):
    folder, _, _ = place
    monkeypatch.chdir(folder)
    code, _, errors = ask_in(folder, "compare", *arguments)
    assert code == 2
    assert words in errors


def test_a_choice_needs_a_comparison_that_stands(place, ask_in, tmp_path):
    folder, _, _ = place
    code, _, errors = ask_in(folder, "compare", "choose", "oracle", "--role", "risk-owner")
    assert code == 2
    assert "no candidate is called" in errors
    declare(tmp_path)
    code, _, errors = ask_in(tmp_path, "compare", "choose", "tree", "--role", "risk-owner")
    assert code == 2
    assert "run `bartizan compare` first" in errors


def recorded(folder, said):
    """The statement that a comparison left in the ledger."""
    return newest(folder, lambda item: item.digest == said["envelope"])


def decided(folder):
    return newest(folder, lambda item: item.kind == "scope")


def newest(folder, wanted):
    workspace = Workspace(folder)
    try:
        digest = workspace.system().artefact("model:tumour").digest
        with workspace.view() as view:
            current = {each.id: each.digest for each in workspace.system().artefacts}
            found = [item for item in workspace.evidence(view, [digest], current) if wanted(item)]
        return json.loads(json.dumps(dict(found[-1].statement.predicate)))
    finally:
        workspace.close()
