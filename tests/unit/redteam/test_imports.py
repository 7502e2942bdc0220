"""Other tools' results: real reports are read as claims, hostile ones are refused in bounded time."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import InputError
from bartizan.core.statement import make
from bartizan.core.system import Artefact
from bartizan.redteam.imports import FORMAT, MAX_LINES, read_results
from bartizan.redteam.statistics import wilson
from bartizan.wiring.importing import assessment

SACRO = Path(__file__).parents[2] / "assets" / "redteam" / "sacroml.json"
"""Written by sacroml 2.0.1 (worst-case attack on a random forest on the Wisconsin data, two repeats)."""
GOOD = {"format": FORMAT, "tool": {"name": "art", "version": "1.20"}, "attack": "PGD", "techniques": ["T06"]}
GARAK = [
    {"entry_type": "start_run setup", "garak_version": "0.13.0"},
    {"entry_type": "init", "garak_version": "0.13.0"},
    {"entry_type": "attempt", "uuid": "1", "prompt": "x"},
    {"entry_type": "eval", "probe": "dan.Dan_11_0", "detector": "detector.dan.DAN", "passed": 3, "total": 5},
    {"entry_type": "eval", "probe": "dan.Dan_11_0", "detector": "mitigation.Bypass", "passed": 1, "total": 5},
    {"entry_type": "eval", "probe": "encoding.B64", "detector": "encoding.Match", "passed": 8, "total": 8},
]


def read(*documents):
    return read_results("\n".join(map(json.dumps, documents)).encode())


def test_a_real_report_of_sacro_ml_is_read_at_its_worst_repeat():
    (found,) = read_results(SACRO.read_bytes())
    assert (found.tool, found.version, found.attack) == ("sacro-ml", "2.0.1", "WorstCase attack")
    (whole,) = json.loads(SACRO.read_bytes()).values()
    runs = whole["attack_experiment_logger"]["attack_instance_logger"].values()
    worst = max(runs, key=lambda run: run["AUC"])
    assert found.claimed["AUC"] == worst["AUC"]
    assert found.metrics["TPR"].value == pytest.approx(worst["TPR"], abs=1e-6)
    interval = wilson(round(worst["TPR"] * 57), 57)
    assert (found.metrics["TPR"].low, found.metrics["TPR"].high) == pytest.approx(
        (interval.low, interval.high), abs=1e-5
    )
    assert "AUC" not in found.metrics, "the report does not say what it takes for an interval"


def test_a_garak_log_gives_one_result_for_each_probe():
    dan, encoding = read(*GARAK)
    assert (dan.tool, dan.version, dan.attack) == ("garak", "0.13.0", "dan.Dan_11_0")
    assert {name: (metric.value, metric.n) for name, metric in dan.metrics.items()} == {
        "withstood dan DAN": (0.6, 5),
        "withstood mitigation Bypass": (0.2, 5),
    }
    assert dan.summary.startswith("20% of 5")
    assert encoding.metrics["withstood encoding Match"].value == 1


def test_pyrit_objectives_are_counted_and_what_is_undetermined_was_not_reached():
    (found,) = read([{"achieved_objective": True}, {"outcome": "success"}, {"outcome": "undetermined"}])
    metric = found.metrics["attack_success"]
    assert metric.value == pytest.approx(2 / 3, abs=1e-6)
    assert metric.n == 3


def test_a_neutral_metric_has_an_interval_or_is_no_metric():
    metrics = {
        "robust": {"successes": 31, "n": 60},
        "auc": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 200, "method": "delong"},
        "bare": 0.5,
        "half": {"value": 0.5, "n": 10},
    }
    (found,) = read(GOOD | {"metrics": metrics})
    assert set(found.metrics) == {"robust", "auc"}
    assert found.metrics["robust"].low == pytest.approx(wilson(31, 60).low, abs=1e-5)
    assert found.metrics["auc"].method == "as claimed: delong"
    assert found.claimed == {"bare": 0.5, "half": 0.5}


def test_a_number_with_a_unit_of_its_own_is_no_share():
    (found,) = read(
        GOOD
        | {
            "metrics": {
                "query_rate": {"value": 40, "low": 30, "high": 50, "n": 9, "unit": "1/s"},
                "accuracy": {"value": 93.5, "low": 90, "high": 96, "n": 200, "unit": "%"},
                "seconds": 12.5,
            }
        }
    )
    assert {name: metric.value for name, metric in found.metrics.items()} == {"query_rate": 40, "accuracy": 93.5}
    assert found.claimed == {"seconds": 12.5}


@pytest.mark.parametrize("digest", ["", "ab" * 32])
def test_a_claim_says_which_model_it_is_about_or_that_nobody_knows(digest):
    (found,) = read(GOOD | {"model_sha256": digest})
    said = assessment("external.x", Artefact(kind="model", name="m", digest="0" * 64), found, (), "1" * 64)
    assert said.settings["attacked_model"] == (digest or "not said")
    assert ("does not say by a digest which model" in said.summary) == (not digest)


def test_what_is_read_becomes_a_statement():
    model = Artefact(kind="model", name="m", digest="0" * 64)
    for found in (*read_results(SACRO.read_bytes()), *read(*GARAK), *read(GOOD | {"metrics": {"a.b": 1}})):
        predicate = assessment("external.x", model, found, ("T35",), "1" * 64)
        said = make("urn:bartizan:assessment:v1", model, predicate).read()
        assert "not measured here" in said.summary
        assert said.family == "external"


BAD = {
    "empty": b"",
    "no JSON": b"<html>",
    "deep": b"[" * 200_000,
    "a number": b"7",
    "unknown": b'{"results": []}',
    "no results": b"[]",
    "no tool": json.dumps({"format": FORMAT, "attack": "x"}).encode(),
    "no attack": json.dumps(GOOD | {"attack": ""}).encode(),
    "control characters": json.dumps(GOOD | {"attack": "\x1b[31mred"}).encode(),
    "a long name": json.dumps(GOOD | {"attack": "x" * 81}).encode(),
    "impossible share": json.dumps(GOOD | {"metrics": {"a": {"successes": 5, "n": 3}}}).encode(),
    "negative share": json.dumps(GOOD | {"metrics": {"a": {"successes": -1, "n": 3}}}).encode(),
    "infinite": b'{"format": "%s", "tool": {"name": "a"}, "attack": "b", "metrics": {"a": 1e999}}' % FORMAT.encode(),
    "text for a number": json.dumps(GOOD | {"metrics": {"a": "high"}}).encode(),
    "true for a number": json.dumps(GOOD | {"metrics": {"a": True}}).encode(),
    "value outside": json.dumps(GOOD | {"metrics": {"a": {"value": 2, "low": 0, "high": 1, "n": 5}}}).encode(),
    **{
        f"a share: {name} {number}": json.dumps(GOOD | {"metrics": {name: number}}).encode()
        for name in ("robust_accuracy", "TPR", "attack success", "recall_malignant")
        for number in (7, -0.1, {"value": 7, "low": 6, "high": 8, "n": 3}, {"value": 1, "low": 1, "high": 2, "n": 3})
    },
    **{
        f"a confidence of {share}": json.dumps(
            GOOD | {"metrics": {"a": {"value": 0.5, "low": 0, "high": 1, "n": 5, "confidence": share}}}
        ).encode()
        for share in (-4, 0, 1, 95)
    },
    "a negative budget": json.dumps(GOOD | {"budget": {"queries_allowed": -5}}).encode(),
    "too many metrics": json.dumps(GOOD | {"metrics": {str(place): 1 for place in range(101)}}).encode(),
    "too many results": json.dumps([GOOD] * 201).encode(),
    "no digest": json.dumps(GOOD | {"model_sha256": "abc"}).encode(),
    "garak without a run": json.dumps({"entry_type": "init"}).encode(),
    "garak that counts wrong": json.dumps(GARAK[3] | {"passed": 9}).encode(),
    "too many lines": b'{"entry_type": "attempt"}\n' * (MAX_LINES + 1),
    "sacro without a run": json.dumps({"a": {"metadata": {}, "attack_experiment_logger": {}}}).encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_a_result_is_refused_with_what_to_do(name):
    with pytest.raises(InputError) as error:
        read_results(BAD[name])
    assert error.value.remedy
    assert "\x1b" not in str(error.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
KEYS = ("tool", "attack", "metrics", "budget", "techniques", "access", "seed", "summary", "model_sha256", "position")


@given(st.dictionaries(st.sampled_from(KEYS), TREES), st.sampled_from([FORMAT, "other", None]))
def test_any_json_is_read_or_refused(fields, form):
    document = GOOD | fields | {"format": form}
    try:
        found = read_results(msgspec.json.encode(document))
    except InputError:
        return
    for each in found:
        assessment("external.x", Artefact(kind="model", name="m", digest="0" * 64), each, (), "1" * 64)
        assert len(each.summary) <= 300


@given(TREES)
def test_any_report_of_sacro_ml_is_read_or_refused(inner):
    document = {"x": {"metadata": {"attack_name": "WorstCase attack"}, "attack_experiment_logger": inner}}
    try:
        read_results(msgspec.json.encode(document))
    except InputError:
        return
