"""Boosted trees in files, opened in processes of their own."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_iris

from bartizan.adapters.boosting import lightgbm_host, xgboost_host
from bartizan.core.errors import ArtefactError, SandboxError, WorkError
from bartizan.targets.host import Question
from bartizan.targets.hosting import Refusal
from bartizan.targets.protocol import Access
from bartizan.targets.structure import TreeEnsemble
from fixtures.declared import opened

CANCER, FLOWERS = load_breast_cancer(return_X_y=True), load_iris(return_X_y=True)
DATA = {2: CANCER, 3: FLOWERS}


def boosted(rows, labels, **more):
    return xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, **more).fit(rows, labels)


def light(rows, labels, **more):
    more = {"n_estimators": 8, "num_leaves": 6, "n_jobs": 1, "verbose": -1, "random_state": 3} | more
    return lightgbm.LGBMClassifier(**more).fit(rows, labels)


def asked(module, file):
    """The host in this process, and what it says."""
    host = module.Host()
    host.keep(Question(do="keep", bytes=len(file), data=bytearray(file)))
    return host, host.load(Question(do="load", bytes=0))["facts"]


def about(rows):
    return Question(do="", bytes=0, data=bytearray(rows.astype("<f8").tobytes()), rows=len(rows))


@pytest.mark.parametrize(("classes", "form"), [(2, "json"), (3, "ubj")])
def test_xgboost_answers_as_in_this_process(tmp_path, classes, form):
    (rows, labels), model = DATA[classes], boosted(*DATA[classes])
    with opened(tmp_path, bytes(model.get_booster().save_raw(form)), "xgboost", (rows, labels)) as found:
        assert (found.classes, found.features) == (classes, rows.shape[1])
        assert found.offers == {Access.LABELS, Access.SCORES, Access.WEIGHTS}
        assert np.array_equal(found.labels(rows), model.predict(rows))
        assert np.array_equal(found.scores(rows), model.predict_proba(rows).astype(np.float64))
        assert isinstance(found.structure(), TreeEnsemble)
        assert np.array_equal(found.structure().labels(rows), model.predict(rows))
        with pytest.raises(WorkError, match="XGBoost file does not say how the model was trained"):
            found.retrain(rows, labels, seed=0)


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_answers_and_is_trained_as_in_this_process(tmp_path, classes):
    (rows, labels), model = DATA[classes], light(*DATA[classes], learning_rate=0.3, reg_lambda=2.0)
    file = model.booster_.model_to_string().encode()
    with opened(tmp_path, file, "lightgbm", (rows, labels)) as found:
        assert found.offers == {Access.LABELS, Access.SCORES, Access.WEIGHTS, Access.TRAINING}
        assert np.array_equal(found.labels(rows), model.predict(rows))
        assert np.allclose(found.scores(rows), model.predict_proba(rows), rtol=1e-12)
        again = found.retrain(rows, labels, seed=0)
        assert np.array_equal(again.scores(rows), found.scores(rows))
        other = found.retrain(rows[::2], labels[::2], seed=0)
        here = light(rows[::2], labels[::2], learning_rate=0.3, reg_lambda=2.0)
        assert np.allclose(other.scores(rows), here.predict_proba(rows), rtol=1e-12)
        assert np.array_equal(other.structure().labels(rows), here.predict(rows))
        assert np.array_equal(found.structure().labels(rows), model.predict(rows))


@pytest.mark.parametrize("objective", ["binary:logitraw", "binary:hinge", "multi:softmax"])
def test_other_objectives_of_xgboost(objective):
    rows, labels = FLOWERS if objective.startswith("multi") else CANCER
    more = {"num_class": 3} if objective.startswith("multi") else {}
    data = xgboost.DMatrix(rows, labels, nthread=1)
    booster = xgboost.train({"objective": objective, "max_depth": 3, "nthread": 1, **more}, data, num_boost_round=5)
    host, facts = asked(xgboost_host, bytes(booster.save_raw("ubj")))
    answer, margin = booster.predict(data), booster.predict(data, output_margin=True)
    expected = margin > 0 if objective.startswith("binary") else answer
    assert np.array_equal(np.frombuffer(host.labels(about(rows)), "<i8"), expected)
    assert facts["scores"] == (objective != "binary:hinge")
    if facts["scores"]:
        scores = np.frombuffer(host.scores(about(rows))).reshape(len(rows), -1)
        assert np.allclose(scores.sum(axis=1), 1)
        assert np.array_equal(scores.argmax(axis=1), expected)


def test_one_class_against_the_rest_of_lightgbm():
    rows, labels = FLOWERS
    model = light(rows, labels, objective="multiclassova")
    host, facts = asked(lightgbm_host, model.booster_.model_to_string().encode())
    assert not facts["weights"]
    assert "multiclassova" in facts["lacks"]["weights"]
    scores = np.frombuffer(host.scores(about(rows))).reshape(-1, 3)
    theirs = model.predict_proba(rows)
    assert np.allclose(scores, theirs / theirs.sum(axis=1, keepdims=True))


def test_trees_by_category_are_asked_and_not_read():
    rows = np.column_stack([FLOWERS[0], np.arange(150) % 5])
    some = {"objective": "multiclass", "num_class": 3, "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1}
    data = lightgbm.Dataset(rows, (np.arange(150) % 5).clip(0, 2), categorical_feature=[4], params={"verbose": -1})
    booster = lightgbm.train(some, data, 3)
    host, facts = asked(lightgbm_host, booster.model_to_string().encode())
    expected = booster.predict(rows).argmax(axis=1)
    assert np.array_equal(np.frombuffer(host.labels(about(rows)), "<i8"), expected)
    assert "splits by category" in facts["lacks"]["weights"]


@pytest.mark.parametrize(
    ("module", "file", "fault"),
    [
        (xgboost_host, b"", "neither XGBoost's JSON nor its UBJSON"),
        (xgboost_host, b'{"a": 1}', "a JSON document, and none of XGBoost"),
        (xgboost_host, b'{"learner": {', "no whole JSON document"),
        (lightgbm_host, b"", r"objective \(none\)"),
        (lightgbm_host, b"\xff\xfe", "no text"),
        (lightgbm_host, b"tree\nversion=v4\nobjective=regression\n\nend of trees\n", "objective regression"),
        (lightgbm_host, b"tree\nversion=v4\nobjective=binary\n\nend of trees\n", "LightGBM reads no model"),
    ],
)
def test_what_is_no_classifier_is_refused_with_the_reason(module, file, fault):
    with pytest.raises(Refusal, match=fault):
        asked(module, file)


def test_a_regression_is_refused():
    model = xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(*FLOWERS)
    with pytest.raises(Refusal, match="objective reg:squarederror is none of classification"):
        asked(xgboost_host, bytes(model.get_booster().save_raw("json")))


def test_a_file_over_which_xgboost_ends_the_process_ends_only_that(tmp_path):
    whole = bytes(boosted(*FLOWERS).get_booster().save_raw("ubj"))
    with (
        pytest.raises((SandboxError, ArtefactError), match=r"died|no model that can be asked"),
        opened(tmp_path, whole[: len(whole) // 2], "xgboost", FLOWERS),
    ):
        pass


def test_columns_of_categories_are_refused():
    file = light(*FLOWERS).booster_.model_to_string().replace("pandas_categorical:null", 'pandas_categorical:[["a"]]')
    with pytest.raises(Refusal, match="columns of categories"):
        asked(lightgbm_host, file.encode())
