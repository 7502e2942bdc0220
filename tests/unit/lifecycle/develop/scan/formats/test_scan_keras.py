"""Keras models and HDF5 files: every hostile one is flagged, and plain ones are clean and fully examined."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.lifecycle.develop.scan import RULES, Coverage, Limits, Verdict, scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.formats.hdf5.checksum import lookup3
from bartizan.lifecycle.develop.scan.formats.keras import names
from bartizan.lifecycle.develop.scan.rules import keras as rules
from fixtures.effort import within
from fixtures.hostile_keras import (
    BENIGN,
    DANGEROUS,
    LAMBDA_LAYER,
    SUSPECT,
    WEIGHTS,
    archive,
    built,
    hdf5,
    legacy,
    old,
    sequential,
    vector,
)

CORPUS = {**DANGEROUS, **SUSPECT, **BENIGN}
SMALL = Limits(opcodes=200_000, nodes=20_000, expanded=1 << 22, members=2000)


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_dangerous_model_is_called_dangerous(name):
    report = scan_bytes(DANGEROUS[name], "model.keras")
    assert report.verdict is Verdict.DANGEROUS, [finding.detail for finding in report.findings]
    assert report.exit_code == 1


@pytest.mark.parametrize("name", SUSPECT)
def test_a_suspect_model_is_never_called_clean(name):
    report = scan_bytes(SUSPECT[name], "model.keras")
    assert report.verdict in {Verdict.SUSPICIOUS, Verdict.MALFORMED}
    assert report.exit_code == 1


@pytest.mark.parametrize("name", BENIGN)
def test_a_plain_model_is_clean_and_fully_examined(name):
    report = scan_bytes(BENIGN[name], "model.keras")
    assert report.verdict is Verdict.CLEAN, [finding.detail for finding in report.findings]
    assert report.total_coverage is Coverage.EXAMINED


def test_every_rule_is_fired_by_some_model():
    fired = {finding.rule for data in CORPUS.values() for finding in scan_bytes(data, "m").findings}
    ours = {rule.id for rule in rules.RULES}
    assert ours <= fired
    assert ours <= set(RULES)


@pytest.mark.parametrize("name", ["model.h5", "model.onnx", "weights.npy", "model"])
def test_a_wrong_name_changes_nothing(tmp_path, name):
    for vector_name in ("lambda in .keras", "lambda in .h5", "a link into another file"):
        path = tmp_path / name
        path.write_bytes(DANGEROUS[vector_name])
        assert scan_path(path).verdict is Verdict.DANGEROUS


def test_a_finding_says_which_layer_and_what_it_would_do():
    report = scan_bytes(vector(built("Dense", {"units": 1}), LAMBDA_LAYER), "model.keras")
    finding = report.findings[0]
    assert finding.rule == "keras/lambda"
    assert finding.where.startswith("model.keras!/config.json")
    assert "config.layers" in finding.detail
    assert "CWE-502" in finding.cwe


def test_formats_are_named_and_objects_counted():
    report = scan_bytes(BENIGN["plain .keras"], "model.keras")
    assert report.format == "keras"
    weights = next(member for member in report.members if member.name == "model.weights.h5")
    assert (weights.format, weights.facts["datasets"]) == ("hdf5", 1)
    config = next(member for member in report.members if member.name == "config.json")
    assert config.facts["objects"] > 5


def test_layers_that_run_code_are_on_no_list():
    listed = set().union(*names().classes.values(), *names().functions.values())
    assert not listed & {"Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "get_file", "load_model"}
    assert not any(module.startswith(("keras.utils", "keras.saving", "keras.src.utils")) for module in names().classes)


def test_the_checksum_is_that_of_the_published_hash():
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert lookup3(b"") == 0xDEADBEEF


def test_a_swapped_byte_in_a_checked_block_is_noticed():
    data = bytearray(BENIGN["weights, latest"])
    at = bytes(data).index(b"OHDR") + 7
    data[at] ^= 1
    assert scan_bytes(bytes(data), "m.h5").verdict is Verdict.MALFORMED


def damaged(rng, data):
    """A few bytes changed, taken out or put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_a_report(seed):
    rng = random.Random(seed)
    starts = [data for data in CORPUS.values() if len(data) < 40_000]
    for _ in range(500):
        assert scan_bytes(damaged(rng, rng.choice(starts)), "x", SMALL).to_json()


