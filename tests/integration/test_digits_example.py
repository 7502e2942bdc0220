"""The example on images: a network as ONNX, attacked from the command line, and one that masks its gradients."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
SMALLER = {
    "samples = 60": "samples = 10",
    "query_budget = 500": "query_budget = 100",
    "gradient_budget = 500": "gradient_budget = 100",
}
ATTACKS = ("apgd", "square", "hopskipjump", "transfer", "corruptions")


def prepare():
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLE / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smaller(text):
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The example with a network that was trained for a shorter time."""
    folder = tmp_path_factory.mktemp("digits") / "made"
    module = prepare()
    module.PASSES = 6
    module.main(folder)
    (folder / "bartizan.toml").write_text(smaller((EXAMPLE / "bartizan.toml").read_text()))
    return folder


@pytest.fixture
def project(made, tmp_path, ask_in):
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    assert ask_in(folder, "init", "--yes", "--unencrypted")[0] == 0
    return folder


def assured(ask_in, folder, *names):
    chosen = [word for name in names for word in ("--only", name)]
    code, output, errors = ask_in(folder, "assure", "--json", *chosen)
    assert output, errors
    return code, json.loads(output), errors


def statement(ask_in, folder, check):
    rows = json.loads(ask_in(folder, "evidence", "list", "model:digits", "--json")[1])
    (row,) = [row for row in rows if row["what"] == check and row["standing"] == "holds"]
    return json.loads(ask_in(folder, "evidence", "show", row["envelope"])[1])["predicate"]


def test_a_network_for_images_is_attacked_from_end_to_end(project, ask_in):
    names = [f"redteam.evasion.{name}" for name in ATTACKS]
    code, answer, errors = assured(ask_in, project, "scan", "redteam.masking", *names)
    assert code in {0, 1}, errors
    rules = {rule["rule"]["id"]: rule for rule in answer["rules"]}
    assert rules["scan"]["state"] == "met"
    said = {name: statement(ask_in, project, name) for name in names}
    for name in names[:4]:
        metrics = said[name]["metrics"]
        assert metrics["clean_accuracy"]["n"] == 599
        assert metrics["clean_accuracy"]["low"] > 0.9
        assert metrics["robust_accuracy"]["n"] == 10
    assert "change each pixel by 1.5 (values run from 0 to 16)" in said["redteam.evasion.square"]["summary"]
    apgd = said["redteam.evasion.apgd"]
    assert apgd["summary"].endswith(
        "Upper bound: the attacker has the weights, which the interface does not give away."
    )
    assert 0 < apgd["budget"]["gradients_spent"] <= 10 * 100
    assert apgd["metrics"]["robust_accuracy"]["value"] < apgd["metrics"]["clean_accuracy"]["value"]
    masking = statement(ask_in, project, "redteam.masking")
    assert masking["result"] == "passed"
    assert rules["gradients-can-be-trusted"]["state"] == "met"


@pytest.fixture
def masked(made, tmp_path, ask_in):
    """The same network behind a step that rounds pixels to multiples of four: slopes are 0 wherever there is one."""
    folder = tmp_path / "masked"
    shutil.copytree(made, folder)
    path = folder / "model" / "digits.onnx"
    model = onnx.load(path)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(4), "levels"))
    divide, rest = graph.node[0], list(graph.node[1:])
    divide.input[1], divide.output[0] = "levels", "counted"
    del graph.node[1:]
    graph.node.append(helper.make_node("Round", ["counted"], ["rounded"]))
    graph.node.append(helper.make_node("Div", ["rounded", "levels"], ["scaled"]))
    graph.node.extend(rest)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    assert ask_in(folder, "init", "--yes", "--unencrypted")[0] == 0
    return folder


def test_the_release_gate_refuses_a_model_that_masks_its_gradients(masked, ask_in):
    code, answer, _ = assured(ask_in, masked, "scan", "redteam.masking", "redteam.evasion.apgd")
    assert code != 0
    rules = {rule["rule"]["id"]: rule for rule in answer["rules"]}
    assert rules["scan"]["state"] == "met"
    assert rules["gradients-can-be-trusted"]["state"] == "unmet"
    assert "result is failed" in rules["gradients-can-be-trusted"]["reason"]
    assert rules["evasion-by-gradients"]["state"] == "unmet"
    said = statement(ask_in, masked, "redteam.masking")
    assert said["settings"]["verdict"] == "no gradients"
    assert "Round" in said["summary"]
    assert said["metrics"]["robust_to_all"]["value"] < 1
    assert sum(said["findings"].values()) == 1


def test_a_gate_without_the_rule_about_masking_is_refused_before_anything_is_run(project, ask_in):
    path = project / "bartizan.toml"
    text = path.read_text()
    for check in ("redteam.masking", "redteam.evasion.square"):
        rules = text.split("[[gate.release.rule]]")
        text = "[[gate.release.rule]]".join(rule for rule in rules if f'check = "{check}"' not in rule)
    path.write_text(text)
    code, _, errors = ask_in(project, "assure", "--only", "scan")
    assert code == 2
    assert "says nothing of a model that masks them" in errors


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("shape = [1, 8, 8]", "shape = [1, 4, 8]", "images of the declared shape are (records, 1, 4, 8)"),
        ("value_range = [0, 16]", "value_range = [0, 1]", "outside the value_range from 0 to 1"),
    ],
)
def test_a_declaration_that_does_not_fit_the_file_ends_with_what_would_be_right(project, ask_in, old, new, says):
    path = project / "bartizan.toml"
    text = path.read_text().replace(old, new).replace("max_change = 1.5", "max_change = 0.1")
    path.write_text(text)
    code, _, errors = ask_in(project, "assure", "--only", "redteam.evasion.square")
    assert code == 2
    assert says in errors


def test_the_example_is_the_same_every_time(tmp_path):
    module = prepare()
    module.PASSES = 1
    for name in ("a", "b"):
        module.main(tmp_path / name)
    for file in ("data/train.npz", "data/holdout.npz", "model/digits.onnx"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with np.load(tmp_path / "a" / "data" / "holdout.npz") as data:
        assert data["rows"].shape[1:] == module.SHAPE
        assert data["rows"].max() == module.BRIGHTEST
