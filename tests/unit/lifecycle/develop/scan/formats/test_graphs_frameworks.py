"""No false alarms: what onnx, skl2onnx, torch and gguf themselves write is clean and fully examined."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.formats import gguf as ours
from bartizan.lifecycle.develop.scan.formats.protobuf import WIRES, schema
from fixtures import hostile_graphs as corpus

TEMPLATES = json.loads((Path(corpus.__file__).parent / "chat_templates.json").read_text())
"""Templates of the shape that families of language models ship."""
VECTOR = [
    helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
    helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]),
]


def assert_clean(data, name="m.onnx"):
    """Nothing found, nothing left out."""
    report = scan_bytes(data, name)
    assert report.verdict is Verdict.CLEAN, [finding.detail for finding in report.findings]
    assert report.total_coverage is Coverage.EXAMINED
    return report


def model_of(*nodes, weights=(), functions=(), opsets=(("", 17),), **more):
    """A model as onnx makes it."""
    graph = helper.make_graph(list(nodes), "g", VECTOR[:1], VECTOR[1:], list(weights))
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*each) for each in opsets], functions=list(functions), **more
    )
    return made.SerializeToString()


def test_the_table_of_fields_is_that_of_onnx():
    todo = [onnx.ModelProto.DESCRIPTOR]
    seen = set()
    while todo:
        message = todo.pop()
        if message.name in seen:
            continue
        seen.add(message.name)
        table = schema("onnx")[message.name]
        assert {number: rule.name for number, rule in table.items()} == {
            each.number: each.name for each in message.fields
        }
        for each in message.fields:
            rule = table[each.number]
            assert rule.is_message == (each.message_type is not None)
            assert rule.kind in WIRES or rule.kind in {"text", "bytes"} or rule.kind == each.message_type.name
            todo += [each.message_type] if each.message_type else []
    assert len(seen) > 20


@pytest.mark.parametrize("kind", sorted(set(TensorProto.DataType.values()) - {0, 8, 14, 15, 27, 28}))
def test_weights_of_every_type_are_clean(kind):
    for raw in (False, True):
        array = np.ones((3, 4), helper.tensor_dtype_to_np_dtype(kind))
        weight = (
            numpy_helper.from_array(array, "w")
            if raw
            else helper.make_tensor("w", kind, [3, 4], array.astype(np.float32).ravel().tolist())
        )
        assert_clean(model_of(helper.make_node("Identity", ["x"], ["y"]), weights=[weight]))


def test_texts_complex_numbers_and_sparse_weights_are_clean():
    texts = helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"b"])
    numbers = helper.make_tensor("c", TensorProto.COMPLEX64, [2], [1 + 2j, 3j])
    empty = helper.make_tensor("e", TensorProto.FLOAT, [0], [])
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [3]),
        [9],
    )
    constant = helper.make_node("Constant", [], ["z"], sparse_value=sparse)
    assert_clean(model_of(helper.make_node("Relu", ["x"], ["y"]), constant, weights=[texts, numbers, empty]))


def test_subgraphs_functions_and_metadata_are_clean():
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["n"])], "b", [], VECTOR[1:])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch, doc_string="either")
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("F", ["x"], ["q"], domain="local")
    data = model_of(choice, call, functions=[function], opsets=(("", 17), ("local", 1)), producer_name="test")
    loaded = onnx.load_from_string(data)
    helper.set_model_props(loaded, {"author": "me", "names": "{0: 'cat'}"})
    report = assert_clean(loaded.SerializeToString())
    assert report.facts["functions"] == 1


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data_as_onnx_saves_them_are_clean(tmp_path, one_file):
    weights = [numpy_helper.from_array(np.random.default_rng(n).normal(size=(40, 9)), f"w{n}") for n in range(3)]
    made = onnx.load_from_string(model_of(helper.make_node("Relu", ["x"], ["y"]), weights=weights))
    onnx.save(
        made,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location="model.onnx_data" if one_file else None,
        size_threshold=64,
    )
    report = scan_path(tmp_path)
    assert report.verdict is Verdict.CLEAN, report.reasons
    assert len(report.members) == (2 if one_file else 4)


def test_what_skl2onnx_converts_is_clean():
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    data = pytest.importorskip("skl2onnx.common.data_types")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator in (
            make_pipeline(StandardScaler(), LogisticRegression()),
            RandomForestRegressor(5),
            GradientBoostingClassifier(n_estimators=4),
        ):
            assert_clean(to_onnx(estimator.fit(x, y), x[:1]).SerializeToString())
        words = TfidfVectorizer().fit(["a cat sat", "a dog ran"])
        converted = to_onnx(words, initial_types=[("s", data.StringTensorType([None, 1]))])
        assert_clean(converted.SerializeToString())
        encoder = OrdinalEncoder().fit(np.array([["a"], ["b"]], dtype=object))
        assert_clean(to_onnx(encoder, initial_types=[("s", data.StringTensorType([None, 1]))]).SerializeToString())


def test_what_torch_exports_is_clean():
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 8, 8),), target, dynamo=False)
    assert_clean(target.getvalue())


# GGUF


def written(tmp_path, fill, **more):
    """A file of gguf's own writer."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama", **more)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def whole_model(writer):
    """Keys of all types, a vocabulary, a template, tensors of several types."""
    writer.add_name("a model")
    writer.add_bool("b", bool(1))
    writer.add_float64("f", 0.5)
    writer.add_uint64("u", 1 << 40)
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("nested", ["x", "y"])
    writer.add_token_list(["<s>", "</s>", "the", " "])
    writer.add_token_scores([0.0, 1.0, 2.0, 3.0])
    writer.add_token_types([3, 3, 1, 1])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATES["ChatML"])
    for number, dtype in enumerate((np.float32, np.float16, np.float64, np.int8, np.int32)):
        writer.add_tensor(f"blk.{number}.weight", np.ones((3, 5), dtype))


@pytest.mark.parametrize("endianess", list(gguf.GGUFEndian))
def test_what_gguf_writes_is_clean(tmp_path, endianess):
    report = assert_clean(written(tmp_path, whole_model, endianess=endianess), "m.gguf")
    assert report.facts["tensors"] == 5


@pytest.mark.parametrize("kind", [each.name for each in gguf.GGMLQuantizationType])
def test_every_type_of_ggml_has_its_size(tmp_path, kind):
    number = gguf.GGMLQuantizationType[kind]
    assert ours.BLOCKS[int(number)] == gguf.GGML_QUANT_SIZES[number]
    items, width = gguf.GGML_QUANT_SIZES[number]

    def fill(writer):
        writer.add_tensor("w", np.zeros((2, 2 * width), np.uint8), raw_shape=(2, 2 * width), raw_dtype=number)

    if items > 1:
        assert_clean(written(tmp_path, fill), "m.gguf")


def test_another_alignment_is_clean(tmp_path):
    def fill(writer):
        writer.add_custom_alignment(128)
        writer.add_tensor("a", np.ones(3, np.float32))
        writer.add_tensor("b", np.ones(3, np.float32))

    assert_clean(written(tmp_path, fill), "m.gguf")


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_language_models_are_clean(name):
    assert_clean(corpus.template(TEMPLATES[name]), "m.gguf")