def test_damaged_structures_end_in_a_report():
    rng = random.Random(9)
    starts = [hdf5(everything, libver=version, track_order=order) for version, order in VARIANTS]
    for _ in range(80):
        data = bytearray(rng.choice(starts))
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        assert scan_bytes(bytes(data), "x", SMALL).to_json()


@pytest.mark.parametrize("name", ["weights", "weights, latest", "plain .h5 of Keras 3"])
def test_no_cut_file_is_clean(name):
    data = BENIGN[name]
    for end in range(1, len(data), 41):
        assert scan_bytes(data[:end], "x", SMALL).exit_code != 0


def everything(file):
    """Every kind of object that h5py writes."""
    file.attrs["text"], file.attrs["empty"], file.attrs["texts"] = "text", h5py.Empty("f"), ["a", "bb"]
    file["whole"] = np.arange(100.0)
    file.create_dataset(
        "packed", data=np.ones((40, 40)), chunks=(7, 7), compression="gzip", shuffle=True, fletcher32=True
    )
    file.create_dataset("lzf", data=np.arange(1000), compression="lzf")
    file.create_dataset("growing", data=np.ones((9, 9)), maxshape=(None, None), chunks=(2, 2))
    file.create_dataset("longer", data=np.ones(99), maxshape=(None,))
    file.create_dataset("never written", (1000,), "f8")
    file["compound"] = np.zeros(3, [("a", "i4"), ("b", "f8", (2, 3)), ("c", "S5")])
    file["enum"] = np.array([0, 1], h5py.enum_dtype({"A": 0, "B": 1}))
    file["bool"], file["complex"], file["opaque"] = np.array([True, False]), np.zeros(3, complex), np.void(b"abc")
    file["type"] = np.dtype("f8")
    file.create_dataset("typed", data=np.zeros(3), dtype=file["type"])
    file["whole"].attrs.create("typed", 3.0, dtype=file["type"])
    file.create_dataset("sequences", (3,), h5py.vlen_dtype("i4"))[0] = [1, 2, 3]
    file["texts"] = np.array(["x", "yy"], object)
    file["references"] = np.array([file["whole"].ref], h5py.ref_dtype)
    file["regions"] = np.array([file["whole"].regionref[:5]], h5py.regionref_dtype)
    for number in range(150):
        file.create_group(f"many/{number}").attrs["number"] = number
        file["many"].attrs[f"attribute {number}"] = "v" * number
    file["many/0/loop"], file["soft"], file["hard"] = file["/"], h5py.SoftLink("/whole"), file["whole"]
    file["image"] = np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)
    del file["bool"]


VARIANTS = [(("earliest", "latest"), False), ("latest", False), (("v108", "v110"), True), ("v112", True)]


@pytest.mark.parametrize(("version", "order"), VARIANTS)
@pytest.mark.parametrize("block", [0, 512, 4096])
def test_everything_that_h5py_writes_is_examined(version, order, block):
    report = scan_bytes(hdf5(everything, libver=version, track_order=order, userblock_size=block), "data.h5")
    assert report.verdict is Verdict.CLEAN, [finding.detail for finding in report.findings]
    assert report.total_coverage is Coverage.EXAMINED
    assert report.facts["datasets"] == 16
    assert report.facts["attributes"] == 304


@pytest.mark.parametrize(
    "options", [{"fs_strategy": "page", "fs_persist": True}, {"fs_strategy": "fsm", "fs_persist": True}]
)
def test_files_that_keep_their_free_space_are_examined(tmp_path, options):
    with h5py.File(tmp_path / "data.h5", "w", **options) as file:
        everything(file)
    assert scan_path(tmp_path / "data.h5").verdict is Verdict.CLEAN


