"""``bartizan convert`` through the command line: what it writes, what it refuses, what it states."""

from __future__ import annotations

import base64
import functools
import json
import pickle
import sys

import joblib
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import skops.io
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.adapters import convert as converting
from bartizan.cli.main import run
from bartizan.core import envelope, keys
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import InputError
from bartizan.core.statement import decode
from bartizan.lifecycle.develop.convert import Tensor
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.wiring.convert import Wanted, convert
from bartizan.wiring.workspace import Workspace
from fixtures.project import declare

RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(80, 4))
LABELS = np.where(ROWS[:, 0] + ROWS[:, 1] > 0, "malignant", "benign")


@pytest.fixture
def ask(tmp_path, monkeypatch, ask_in):
    monkeypatch.chdir(tmp_path)
    return functools.partial(ask_in, tmp_path)


def provenance(path):
    return json.loads(path.read_bytes())


def agreement(statement):
    byproduct = statement["predicate"]["runDetails"]["byproducts"][0]
    content = base64.b64decode(byproduct["content"])
    assert byproduct["digest"]["sha256"] == digest_bytes(content)
    return json.loads(content)


def test_an_estimator_becomes_skops_and_answers_the_same(ask, tmp_path):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)
    joblib.dump(model, "model.joblib")
    np.savetxt("samples.csv", ROWS, delimiter=",", header="a,b,c,d", comments="")
    code, _, said = ask("convert", "model.joblib", "model.skops", "--samples", "samples.csv")
    assert code == 0, said
    assert "80 samples: same predictions (2 different), numbers identical" in said
    data = (tmp_path / "model.skops").read_bytes()
    again = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    assert (again.predict_proba(ROWS) == model.predict_proba(ROWS)).all()
    assert scan_path(tmp_path / "model.skops").exit_code == 0
    statement = provenance(tmp_path / "model.skops.provenance.json")
    assert statement["subject"] == [{"name": "model.skops", "digest": {"sha256": digest_bytes(data)}}]
    source = digest_bytes((tmp_path / "model.joblib").read_bytes())
    definition = statement["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [{"name": "model.joblib", "digest": {"sha256": source}}]
    assert definition["internalParameters"]["confinement"]["limits"] == "in force"
    assert agreement(statement)["identical_labels"] == 80
    assert agreement(statement)["samples"] == f"sha256:{digest_bytes((tmp_path / 'samples.csv').read_bytes())}"
    ask("convert", "model.joblib", "again.skops")
    assert (tmp_path / "again.skops").read_bytes() == data


def test_an_estimator_becomes_onnx_within_a_stated_tolerance(ask, tmp_path):
    joblib.dump(Ridge().fit(ROWS, ROWS @ [1, 2, 3, 4]), "model.joblib")
    code, output, said = ask("convert", "model.joblib", "model.onnx", "--json")
    assert code == 0, said
    found = json.loads(output)["agreement"]
    assert found["count"] == 256
    assert found["largest_difference"] < 1e-2
    assert (found["relative_tolerance"], found["absolute_tolerance"]) == (1e-4, 1e-5)


def test_arrays_become_safetensors_and_npz_and_keep_every_bit(ask, tmp_path):
    whole = RANDOM.normal(size=(6, 4))
    arrays = {
        "whole": whole,
        "same": whole,
        "part": whole[::2, 1:],
        "turned": whole.T,
        "big-endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(5, np.uint8),
        "odd": np.array([np.nan, -0.0, np.inf], np.float16),
    }
    joblib.dump(arrays, "arrays.joblib")
    for target in ("a.safetensors", "a.npz"):
        code, _, said = ask("convert", "arrays.joblib", target)
        assert code == 0, said
    read = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    with np.load(tmp_path / "a.npz") as archive:
        for name, array in arrays.items():
            for found in (read[name], archive[name]):
                assert (found.shape, found.tobytes()) == (
                    array.shape,
                    array.astype(array.dtype.newbyteorder("<")).tobytes(),
                )
    np.save(tmp_path / "one.npy", whole)
    assert ask("convert", "one.npy", "one.safetensors")[0] == 0
    assert ask("convert", "a.npz", "b.safetensors")[0] == 0
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_torch_weights_become_safetensors_whatever_their_layout(ask, tmp_path):
    torch = pytest.importorskip("torch")
    safe = pytest.importorskip("safetensors.torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    weights = {
        "base": base,
        "tied": base,
        "view": base[1:, ::2],
        "turned": base.t(),
        "half": base.to(torch.bfloat16),
        "flags": base > 3,
        "empty": torch.zeros(0, 2),
        "count": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(weights, "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": weights, "epoch": 3}, "checkpoint.pt")
    for source, *options in (("old.pt",), ("checkpoint.pt", "--part", "state_dict")):
        target = f"{source}.safetensors"
        code, _, said = ask("convert", source, target, *options)
        assert code == 0, said
        read = safe.load_file(tmp_path / target)
        assert all(
            torch.equal(read[name], weights[name]) and read[name].dtype == weights[name].dtype for name in weights
        )
        assert agreement(provenance(tmp_path / f"{target}.provenance.json"))["shared"] == {"tied": "base"}
    code, _, said = ask("convert", "checkpoint.pt", "x.safetensors")
    assert (code, "--part" in said and "state_dict" in said) == (2, True)


# ---- refusals


class Code:
    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return exec, (self.text,)


def test_a_file_that_is_not_clean_is_not_loaded_and_nothing_is_written(ask, tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Code(f"open({str(mark)!r}, 'w')")))
    code, _, said = ask("convert", "model.pkl", "model.skops")
    assert code == 1
    assert "refused: the source is not loaded" in said
    code, _, said = ask(
        "convert", "model.pkl", "m.skops", "--accept", "pickle/unlisted-class", "--reason", "it is ours"
    )
    assert code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"model.pkl"}


