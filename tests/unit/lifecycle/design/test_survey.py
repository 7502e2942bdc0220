"""Looking through a folder: what is found, what is passed over, and what cannot hurt."""

import os
import pickle
import warnings
import zlib

import lightgbm
import numpy as np
import pytest
import torch
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.design import survey as module
from bartizan.lifecycle.design.survey import FoundModel, survey
from fixtures.effort import within

PICKLE = pickle.dumps(["sklearn.linear_model"], protocol=4)


def fill(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def test_models_and_tables_are_found(tmp_path):
    np.savez(tmp_path / "validation.npz", rows=np.zeros((2, 2)))
    found = survey(
        fill(
            tmp_path,
            {
                "model/clf.joblib": PICKLE,
                "model/small.joblib": zlib.compress(PICKLE),
                "data/train.csv": "age,name,churn\n1,a,yes\n2,b,no\n3,c,no\n4,d,yes\n",
                "net.onnx": b"\x08\x01",
                "net.pt": b"PK\x03\x04 net/data.pkl",
                "table.parquet": b"PAR1",
                "notes.txt": "x",
            },
        )
    )
    assert found.models == (
        FoundModel(path="model/clf.joblib", certain=True),
        FoundModel(path="model/small.joblib", certain=False),
        FoundModel(path="net.onnx", certain=True, framework="onnx"),
    )
    train, validation = found.tables
    assert (train.path, train.split, train.target) == ("data/train.csv", "train", "churn")
    assert train.classes == ("no", "yes")
    assert train.integer == ("age",)
    assert (validation.path, validation.split, validation.columns) == ("validation.npz", "validation", ())
    assert found.passed_over == ("net.pt", "table.parquet")
    assert not found.cut_short


@pytest.mark.parametrize(
    ("name", "data", "framework"),
    [
        ("trees.ubj", b"{L\x00\x00\x00\x00\x00\x00\x00\x02L...learner{...gradient_booster", "xgboost"),
        ("trees.json", b'{"learner": {"gradient_booster": {}}, "version": [3, 0, 0]}', "xgboost"),
        ("trees.txt", b"tree\nversion=v4\nnum_class=1\n", "lightgbm"),
        ("net.pt", b"PK\x03\x04 net/data.pkl" + bytes(1_500_000) + b"net/constants.pkl", "torch"),
        ("net.pt2", b"PK\x03\x04 net/models/model.json", "torch"),
    ],
)
def test_models_of_other_frameworks_are_told_by_how_they_begin(tmp_path, name, data, framework):
    assert survey(fill(tmp_path, {name: data})).models == (FoundModel(path=name, certain=True, framework=framework),)


def test_really_saved_models_are_told(tmp_path):
    rows, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    xgboost.XGBClassifier(n_estimators=2).fit(rows, labels).save_model(tmp_path / "a.ubj")
    xgboost.XGBClassifier(n_estimators=2).fit(rows, labels).save_model(tmp_path / "b.json")
    trained = lightgbm.train({"verbose": -1, "objective": "binary"}, lightgbm.Dataset(rows, labels), 2)
    trained.save_model(tmp_path / "c.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), tmp_path / "e.pt")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "f.pt")
    found = survey(tmp_path)
    assert {model.path: model.framework for model in found.models} == {
        "a.ubj": "xgboost",
        "b.json": "xgboost",
        "c.txt": "lightgbm",
        "e.pt": "torch",
    }
    assert found.passed_over == ("f.pt",)


def test_arrays_of_images_are_told_by_their_dimensions_and_the_label_by_its_length(tmp_path):
    np.savez(tmp_path / "train.npz", rows=np.zeros((5, 3, 8, 6), np.uint8), digit=np.zeros(5, int), more=np.zeros(2))
    np.savez(tmp_path / "test.npz", rows=np.zeros((5, 7)), a=np.zeros(5, int), b=np.zeros(5, int))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    broken, test, train = sorted(survey(tmp_path).tables, key=lambda table: table.path)
    assert (train.shape, train.target, train.split) == ((3, 8, 6), "digit", "train")
    assert (test.shape, test.target) == ((), "")
    assert (broken.shape, broken.target) == ((), "")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("words.txt", b"a tree\nversion=1"),
        ("settings.json", b'{"learner": 1}'),
        ("net.onnx", b"ONNX"),
        ("not-a-pickle.joblib", b"hello"),
        ("some.pkl", pickle.dumps([1, 2, 3])),
        ("one-column.csv", b"a\n1\n"),
        ("no-rows.csv", b"a,b\n"),
        ("twice.csv", b"a,a\n1,2\n"),
        ("nameless.csv", b"a,,b\n1,2,3\n"),
        ("binary.csv", b"\xff\xfe\x00a,b\n1,2\n"),
        ("quotes.csv", b'a,b\n"1,2\n'),
        ("empty.csv", b""),
        ("text.npz", b"rows"),
        (".hidden.csv", b"a,b\n1,2\n"),
        (".git/train.csv", b"a,b\n1,2\n"),
        ("venv/train.csv", b"a,b\n1,2\n"),
        ("a/b/c/d/e/f/train.csv", b"a,b\n1,2\n"),
        ("a\\b.csv", b"a,b\n1,2\n"),
    ],
)
def test_what_only_looks_like_it_is_passed_over(tmp_path, name, data):
    found = survey(fill(tmp_path, {name: data}))
    assert found.models == found.tables == ()


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.csv", "train"),
        ("data/fold1_train.csv", "train"),
        ("data/x-test.csv", "holdout"),
        ("holdout/part.csv", "holdout"),
        ("train/holdout.csv", "holdout"),
        ("data/val.csv", "validation"),
        ("data/reference.csv", "reference"),
        ("data/trainers.csv", ""),
        ("data/latest.csv", ""),
    ],
)
def test_the_split_is_guessed_from_whole_words_of_the_name(tmp_path, path, split):
    (table,) = survey(fill(tmp_path, {path: "a,b\n1,2\n"})).tables
    assert table.split == split


