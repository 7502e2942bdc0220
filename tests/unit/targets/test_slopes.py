"""Gradients without a framework: against torch's, against differences, and against scikit-learn's own answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters import sklearn_structure
from bartizan.adapters.sklearn import SklearnTargets
from bartizan.adapters.torch import losses
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.targets import slopes
from bartizan.targets.protocol import NEEDS_TARGETS, Access, Loss
from bartizan.targets.structure import NetworkModel, pack, unpack
from fixtures.victims import declare

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
TWO = load_breast_cancer(return_X_y=True)
TEN = load_digits(return_X_y=True)


def network(data, *, activation="relu", hidden=(7, 5)):
    rows, labels = data
    model = make_pipeline(StandardScaler(), MLPClassifier(hidden, activation=activation, max_iter=12, random_state=0))
    return model.fit(rows[:400], labels[:400])


def linear(data):
    return make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=50)).fit(data[0][:400], data[1][:400])


@pytest.mark.parametrize("loss", list(Loss))
def test_the_derivative_by_the_logits_is_that_of_torch(loss):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 6)), rng.integers(6, size=50)
    targets = (labels + rng.integers(1, 6, size=50)) % 6 if loss in NEEDS_TARGETS else None
    tensor = torch.tensor(logits, requires_grad=True)
    aimed = None if targets is None else torch.tensor(targets)
    (theirs,) = torch.autograd.grad(losses(tensor, loss, torch.tensor(labels), aimed).sum(), tensor)
    np.testing.assert_allclose(slopes.pulls(logits, loss, labels, targets), theirs.numpy(), atol=1e-12)


@pytest.mark.parametrize("data", [TWO, TEN], ids=["two classes", "ten"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_a_network_is_read_as_it_answers_and_its_slopes_are_those_of_differences(data, activation):
    model = network(data, activation=activation)
    structure = sklearn_structure.read(model)
    rows, labels = data[0][400:430], data[1][400:430]
    assert isinstance(structure, NetworkModel)
    np.testing.assert_allclose(structure.scores(rows), model.predict_proba(rows), atol=1e-9)
    assert (structure.labels(rows) == model.predict(rows)).all()
    _assert_slopes(structure, rows, labels)


@pytest.mark.parametrize("data", [TWO, TEN], ids=["two classes", "ten"])
def test_a_linear_model_has_the_slopes_of_differences(data):
    structure = sklearn_structure.read(linear(data))
    _assert_slopes(structure, data[0][400:430], data[1][400:430])


def _assert_slopes(structure, rows, labels):
    answer = slopes.gradients(structure, rows, Loss.CROSS_ENTROPY, labels)
    classes = structure.classes
    logits, slope = answer[:, :classes], answer[:, classes:]
    assert (logits.argmax(axis=1) == structure.labels(rows)).all()
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(scores / scores.sum(axis=1, keepdims=True), structure.scores(rows), atol=1e-9)
    direction = np.random.default_rng(1).normal(size=rows.shape) * (rows.std(axis=0) + 1e-3)
    step = 1e-6

    def value(at):
        known = slopes.logits(structure, at)
        top = known.max(axis=1, keepdims=True)
        own = known[np.arange(len(known)), labels]
        return (np.log(np.exp(known - top).sum(axis=1)) + top[:, 0]) - own

    difference = (value(rows + step * direction) - value(rows - step * direction)) / (2 * step)
    np.testing.assert_allclose((slope * direction).sum(axis=1), difference, rtol=1e-4, atol=1e-5)


def test_a_network_without_hidden_layers_is_a_linear_one():
    model = MLPClassifier((), max_iter=5, random_state=0).fit(*TWO)
    structure = sklearn_structure.read(model)
    np.testing.assert_allclose(structure.scores(TWO[0][:9]), model.predict_proba(TWO[0][:9]), atol=1e-9)


def test_a_network_comes_through_packing_as_it_was():
    structure = sklearn_structure.read(network(TEN))
    plan, body = pack(structure)
    rows = TEN[0][:5]
    assert (unpack(plan, body).outputs(rows) == structure.outputs(rows)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [64, 7, 10]},
        {"widths": [64]},
        {"widths": [64, 0, 10]},
        {"widths": ["64", 7, 5, 10]},
        {"widths": [10**12, 7, 5, 10]},
        {"activation": "eval"},
        {"link": "logistic"},
    ],
)
def test_a_process_that_lies_about_its_layers_is_found_out(change):
    plan, body = pack(sklearn_structure.read(network(TEN)))
    plan.plain.update(change)
    with pytest.raises(ArtefactError, match="is none"):
        unpack(plan, body)


def test_trees_have_no_slopes_and_odd_questions_are_refused():
    tree = sklearn_structure.read(DecisionTreeClassifier(max_depth=2).fit(*TWO))
    assert not slopes.differentiable(tree)
    with pytest.raises(WorkError, match="no slopes"):
        slopes.logits(tree, TWO[0][:2])
    two = sklearn_structure.read(RidgeClassifier().fit(*TWO))
    with pytest.raises(WorkError, match="2 classes"):
        slopes.gradients(two, TWO[0][:2], Loss.DLR, TWO[1][:2])
    with pytest.raises(WorkError, match="as it was asked"):
        slopes.gradients(two, TWO[0][:2], Loss.TOWARDS, TWO[1][:2])


def test_a_network_that_gives_several_classes_at_once_is_not_read():
    rows, labels = TEN
    several = np.column_stack([labels > 4, labels % 2 == 0]).astype(int)
    model = MLPClassifier((3,), max_iter=3, random_state=0).fit(rows, several)
    assert "several classes" in _why(model)


def _why(model):
    with pytest.raises(sklearn_structure.Unreadable) as caught:
        sklearn_structure.read(model)
    return str(caught.value)


@pytest.mark.parametrize("make", [linear, network])
def test_a_declared_model_gives_its_slopes_out_of_its_own_process(make, tmp_path):
    model = make(TWO)
    data = [(TWO[0][:400], TWO[1][:400]), (TWO[0][400:], TWO[1][400:])]
    system = declare(tmp_path, model, *data)
    rows, labels = TWO[0][400:420], TWO[1][400:420]
    structure = sklearn_structure.read(model)
    with SklearnTargets(lambda _digest: True).open(system, system.of_kind("model")[0]) as target:
        assert target.offers >= {Access.LOGITS, Access.GRADIENTS, Access.WEIGHTS}
        answer = target.gradients(rows, Loss.MARGIN, labels)
        assert (answer == slopes.gradients(structure, rows, Loss.MARGIN, labels)).all()
        assert (target.logits(rows) == slopes.logits(structure, rows)).all()
        again = target.retrain(*data[0], seed=1)
        assert again.logits(rows).shape == (20, 2)


def test_a_declared_tree_gives_none(tmp_path):
    system = declare(tmp_path, DecisionTreeClassifier(max_depth=2).fit(*TWO), TWO, TWO)
    with SklearnTargets(lambda _digest: True).open(system, system.of_kind("model")[0]) as target:
        assert not target.offers & {Access.LOGITS, Access.GRADIENTS}