def test_a_result_that_does_not_agree_is_not_written(ask, tmp_path, monkeypatch):
    joblib.dump({"a": np.zeros(3)}, "a.joblib")
    lie = [Tensor("a", "F64", (3,), "0" * 64)], {}
    monkeypatch.setattr(converting.Converting, "tensors", lambda _: lie)
    code, _, words = ask("convert", "a.joblib", "a.safetensors")
    assert (code, "'a' has other bytes" in words) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.joblib"}


def test_a_result_that_is_not_clean_is_not_written(ask, tmp_path, monkeypatch):
    joblib.dump({"a": np.zeros(3)}, "a.joblib")
    monkeypatch.setattr(converting.Converting, "write", lambda *_: pickle.dumps(Code("1")))
    code, _, words = ask("convert", "a.joblib", "a.safetensors")
    assert (code, "the result is not clean" in words) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.joblib"}


@pytest.mark.parametrize(
    ("value", "target", "fault"),
    [
        (LogisticRegression().fit(ROWS, LABELS), "x.npz", "tensors become"),
        (LogisticRegression(), "x.skops", "is not fitted"),
        ({"a": np.zeros(2)}, "x.skops", "tensors become"),
        ({"a": np.array(["text"])}, "x.npz", "'a' has elements of type <U4"),
        ({"a": 3}, "x.npz", "'a' is a int, and no array"),
        ({"__metadata__": np.zeros(2)}, "x.safetensors", "cannot be the name"),
        ([1, 2], "x.npz", "holds a list"),
    ],
)
def test_what_cannot_be_converted_is_said_so(ask, tmp_path, value, target, fault):
    joblib.dump(value, "source.joblib")
    code, _, said = ask("convert", "source.joblib", target)
    assert (code, fault in said) == (2, True), said
    assert {path.name for path in tmp_path.iterdir()} == {"source.joblib"}


def test_names_that_lead_out_of_an_archive_make_the_result_unclean(ask, tmp_path):
    joblib.dump({"../../x": np.zeros(2)}, "source.joblib")
    code, _, said = ask("convert", "source.joblib", "x.npz")
    assert (code, "the result is not clean" in said) == (1, True)


def test_what_is_there_already_is_kept(ask, tmp_path):
    np.save("a.npy", np.zeros(3))
    (tmp_path / "a.npz").write_text("mine")
    assert ask("convert", "a.npy", "a.npz")[0] == 2
    assert (tmp_path / "a.npz").read_text() == "mine"
    assert ask("convert", "a.npy", "a.npz", "--overwrite")[0] == 0
    for arguments in (("a.npy", "a.npy", "--to", "npz", "--overwrite"), ("a.npy", "a.h5"), ("a.npy", "missing/a.npz")):
        assert ask("convert", *arguments)[0] == 2
    assert ask("convert", "a.npy", "b.npz", "--samples", "a.npy")[0] == 2
    assert ask("convert", "absent.npy", "b.npz")[0] == 2