@pytest.mark.parametrize(
    ("text", "target", "classes"),
    [
        ("y,a\n10,1\n9,2\n10,3\n9,4\n", "y", ("9", "10")),
        ("a,b\n1,x\n2,z\n3,x\n4,z\n", "b", ("x", "z")),
        ("species,a\nsetosa,1\nvirginica,2\n?,3\n\n", "species", ("setosa", "virginica")),
        ("k,a\n1,0.1\n0,0.2\n1,0.3\n0,0.4\n1,0.5\n", "k", ("0", "1")),
        ("a,b\n0.1,0.2\n0.3,0.4\n0.5,0.6\n0.7,0.8\n", "", ()),
    ],
)
def test_the_label_column_has_a_telling_name_or_few_values(tmp_path, text, target, classes):
    (table,) = survey(fill(tmp_path, {"t.csv": text})).tables
    assert (table.target, table.classes) == (target, classes)


def test_links_and_pipes_are_not_followed(tmp_path, tmp_path_factory):
    outside = fill(tmp_path_factory.mktemp("outside"), {"train.csv": "a,b\n1,2\n"})
    (tmp_path / "linked").symlink_to(outside)
    (tmp_path / "linked.csv").symlink_to(outside / "train.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert survey(tmp_path).tables == ()


def test_a_name_that_is_no_text_is_passed_over(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.csv", "wb") as stream:  # noqa: PTH123 - a name that no Path can spell
        stream.write(b"a,b\n1,2\n")
    assert survey(tmp_path).tables == ()


def test_a_large_folder_is_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_ENTRIES", 30)
    found = survey(fill(tmp_path, {f"{number:03}.csv": "a,b\n1,2\n" for number in range(60)}))
    assert found.cut_short
    assert len(found.tables) <= module.MAX_FOUND


def test_a_large_file_is_read_in_part(tmp_path):
    row = ",".join(["1"] * 2000) + "\n"
    header = ",".join(f"c{number}" for number in range(2000)) + "\n"
    folder = fill(tmp_path, {"wide.csv": header + row * 3000})
    with within(1.5):
        (table,) = survey(folder).tables
    assert len(table.columns) == 2000


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ArtefactError):
        survey(tmp_path / "absent")


def test_the_same_folder_gives_the_same_survey(tmp_path):
    fill(tmp_path, {f"{name}/train.csv": "a,b\n1,2\n" for name in "zyx"})
    assert survey(tmp_path) == survey(tmp_path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_are_survived(tmp_path, data):
    survey(fill(tmp_path, {"a.csv": data, "b.npz": data, "c.pkl": data, "d.joblib": data, "e.skops": data}))
