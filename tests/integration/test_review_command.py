"""``bartizan review`` on cases that lie in a project's store."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time

import numpy as np
import pytest

from bartizan.cli.main import run
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.cases import Room
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.vault import Known, Wanted
from bartizan.wiring.reviewing import open_vault
from bartizan.wiring.workspace import Workspace

ROOM = Room(capacity=100, per_caller=50)
HOUR = 3_600_000
CONFIGURED = """
[[document]]
name = "gateway"
path = "gateway.toml"
kind = "configuration"
"""


@pytest.fixture
def folder(tumour_project, tmp_path):
    made = tmp_path / "project"
    shutil.copytree(tumour_project, made, symlinks=True)
    path = made / "bartizan.toml"
    path.write_text(path.read_text() + CONFIGURED)
    (made / "gateway.toml").write_text('[review]\nreviewers = ["security"]\nretention = "1h"\n')
    return made


def keep(folder, queue="flagged", *, rows=1, due=HOUR, number=0.0):
    """A case that was opened just now; its id."""
    workspace = Workspace(folder)
    vault = open_vault(workspace, {"tumour": Known(classes=("benign", "malignant"))})
    now = time.time()
    asked = Asked(
        request="r1",
        caller=Caller(id="key:1", role="user", method="key"),
        model="tumour",
        digest=workspace.system().artefact("model:tumour").digest,
        rows=np.full((rows, 30), number, np.float32),
        now=now,
    )
    answer = Answer(np.zeros(rows, np.int64), np.tile([0.6, 0.4], (rows, 1)))
    opened = int(now * 1000)
    kept = vault.keep(
        Wanted(queue=queue, opened=opened, due=opened + due, room=ROOM, most=64), asked, answer, ("r: x",)
    )
    vault.store.close()
    return kept.case.id


def command(folder, *arguments):
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = run(["-C", str(folder), "review", *arguments])
    return code, printed.getvalue(), said.getvalue()


def decide(folder, case, verdict, *more, role="security"):
    return command(folder, "decide", case, "--verdict", verdict, "--role", role, "--reason", "seen", *more)


def test_what_is_overdue_is_marked_and_ends_with_exit_code_1(folder):
    late, fresh = keep(folder, due=-1), keep(folder, number=1.0)
    code, printed, said = command(folder, "list", "--overdue")
    assert code == 1
    assert late in printed
    assert fresh not in printed
    assert "OVERDUE" in printed
    assert "2 open, 1 overdue" in said
    code, printed, _ = command(folder, "list")
    assert code == 0
    assert printed.index(late) < printed.index(fresh), "the most urgent first"
    decide(folder, late, "confirm")
    assert command(folder, "list", "--overdue")[0] == 0


def test_how_the_queues_stand_is_recorded_with_an_interval(folder):
    for number in range(4):
        verdict = ("change", "--label", "malignant") if number == 0 else ("confirm",)
        assert decide(folder, keep(folder, "sampled", number=float(number)), *verdict)[0] == 0
    code, _, said = command(folder, "list", "--record")
    assert code == 0
    assert "recorded as" in said
    workspace = Workspace(folder)
    with workspace.view() as view:
        about = [workspace.system().declaration_digest]
        found = [item for item in workspace.evidence(view, about, {}) if item.kind == "review"]
    workspace.close()
    changed = found[-1].statement.read().metrics["sampled.changed"]
    assert changed.value == 0.25
    assert 0 < changed.low < 0.25 < changed.high < 1


def test_rows_of_a_batch_are_corrected_one_by_one(folder):
    case = keep(folder, rows=3)
    for wrong in ("malignant", "3=malignant", "0=cyst", "x=malignant", "-1=malignant"):
        code, _, said = decide(folder, case, "change", "--label", wrong)
        assert code == 2
        assert "says nothing of this case" in said
    assert decide(folder, case, "change", "--label", "1=malignant", "--label", "2=malignant", "--json")[0] == 0
    shown = json.loads(command(folder, "show", case, "--json")[1])
    assert (shown["verdict"], shown["reviewer"]) == ("change", "security")


@pytest.mark.parametrize(
    ("arguments", "role", "problem"),
    [
        (("change",), "security", "a label belongs to"),
        (("confirm", "--label", "benign"), "security", "a label belongs to"),
        (("confirm",), "risk-owner", "does not review flagged"),
        (("confirm",), "ml", "may not decide|no key|cannot be read"),
        (("confirm", "--expires", "2020-01-01"), "security", "over already"),
        (("maybe",), "security", "Invalid value"),
    ],
)
def test_what_is_no_decision_is_refused_and_leaves_the_case_open(folder, arguments, role, problem):
    case = keep(folder)
    code, _, said = decide(folder, case, *arguments, role=role)
    assert code == 2
    assert any(part in said for part in problem.split("|")), said
    assert len(json.loads(command(folder, "list", "--json")[1])["cases"]) == 1


def test_a_held_case_cannot_be_decided_after_its_deadline(folder):
    code, _, said = decide(folder, keep(folder, "held", due=-1), "confirm")
    assert code == 2
    assert "is over" in said


def test_what_was_kept_long_enough_is_erased(folder):
    case, fresh = keep(folder, due=-HOUR - 1), keep(folder, number=1.0)
    assert "content of 1 cases erased" in command(folder, "sweep")[2]
    assert json.loads(command(folder, "show", case, "--json")[1])["erased"]
    assert not json.loads(command(folder, "show", fresh, "--json")[1])["erased"]
    assert decide(folder, case, "confirm")[0] == 0, "it can still be closed"


def test_nothing_is_no_error(folder):
    code, printed, _ = command(folder, "list")
    assert code == 0
    assert printed.startswith("case")
    assert "nothing to record" in command(folder, "list", "--record")[2]
    assert command(folder, "sample", "--seed", "1")[0] == 0
    for arguments in (("show", "f" * 32), ("unmask", "f" * 32, "--role", "security", "--reason", "x")):
        code, _, said = command(folder, *arguments)
        assert code == 2
        assert "no case is called" in said


def test_without_the_key_nothing_is_shown(folder):
    case = keep(folder)
    (folder / ".bartizan" / "keys" / "review.key").unlink()
    code, printed, said = command(folder, "show", case)
    assert code == 2
    assert "sealed with another key" in said
    assert not printed
