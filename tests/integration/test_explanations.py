"""Explanations through a real server: given to roles that are granted them, refused to everybody else."""

from __future__ import annotations

import base64
import contextlib
import csv
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from fixtures.project import bartizan, declare

PATIENCE = 60
GATE = """
[[document]]
name = "gateway"
path = "gateway.toml"
kind = "configuration"

[gate.deploy]
valid_for = "7d"

[[gate.deploy.rule]]
id = "clean"
about = "model"
type = "test-result"
check = "scan"
"""
ROLES = """
[identity.passes]

[role.anonymous]
operations = ["infer"]

[role.security]
operations = ["explain"]
explanations = true
"""
PLACE = "/v2/models/tumour/explain"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example with a small gate, whose declaration grants explanations to one role."""
    place = tmp_path_factory.mktemp("explanations") / "project"
    declare(place)
    path = place / "bartizan.toml"
    granted = path.read_text().replace('output = "scores"', 'output = "label"\nexplanations = ["security"]')
    path.write_text(granted + GATE)
    (place / "gateway.toml").write_text(ROLES)
    for arguments in (("register",), ("assure", "--only", "scan", "--gate", "deploy")):
        done = bartizan(place, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def ask(folder):
    """Ask a server in a process of its own; gives status and answer."""
    said = folder.parent / "server.txt"
    command = [sys.executable, "-m", "bartizan", "serve", "--gate", "deploy", "--port", "0", "--recheck", "5s"]
    with said.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=os.environ)
    try:
        began = time.monotonic()
        while not (told := re.search(r"on http://127\.0\.0\.1:(\d+)/v2", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.05)

        def asked(rows, token="", path=PLACE, scheme="Bearer"):
            connection = http.client.HTTPConnection("127.0.0.1", int(told[1]), timeout=PATIENCE)
            tensor = {"name": "features", "shape": [len(rows), 30], "datatype": "FP64", "data": rows}
            headers = {"content-type": "application/json"} | ({"authorization": f"{scheme} {token}"} if token else {})
            with contextlib.closing(connection):
                connection.request("POST", path, json.dumps({"inputs": [tensor]}), headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        yield asked
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def rows(folder):
    """Some records of the evaluation data, and the names of their columns."""
    with (folder / "data" / "holdout.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    place = head.index("malignant")
    columns = [name for name in head if name != "malignant"]
    return columns, [[float(cell) for at, cell in enumerate(line) if at != place] for line in lines[:8]]


def pass_of(ask_in, folder, role, *more):
    code, out, said = ask_in(folder, "keys", "pass", "--role", role, *more)
    assert code == 0, said
    return out.strip()


@pytest.mark.control("GL-1.14")
def test_interpretability_is_a_column_and_only_granted_roles_get_an_explanation(folder, ask_in, ask, rows):
    compare = ("compare", "--quick", "--column", "quality", "--only", "tree", "--only", "forest", "--json")
    code, out, said = ask_in(folder, *compare)
    assert code == 0, said
    levels = {entry["name"]: entry["interpretability"] for entry in json.loads(out)["comparison"]["entries"]}
    assert levels["logistic"] == "glass-box"
    assert levels["forest"] == "black-box"

    columns, records = rows
    status, answer = ask(records[:1], pass_of(ask_in, folder, "risk-owner"))
    assert (status, answer) == (403, {"error": "this is not allowed"})
    status, answer = ask(records[:1])
    assert status == 403
    assert set(answer) == {"error"}

    status, answer = ask(records, pass_of(ask_in, folder, "security"))
    assert status == 200, answer
    labels = ask(records, path="/v2/models/tumour/infer")[1]["outputs"][0]["data"]
    assert [each["label"] for each in answer["explanations"]] == labels
    for record, each in zip(records, answer["explanations"], strict=True):
        added = sum(part["adds"] for part in each["contributions"]) + each["rest"]
        assert each["usual"] + added == pytest.approx(each["here"], abs=1e-4)
        assert len({part["adds"] for part in each["contributions"]}) > 5
        for part in each["contributions"]:
            assert part["value"] == pytest.approx(record[columns.index(part["feature"])], rel=1e-5)


def test_what_explains_most_changes_the_answer_most(ask_in, folder, ask, rows):
    columns, records = rows
    token = pass_of(ask_in, folder, "security")
    (said,) = ask(records[:1], token)[1]["explanations"]
    first, last = said["contributions"][0], said["contributions"][-1]

    def without(part):
        row = list(records[0])
        row[columns.index(part["feature"])] = part["usual"]
        (changed,) = ask([row], token)[1]["explanations"]
        return abs(said["here"] - changed["here"] if changed["label"] == said["label"] else said["here"])

    assert without(first) > without(last)


def test_passes_that_do_not_count(ask_in, folder, ask, rows):
    row = rows[1][:1]
    token = pass_of(ask_in, folder, "security", "--for", "1s")
    time.sleep(1.1)
    assert ask(row, token)[0] == 401
    token = pass_of(ask_in, folder, "security")
    body = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    payload = json.loads(base64.b64decode(body["payload"]))
    body["payload"] = base64.b64encode(json.dumps({**payload, "not_after": "2099-01-01T00:00:00Z"}).encode()).decode()
    forged = base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")
    for wrong in (forged, "x", token[:-9], "a" * 9000):
        status, answer = ask(row, wrong)
        assert (status, list(answer)) == (401, ["error"]), answer
    assert ask(row, token, scheme="Basic")[0] == 401
    assert ask(row * 9, token)[0] == 413
    assert ask(row, token)[0] == 200


def test_a_role_that_one_does_not_hold_cannot_be_claimed(ask_in, folder):
    code, _, said = ask_in(folder, "keys", "pass", "--role", "security", "--key", "risk-owner")
    assert code == 2
    assert "does not hold the role security" in said
    code, _, said = ask_in(folder, "keys", "pass", "--role", "security", "--for", "25h")
    assert code == 2
    assert "not a time for a pass" in said
