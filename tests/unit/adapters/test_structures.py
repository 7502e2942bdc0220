"""Structures reproduce the frameworks' own answers to the last bit, at every threshold and one float beside it."""

from __future__ import annotations

import json
import warnings

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from bartizan.adapters import sklearn_structure
from bartizan.adapters.boosting import BoostingTarget, read_lightgbm, read_xgboost
from bartizan.adapters.sklearn import SklearnTargets
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.targets.structure import LinearModel, Link, TreeEnsemble
from fixtures.victims import declare, named

DATA = {"two classes": load_breast_cancer(return_X_y=True), "three": load_wine(return_X_y=True)}
TREES = {
    "tree": DecisionTreeClassifier(random_state=0),
    "extra tree": ExtraTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(12, random_state=0),
    "extra trees": ExtraTreesClassifier(8, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "boosting from zero": GradientBoostingClassifier(n_estimators=3, init="zero", random_state=0),
    "histogram": HistGradientBoostingClassifier(max_iter=5, random_state=0),
    "scaled forest": make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
    "scaled thrice": make_pipeline(
        MinMaxScaler(clip=True), MaxAbsScaler(), RobustScaler(), HistGradientBoostingClassifier(max_iter=4)
    ),
}
LINEAR = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
    "support vectors": make_pipeline(MinMaxScaler(), LinearSVC()),
    "stochastic": make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    "hinge": make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
    "ridge": RidgeClassifier(),
    "discriminant": LinearDiscriminantAnalysis(),
}
BOOSTED = {
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=8, max_depth=4, n_jobs=1),
    "xgboost dart": lambda: xgboost.XGBClassifier(n_estimators=6, max_depth=3, booster="dart", rate_drop=0.5, n_jobs=1),
    "xgboost forest": lambda: xgboost.XGBClassifier(n_estimators=2, num_parallel_tree=3, subsample=0.5, n_jobs=1),
    "xgboost one node": lambda: xgboost.XGBClassifier(n_estimators=2, gamma=1e9, n_jobs=1),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1),
    "lightgbm dart": lambda: lightgbm.LGBMClassifier(n_estimators=6, boosting_type="dart", verbose=-1, n_jobs=1),
    "lightgbm forest": lambda: lightgbm.LGBMClassifier(
        n_estimators=6, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, verbose=-1, n_jobs=1
    ),
}


def fitted(model, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*DATA[data])


def trial(structure, rows, count=1500):
    """Rows as they come, distorted, and with one value on a threshold or one float beside it."""
    rng = np.random.default_rng(0)
    trial = rows[rng.integers(0, len(rows), count)] * rng.choice([1, 0.7, 1.3, -1], (count, rows.shape[1]))
    inner = np.flatnonzero((structure.feature >= 0) & np.isfinite(structure.threshold))
    if inner.size:
        pick = rng.choice(inner, count)
        beside = np.nextafter(structure.threshold[pick], rng.choice([-np.inf, np.inf], count))
        edge = np.where(rng.random(count) < 0.5, structure.threshold[pick], beside)
        trial[np.arange(count), structure.feature[pick]] = edge
    return trial


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", TREES)
def test_trees_of_scikit_learn_answer_alike_to_the_last_bit(name, data):
    model = fitted(TREES[name], data)
    structure = sklearn_structure.read(model)
    rows = trial(structure, DATA[data][0])
    np.testing.assert_array_equal(structure.labels(rows), np.searchsorted(model.classes_, model.predict(rows)))
    theirs = model.predict_proba(rows) if structure.link == Link.MEAN else model.decision_function(rows)
    np.testing.assert_array_equal(structure.outputs(rows), theirs.reshape(len(rows), -1))
    np.testing.assert_allclose(structure.scores(rows), model.predict_proba(rows), rtol=0, atol=1e-15)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_models_answer_alike(name, data):
    model, rows = fitted(LINEAR[name], data), DATA[data][0]
    structure = sklearn_structure.read(model)
    assert isinstance(structure, LinearModel)
    np.testing.assert_array_equal(structure.labels(rows), model.predict(rows))
    theirs = model.decision_function(rows).reshape(len(rows), -1)
    np.testing.assert_allclose(structure.outputs(rows), theirs, atol=1e-9 * np.abs(theirs).max())
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(structure.scores(rows), model.predict_proba(rows), atol=1e-10)


