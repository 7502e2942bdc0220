"""``bartizan attack file``: from a model in hand to numbers in one command, and what it refuses."""

from __future__ import annotations

import csv
import json
import pickle

import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.cli.attack import attack
from bartizan.cli.main import run

SMALL = ("--samples", "12", "--budget", "60", "--change", "0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of wines and two tables, as somebody might have them lying about."""
    place = tmp_path_factory.mktemp("wines")
    wines = load_wine()
    names = [name.replace("/", " ") for name in wines.feature_names]
    parts = train_test_split(wines.data, wines.target, test_size=0.5, random_state=0, stratify=wines.target)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(parts[0], parts[2])
    joblib.dump(model, place / "model.joblib")
    for name, rows, labels in (("train", parts[0], parts[2]), ("test", parts[1], parts[3])):
        with (place / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*names, "cultivar"])
            writer.writerows([*row, label] for row, label in zip(rows.tolist(), labels.tolist(), strict=True))
        np.savez(place / f"{name}.npz", rows=rows, cultivar=labels)
    return place


def asked(folder, *more, model="model.joblib", kind="csv", trained="train"):
    files = (str(folder / model), "--train", str(folder / f"{trained}.{kind}"), "--test", str(folder / f"test.{kind}"))
    return run(["attack", "file", *files, *more])


def test_one_command_attacks_a_model_and_leaves_nothing_behind(folder, capsys):
    before = sorted(folder.iterdir())
    assert asked(folder, *SMALL, "--only", "evasion.square", "--only", "evasion.linear-exact", "--json") == 1
    square, exact = json.loads(capsys.readouterr().out)
    assert sorted(folder.iterdir()) == before
    found = square["assessment"]["metrics"]["robust_accuracy"]
    proven = exact["assessment"]["metrics"]["proven_robust_accuracy"]
    assert proven["value"] == pytest.approx(exact["assessment"]["metrics"]["robust_accuracy"]["value"])
    assert proven["value"] <= found["value"]
    assert square["assessment"]["budget"]["queries_allowed_per_sample"] == 60


def test_tables_may_be_npz_and_findings_say_what_to_do(folder, capsys):
    assert asked(folder, *SMALL, "--target", "cultivar", "--only", "evasion.pgd", kind="npz") == 1
    said = capsys.readouterr().out
    assert "Upper bound: the attacker has the weights" in said
    assert "next: Harden the model" in said


def test_what_applies_is_listed_with_reasons(folder, capsys):
    assert asked(folder, "--list", "--output", "label") == 0
    said = capsys.readouterr().out
    assert "evasion.hopskipjump" in said.partition("do not apply:")[0]
    assert "evasion.square needs" in said.partition("do not apply:")[2]


def test_a_dangerous_file_is_never_loaded(folder, tmp_path, capsys):
    trace = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    (folder / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    assert asked(folder, model="bomb.pkl") == 2
    said = capsys.readouterr().err
    assert "bomb.pkl is dangerous and is not loaded" in said
    assert "bartizan scan" in said
    assert not trace.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--only", "evasion.levitation"), "no attack is called"),
        (("--only", "evasion.patch"), "changes images, and the declared data are tables"),
        (("--framework", "abacus"), "framework 'abacus'"),
        (("--norm", "l7"), "settings of the attacks"),
        (("--shape", "1,2", "--values", "0,1"), "--shape '1,2'"),
        (("--shape", "1,2,6"), "--shape without --values"),
        (("--shape", "0,2,6", "--values", "0,1"), "--shape '0,2,6'"),
        (("--target", "vintage"), "vintage"),
        (("--change", "0"), "--change 0"),
        (("--change", "nan"), "--change nan"),
        (("--shape", "1,1,13", "--values", "nan,1"), "--values 'nan,1'"),
        (("--shape", "1,1,13", "--values", "1,0"), "--values '1,0'"),
    ],
)
def test_what_cannot_be_used_is_said(folder, capsys, more, words):
    assert asked(folder, *more) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "next: " in said


def test_a_file_of_unknown_kind_and_a_table_without_a_telling_label_ask_for_the_option(folder, capsys):
    (folder / "model.bin").write_bytes((folder / "model.joblib").read_bytes())
    assert asked(folder, model="model.bin") == 2
    assert "--framework" in capsys.readouterr().err
    assert asked(folder, kind="npz") == 2
    assert "--target" in capsys.readouterr().err


def test_the_table_it_was_trained_on_is_no_test(folder, capsys):
    assert asked(folder, trained="test") == 2
    assert "the very table that it was trained on" in capsys.readouterr().err


def test_a_missing_file_is_named(folder):
    ended = CliRunner().invoke(
        attack, ["file", str(folder / "model.joblib"), "--train", "nowhere.csv", "--test", "b.csv"]
    )
    assert ended.exit_code == 2
    assert "nowhere.csv" in ended.output