def test_many_groups_and_a_hundred_levels_are_examined():
    def fill(file):
        group = file
        for _ in range(100):
            group = group.create_group("x")
        for number in range(3000):
            file.create_group(f"many/{number}")

    for version in ("earliest", "latest"):
        report = scan_bytes(hdf5(fill, libver=version), "data.h5")
        assert report.verdict is Verdict.CLEAN
        assert report.facts["groups"] == 3102


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["relu", "os", "system", "Dense", "a>b", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "module", "config", "registered_name", "units", "input_shape", "vocabulary"])
            | st.sampled_from(
                ["function", "function_type", "output_shape", "output_shape_type", "node_def", "op", "spec_name"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
KINDS = ["Lambda", "function", "__typespec__", "TFOpLambda", "TensorFlowOpLayer", "Embedding", "StringLookup", "Dense"]


@given(JSON, st.sampled_from(KINDS), JSON)
def test_any_configuration_ends_in_a_report(value, kind, registered):
    model = sequential({"class_name": kind, "config": value, "registered_name": registered}, value)
    assert scan_bytes(archive(model), "x").to_json()


def expensive():
    """Small files that try to cost much."""
    yield "deep JSON", archive(b"[" * 300_000 + b"]" * 300_000)
    yield "deep objects", archive(b'{"a":' * 5000 + b"1" + b"}" * 5000)
    yield "many small lists", archive(b"[" + b"[]," * 3_000_000 + b"1]")
    yield "many lambdas", vector(*[LAMBDA_LAYER] * 5000)
    deep = "[" * 900 + "]" * 900
    for key in ("registered_name", "module", "spec_name", "class_name", "units", "target_shape", "config"):
        yield (
            f"deep {key}",
            archive(f'{{"class_name": "Dense", "{key}": {deep}, "config": {{"{key}": {deep}}}}}'.encode()),
        )
    yield "a number of many digits", archive(b'{"units":' + b"9" * 100_000 + b"}")
    yield "a long unclosed text", legacy('{"class_name": "' + "a" * 3_000_000)
    yield "many copies of a key", archive(b"{" + b",".join(b'"a":1' for _ in range(300_000)) + b"}")
    yield "strange pattern", legacy(old("TFOpLambda", function="a." * 500_000))
    data = bytearray(WEIGHTS)
    at = data.index(b"SNOD")
    data[at + 6 : at + 8] = b"\xff\xff"
    yield "many symbols", bytes(data)
    data = bytearray(WEIGHTS)
    data[data.index(b"TREE") + 6 : data.index(b"TREE") + 8] = b"\xff\xff"
    yield "many children", bytes(data)
    yield "a tree that is its own child", circular()
    yield (
        "values that share a heap",
        hdf5(lambda file: file.attrs.create("x", np.array(["a" * 40] * 4000, object), dtype=h5py.string_dtype())),
    )


def circular():
    """A header whose continuation leads to itself, and a tree whose child is the tree."""
    data = bytearray(hdf5(lambda file: file.create_dataset("x", data=np.ones(9), chunks=(3,))))
    tree = data.index(b"TREE")
    while data[tree + 4] != 1:
        tree = data.index(b"TREE", tree + 1)
    data[tree + 5] = 1
    struct.pack_into("<Q", data, tree + 24 + 24, tree)
    return bytes(data)


@pytest.mark.parametrize(("name", "data"), [pytest.param(*case, id=case[0]) for case in expensive()])
def test_small_files_cannot_cost_much(name, data):
    with within(10):
        assert scan_bytes(data, "x").to_json()


def test_memory_stays_bounded():
    tracemalloc.start()
    scan_bytes(archive(b"[" + b"[]," * 200_000 + b"1]"), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20


def test_a_configuration_beyond_the_limits_is_not_clean():
    report = scan_bytes(archive(b"[" + b"[]," * 500_000 + b"1]"), "x")
    assert report.total_coverage is Coverage.PARTLY
    assert report.exit_code == 2


def test_assets_that_are_no_text_are_not_called_examined():
    report = scan_bytes(archive(sequential(), **{"assets/x.bin": b"\xff\xfe\x00 something"}), "x")
    assert report.exit_code == 2


def test_a_model_of_json_with_a_model_inside_is_recognised(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(sequential(built("Dense", {"units": 2})), indent=2))
    report = scan_path(path)
    assert (report.format, report.verdict) == ("keras-config", Verdict.CLEAN)


def test_a_file_object_written_by_parts_is_read(tmp_path):
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((3000, 2000)))
    report = scan_path(path)
    assert report.verdict is Verdict.CLEAN
    assert io.BytesIO(path.read_bytes()).getbuffer().nbytes == report.size
