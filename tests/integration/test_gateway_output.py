"""What each role is told, over HTTP from a running gateway, and on record."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bartizan.core.digest import canonical_json
from bartizan.core.system import Exposure
from bartizan.lifecycle.deploy.gateway.detail_check import shown
from bartizan.lifecycle.deploy.gateway.graphic import HEIGHT
from fixtures.gateways import configured, key_of, serving
from fixtures.project import bartizan

ROLES = """
[identity.keys]

[role.visitor]

[role.user]

[role.engineer]

[role.administrator]
factor = "not needed"

[role.guarded]
extends = "maintainer"

[role.clerk]
detail = "graphic"

[role.nurse]
detail = "summary"

[role.watcher]
detail = "top-k"
pad_milliseconds = 300

[role.statistician]
detail = "noisy-scores"

[role.trainee]
extends = "engineer"
decimals = 1
rate = "3/h"
"""
NAMES = (
    "visitor",
    "user",
    "engineer",
    "administrator",
    "guarded",
    "clerk",
    "nurse",
    "watcher",
    "statistician",
    "trainee",
)
PAD = 0.3
"""Seconds; answers to watchers leave at multiples of it."""
USUAL_PAD = 0.005
"""The same for a role that says nothing of it."""


class Told:
    """A gateway, a key for each role, and rows that the model never saw."""

    def __init__(self, client, keys, rows):
        self.client, self.keys, self.rows = client, keys, rows

    def outputs(self, role, rows=None):
        status, _, answer = self.client.infer(self.rows[:20] if rows is None else rows, self.keys[role], "digits")
        assert status == 200, answer
        return {output["name"]: output for output in answer["outputs"]}

    def post(self, role, content, path="/v2/models/digits/infer"):
        return self.client.ask("POST", path, content, self.keys[role])


@pytest.fixture(scope="module")
def told(digits_project, digits_held_out, tmp_path_factory):
    folder = configured(digits_project, tmp_path_factory.mktemp("output") / "served", ROLES)
    keys = {name: key_of(folder, name) for name in NAMES}
    with serving(folder) as client:
        yield Told(client, keys, digits_held_out[0])


def tensor(rows):
    rows = np.atleast_2d(rows)
    return {"name": "features", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}


def scores_of(output):
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.control("3.1-G3")
def test_the_default_role_gets_the_label_and_nothing_else(told):
    for role in ("visitor", "user"):
        outputs = told.outputs(role)
        assert outputs.keys() == {"label"}
        assert set(outputs["label"]["data"]) <= set("0123456789")
    status, _, plain = told.post("visitor", {"rows": told.rows[:2].tolist()}, "/predict/digits")
    assert (status, [set(prediction) for prediction in plain["predictions"]]) == (200, [{"label"}] * 2)
    _, _, answer = told.client.infer(told.rows[:1], told.keys["visitor"], "digits")
    assert answer.keys() <= {"model_name", "model_version", "outputs", "parameters"}


@pytest.mark.control("3.1-j")
def test_users_engineers_and_administrators_see_different_detail(told):
    user, engineer, administrator = (told.outputs(role) for role in ("user", "engineer", "administrator"))
    assert user.keys() == {"label"}
    assert engineer.keys() == administrator.keys() == {"label", "scores"}
    rounded, full = scores_of(engineer["scores"]), scores_of(administrator["scores"])
    np.testing.assert_array_equal(rounded, rounded.round(2))
    np.testing.assert_allclose(rounded, full, atol=0.01)
    assert (full != full.round(2)).any()
    assert user["label"]["data"] == engineer["label"]["data"] == administrator["label"]["data"]
    for role in ("user", "engineer", "administrator"):
        status, _, answer = told.post(role, {"inputs": [tensor(told.rows[0])]}, "/v2/models/digits/explain")
        assert status == 403
        assert answer == {"error": "this is not allowed"}


@pytest.mark.control("3.1-a")
def test_scores_embeddings_errors_and_timing_are_withheld_unless_granted(told):
    asked = {"inputs": [tensor(told.rows[0])]}
    for name in ("scores", "confidence", "embeddings", "logits", "hidden"):
        status, _, answer = told.post("user", asked | {"outputs": [{"name": name}]})
        assert status == 403
        assert answer == {"error": "an output that was asked for is not given here"}
    for role in NAMES:
        if role not in {"guarded", "trainee"}:
            assert "embeddings" not in told.outputs(role, told.rows[:1])
    assert told.post("administrator", asked | {"outputs": [{"name": "scores"}]})[0] == 200
    wrong = (
        {"inputs": [tensor(told.rows[0][:-1])]},
        {"inputs": [tensor(told.rows[0]) | {"name": "pixels"}]},
        {"inputs": [tensor(told.rows[0]) | {"datatype": "COMPLEX"}]},
        {"inputs": [tensor(told.rows[0]) | {"shape": [64, 1]}]},
    )
    assert {canonical_json(told.post("user", content)[2]) for content in wrong} == {
        canonical_json({"error": "the input is not what this model takes"})
    }
    fields = told.client.infer(told.rows[:1], told.keys["user"], "digits")[1]
    assert not {"server-timing", "x-runtime", "x-process-time", "x-response-time"} & fields.keys()
    assert quickest(told, "user") >= USUAL_PAD
    assert quickest(told, "watcher") >= PAD > quickest(told, "administrator", under=PAD)


def quickest(told, role, *, under=0.0):
    """Seconds of the quickest of some answers; with ``under``, they go on for a while until one took less."""
    spent = []
    while len(spent) < 5 or (under and min(spent) >= under and len(spent) < 50):
        began = time.perf_counter()
        told.outputs(role, told.rows[:1])
        spent.append(time.perf_counter() - began)
    return min(spent)


@pytest.mark.control("3.1-e")
def test_full_scores_are_for_the_maintainers_role_alone_and_each_use_is_on_record(told):
    folder = told.client.folder
    found = {}
    for role in NAMES:
        if role not in {"guarded", "trainee"}:
            outputs = told.outputs(role, told.rows[20:60])
            shown = scores_of(outputs["scores"]) if "scores" in outputs else np.zeros(1)
            found[role] = bool((shown != shown.round(4)).any())
    assert [role for role, full in found.items() if full] == ["administrator"]
    status, _, _ = told.client.infer(told.rows[:1], told.keys["guarded"], "digits")
    assert status == 401
    requests = []
    for _ in range(5):
        _, fields, _ = told.client.infer(told.rows[:1], told.keys["administrator"], "digits")
        requests.append(fields["bartizan-request"])
    done = bartizan(folder, "audit", "search", "--reason", "who saw scores", "--json", "--limit", "9999")
    assert done.returncode == 0, done.stderr
    records = [each["record"] for each in json.loads(done.stdout)["found"]]
    logged = {record["id"]: record for record in records if record.get("detail") == "scores"}
    assert set(requests) <= logged.keys()
    assert {record["role"] for record in logged.values()} == {"administrator"}


def test_full_scores_for_another_role_are_refused_before_anything_is_served(told, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(told.client.folder, folder, symlinks=True)
    (folder / "gateway.toml").write_text(ROLES + '\n[role.helper]\ndetail = "scores"\n')
    done = bartizan(folder, "gateway", "roles")
    assert done.returncode == 2
    assert "does not extend 'administrator'" in done.stderr


@pytest.mark.control("3.1-f")
def test_a_picture_carries_no_scores_that_could_be_recovered(told):
    rows = told.rows[:300]
    pictures = told.outputs("clerk", rows)["graphic"]["data"]
    full = told.outputs("administrator", rows)
    labels, scores = full["label"]["data"], scores_of(full["scores"])
    bars = [ET.fromstring(svg).findall("{http://www.w3.org/2000/svg}rect") for svg in pictures]
    measured = np.array([[float(bar.get("height")) / HEIGHT for bar in each] for each in bars])
    tenths = (measured * 10).round().astype(int)
    np.testing.assert_allclose(measured * 10, tenths)
    seen = {}  # a picture is a function of its label and its bars: it has no place for anything else
    for svg, label, heights in zip(pictures, labels, tenths, strict=True):
        assert seen.setdefault((label, *heights), svg) == svg
    assert len(seen) < len(pictures)
    doubtful = (scores > 0.02) & (scores < 0.98)
    error = np.abs(measured - scores)[doubtful]
    assert doubtful.sum() > 50
    assert error.mean() > 0.015
    assert (error > 0).all()
    assert told.outputs("clerk").keys() == {"label", "graphic"}
    assert told.outputs("nurse").keys() == {"label", "summary"}
    assert not any(letter.isdigit() for letter in told.outputs("nurse")["summary"]["data"][0].split("'")[2])


@pytest.mark.control("3.1-g")
def test_values_are_rounded_and_slowed_down_by_role(told):
    coarse = scores_of(told.outputs("trainee")["scores"])
    np.testing.assert_array_equal(coarse, coarse.round(1))
    answers = [told.client.infer(told.rows[:1], told.keys["trainee"], "digits") for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 429, 429]
    assert int(answers[-1][1]["retry-after"]) > 0
    assert told.client.infer(told.rows[:1], told.keys["engineer"], "digits")[0] == 200


def test_noise_is_the_same_for_the_same_row_and_the_label_is_the_models(told):
    rows = np.repeat(told.rows[:1], 20, axis=0)
    shown = told.outputs("statistician", rows)
    assert len(set(shown["confidence"]["data"])) == 1
    assert shown["label"]["data"] == told.outputs("administrator", rows)["label"]["data"]
    assert told.outputs("watcher")["top"]["shape"] == [20, 3]


@pytest.mark.control("3.1-G1")
def test_the_matrix_of_roles_and_fields_is_printed_and_is_what_the_server_does(told):
    folder = told.client.folder
    done = bartizan(folder, "gateway", "roles", "--json")
    assert done.returncode == 0, done.stderr
    matrix = json.loads(done.stdout)
    assert {each["role"] for each in matrix["roles"]} == set(NAMES)
    for each in matrix["roles"]:
        role = each["role"]
        if role not in {"guarded", "trainee"}:
            assert set(told.outputs(role, told.rows[:1])) == set(each["outputs"]), role
        for route in each["routes"]:
            if route["method"] == "GET" and route["route"] in {"/openapi.json", "/v2/models/{model}"}:
                path = route["route"].replace("{model}", "digits")
                status = told.client.ask("GET", path, key=told.keys[role])[0]
                # 429: granted, and the role's rate is spent by now
                assert (status in {200, 429}) == route["granted"], (role, path)
            if route["route"] == "/v2/models/{model}/explain":
                status = told.post(role, {"inputs": [tensor(told.rows[0])]}, "/v2/models/digits/explain")[0]
                assert not route["granted"]
                assert status in {401, 403}
    for told_of in matrix["everybody"]:
        path = told_of["route"].replace("{model}", "digits")
        if "{" not in path:
            assert told.client.raw(told_of["method"], path)[0] in {200, 404}
    printed = bartizan(folder, "gateway", "roles", "--routes").stdout
    assert all(name in printed for name in NAMES)
    assert "POST /v2/models/{model}/infer" in printed
    assert "labels only" in printed


GATE = """
[[gate.deploy.rule]]
id = "labels-only-hide-the-model"
about = "model"
type = "assessment"
check = "gateway.detail"
where = [{ field = "metrics.evasion_at_labels_only.high", at_most = 0.9 }]
"""
LEVELS = (
    "labels only",
    "3 likeliest labels",
    "confidence in 3 buckets",
    "picture of 10 steps",
    "best score with noise 1",
    "best score to 2 digits",
    "scores to 2 digits",
    "all scores",
)
"""Every kind of detail that a role may have; a summary tells the label and the bucket, in words."""
AIMS = ("evasion", "membership", "membership_without_training", "attribute", "extraction", "log_loss")
SPENT = {"samples": 20, "query_budget": 30, "shadow_models": 8, "extraction_budget": 50}


def spending(text):
    """The declaration with a red team that may spend little, so that this test ends soon."""
    for name, number in SPENT.items():
        text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {number}", text)
    assert 'output = "scores"' in text
    return text


@pytest.mark.control("3.1-G2")
def test_attack_success_is_measured_at_each_level_of_detail_and_a_gate_can_bound_it(tumour_project, tmp_path):
    folder = configured(
        tumour_project, tmp_path / "measured", "[role.user]\n", also=GATE, change=spending, checks=("gateway.detail",)
    )
    done = bartizan(folder, "evidence", "list", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (digest,) = [each["envelope"] for each in found if each["what"] == "gateway.detail"]
    said = json.loads(bartizan(folder, "evidence", "show", digest).stdout)["predicate"]
    metrics = said["metrics"]
    assert said["settings"]["details"].split(", ") == list(LEVELS)
    for level, aim in itertools.product(LEVELS, AIMS):
        measured = metrics[f"{aim}_at_{level.replace(' ', '_')}"]
        assert measured["low"] <= measured["value"] <= measured["high"], (level, aim)
        assert measured["n"] > 0
    assert said["result"] == "measured"


def test_detail_that_the_declared_interface_may_not_give_is_not_measured():
    compared = [detail.name for detail in shown(Exposure(interface="partners", output="rounded-scores"))]
    assert compared == [level for level in LEVELS if level not in {"3 likeliest labels", "all scores"}]
