"""The tumour example: made the same every time, soundly declared, and as good as it says."""

import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.digest import digest_bytes
from bartizan.lifecycle.design.declaration import load_system, read_declaration
from bartizan.lifecycle.design.declaration_notices import notices
from bartizan.lifecycle.design.initialise import render, survey
from bartizan.lifecycle.design.vocabulary import Vocabulary

EXAMPLE = Path(__file__).parents[3] / "examples" / "tumour"
MADE = ("data/train.csv", "data/holdout.csv", "model/tumour.joblib")
VOCABULARY = Vocabulary.of(catalogue())


class PlainFiles:
    """Digests of single files."""

    def digest(self, path):
        return digest_bytes(path.read_bytes())


def prepare(folder):
    subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "prepare.py"), str(folder)], check=True, capture_output=True
    )
    (folder / "bartizan.toml").write_bytes((EXAMPLE / "bartizan.toml").read_bytes())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("tumour"))


def table(path):
    numbers = np.loadtxt(path, delimiter=",", skiprows=1)
    return numbers[:, :-1], numbers[:, -1].astype(int)


def test_it_is_made_the_same_byte_for_byte(made, tmp_path):
    again = prepare(tmp_path)
    for name in MADE:
        assert (made / name).read_bytes() == (again / name).read_bytes(), name


def test_the_split_keeps_cases_apart_and_classes_in_proportion(made):
    (train, train_labels), (holdout, holdout_labels) = (table(made / name) for name in MADE[:2])
    assert len(train) + len(holdout) == 569
    assert not set(map(tuple, train)) & set(map(tuple, holdout))
    assert abs(train_labels.mean() - holdout_labels.mean()) < 0.01


def test_the_model_separates_the_classes_on_cases_it_has_not_seen(made):
    rows, labels = table(made / "data/holdout.csv")
    model = joblib.load(made / "model/tumour.joblib")
    scores = model.predict_proba(rows)[:, 1]
    wins = scores[labels == 1][:, None] > scores[labels == 0][None, :]
    assert wins.mean() > 0.95
    assert (model.predict(rows) == labels).mean() > 0.9


def test_the_declaration_is_sound_and_its_files_are_there(made):
    system = load_system(made / "bartizan.toml", PlainFiles(), VOCABULARY)
    assert [artefact.id for artefact in system.artefacts] == [
        "model:tumour",
        "dataset:train",
        "dataset:holdout",
        "system:tumour-triage",
    ]


def test_the_only_thing_to_look_at_twice_is_the_single_source():
    text = (EXAMPLE / "bartizan.toml").read_bytes()
    found = notices(read_declaration(text, "bartizan.toml", VOCABULARY))
    assert [notice.rule for notice in found] == ["declaration/one-source"]


def test_a_survey_of_the_example_finds_its_parts(made):
    found = survey(made)
    assert [model.path for model in found.models] == ["model/tumour.joblib"]
    assert {table.path: (table.split, table.target, table.classes) for table in found.tables} == {
        "data/train.csv": ("train", "malignant", ("0", "1")),
        "data/holdout.csv": ("holdout", "malignant", ("0", "1")),
    }
    assert 'target = "malignant"' in render(found, {})
