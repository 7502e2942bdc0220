"""Really saved ONNX files: networks by torch, pipelines by scikit-learn, graphs by hand, and hostile ones."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
import skl2onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from bartizan.adapters.onnx.host import Host, Question
from bartizan.core.errors import ArtefactError, SandboxError, WorkError
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.play import play
from bartizan.targets.hosting import Refusal
from bartizan.targets.isolated import Limits
from bartizan.targets.protocol import NEEDS_TARGETS, Access, Loss
from fixtures.declared import opened
from fixtures.digits_nets import CLASSES, SHAPE, attacked, digits, net, target

IMAGES = {"training": {"shape": SHAPE, "value_range": (0.0, 1.0)}}
FLOWERS, KINDS = load_iris(return_X_y=True)
FLOWERS32 = FLOWERS.astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])[KINDS]
DOMAIN = "com.example"


def exported(module, rows, **more):
    """As torch writes it."""
    file = io.BytesIO()
    more.setdefault("dynamic_axes", {"x": {0: "batch"}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(module, (rows,), file, dynamo=False, input_names=["x"], **more)
    return file.getvalue()


def written(model, **more):
    """As skl2onnx writes it."""
    return skl2onnx.to_onnx(model, FLOWERS32[:1], **more).SerializeToString()


def graph(nodes, *, inputs=None, outputs=("y",), constants=(), opset=17, **more):
    """By hand; an input ``x`` of four numbers unless told otherwise."""
    inputs = inputs if inputs is not None else [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]
    named = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) if isinstance(name, str) else name
        for name in outputs
    ]
    made = helper.make_graph(nodes, "graph", inputs, named, list(constants))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9, **more)


def linear(*after, **more):
    """``y = x @ w``, and what comes after it, from ``z``."""
    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) / 10, "w")
    first = helper.make_node("MatMul", ["x", "w"], ["z" if after else "y"])
    return graph([first, *after], constants=(weights, *more.pop("constants", ())), **more)


class Asked:
    """The host in this process: what is told between the processes, without them."""

    def __init__(self, file, *, classes=3, features=4, shape=()):
        self.host, self.width = Host(), 0
        data = file if isinstance(file, bytes) else file.SerializeToString()
        self.host.keep(Question(do="keep", bytes=len(data), data=bytearray(data)))
        load = Question(do="load", bytes=0, classes=classes, features=features, shape=shape)
        self.facts = self.host.load(load)["facts"]

    def __call__(self, what, rows, *more, **said):
        kind = "<f4" if self.facts["single"] else "<f8"
        data = b"".join([rows.astype(kind).tobytes(), *(np.asarray(array, "<i8").tobytes() for array in more)])
        answer = getattr(self.host, what)(Question(do=what, bytes=0, data=bytearray(data), rows=len(rows), **said))
        kind = {"labels": "<i8", "scores": "<f8"}.get(what, kind)
        return np.frombuffer(answer, kind) if what == "labels" else np.frombuffer(answer, kind).reshape(len(rows), -1)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    rows, labels = digits()
    file, folder = exported(net(), torch.zeros(2, *SHAPE)), tmp_path_factory.mktemp("network")
    with opened(folder, file, "onnx", (rows[:200], labels[:200]), **IMAGES) as found:
        yield found


def test_a_network_says_what_it_is(network):
    assert (network.classes, network.features, network.shape) == (CLASSES, 64, SHAPE)
    assert network.dtype == np.float32
    assert network.offers == {Access.LABELS, Access.SCORES, Access.LOGITS, Access.GRADIENTS, Access.WEIGHTS}
    assert network.lacks == {Access.TRAINING: "An ONNX file does not say how the model was trained"}


def test_answers_are_those_of_the_network_in_this_process(network):
    rows, here = digits()[0][:700], target()
    assert np.array_equal(network.labels(rows), here.labels(rows))
    assert np.allclose(network.scores(rows), here.scores(rows), atol=1e-5)
    assert np.allclose(network.logits(rows), here.logits(rows), atol=1e-4)
    assert np.allclose(network.activations(rows), here.activations(rows), atol=1e-4)
    assert network.labels(rows[:0]).shape == (0,)


@pytest.mark.parametrize("loss", list(Loss))
def test_gradients_are_those_of_the_network_in_this_process(network, loss):
    rows, labels = (array[:600] for array in digits())
    targets = (labels + 1) % CLASSES if loss in NEEDS_TARGETS else None
    theirs, ours = (where.gradients(rows, loss, labels, targets) for where in (target(), network))
    assert np.allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))
    assert 0 < network.disagreement() < 1e-4


def test_an_attack_finds_the_same_through_the_process_as_without(network):
    found = [play(where, PGD(), attacked(20), seed=3) for where in (network, target())]
    assert np.array_equal(found[0].rows, found[1].rows)
    assert found[0].robust_accuracy == found[1].robust_accuracy
    assert found[0].robust_accuracy.value < found[0].clean_accuracy.value


def test_a_network_is_not_trained_again_and_shows_no_structure(network):
    rows, labels = (array[:5] for array in digits())
    with pytest.raises(WorkError, match="does not say how the model was trained"):
        network.retrain(rows, labels, seed=0)
    with pytest.raises(WorkError, match="structure is not read"):
        network.structure()
    with pytest.raises(WorkError, match="takes rows of 64 features"):
        network.labels(rows[:, :5])


@pytest.mark.parametrize(
    ("model", "gradients"),
    [
        (RandomForestClassifier(5, random_state=0), "TreeEnsembleClassifier"),
        (make_pipeline(StandardScaler(), LogisticRegression()), ""),
        (make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=20, random_state=0)), ""),
        (GaussianNB(), None),
    ],
    ids=["forest", "linear", "network", "bayes"],
)
@pytest.mark.parametrize("labels", [KINDS, NAMES], ids=["numbers", "names"])
@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pipelines_of_scikit_learn_answer_as_they_do(model, gradients, labels, zipmap):
    model = model.fit(FLOWERS32, labels)
    asked = Asked(written(model, options={"zipmap": zipmap}))
    assert asked.facts["values"] == [str(value) for value in model.classes_.tolist()]
    assert np.array_equal(model.classes_[asked("labels", FLOWERS)], model.predict(FLOWERS32))
    assert np.allclose(asked("scores", FLOWERS), model.predict_proba(FLOWERS32), atol=1e-5)
    if gradients is not None:
        assert gradients in asked.facts["lacks"].get("gradients", "")
    if not gradients and asked.facts["gradients"]:
        slope = asked("gradients", FLOWERS, KINDS, loss="logit")
        step = 1e-2 * np.eye(4)[1]
        rise = (asked("logits", FLOWERS + step) - asked("logits", FLOWERS - step)) / 2e-2
        assert np.allclose(slope[:, 4], rise[np.arange(150), KINDS], atol=0.05)


def test_scores_that_are_no_probabilities_are_not_taken_for_them():
    asked = Asked(written(LinearSVC().fit(FLOWERS32, KINDS)))
    assert not asked.facts["scores"]
    assert asked.facts["lacks"]["gradients"] == "It answers labels, and no probabilities beside them"
    assert len(set(asked("labels", FLOWERS))) == 3


def test_a_pipeline_may_take_each_column_as_an_input_of_its_own():
    table = pd.DataFrame(FLOWERS32, columns=["a", "b", "c", "d"])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, KINDS)
    asked = Asked(skl2onnx.to_onnx(model, table[:1]).SerializeToString())
    assert asked.facts["names"] == ["a", "b", "c", "d"]
    assert np.array_equal(asked("labels", FLOWERS), model.predict(table))
    assert asked.facts["gradients"]
    assert asked("gradients", FLOWERS, KINDS, loss="margin").shape == (150, 7)
    with pytest.raises(Refusal, match="takes 4 inputs; the declared data has 3 columns"):
        Asked(skl2onnx.to_onnx(model, table[:1]).SerializeToString(), features=3)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Identity(), nn.Softmax(-1).double()])
def test_logits_are_what_stands_before_the_last_step(last):
    torch.manual_seed(0)
    kind = torch.float64 if last.__dict__.get("training") and isinstance(last, nn.Softmax) and last.dim == -1 else None
    first = nn.Linear(4, 3, dtype=kind)
    asked = Asked(exported(nn.Sequential(first, last), torch.zeros(2, 4, dtype=kind)))
    logits = first(torch.from_numpy(FLOWERS).to(kind or torch.float32)).detach().numpy()
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert asked.facts["single"] == (kind is None)
    assert np.allclose(asked("scores", FLOWERS), scores, atol=1e-5)
    told = asked("gradients", FLOWERS, KINDS, loss="logit")
    shift = asked("logits", FLOWERS) - logits
    assert np.allclose(shift, shift[:, :1], atol=1e-4)
    if not isinstance(last, nn.LogSoftmax):
        assert np.allclose(told[:, 3:], first.weight.detach().numpy()[KINDS], atol=1e-5)


def test_a_sigmoid_of_one_number_answers_two_classes():
    module = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    asked = Asked(exported(module, torch.zeros(2, 4)), classes=2)
    chance = module(torch.from_numpy(FLOWERS32)).detach().numpy()
    assert np.allclose(asked("scores", FLOWERS), np.column_stack([1 - chance, chance]), atol=1e-6)
    assert np.array_equal(asked("labels", FLOWERS), (chance[:, 0] > 0.5).astype(int))
    slope = module[0].weight.detach().numpy()[0]
    assert np.allclose(asked("gradients", FLOWERS, np.ones(150, int), loss="margin")[:, 2:], -slope, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_of_fixed_size_is_filled_up(batch):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    asked = Asked(exported(module, torch.zeros(batch, 4), dynamic_axes={}))
    expected = module(torch.from_numpy(FLOWERS32)).detach().numpy()
    assert np.allclose(asked("logits", FLOWERS[:7]), expected[:7], atol=1e-5)
    assert np.allclose(asked("gradients", FLOWERS[:7], KINDS[:7], loss="logit")[:, :3], expected[:7], atol=1e-5)


def test_images_with_channels_last_are_turned():
    weights = np.arange(24, dtype=np.float32).reshape(3, 8) % 5
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2, 1, 4])]
    asked = Asked(
        graph(nodes, inputs=inputs, constants=[numpy_helper.from_array(weights, "w")]), features=8, shape=(4, 2, 1)
    )
    rows = np.random.default_rng(0).random((5, 8)).astype(np.float32)
    turned = rows.reshape(5, 4, 2, 1).transpose(0, 2, 3, 1).reshape(5, 8)
    assert np.allclose(asked("logits", rows), turned @ weights.T, atol=1e-5)
    slope = asked("gradients", rows, np.zeros(5, int), loss="logit")[:, 3:]
    assert np.allclose(slope.reshape(5, 4, 2, 1).transpose(0, 2, 3, 1).reshape(5, 8), weights[0])


@pytest.mark.parametrize("count", [1, 16, 40])
def test_gradients_that_do_not_belong_to_the_answers_are_refused(count):
    asked = Asked(linear())
    assert asked("gradients", FLOWERS[:count], KINDS[:count], loss="margin").shape == (count, 7)
    asked.host.network.module._constants["w"] += 0.1
    with pytest.raises(Refusal, match="away from what ONNX Runtime answers"):
        asked("gradients", FLOWERS[:count], KINDS[:count], loss="margin")


def external():
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return model


def hidden_external():
    """In a constant of a branch."""
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [0], b"", raw=True)
    tensor.data_location = TensorProto.EXTERNAL
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["b"], value=tensor)],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("b")],
    )
    condition = numpy_helper.from_array(np.asarray(np.True_), "c")
    return linear(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch), constants=[condition])


def many(*names):
    return linear(
        *(helper.make_node("Identity", ["z"], [name]) for name in names),
        outputs=names,
    )


@pytest.mark.parametrize(
    ("file", "more", "fault"),
    [
        (b"", {}, "no ONNX file"),
        (b"GGUF" * 100, {}, "no ONNX file"),
        (linear().SerializeToString()[:-20], {}, "no ONNX file|part of one"),
        (external(), {}, "lie in other files"),
        (hidden_external(), {}, "lie in other files"),
        (linear(helper.make_node("Steal", ["z"], ["y"], domain=DOMAIN)), {}, "needs operators of 'com.example'"),
        (linear(helper.make_node("Nothing", ["z"], ["y"])), {}, "ONNX Runtime does not load it"),
        (linear(), {"features": 5}, "takes rows of 4 numbers, and the declared data has 5"),
        (linear(), {"classes": 2}, "answers 3 numbers for each row, and 2 classes are declared"),
        (linear(helper.make_node("Sigmoid", ["z"], ["y"])), {}, "a Sigmoid for each class"),
        (many("y", "v"), {}, "cannot be told which of its outputs"),
        (
            linear(inputs=[helper.make_tensor_value_info("x", TensorProto.STRING, [None, 4])]),
            {},
            "of type STRING, and rows are numbers",
        ),
        (linear(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [])]), {}, "is a single number"),
        (graph([helper.make_node("Constant", [], ["y"], value_float=1.0)], inputs=[]), {}, "takes no input"),
    ],
)  # fmt: skip
def test_what_is_no_classifier_is_refused_with_the_reason(file, more, fault):
    with pytest.raises(Refusal, match=fault):
        Asked(file, **more)


def test_one_number_without_a_sigmoid_is_refused():
    with pytest.raises(Refusal, match="not said where one class ends"):
        Asked(exported(nn.Linear(4, 1), torch.zeros(2, 4)), classes=2)


def test_of_several_outputs_that_which_fits_the_classes_is_taken():
    model = many("y", "v")
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 7
    assert Asked(model).facts["logits"]


def test_answers_that_are_no_numbers_are_refused():
    asked = Asked(linear(helper.make_node("Log", ["z"], ["y"])))
    with pytest.raises(Refusal, match="something that is no number"):
        asked("labels", -FLOWERS)
    with pytest.raises(Refusal, match="something that is no number"):
        asked("gradients", -FLOWERS, KINDS, loss="margin")


def test_a_class_that_is_not_named_is_refused():
    forest = RandomForestClassifier(3, random_state=0).fit(FLOWERS32, KINDS)
    model = ModelProto.FromString(written(forest, options={"zipmap": False}))
    asked = Asked(model)
    asked.host.answers = type(asked.host.answers)("label", (0, 1), "", "", "", "")
    with pytest.raises(Refusal, match="a class '2' that it does not name"):
        asked("labels", FLOWERS)


# ---- in its process


def endless():
    """A loop over as many rounds as there are numbers."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, None),
        ],
    )
    rounds = numpy_helper.from_array(np.array(2**62), "n")
    go = numpy_helper.from_array(np.asarray(np.True_), "c")
    return linear(helper.make_node("Loop", ["n", "c", "z"], ["y"], body=body), constants=[rounds, go])


