"""The red team against numbers that are known: on the shipped toy model, a straight line, the truth can be computed."""

from __future__ import annotations

import json

import joblib
import numpy as np
import pytest

from bartizan.redteam.check import material_of
from bartizan.wiring import measuring
from bartizan.wiring.workspace import Workspace
from fixtures.project import bartizan, declare

QUERIES, TOLERANCE = 400, 0.04
SUITE = ("evasion.linear-exact", "evasion.hopskipjump", "evasion.square", "extraction.equation-solving")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The shipped example, every holdout record under attack, and a change that breaks about half of them."""
    folder = tmp_path_factory.mktemp("reference") / "project"
    declare(folder)
    declaration = folder / "bartizan.toml"
    text = declaration.read_text()
    for old, new in {
        "samples = 60": "samples = 500",
        "query_budget = 1000": f"query_budget = {QUERIES}",
        "max_change = 0.25": "max_change = 0.5",
    }.items():
        assert old in text
        text = text.replace(old, new)
    declaration.write_text(text)
    return folder


@pytest.fixture(scope="module")
def measured(place):
    """What the suite left in the ledger: each attack's statement and report."""
    chosen = [word for name in SUITE for word in ("--only", name)]
    done = bartizan(place, "attack", *chosen, "--json")
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    workspace = Workspace(place)
    try:
        system = workspace.system()
        (subject,) = system.of_kind("model")
        found = {name: measuring.newest(workspace, system, subject, f"redteam.{name}") for name in SUITE}
        material = material_of(system, subject)
    finally:
        workspace.close()
    said = {name: item.statement.read() for name, (item, _) in found.items()}
    return said, {name: json.loads(report) for name, (_, report) in found.items()}, material


def withstanding(folder, material):
    """``(records,)``: which holdout records no change within the bound and the ranges turns.

    Of a straight line the worst change is known: every column as far as it may go against its weight.
    """
    model, space, table = joblib.load(folder / "model" / "tumour.joblib"), material.space, material.evaluation
    weights = model[-1].coef_[0] / model[0].scale_
    against = -np.sign(weights) * np.where(table.labels == 1, 1.0, -1.0)[:, None]
    bound = material.settings.max_change * space.scale
    # A record that is outside the ranges of training stays where it is rather than being pulled in.
    low, high = np.minimum(space.low, table.rows), np.maximum(space.high, table.rows)
    worst = np.clip(table.rows + against * bound, low, high)
    return model.predict(worst) == table.labels


@pytest.mark.control("1.4-e")
def test_the_suite_reproduces_the_known_results_of_the_shipped_toy_model(place, measured):
    said, reports, material = measured
    truth = withstanding(place, material)
    for name in SUITE[:3]:
        samples = reports[name]["samples"]
        stands = truth[[sample["record"] for sample in samples]]
        robust, metric = np.array([sample["robust"] for sample in samples]), said[name].metrics["robust_accuracy"]
        assert 0.2 < stands.mean() < 0.8  # else agreement would show little
        assert robust[stands].all(), name  # nothing is said to fall that cannot
        assert robust.mean() - stands.mean() <= (0 if name == SUITE[0] else TOLERANCE), name
        assert metric.n == len(samples) > 100
        assert metric.value == pytest.approx(robust.mean(), abs=1e-5)
        assert metric.low <= stands.mean() <= metric.high
        assert said[name].metrics["clean_accuracy"].value == pytest.approx(accuracy(place), abs=1e-5)
    for name in SUITE[1:3]:
        assert said[name].budget["queries_allowed_per_sample"] == QUERIES
        assert 0 < said[name].budget["most_queries_spent_on_a_sample"] <= QUERIES
    assert said["extraction.equation-solving"].metrics["fidelity"].value == 1
    for one in said.values():
        assert one.seed == material.settings.seed
        assert one.budget
        assert all(metric.low <= metric.value <= metric.high for metric in one.metrics.values())


def accuracy(folder):
    """Of the model, without anything of ours."""
    table = np.loadtxt(folder / "data" / "holdout.csv", delimiter=",", skiprows=1)
    return float((joblib.load(folder / "model" / "tumour.joblib").predict(table[:, :-1]) == table[:, -1]).mean())
