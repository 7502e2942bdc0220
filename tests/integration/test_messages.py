"""The example whose inputs are texts, from the declaration to the gate and a lesson."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fixtures.project import bartizan, prepare

EXAMPLE = Path(__file__).parents[2] / "examples" / "messages"


@pytest.fixture(scope="module")
def assured(tmp_path_factory):
    """The example, assured with fewer messages than it asks for."""
    folder = tmp_path_factory.mktemp("messages") / "project"
    folder.mkdir()
    text = (EXAMPLE / "bartizan.toml").read_text().replace("samples = 60", "samples = 20")
    (folder / "bartizan.toml").write_text(text)
    prepare(EXAMPLE, folder)
    done = bartizan(folder, "init", "--yes", "--unencrypted", "--person", "risk-owner=risk-owner")
    assert done.returncode == 0, done.stderr
    return folder, bartizan(folder, "assure")


def test_assure_attacks_the_declared_filter_and_the_gate_refuses_it(assured):
    folder, done = assured
    assert done.returncode == 1, done.stderr
    said = done.stdout + done.stderr
    for name in ("characters", "imperceptible", "removals", "synonyms"):
        assert f"redteam.text.{name} model:messages" in said
    assert "redteam.availability.slow_texts model:messages" in said
    assert "NOT MET  unseen-changes" in said
    assert "The card of dataset train is complete" in said
    page = (folder / "bartizan-report" / "index.html").read_text(encoding="utf-8")
    assert "text.imperceptible" in page


def test_a_second_assure_finds_nothing_to_do(assured, ask_in):
    folder, _ = assured
    ask_in(folder, "assure")
    code, output, errors = ask_in(folder, "attack", "--json")
    assert code == 0, errors
    assert not json.loads(output)["ran"]


def test_the_lesson_on_the_declared_filter_can_be_signed(assured, ask_in):
    folder, _ = assured
    code, output, errors = ask_in(folder, "lab", "text", "--system", str(folder), "--sign", "--json")
    assert code == 0, errors
    taught = json.loads(output)
    assert taught["envelope"]
    assert taught["assessment"]["metrics"]["robust_accuracy_imperceptible_folded"]["value"] == 1.0
    code, _, errors = ask_in(folder, "lab", "evasion", "--system", str(folder))
    assert code == 2
    assert "declared with texts" in errors


def test_a_lesson_about_texts_on_rows_says_so(scanned_tumour, ask_in):
    code, _, errors = ask_in(scanned_tumour, "lab", "availability", "--system", str(scanned_tumour))
    assert code == 2
    assert "declared with rows of numbers" in errors


@pytest.fixture
def scanned_tumour(tmp_path):
    """The example of a table; what is refused needs no scan."""
    folder = tmp_path / "tumour"
    shutil.copytree(EXAMPLE.parent / "tumour", folder)
    prepare(EXAMPLE.parent / "tumour", folder)
    assert bartizan(folder, "init", "--yes", "--unencrypted").returncode == 0
    return folder
