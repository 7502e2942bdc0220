"""``bartizan attack --external``: an attacker of others on a declared model."""

from __future__ import annotations

import json
import textwrap

import pytest

from fixtures.project import bartizan, declare

STEPS = """
    import numpy as np

    def attack(model, task, size=1.0):
        found = np.array(task.rows)
        for sample, row in enumerate(task.rows):
            for _ in range(task.budget):
                way = np.random.choice([-1.0, 1.0], row.shape) * task.scale * task.max_change * size
                if model.scores(row + way, sample)[0].argmax() != task.labels[sample]:
                    found[sample] = row + way
                    break
        return found
"""


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """The example, declared and scanned, with fewer samples than it asks for."""
    folder = tmp_path_factory.mktemp("bridge") / "tumour"
    declare(folder)
    declaration = folder / "bartizan.toml"
    declaration.write_text(declaration.read_text().replace("samples = 60", "samples = 12"))
    done = bartizan(folder, "assure", "--only", "scan")
    assert done.returncode in {0, 1}, done.stderr
    (folder / "steps.py").write_text(textwrap.dedent(STEPS))
    return folder


def test_an_attacker_of_your_own_is_tried_on_the_declared_model(scanned, ask_in):
    name = f"file:{scanned / 'steps.py'}"
    code, output, errors = ask_in(scanned, "attack", "--external", name, "--budget", "20", "--json")
    assert code in {0, 1}, errors
    assert "recorded nowhere" in errors
    (tried,) = json.loads(output)
    said = tried["assessment"]
    assert tried["attack"] == "evasion.external.file.steps"
    assert said["budget"]["most_queries_spent_on_a_sample"] <= 20
    assert 0 < said["budget"]["queries_spent"] <= 12 * 20
    assert said["metrics"]["robust_accuracy"]["n"] == 12
    larger = ask_in(scanned, "attack", "--external", name, "--budget", "20", "--with", "size=0.001", "--json")[1]
    weaker = json.loads(larger)[0]["assessment"]["metrics"]["robust_accuracy"]["value"]
    assert weaker >= said["metrics"]["robust_accuracy"]["value"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--external", "art:HopSkipJump"), "nobody said where art is installed"),
        (("--external", "art:HopSkipJump", "--python", "/no/such/python"), "no program that can be started"),
        (("--external", "nothing"), "names no external attacker"),
        (("--external", "file:bartizan.toml", "--with", "eps"), "no setting"),
    ],
)
def test_what_cannot_be_used_is_said(scanned, ask_in, monkeypatch, arguments, complaint):
    monkeypatch.delenv("BARTIZAN_EXTERNAL_ART", raising=False)
    monkeypatch.chdir(scanned)
    code, _, errors = ask_in(scanned, "attack", *arguments)
    assert code == 2
    assert complaint in errors
