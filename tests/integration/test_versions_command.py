"""Two versions of a model, compared as people do it; and campaigns that stop when the gate is decided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest

from fixtures.project import prepare

EXAMPLE = Path(__file__).parents[2] / "examples" / "tumour"
SMALLER = (
    ("samples = 60", "samples = 110"),
    ("query_budget = 1000", "query_budget = 150"),
)
ATTACK = ("attack", "--only", "evasion.square")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The example's files with a small budget."""
    folder = tmp_path_factory.mktemp("versions") / "project"
    folder.mkdir()
    text = (EXAMPLE / "bartizan.toml").read_text()
    for old, new in SMALLER:
        assert old in text
        text = text.replace(old, new)
    (folder / "bartizan.toml").write_text(text)
    prepare(EXAMPLE, folder)
    return folder


@pytest.fixture
def project(made, tmp_path, ask_in):
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    assert ask_in(folder, "init", "--yes", "--unencrypted")[0] == 0
    return folder


def train_again(folder, strength):
    """A second version of the model: the same recipe, more or less regularised."""
    path = folder / "model" / "tumour.joblib"
    with (folder / "data" / "train.csv").open() as file:
        columns = file.readline().strip().split(",")
        table = np.loadtxt(file, delimiter=",")
    label = columns.index("malignant")
    model = joblib.load(path).set_params(logisticregression__C=strength)
    joblib.dump(model.fit(np.delete(table, label, axis=1), table[:, label].astype(int)), path)


def test_a_second_version_is_compared_with_the_first_record_by_record(project, ask_in):
    code, _, said = ask_in(project, "attack", "compare")
    assert code == 2
    assert "no version 'previous' of a declared model was measured" in said
    assert ask_in(project, *ATTACK)[0] in {0, 1}
    train_again(project, 0.005)
    assert ask_in(project, *ATTACK)[0] in {0, 1}

    code, output, _ = ask_in(project, "attack", "compare", "--json")
    assert code == 0
    (versions,) = json.loads(output)
    (robust,) = [line for line in versions["changes"] if line["metric"] == "robust_accuracy"]
    assert robust["paired"] == 110
    assert robust["verdict"] == "better"  # a smoother model gives way less
    assert robust["low"] > 0
    assert robust["caveat"] == ""
    assert robust["difference"] == pytest.approx(robust["new"]["value"] - robust["old"]["value"], abs=1e-5)
    shown = ask_in(project, "attack", "compare", versions["old"][:8])[1]
    assert "the new version is more robust" in shown

    code, _, said = ask_in(project, "report", "--against", "previous")
    assert code == 0
    assert "more robust" in said
    page = (project / "bartizan-report" / "index.html").read_text()
    assert "Compared with an earlier version" in page
    assert f"bartizan attack compare {versions['old'][:12]}" in page
    code, _, said = ask_in(project, "report", "--against", "ffffffff")
    assert code == 2
    assert versions["old"][:12] in said  # the remedy names what there is


def test_a_version_that_became_worse_is_told_by_the_exit_code(project, ask_in):
    train_again(project, 0.005)
    assert ask_in(project, *ATTACK)[0] in {0, 1}  # the scan that must come first is run with it
    train_again(project, 100.0)
    assert ask_in(project, *ATTACK)[0] in {0, 1}
    code, output, _ = ask_in(project, "attack", "compare")
    assert code == 1
    assert "less robust" in output


def test_a_campaign_stops_when_the_gate_is_decided_and_the_gate_says_the_same(project, ask_in):
    path = project / "bartizan.toml"
    text = path.read_text().replace("[redteam]", "[redteam]\nstop_when_decided = true", 1)
    bound = '{ field = "metrics.robust_accuracy.low", at_least = 0.70 }'
    assert bound in text
    path.write_text(text.replace(bound, bound.replace("0.70", "0.95")))
    code, output, _ = ask_in(project, *ATTACK, "--json")
    assert code in {0, 1}
    (attacked,) = [
        each["assessment"] for key, each in json.loads(output)["endings"].items() if key.startswith("redteam")
    ]
    assert attacked["settings"]["stopped_after"] < 110
    assert "what gates ask for is decided: missed" in attacked["summary"]
    code, output, _ = ask_in(project, "gate", "explain", "release", "--json")
    (rule,) = [each for each in json.loads(output)["results"] if each["rule"]["id"] == "evasion-with-scores"]
    assert rule["state"] == "unmet"
    assert "metrics.robust_accuracy.low is" in rule["reason"]