def test_a_library_that_is_missing_is_named(ask, tmp_path, monkeypatch):
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), "model.joblib")
    start = "import sys; sys.modules['skops'] = None; from bartizan.targets.hosting import run; "
    start += "run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
    command = (sys.executable, "-I", "-c", start, "bartizan.adapters.convert_host")
    monkeypatch.setattr(converting, "COMMAND", command)
    code, _, said = ask("convert", "model.joblib", "model.skops")
    assert (code, "that needs skops, which is not installed here: pip install 'bartizan[skops]'" in said) == (
        2,
        True,
    ), said


def test_confinement_that_is_required_and_missing_stops_the_conversion(ask, tmp_path, monkeypatch):
    np.save("a.npy", np.zeros(3))
    without = "import sys; from bartizan.targets import hosting, confine; "
    without += (
        "hosting.confine = lambda *given: confine.set_limits(*given) or dict.fromkeys(confine.LAYERS, 'none here')"
    )
    without += "; hosting.run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
    monkeypatch.setattr(converting, "COMMAND", (sys.executable, "-I", "-c", without, "bartizan.adapters.convert_host"))
    monkeypatch.setenv("BARTIZAN_CONFINEMENT", "files,calls")
    code, _, said = ask("convert", "a.npy", "a.npz")
    assert (code, "files (none here); calls (none here)" in said) == (2, True), said
    monkeypatch.setenv("BARTIZAN_CONFINEMENT", "")
    code, _, said = ask("convert", "a.npy", "a.npz")
    assert (code, "not in force: files (none here)" in said) == (0, True), said


# ---- statement


def test_the_statement_is_signed_and_enters_the_ledger_of_a_project(tmp_path, monkeypatch, ask_in):
    monkeypatch.chdir(tmp_path)
    assert run(["-C", str(tmp_path), "keys", "new", "service", "--unencrypted"]) == 0
    np.save("a.npy", np.zeros(3))
    code, _, said = ask_in(tmp_path, "convert", "a.npy", "a.npz", "--sign", "service")
    assert code == 0, said
    pem = (tmp_path / ".bartizan" / "keys" / "service.pub.pem").read_text()
    body = (tmp_path / "a.npz.provenance.json").read_bytes()
    sealed = envelope.parse(body)
    assert envelope.verified_keyids(sealed, {keys.keyid_of(keys.load_public(pem)): pem})


def test_samples_that_cannot_be_read_are_an_input_error(tmp_path):
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), tmp_path / "m.joblib")
    wanted = Wanted(
        source=tmp_path / "m.joblib",
        target=tmp_path / "m.skops",
        to="skops",
        samples=tmp_path / "absent.csv",
        statement=tmp_path / "s.json",
    )
    with pytest.raises(InputError, match=r"absent\.csv cannot be read"):
        convert(Workspace(tmp_path), wanted)


@pytest.mark.control("2.1-o")
def test_outputs_before_and_after_conversion_agree_on_a_probe_set_and_evidence_says_so(tmp_path, ask_in):
    project = tmp_path / "tumour"
    declare(project)
    table = np.loadtxt(project / "data" / "holdout.csv", delimiter=",", skiprows=1)
    header = (project / "data" / "holdout.csv").read_text().splitlines()[0].split(",")
    features = [place for place, name in enumerate(header) if name not in {"diagnosis", "target", "patient"}]
    model = joblib.load(project / "model" / "tumour.joblib")
    features = features[: model.n_features_in_]
    probe, result = project / "probe.npy", project / "tumour.onnx"
    np.save(probe, table[:, features])
    code, output, said = ask_in(
        project,
        "convert",
        str(project / "model" / "tumour.joblib"),
        str(result),
        *("--samples", str(probe), "--sign", "service", "--json"),
    )
    assert code == 0, said
    found = json.loads(output)["agreement"]
    assert (found["count"], found["agrees"], found["distinct_labels"]) == (len(table), True, 2)
    session = onnxruntime.InferenceSession(result.read_bytes())
    again = session.run(None, {session.get_inputs()[0].name: table[:, features].astype(np.float32)})
    before = model.predict_proba(table[:, features])
    assert np.abs(np.asarray(again[1]) - before).max() < 1e-3
    with Workspace(project).view() as view:
        about = [digest_bytes(result.read_bytes())]
        stated = [decode(envelope.parse(entry.body).payload) for entry in view.about(about)]
    assessment, provenance = sorted(stated, key=lambda each: each.predicate_type, reverse=True)
    assert (assessment.predicate["method"], assessment.predicate["result"]) == ("convert.agreement", "passed")
    assert assessment.predicate["metrics"]["agreement"]["value"] == 1
    assert provenance.predicate_type == "https://slsa.dev/provenance/v1"
