"""Budgets over HTTP: who asks too often, too much alike or too dearly waits; one count for enforcement and report."""

from __future__ import annotations

import contextlib
import io
import json
import time

import numpy as np
import pytest

from bartizan.cli.main import run
from fixtures.gateways import configured, serving

CONFIGURATION = """
[identity.keys]

[role.paced]
budgets = ["pace"]

[role.member]
budgets = ["firm"]

[role.costly]
budgets = ["processor"]

[role.free]

[budget.pace]
limit = 5
window = "1h"

[budget.firm]
limit = 12
window = "365d"
unit = "labels"
per = "attribute:organisation"

[budget.processor]
limit = 40000
window = "1d"
unit = "microseconds"

[slowing]
after = 4
pause = 30.0

[[guard]]
use = "schema"
outside = "flag"

[[guard]]
use = "repeats"
limit = 6
seconds = 600.0
"""
PATIENCE = 60


def bartizan(folder, *arguments):
    """A command in this process: exit code and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run(["-C", str(folder), *arguments])
    return code, printed.getvalue()


def key_of(folder, role, *options):
    code, printed = bartizan(folder, "gateway", "key", "add", "--role", role, "--json", *options)
    assert code == 0
    return json.loads(printed)["key"]


@pytest.fixture(scope="module")
def folder(digits_project, tmp_path_factory):
    return configured(digits_project, tmp_path_factory.mktemp("budgets") / "served", CONFIGURATION)


@pytest.fixture(scope="module")
def keys(folder):
    acme = ("--attribute", "organisation=acme")
    made = {name: key_of(folder, name) for name in ("paced", "free")}
    made |= {f"{role} {number}": key_of(folder, role) for role in ("paced", "free", "costly") for number in range(3)}
    return made | {f"member {number}": key_of(folder, "member", *acme) for number in range(3)}


@pytest.fixture(scope="module")
def served(folder, keys):
    with serving(folder) as client:
        yield client


@pytest.fixture
def rows(digits_held_out):
    return digits_held_out[0]


def statuses(served, rows, key):
    """One request for each row."""
    return [served.infer(row, key, "digits")[0] for row in rows]


def shown(folder, *arguments):
    code, printed = bartizan(folder, "gateway", "budget", "show", *arguments, "--json")
    assert code == 0
    return json.loads(printed)


@pytest.mark.control("3.2-g")
def test_a_flagged_identity_is_slowed_within_n_requests(served, keys, rows):
    strange = rows[:12].copy()
    strange[:, 20] = 17 + np.arange(12)  # beyond the range of a pixel: flagged, and answered
    told = statuses(served, strange, keys["free 0"])
    assert told[:4] == [200] * 4
    assert told.count(200) == 5, "four flagged requests, and one in the pause that begins then"
    assert told[5:] == [429] * 7
    status, fields, answer = served.infer(rows[0], keys["free 0"], "digits")
    assert status == 429, "whatever it asks"
    assert 0 < int(fields["retry-after"]) <= 60
    assert "flag" not in json.dumps(answer)
    assert statuses(served, rows[:5], keys["free 1"]) == [200] * 5, "another identity is not slowed"


@pytest.mark.control("3.2-i")
def test_the_rate_of_an_identity_and_of_near_duplicates_is_limited(served, keys, rows):
    # By identity, whatever is asked.
    assert statuses(served, rows[20:28], keys["paced 0"]) == [200] * 5 + [429] * 3
    status, fields, _ = served.infer(rows[30], keys["paced 0"], "digits")
    assert status == 429
    assert 3500 < int(fields["retry-after"]) <= 3600 * 33 / 32 + 1
    assert fields["ratelimit"] == f'"pace";r=0;t={fields["retry-after"]}'
    assert fields["ratelimit-policy"] == '"pace";q=5;w=3600'
    assert statuses(served, rows[20:25], keys["paced 1"]) == [200] * 5, "another identity has its own"
    # By what is asked: variations of one row, not of a pixel's width, by one identity.
    noise = np.random.default_rng(20261121).normal(0, 0.3, (9, 64))
    alike = np.clip(rows[40] + noise, 0, 16)
    assert statuses(served, alike, keys["free 2"]) == [200] * 6 + [429] * 3
    assert statuses(served, rows[41:61], keys["free 2"]) == [200] * 20, "other rows are answered"


def test_accounts_of_one_organisation_share_what_is_disclosed(served, keys, rows):
    first = served.infer(rows[:7], keys["member 0"], "digits")[0]
    second = served.infer(rows[:7], keys["member 1"], "digits")[0]
    third = served.infer(rows[:5], keys["member 2"], "digits")[0]
    last = served.infer(rows[:1], keys["member 0"], "digits")[0]
    assert (first, second, third, last) == (200, 429, 200, 429), "seven and five labels of twelve"


def test_requests_that_cost_dearly_run_dry(served, keys, rows):
    """Large batches, as an energy-latency attack sends them, end when their processor time is spent."""
    sponge = np.tile(rows, (6, 1))[:3000]
    sponge = np.clip(sponge + np.random.default_rng(0).normal(0, 4, sponge.shape), 0, 16)
    answered = 0
    for _ in range(60):
        status, fields, _ = served.infer(sponge, keys["costly 0"], "digits")
        if status == 429:
            break
        assert status == 200
        answered += 1
    assert status == 429
    assert 0 < answered < 60
    assert int(fields["retry-after"]) > 80_000
    assert 'qu="microseconds"' in fields["ratelimit-policy"]
    assert statuses(served, rows[:20], keys["costly 1"]) == [200] * 20, "small requests go far with the same budget"


def test_mistakes_cost_what_they_cost(served, keys):
    content = {"inputs": "none"}
    told = [served.ask("POST", "/v2/models/digits/infer", content, keys["paced 2"])[0] for _ in range(8)]
    assert told == [400] * 5 + [429] * 3


def test_what_is_shown_is_what_is_enforced_and_can_be_filled_up(served, folder, keys, rows):
    assert statuses(served, rows[100:107], keys["paced"]) == [200] * 5 + [429] * 2
    found = [each for each in shown(folder, "pace") if each["spent"] == 5]
    assert found
    assert all(each["limit"] == 5 and each["left"] == 0 and each["resets"] > 3000 for each in found)
    who = {each["subject"] for each in found}
    assert all(subject.startswith("key:") for subject in who)
    assert not any(keys["paced"] in subject for subject in who)
    assert bartizan(folder, "gateway", "budget", "reset", "pace", "--all")[0] == 0
    began = time.monotonic()
    while (status := served.infer(rows[107], keys["paced"], "digits")[0]) == 429:  # until the gateway hears of it
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.1)
    assert [status, *statuses(served, rows[108:114], keys["paced"])] == [200] * 5 + [429] * 2
    assert bartizan(folder, "gateway", "budget", "reset", "pace")[0] == 2
    assert bartizan(folder, "gateway", "budget", "reset", "typo", "--all")[0] == 2
    assert bartizan(folder, "gateway", "budget", "reset", "pace", "--subject", "nobody")[0] == 2


def test_a_restart_fills_nothing_up(folder, keys, rows, served, tmp_path):
    """Another process on the same machine, with the same shared state: it knows what was spent."""
    assert 429 in statuses(served, rows[:6], keys["paced 1"])
    with serving(folder, env={"BARTIZAN_AUDIT": str(tmp_path / "audit.db")}) as other:
        assert statuses(other, rows[:2], keys["paced 1"]) == [429, 429]


def test_budgets_are_derived_from_attacks(folder):
    code, printed = bartizan(
        folder, "gateway", "budget", "derive", "--fidelity", "0.9", "--queries", "25", "--labels-only", "--json"
    )
    found = json.loads(printed)
    assert code in {0, 1}
    assert found["model"] == "digits"
    for each in found["derived"]:
        assert all(mark["fidelity"] <= mark["bound"] for mark in each["curve"])
        assert each["limit"] <= 25
    assert (code == 0) == all(each["limit"] for each in found["derived"])