class Derived(DecisionTreeClassifier):
    def predict(self, X, check_input=True):  # noqa: N803
        return 1 - super().predict(X, check_input)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (AdaBoostClassifier(n_estimators=2), "AdaBoostClassifier"),
        (make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=5)), "PolynomialFeatures"),
        (Derived(max_depth=2), "Derived"),
        (GradientBoostingClassifier(n_estimators=1, init=LogisticRegression(max_iter=5)), "another model"),
        (GradientBoostingClassifier(n_estimators=1, loss="exponential"), "exponential"),
        (HistGradientBoostingClassifier(max_iter=1, categorical_features=[0], max_bins=255), "categories"),
    ],
    ids=["boosted otherwise", "polynomial", "derived", "another start", "exponential", "categories"],
)
def test_models_of_other_kinds_are_refused_with_a_reason(model, reason):
    rows, labels = DATA["two classes"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(np.abs(np.rint(rows)) % 50, labels)
    assert reason in sklearn_structure.readable(model)
    with pytest.raises(sklearn_structure.Unreadable, match=reason):
        sklearn_structure.read(model)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", BOOSTED)
def test_boosted_models_answer_alike_to_the_last_bit(name, data):
    model = fitted(BOOSTED[name](), data)
    target = BoostingTarget(model)
    structure = target.structure()
    rows = trial(structure, DATA[data][0])
    np.testing.assert_array_equal(structure.labels(rows), target.labels(rows))
    if name.startswith("xgboost"):
        theirs = model.predict(rows, output_margin=True).reshape(len(rows), -1)
        np.testing.assert_array_equal(structure.outputs(rows), theirs)
        np.testing.assert_allclose(structure.scores(rows), target.scores(rows), atol=2e-7)
    else:
        np.testing.assert_allclose(structure.scores(rows), target.scores(rows), atol=1e-14)


def test_boosted_models_of_other_kinds_are_refused():
    rows, labels = DATA["three"]
    linear = xgboost.XGBClassifier(n_estimators=2, booster="gblinear", n_jobs=1).fit(rows, labels)
    with pytest.raises(ArtefactError, match="gblinear"):
        BoostingTarget(linear).structure()
    numbers = xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(rows, labels)
    with pytest.raises(ArtefactError, match="squarederror"):
        read_xgboost(bytes(numbers.get_booster().save_raw("json")))
    zeros = lightgbm.LGBMClassifier(n_estimators=2, zero_as_missing=True, verbose=-1, n_jobs=1).fit(rows, labels)
    with pytest.raises(ArtefactError, match="zeros that count as missing"):
        BoostingTarget(zeros).structure()
    whole = np.column_stack([np.rint(rows[:, 0]), rows])
    named_values = lightgbm.LGBMClassifier(n_estimators=2, min_data_per_group=1, cat_smooth=0, verbose=-1, n_jobs=1)
    named_values.fit(whole, np.rint(rows[:, 0]).astype(int) % 3, categorical_feature=[0])
    with pytest.raises(ArtefactError, match="splits by category"):
        BoostingTarget(named_values).structure()


@pytest.mark.parametrize("document", [b"", b"{}", b"[1]", b'{"learner": 3}', b"\xff"])
def test_documents_that_are_no_model_are_refused(document):
    with pytest.raises(ArtefactError, match="none"):
        read_xgboost(document)
    with pytest.raises(ArtefactError, match="none"):
        read_lightgbm(document.decode("latin-1"))


def test_nodes_that_lead_in_circles_are_refused():
    rows, labels = DATA["two classes"]
    model = xgboost.XGBClassifier(n_estimators=1, max_depth=2, n_jobs=1).fit(rows, labels)
    document = json.loads(bytes(model.get_booster().save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 0
    with pytest.raises(ArtefactError, match="do not stand behind"):
        read_xgboost(json.dumps(document))
    text = lightgbm.LGBMClassifier(n_estimators=1, verbose=-1, n_jobs=1).fit(rows, labels).booster_.model_to_string()
    lines = ["left_child=" + " 0" * 30 if line.startswith("left_child=") else line for line in text.splitlines()]
    with pytest.raises(ArtefactError, match=r"none|do not stand behind"):
        read_lightgbm("\n".join(lines))


def test_a_boosted_target_retrains_and_keeps_the_names_of_classes():
    rows, labels = DATA["three"]
    target = BoostingTarget(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(rows, labels + 5))
    assert target.class_values == ("5", "6", "7")
    again = target.retrain(rows, labels, seed=3)
    assert (again.labels(rows) == labels).mean() > 0.9
    with pytest.raises(WorkError, match="all its 3 classes"):
        target.retrain(rows[labels != 1], labels[labels != 1], seed=0)
    with pytest.raises(WorkError, match="13 features"):
        target.labels(rows[:, :4])


def test_the_isolated_process_shows_the_same_structure(tmp_path):
    rows, labels = DATA["three"]
    model = make_pipeline(StandardScaler(), RandomForestClassifier(6, random_state=0)).fit(rows[::2], labels[::2])
    system = declare(tmp_path, model, (rows[::2], labels[::2]), (rows[1::2], labels[1::2]))
    with SklearnTargets(lambda _: True).open(system, named(tmp_path, "model", "victim", "model.joblib")) as target:
        here, there = sklearn_structure.read(model), target.structure()
        assert isinstance(there, TreeEnsemble)
        np.testing.assert_array_equal(there.outputs(rows), here.outputs(rows))
        again = target.retrain(rows, labels, seed=1)
        np.testing.assert_array_equal(again.structure().labels(rows), again.labels(rows))