def bomb():
    """A small file whose answer takes 4 TB."""
    shape = numpy_helper.from_array(np.array([2**20, 2**20]), "s")
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["one"], keepdims=0),
        helper.make_node("Add", ["z", "one"], ["y"]),
    ]
    return linear(*nodes, constants=[shape])


@pytest.mark.parametrize(
    ("file", "error", "fault"),
    [
        (endless(), SandboxError, "gave no answer within"),
        (bomb(), (ArtefactError, SandboxError), "does not load it|memory|cannot|died|model that can be asked"),
    ],
    ids=["endless", "bomb"],
)
def test_hostile_files_end_in_time_and_say_why(tmp_path, file, error, fault):
    limits = Limits(start_seconds=5) if error is SandboxError else Limits()
    with (
        pytest.raises(error, match=fault),
        opened(tmp_path, file.SerializeToString(), "onnx", (FLOWERS, KINDS), limits=limits) as found,
    ):
        found.labels(FLOWERS)


def test_a_rounding_network_says_what_stops_its_gradients(tmp_path):
    file = linear(helper.make_node("Round", ["z"], ["y"], name="coarse")).SerializeToString()
    with opened(tmp_path, file, "onnx", (FLOWERS, KINDS)) as found:
        assert Access.GRADIENTS not in found.offers
        with pytest.raises(WorkError, match=r"Round \(node 'coarse'\) stops gradients"):
            found.gradients(FLOWERS, Loss.MARGIN, KINDS)
        assert found.labels(FLOWERS).shape == (150,)
