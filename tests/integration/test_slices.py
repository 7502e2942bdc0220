"""The example on pictures like those of a scanner."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bartizan.core import envelope
from bartizan.core.statement import decode
from bartizan.wiring.workspace import Workspace
from fixtures.project import prepare

EXAMPLE = Path(__file__).parents[2] / "examples" / "slices"


@pytest.mark.control("ROKE-6")
def test_the_example_on_scans_ships_and_its_model_is_really_attacked(tmp_path, ask_in):
    folder = tmp_path / "slices"
    folder.mkdir()
    prepare(EXAMPLE, folder)
    text = (EXAMPLE / "bartizan.toml").read_text()
    smaller = text.replace("samples = 40", "samples = 15").replace("query_budget = 600", "query_budget = 300")
    assert smaller != text
    (folder / "bartizan.toml").write_text(smaller)
    assert ask_in(folder, "init", "--yes", "--unencrypted")[0] == 0
    code, _, said = ask_in(folder, "assure", "--only", "scan", "--only", "redteam.evasion.square")
    assert code in {0, 1}, said
    workspace = Workspace(folder)
    model = workspace.system().of_kind("model")[0]
    with workspace.view() as view:
        stated = [decode(envelope.parse(entry.body).payload).predicate for entry in view.about([model.digest])]
    (attacked,) = [each for each in stated if each.get("method") == "evasion.square"]
    numbers = attacked["metrics"]
    assert numbers["clean_accuracy"]["n"] == 300
    assert numbers["clean_accuracy"]["low"] > 0.75  # it reads pictures that it has not seen
    assert numbers["robust_accuracy"]["high"] < numbers["clean_accuracy"]["low"]  # and noise makes it wrong
    assert attacked["techniques"]
    assert attacked["threat"]["position"] == "user"


def test_the_pictures_are_the_same_every_time_and_look_like_slices(tmp_path):
    prepare(EXAMPLE, tmp_path / "a")
    subprocess.run([sys.executable, str(EXAMPLE / "prepare.py"), str(tmp_path / "b")], check=True)
    first, second = ((tmp_path / name / "data" / "holdout.csv").read_bytes() for name in ("a", "b"))
    assert first == second
    table = np.loadtxt(tmp_path / "a" / "data" / "holdout.csv", delimiter=",", skiprows=1)
    pictures, labels = table[:, :-1].reshape(-1, 20, 20), table[:, -1]
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert pictures[:, 9:11, :3].mean() < pictures[:, 9:11, 9:11].mean()  # air around, tissue in the middle
    assert labels.mean() == pytest.approx(0.5, abs=0.1)
    shutil.rmtree(tmp_path / "a")
