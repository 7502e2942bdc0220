"""The configuration that a gateway begins with: judged by a gate, and attacked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from fixtures.gateways import serving
from fixtures.project import bartizan

CHECKS = ("scan", "gateway.sequence", "gateway.outliers", "gateway.configuration")
OPENED = {
    "Whoever can reach it is told ": '\n[role.anonymous]\noperations = ["infer"]\ndetail = "rounded-scores"\n',
    "Unrounded scores for chief ": (
        '\n[role.chief]\nextends = "administrator"\nfactor = "not needed"\nbudgets = ["day"]\n'
    ),
    "What free asks is counted over no day ": '\n[role.free]\ndetail = "rounded-scores"\n',
    "operator may act without ": "\n[policy]\nprivileged = []\n",
}
"""What opens a configuration, by the weakness that is found."""
PAGE = Path(__file__).parents[2] / "docs" / "gateway" / "defence.md"
STATED = {
    what: int(percent) / 100 for what, percent in re.findall(r"(?m)^\| (.+) \| (\d+) % \|$", PAGE.read_text("utf-8"))
}
"""Rates that the page states, by what is counted."""


@pytest.fixture(scope="module")
def begun(digits_project, tmp_path_factory):
    """A digits project with the configuration of ``bartizan gateway init``, registered and assured."""
    folder = tmp_path_factory.mktemp("begun") / "project"
    shutil.copytree(digits_project, folder, symlinks=True)
    only = [argument for check in CHECKS for argument in ("--only", check)]
    for arguments in (("gateway", "init"), ("register",), ("assure", *only, "--gate", "gateway")):
        done = bartizan(folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def judged(folder, ask_in):
    code, out, said = ask_in(folder, "assure", "--only", "gateway.configuration", "--gate", "gateway", "--json")
    assert code in {0, 1}, said
    return code, out + said


def weakness(folder, ask_in):
    """What the one standing statement about the configuration says is worst."""
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    standing = [each for each in listed if (each["what"], each["standing"]) == ("gateway.configuration", "holds")]
    (digest,) = [each["envelope"] for each in standing]
    said = json.loads(ask_in(folder, "evidence", "show", digest)[1])["predicate"]
    assert said["result"] == "FAILED"
    return said["summary"]


@pytest.mark.control("3.1-G4")
def test_the_default_configuration_passes_the_policy_and_open_ones_do_not(begun, tmp_path, ask_in):
    folder = tmp_path / "project"
    shutil.copytree(begun, folder, symlinks=True)
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    (verdict,) = [item for item in listed if item["type"] == "verdict"]
    assert (verdict["standing"], "document:gateway" in verdict["about"]) == ("holds", True), verdict
    assert ask_in(folder, "gate", "evaluate", "gateway")[0] == 0
    path = folder / "gateway.toml"
    default = path.read_text()
    for summary, more in OPENED.items():
        path.write_text(default + more)
        assert ask_in(folder, "register")[0] == 0
        code, said = judged(folder, ask_in)
        assert code == 1, (summary, said)
        assert weakness(folder, ask_in).startswith(summary)
    for guard in ("schema", "sequence"):
        path.write_text(default.replace(f'use = "{guard}"', 'use = "rules"'))
        assert ask_in(folder, "register")[0] == 0
        assert judged(folder, ask_in)[0] == 1, guard
        assert weakness(folder, ask_in).startswith(f"The guard {guard} is not used")
    path.write_text(default)
    assert ask_in(folder, "register")[0] == 0
    assert judged(folder, ask_in)[0] == 0


@pytest.mark.control("GL-3.11")
def test_the_default_gateway_withstands_the_baseline_red_team_at_stated_rates(begun, ask_in):
    """The rates that docs/gateway/defence.md states for the default: what needs scores cannot begin, and what gets by
    with labels is stopped before most rows are lost, unless it asks from a new account each time. The baseline is
    evasion; extraction and membership are measured by ``gateway.extraction-budget`` and ``gateway.detail``.
    """
    code, out, said = ask_in(begun, "gateway", "delta", "--no-parts", "--samples", "8", "--queries", "150", "--json")
    assert code == 0, said
    found = json.loads(out)
    assert {cell["variant"] for cell in found["attacks"]} == {"no gateway", "everything"}
    cells = {(cell["variant"], cell["attack"], cell["manner"]): cell for cell in found["attacks"]}
    bare = min(cell["stood"] / cell["of"] for key, cell in cells.items() if key[0] == "no gateway")
    assert bare <= STATED["rows that stand without the gateway, at most"]
    whole = {key[1:]: cell for key, cell in cells.items() if key[0] == "everything"}
    for attack in ("evasion.square", "evasion.simba"):
        for manner in ("plain", "noise", "accounts", "drip"):
            assert whole[attack, manner]["answered"] is None  # labels alone: it cannot begin
    for manner in ("plain", "noise", "drip"):
        cell = whole["evasion.hopskipjump", manner]
        assert cell["stood"] / cell["of"] >= STATED["rows that stand with it, at least"], cell
    dispersed = whole["evasion.hopskipjump", "accounts"]
    assert dispersed["stood"] / dispersed["of"] > bare
    (honest,) = [price for price in found["honest"] if price["variant"] == "everything"]
    assert honest["stopped"] / honest["of"] <= STATED["honest questions that are stopped, at most"]
    (before,) = [price for price in found["honest"] if price["variant"] == "no gateway"]
    lost = (before["right"] - honest["right"]) / before["of"]
    assert lost <= STATED["honest questions that lose their right answer, at most"]
    listed = json.loads(ask_in(begun, "evidence", "list", "--json")[1])
    assert [item["standing"] for item in listed if item["what"] == "gateway.defence"] == ["holds"]


def test_each_protection_is_measured_alone_as_well(begun, ask_in):
    """Few rows and questions: that each is measured, and stated; `make defence` measures what each is worth."""
    code, out, said = ask_in(begun, "gateway", "delta", "--samples", "2", "--queries", "10", "--json")
    assert code == 0, said
    found = json.loads(out)
    variants = list(dict.fromkeys(cell["variant"] for cell in found["attacks"]))
    assert (variants[0], variants[-1]) == ("no gateway", "everything")
    assert [name.partition(" ")[0] for name in variants[1:-1]].count("guard") >= 2
    assert {name.partition(" ")[0] for name in variants[1:-1]} == {"guard", "detail", "budgets"}
    assert [price["variant"] for price in found["honest"]] == variants
    stated = json.loads(ask_in(begun, "evidence", "show", found["statement"])[1])["predicate"]
    assert stated["settings"]["parts"] == "each"
    assert all(f"robust_{name.replace(' ', '_')}_square_plain" in stated["metrics"] for name in variants[:1])


def test_the_default_starts_and_answers_nobody_without_a_key(begun, digits_held_out):
    with serving(begun, gate="gateway") as client:
        assert client.ask("GET", "/v2/health/ready")[0] == 200
        assert client.infer(digits_held_out[0][:1], model="digits")[0] == 401
