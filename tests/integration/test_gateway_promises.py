"""What somebody who wanted to get round the gateway tried, and what must stay as it was said."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from fixtures.gateways import Client, configured, key_of, reconfigured, serving

EXPOSED = """
[identity.keys]

[policy]
privileged = []

[role.reader]
operations = ["infer", "metadata"]
budgets = ["few"]
pad_milliseconds = 0

[role.analyst]
operations = ["infer", "explain"]
explanations = true
pad_milliseconds = 0

[role.operator]
operations = ["status", "admin.*"]
pad_milliseconds = 0

[budget.few]
unit = "requests"
limit = 6
window = "1h"

[[guard]]
use = "rules"
rule = [{ name = "no-benign", when = "label == 'benign'", then = "refuse" }]

[model.tumour]
fallback = "FALLBACK"
"""
INFER, EXPLAIN = "/v2/models/tumour/infer", "/v2/models/tumour/explain"
PATIENCE = 60


def granting(text):
    return text.replace('output = "scores"', 'output = "scores"\nexplanations = ["analyst"]')


@pytest.fixture(scope="module")
def project(tumour_project, tmp_path_factory):
    """Tumours with a rule that refuses one answer, a small budget, explanations and an operator."""
    folder = tmp_path_factory.mktemp("promises") / "project"
    text = EXPOSED.replace("FALLBACK", "none")
    configured(tumour_project, folder, text, change=granting, checks=("scan", "gateway.rules"))
    return folder, {role: key_of(folder, role) for role in ("reader", "analyst", "operator")}


def control_of(client):
    said = (client.folder.parent / f"server-{client.folder.name}.txt").read_text()
    return Client(int(re.search(r"control plane on http://127.0.0.1:(\d+)/", said)[1]), client.process, client.folder)


@pytest.fixture(scope="module")
def served(project):
    folder, keys = project
    with serving(folder, "--admin-port", "0", recheck="1s") as client:
        yield client, control_of(client), keys


def rows_of(folder):
    """A held-out row that is answered with each class, by the labels of the data."""
    lines = (folder / "data" / "holdout.csv").read_text().splitlines()
    place = lines[0].split(",").index("malignant")
    found = {}
    for line in lines[1:]:
        cells = line.split(",")
        found.setdefault(cells[place], [float(cell) for at, cell in enumerate(cells) if at != place])
    return found


def asking(row):
    return {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP64", "data": row}]}


def until(ask, wanted):
    began = time.monotonic()
    while not wanted(found := ask()):
        assert time.monotonic() - began < PATIENCE, found
        time.sleep(0.2)
    return found


def test_what_guards_hold_back_is_not_explained_either(served):
    client, _, keys = served
    rows = rows_of(client.folder).values()
    answers = [client.ask("POST", INFER, asking(row), keys["analyst"])[0] for row in rows]
    explained = [client.ask("POST", EXPLAIN, asking(row), keys["analyst"])[0] for row in rows]
    assert sorted(answers) == [200, 422]
    assert explained == answers


def test_mistakes_and_looks_at_the_metadata_are_paid_for(served):
    client, _, keys = served
    headers = {"content-type": "application/json", "authorization": f"Bearer {keys['reader']}"}
    digits = b"9" * 400
    statuses = [client.raw("POST", "/predict", b'{"rows":[[' + digits + b"]]}", headers)[0] for _ in range(3)]
    statuses += [client.ask("GET", "/v2/models/tumour", key=keys["reader"])[0] for _ in range(3)]
    assert statuses == [400, 400, 400, 200, 200, 200]
    assert client.ask("GET", "/v2/models/tumour", key=keys["reader"])[0] == 429
    # a spent budget buys no reading: what would have been 400 is 429 before it is looked at
    assert client.raw("POST", "/predict", b'{"rows":[[' + digits + b"]]}", headers)[0] == 429


def test_a_model_whose_process_was_killed_is_not_ready_before_anybody_asks(served):
    client, control, keys = served
    assert client.ask("GET", "/v2/health/ready")[0] == 200
    (child,) = [pid for pid in children(client.process.pid) if b"bartizan.targets" in command(pid)]
    os.kill(child, signal.SIGKILL)
    began, seen = time.monotonic(), set()
    while 503 not in seen and time.monotonic() - began < 5:
        seen.add(client.ask("GET", "/v2/health/ready")[0])
    assert 503 in seen
    until(lambda: client.ask("GET", "/v2/health/ready")[0], lambda status: status == 200)
    status, _, said = control.ask("GET", "/admin/status", key=keys["operator"])
    assert (status, said["models"][0]["ready"]) == (200, True)


def children(pid):
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def command(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_withdrawal_lasts_over_a_restart_and_other_settings_take_over_without_one(project, tmp_path):
    base, keys = project
    folder = tmp_path / "project"
    shutil.copytree(base, folder, symlinks=True)
    row, headers = rows_of(folder)["1"], keys["operator"]
    with serving(folder, "--admin-port", "0", recheck="1s") as client:
        assert client.ask("POST", INFER, asking(row), keys["analyst"])[0] == 200
        act = {"reason": "It misreads biopsies."}
        assert control_of(client).ask("POST", "/admin/models/tumour/withdraw", act, headers)[0] == 200
        assert client.ask("POST", INFER, asking(row), keys["analyst"])[0] == 503
    with serving(folder, "--admin-port", "0", recheck="1s") as client:
        control = control_of(client)
        assert client.ask("POST", INFER, asking(row), keys["analyst"])[0] == 503
        (said,) = control.ask("GET", "/admin/status", key=headers)[2]["models"]
        assert "It misreads biopsies." in said["reason"]

        reconfigured(folder, EXPOSED.replace("FALLBACK", "rule:malignant"), checks=("scan", "gateway.rules"))
        answer = until(lambda: client.ask("POST", INFER, asking(row), keys["analyst"]), lambda got: got[0] == 200)[2]
        assert answer["parameters"]["answered_by"] == "fallback"

        assert control.ask("POST", "/admin/models/tumour/restore", {"reason": "Mended."}, headers)[0] == 200
        answer = until(
            lambda: client.ask("POST", INFER, asking(row), keys["analyst"])[2], lambda got: "parameters" not in got
        )
        assert answer["outputs"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[budget.x]\nlimit = 1\nwindow = "1d"\nalways = true\nmodels = ["tumor"]\n', "about no model"),
        ('[budget.x]\nlimit = 1\nwindow = "1d"\n', "drawn on by no role"),
        ('[role.anonymous]\noperations = ["admin.withdraw"]\n', "may not administer"),
        ('[role.x]\nbudgets = ["y"]\n', "not configured"),
        ('[[guard]]\nuse = "shema"\n', "no guard is called 'shema'"),
        ('[model.tumor]\nfallback = "none"\n', "no model is called 'tumor'"),
    ],
)
def test_a_slip_of_the_pen_does_not_open_it(tumour_project, tmp_path, ask_in, more, says):
    folder = configured(tumour_project, tmp_path / "project", "[role.user]\n" + more)
    code, out, said = ask_in(folder, "serve", "--gate", "deploy", "--host", "192.0.2.1")
    assert (code, says in out + said) == (1, True), out + said
    assert json.loads(ask_in(folder, "evidence", "list", "--json")[1])


def test_many_at_once_do_not_go_beyond_a_budget_together(served, project):
    client, _, _ = served
    key, statuses = key_of(project[0], "reader"), []
    until(lambda: client.ask("GET", "/v2/models/tumour", key=key)[0], lambda status: status != 401)

    def ask():
        statuses.append(client.ask("GET", "/v2/models/tumour", key=key)[0])

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses.count(200), statuses.count(429)) == (5, 15)
