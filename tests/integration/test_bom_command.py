"""``bartizan bom`` as a person uses it; the result is judged by the reference validator."""

from __future__ import annotations

import json
import shutil

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


@pytest.fixture
def folder(tmp_path, assured_once):
    """A copy of the assured example that may be changed."""
    return shutil.copytree(assured_once, tmp_path / "project", symlinks=True)


def judged(text):
    """What the reference validator has against a bill."""
    return JsonStrictValidator(SchemaVersion.V1_7).validate_str(text)


@pytest.mark.control("2.1-d")
def test_the_bill_is_valid_and_lists_model_data_code_and_tools(folder, ask_in):
    code, text, _ = ask_in(folder, "bom")
    assert code == 0
    assert judged(text) is None
    bill = json.loads(text)
    kinds = {}
    for component in bill["components"]:
        kinds.setdefault(component["type"], []).append(component["name"])
    assert kinds["machine-learning-model"] == ["tumour"]
    assert kinds["data"] == ["train", "holdout"]
    assert {"numpy", "scipy"} <= set(kinds["library"])
    assert "scikit-learn" in kinds["framework"]
    assert "training" in kinds["application"]
    assert [tool["name"] for tool in bill["metadata"]["tools"]["components"]] == ["Bartizan"]
    assert {service["name"] for service in bill["services"]} >= {"public-archive"}


def test_the_model_card_carries_what_was_measured(folder, ask_in):
    bill = json.loads(ask_in(folder, "bom")[1])
    card = bill["components"][0]["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": "dataset:train"}, {"ref": "dataset:holdout"}]
    measured = {metric["type"]: metric for metric in card["quantitativeAnalysis"]["performanceMetrics"]}
    interval = measured["evasion.hopskipjump.robust_accuracy"]["confidenceInterval"]
    assert float(interval["lowerBound"]) < float(measured["evasion.hopskipjump.robust_accuracy"]["value"])


def test_the_same_inputs_give_the_same_bytes_and_every_reference_is_there(folder, ask_in):
    first, second = (ask_in(folder, "bom", "--all-installed")[1] for _ in range(2))
    assert first == second
    bill = json.loads(first)
    refs = [part["bom-ref"] for part in [*bill["components"], *bill["services"], bill["metadata"]["component"]]]
    assert len(refs) == len(set(refs))
    assert judged(first) is None
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency.get("dependsOn", ())} <= set(refs)


def test_a_time_comes_only_from_the_build(folder, ask_in, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1763683200")
    assert json.loads(ask_in(folder, "bom")[1])["metadata"]["timestamp"] == "2025-11-21T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert ask_in(folder, "bom")[0] == 2


def test_a_signed_bill_is_found_and_compared(folder, ask_in, tmp_path):
    lock = tmp_path / "requirements.txt"
    lock.write_text("numpy==2.0.0 \\\n    --hash=sha256:" + "ab" * 32 + "\n")
    bill = tmp_path / "bom.json"
    code, _, said = ask_in(folder, "bom", "-o", str(bill), "--sign", "service", "--lock", str(lock))
    assert (code, "signed as" in said) == (0, True)
    assert "ab" * 32 in bill.read_text()
    code, out, _ = ask_in(folder, "bom", "find", "numpy", "--json")
    (found,) = json.loads(out)["found"]
    assert (code, found["system"], found["standing"]) == (1, "tumour-triage", "holds")
    assert ask_in(folder, "bom", "find", "left-pad")[0] == 0
    changed = json.loads(bill.read_text())
    changed["components"][0]["version"] = "other"
    (tmp_path / "new.json").write_text(json.dumps(changed))
    code, out, _ = ask_in(folder, "bom", "diff", found["envelope"][:12], str(tmp_path / "new.json"))
    assert code == 1
    assert "machine-learning-model:tumour" in out
    assert ask_in(folder, "bom", "diff", str(bill), str(bill))[0] == 0
    assert ask_in(folder, "bom", "diff", "ffff", str(bill))[0] == 2


@pytest.mark.control("GL-2.3")
def test_the_bill_covers_every_kind_and_what_is_undocumented_is_flagged(folder, ask_in, tmp_path):
    bill = json.loads(ask_in(folder, "bom")[1])
    kinds = {component["type"] for component in bill["components"]}
    assert {"data", "library", "framework", "application", "machine-learning-model"} <= kinds
    assert bill["services"]
    assert ask_in(folder, "bom", "check", str(written(tmp_path, bill)))[0] == 0
    for component in bill["components"]:
        component.pop("licenses", None)
    del bill["components"][0]["hashes"]
    code, out, _ = ask_in(folder, "bom", "check", str(written(tmp_path, bill)), "--json")
    titles = [finding["title"] for finding in json.loads(out)["findings"]]
    assert code == 1
    assert "machine-learning-model tumour is listed without digest" in titles
    assert "data train is listed without licence" in titles
    assert "library numpy is listed without licence" in titles


def written(tmp_path, bill):
    path = tmp_path / "bill.json"
    path.write_text(json.dumps(bill))
    return path


def test_assure_leaves_a_bill_that_holds(folder, ask_in):
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    assert [item["standing"] for item in listed if item["type"] == "bom"] == ["holds"]
