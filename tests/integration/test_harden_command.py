"""``bartizan harden`` through the command line: before and after of pruning, anonymising, ensembles and sites."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.evidence import Standing
from bartizan.wiring import code, reporting
from bartizan.wiring.assure import situation
from bartizan.wiring.workspace import Workspace
from fixtures.project import bartizan, declare

BUDGETS = {"samples = 60": "samples = 16", "query_budget = 1000": "query_budget = 80", "shadow_models = 32":
           "shadow_models = 8", "extraction_budget = 400": "extraction_budget = 40"}  # fmt: skip
ONLY = [word for name in ("prune", "features", "distil", "anonymise", "ensemble") for word in ("--only", name)]
COLUMNS = [word for name in ("robustness", "leakage", "linkage", "members") for word in ("--column", name)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A declared project with small budgets, and what hardening a forest said."""
    folder = tmp_path_factory.mktemp("hardening")
    declare(folder)
    declaration = folder / "bartizan.toml"
    text = declaration.read_text()
    for old, new in BUDGETS.items():
        text = text.replace(old, new)
    declaration.write_text(text)
    done = bartizan(folder, "harden", "--quick", "--base", "forest", *ONLY, *COLUMNS, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def metrics(said, name):
    (entry,) = [each for each in said["hardening"]["comparison"]["entries"] if each["name"] == name]
    return {name: metric for part in entry["parts"].values() for name, metric in part.get("metrics", {}).items()}


def statements(folder):
    """Newest statement of each check about the model, as far as they stand."""
    workspace = Workspace(folder)
    try:
        system = workspace.system()
        current = {each.id: each.digest for each in system.artefacts}
        with workspace.view() as view:
            found = workspace.evidence(view, [system.artefact("model:tumour").digest], current)
        return {item.check: item.statement.predicate for item in found if item.standing is Standing.HOLDS}
    finally:
        workspace.close()


@pytest.mark.control("2.4-h")
def test_size_accuracy_robustness_and_leakage_are_there_before_and_after_pruning(place):
    folder, said = place
    before, after = metrics(said, "forest"), metrics(said, "forest+prune")
    for name in ("size_bytes", "parameters", "accuracy", "robust_accuracy", "membership_tpr_at_1_percent_fpr"):
        assert name in before
        assert name in after
    assert after["size_bytes"]["value"] < before["size_bytes"]["value"]
    assert after["parameters"]["value"] < before["parameters"]["value"]
    stated = statements(folder)["harden.prune"]
    assert stated["family"] == "pruning"
    for name in ("size_bytes", "accuracy", "robust_accuracy", "membership_tpr_at_1_percent_fpr"):
        assert stated["metrics"][f"{name}_before"]["value"] == before[name]["value"]
        assert stated["metrics"][f"{name}_after"]["value"] == after[name]["value"]


@pytest.mark.control("A-MLSG-003-C001")
@pytest.mark.parametrize("defence", ["features", "distil", "prune"])
def test_leakage_and_robustness_are_there_before_and_after_each_reduction(place, defence):
    folder, said = place
    stated = statements(folder)[f"harden.{defence}"]
    for name in ("robust_accuracy", "membership_tpr_at_1_percent_fpr", "membership_auc"):
        for when in ("before", "after"):
            metric = stated["metrics"][f"{name}_{when}"]
            assert metric["low"] <= metric["value"] <= metric["high"]
    assert metrics(said, f"forest+{defence}")["robust_accuracy"]["n"] == 16


@pytest.mark.control("4.2-q")
def test_leakage_is_there_before_and_after_anonymising(place):
    folder, _ = place
    stated = statements(folder)["harden.anonymise"]["metrics"]
    assert stated["linked_before"]["value"] == 1
    assert stated["linked_after"]["high"] < 0.2
    assert stated["singled_out_before"]["value"] == 1
    assert stated["singled_out_after"]["value"] == 0
    assert {"membership_tpr_at_1_percent_fpr_before", "membership_tpr_at_1_percent_fpr_after"} <= set(stated)


@pytest.mark.control("A-MLSG-001-N001")
def test_transfer_across_the_members_of_an_ensemble_is_measured_and_gives_no_prevention_credit(place):
    folder, said = place
    found = metrics(said, "forest+ensemble")
    assert found["member_transfer"]["n"] > 0
    (entry,) = [each for each in said["hardening"]["comparison"]["entries"] if each["name"] == "forest+ensemble"]
    table = entry["parts"]["members"]["details"]["transfer"]
    assert len(table) == 5
    assert all(len(line) == 6 for line in table)
    stated = statements(folder)["harden.ensemble"]
    assert stated["method"] == "evasion.transfer"
    assert stated["settings"]["preventionCredit"] is False
    assert "not credited" in stated["summary"]
    credited = {row["defence"]: row["credit"] for row in said["hardening"]["rows"]}
    assert credited.pop("ensemble") is False
    assert all(credited.values())
    # Nor does the attack map count it as preventing anything.
    (mitigation,) = [each for each in catalogue().mitigations.values() if "A-MLSG-001-N001" in each.amlsg]
    assert not mitigation.prevents


@pytest.mark.control("A-MLSG-001-C004")
def test_transfer_between_sites_is_compared_for_shared_and_site_models(tmp_path):
    declare(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("train", "holdout"):
        path = tmp_path / "data" / f"{name}.csv"
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*rows[0], "hospital"])
            writer.writerows([*row, rng.choice(["north", "south"])] for row in rows[1:])
    toml = tmp_path / "bartizan.toml"
    text = toml.read_text().replace('target = "malignant"', 'target = "malignant"\ngroup = "hospital"')
    for old, new in BUDGETS.items():
        text = text.replace(old, new)
    toml.write_text(text)
    done = bartizan(tmp_path, "harden", "sites", "--by", "hospital", "--base", "logistic", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["sites"]
    assert [site["name"] for site in said["sites"]] == ["north", "south"]
    assert said["shared_transfer"]["value"] == 1
    assert 0 <= said["own_transfer"]["value"] <= 1
    assert said["own_transfer"]["n"] > 0
    stated = statements(tmp_path)["harden.sites"]
    assert stated["method"] == "evasion.transfer"
    assert {"shared_transfer", "own_transfer", "reduction"} == set(stated["metrics"])


@pytest.fixture(scope="module")
def private(place):
    """What hardening with differential privacy said, of a forest and with two budgets."""
    folder, _ = place
    only = ("--only", "private", "--only", "private-forest", "--epsilon", "1", "--epsilon", "8")
    asked = ("harden", "--quick", "--base", "forest", *only, "--column", "audit", "-o", "private.html", "--json")
    done = bartizan(folder, *asked)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.control("GL-3.4")
def test_privacy_is_measured_at_several_budgets_and_other_technology_is_a_documented_option(place, private):
    folder, _ = place
    base = metrics(private, "forest")["epsilon_lower_bound"]["value"]
    for name, promised in (("private", 1), ("private-8", 8), ("private-forest", 1), ("private-forest-8", 8)):
        (entry,) = [e for e in private["hardening"]["comparison"]["entries"] if e["name"] == f"forest+{name}"]
        details = entry["parts"]["audit"]["details"]
        assert details["promised"] == {"epsilon": promised, "delta": 0.0}
        assert details["kept"] is True
        seen = metrics(private, f"forest+{name}")["epsilon_lower_bound"]["value"]
        assert seen <= promised
        # The same audit of the undefended forest sees more than the smallest budget allows.
        assert base > max(seen, 1.0)
        assert statements(folder)[f"harden.{name}"]["metrics"]["epsilon_lower_bound_after"]["value"] == seen
    assert "homomorphic encryption" in (Path(__file__).parents[2] / "docs" / "hardening.md").read_text()


def test_statements_of_hardening_stand_beside_the_controls_they_are_evidence_for(place):
    folder, _ = place
    workspace = Workspace(folder)
    try:
        report = reporting.report_model(workspace, situation(workspace, workspace.system()), None)
    finally:
        workspace.close()
    lines = {line.id: line for part in (*report.principles, *report.sources) for line in part.controls}
    for control in ("2.4-h", "A-MLSG-003-C001", "4.2-q", "A-MLSG-001-N001"):
        assert [link.basis for link in lines[control].holds][:1] == ["check"], control
        assert not lines[control].gaps, control
    (gap,) = lines["2.4-G1"].gaps
    assert gap.command == "bartizan compare"
    (gap,) = lines["A-MLSG-001-C004"].gaps
    assert gap.command == "bartizan harden sites --by COLUMN"


def test_what_other_code_measured_is_not_taken_over(place, tmp_path, ask_in, monkeypatch):
    folder, _ = place
    page = ("-o", str(tmp_path / "page.html"))
    again = ("harden", "--quick", "--base", "forest", "--only", "prune", "--column", "linkage", *page)
    assert ask_in(folder, *again)[0] == 0
    _, _, before = ask_in(folder, *again)
    monkeypatch.setattr("bartizan.wiring.hardening.code_digest", lambda: "0" * 64)
    _, _, after = ask_in(folder, *again)
    assert "kept" in before
    assert "kept" not in after


def test_the_digest_of_code_changes_with_any_module(tmp_path, monkeypatch):
    (tmp_path / "redteam").mkdir()
    module = tmp_path / "redteam" / "attack.py"
    seen = set()
    monkeypatch.setattr(code.resources, "files", lambda _: tmp_path)
    for text in ("a = 1", "a = 2"):
        module.write_text(text)
        code.code_digest.cache_clear()
        seen.add(code.code_digest(("redteam",)))
    module.rename(tmp_path / "redteam" / "other.py")
    code.code_digest.cache_clear()
    seen.add(code.code_digest(("redteam",)))
    code.code_digest.cache_clear()
    assert len(seen) == 3


def test_the_page_has_a_picture_of_every_trade(place):
    folder, said = place
    page = (folder / "bartizan-report" / "hardening.html").read_text()
    assert page.count("<svg") == 4
    assert "<script" not in page
    for row in said["hardening"]["rows"]:
        assert row["title"] in page


def test_what_does_not_apply_says_why(place):
    folder, _ = place
    asked = (
        "harden",
        "--quick",
        "--only",
        "prune",
        "--only",
        "rounding",
        "--column",
        "linkage",
        "-o",
        "none.html",
        "--json",
    )
    done = bartizan(folder, *asked)
    assert done.returncode == 0, done.stderr
    assert "--base" in json.loads(done.stdout)["hardening"]["not_applied"]["prune"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "hope"), "no defence is called 'hope'"),
        (("--base", "oracle"), "no family is called 'oracle'"),
        (("--epsilon", "0"), "epsilon is 0"),
        (("sites", "--by", "nowhere"), "no column 'nowhere'"),
        (("sites", "--by", "mean_radius", "--base", "declared"), "trained here"),
    ],
)
def test_what_cannot_be_done_is_said(place, ask_in, arguments, words):
    folder, _ = place
    code, _, errors = ask_in(folder, "harden", *arguments)
    assert code == 2
    assert words in errors
