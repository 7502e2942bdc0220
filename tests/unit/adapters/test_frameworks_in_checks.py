"""The whole way with a network: file, scan, process, attack, measurement; and what does not apply to whom, and why."""

from __future__ import annotations

import io
import warnings

import lightgbm
import numpy as np
import pytest
import torch
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from bartizan.core.errors import WorkError
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.lifecycle.develop.scan.verdict import Coverage, Verdict
from bartizan.redteam import registry
from bartizan.targets.hosted import HostedTargets
from bartizan.targets.protocol import Targets
from bartizan.wiring.services import FRAMEWORKS, CheckServices
from fixtures.declared import system_of
from fixtures.victims import desk

ROWS, LABELS = load_breast_cancer(return_X_y=True)
SMALL = {"samples": 12, "query_budget": 60, "max_change": 0.5}
PGD = registry.check("evasion.pgd")


def weights():
    """Of the line between the means of both classes, in units of the rows."""
    scaler = StandardScaler().fit(ROWS)
    scaled = scaler.transform(ROWS)
    way = scaled[LABELS == 1].mean(0) - scaled[LABELS == 0].mean(0)
    middle = (scaled[LABELS == 1].mean(0) + scaled[LABELS == 0].mean(0)) @ way / 2
    slope = way / scaler.scale_
    shift = -(scaler.mean_ @ slope) - middle
    return np.column_stack([-slope, slope]).astype(np.float32), np.array([-shift, shift], np.float32)


def onnx_file(*after):
    slope, shift = weights()
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z" if after else "y"]), *after]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 30])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(slope, "w"), numpy_helper.from_array(shift, "b")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def torch_file():
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(30, 2)), file)
    return file.getvalue()


def boosted(kind):
    if kind == "xgboost":
        return bytes(xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(ROWS, LABELS).get_booster().save_raw("ubj"))
    model = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1).fit(ROWS, LABELS)
    return model.booster_.model_to_string().encode()


def declared(folder, file, framework, **settings):
    return system_of(folder, file, framework, (ROWS, LABELS), **(SMALL | settings))


@pytest.mark.parametrize(
    ("framework", "name", "file"),
    [
        ("onnx", "model.onnx", onnx_file()),
        ("torch", "model.pt", torch_file()),
        ("xgboost", "model.ubj", boosted("xgboost")),
        ("lightgbm", "model.txt", boosted("lightgbm")),
    ],
)
def test_files_of_every_framework_are_examined_whole_before_they_are_loaded(tmp_path, framework, name, file):
    (tmp_path / name).write_bytes(file)
    report = scan_path(tmp_path / name)
    assert framework in FRAMEWORKS
    assert (report.format, report.verdict, report.total_coverage) == (framework, Verdict.CLEAN, Coverage.EXAMINED)


def test_a_network_is_attacked_by_its_gradients_and_loses(tmp_path):
    system, model = declared(tmp_path, onnx_file(), "onnx")
    assert PGD.why_not(system) == ""
    assert PGD.is_upper_bound(system.declaration)
    outcome = PGD.run(system, model, desk(HostedTargets(FRAMEWORKS, lambda _digest: True)))
    metrics = outcome.predicate.metrics
    assert metrics["clean_accuracy"].value > 0.8
    assert metrics["robust_accuracy"].value < metrics["clean_accuracy"].value


def test_a_network_without_slopes_ends_the_check_with_the_operator(tmp_path):
    file = onnx_file(helper.make_node("Round", ["z"], ["y"], name="coarse"))
    system, model = declared(tmp_path, file, "onnx")
    with pytest.raises(WorkError, match=r"needs gradients.*Round \(node 'coarse'\) stops gradients"):
        PGD.run(system, model, desk(HostedTargets(FRAMEWORKS, lambda _digest: True)))


@pytest.mark.parametrize("framework", ["onnx", "torch", "xgboost"])
def test_attacks_that_train_the_model_again_say_why_they_cannot(tmp_path, framework):
    system, _ = declared(tmp_path, b"never loaded", framework)
    reason = registry.check("poisoning.labelflip").why_not(system)
    assert reason == (
        f"poisoning.labelflip trains the model again, and a file of {framework} does not say how that is done."
    )


def test_what_is_read_out_of_trees_and_networks_decides_what_applies(tmp_path):
    exact, flips = registry.check("evasion.tree-exact"), registry.check("poisoning.labelflip")
    for framework, trees, slopes, training in [
        ("lightgbm", True, False, True),
        ("xgboost", True, False, False),
        ("onnx", False, True, False),
        ("torch", False, True, False),
    ]:
        system, _ = declared(tmp_path, b"never loaded", framework)
        assert [exact.why_not(system) == "", PGD.why_not(system) == "", flips.why_not(system) == ""] == [
            trees,
            slopes,
            training,
        ]


def test_the_service_opens_clean_models_only(tmp_path):
    system, model = declared(tmp_path, onnx_file(), "onnx")
    service = CheckServices(tmp_path, frozenset())(Targets)
    with pytest.raises(WorkError, match="has no clean scan"), service.open(system, model):
        pass
    with CheckServices(tmp_path, frozenset({model.digest}))(Targets).open(system, model) as found:
        assert found.labels(ROWS[:3]).shape == (3,)
