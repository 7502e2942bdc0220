"""No false alarms: what scikit-learn, numpy, scipy and the standard library save is clean, in every protocol."""

from __future__ import annotations

import gc
import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_bytes
from tools import emitted_models as emitted

PROTOCOLS = (2, 3, 4, 5)
COMPRESSIONS = (0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3))
ODD = {"PearsonRResult", "LinregressResult"}
"""Statistics, not models: protocols 2 and 3 write them as calls of the result of a call."""


def estimators():
    """Classes that can be made without arguments."""
    return [cls for _, cls in all_estimators() if not getattr(cls, "__abstractmethods__", None)]


def saved(thing, protocols=PROTOCOLS):
    """The object in several protocols and as joblib files."""
    for protocol in protocols:
        yield f"protocol {protocol}", pickle.dumps(thing, protocol)
    for compress in (0, 3):
        target = io.BytesIO()
        joblib.dump(thing, target, compress=compress)
        yield f"joblib compress={compress}", target.getvalue()


def complaints(thing, protocols=PROTOCOLS):
    """What is wrongly found in an object."""
    try:
        forms = list(saved(thing, protocols))
    except (TypeError, AttributeError, pickle.PicklingError):
        return []
    wrong = []
    for form, data in forms:
        report = scan_bytes(data, "model")
        if report.verdict is not Verdict.CLEAN or report.total_coverage is not Coverage.EXAMINED:
            wrong.append((form, [finding.detail for finding in report.findings], report.reasons))
    return wrong


@pytest.mark.control("2.1-n")
def test_every_estimator_of_scikit_learn_is_clean():
    wrong = {}
    count = 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for cls in estimators():
            try:
                estimator = cls()
            except TypeError:
                continue
            found = complaints(emitted.fitted(estimator))
            count += 1
            if found:
                wrong[cls.__name__] = found
        gc.collect()
    assert not wrong
    assert count > 150


@pytest.mark.parametrize("family", ["containers", "numpy_objects", "scipy_objects"])
def test_objects_of_the_libraries_are_clean(family):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = {
            repr(thing)[:60]: found
            for thing in getattr(emitted, family)()
            if type(thing).__name__ not in ODD and (found := complaints(thing, (0, 1, 2, 4, 5)))
        }
    assert not wrong


@pytest.mark.slow
def test_everything_that_the_allow_lists_were_made_from_is_clean():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = {repr(thing)[:60]: found for thing in emitted.sklearn_objects() if (found := complaints(thing))}
    assert not wrong


@pytest.mark.parametrize("compress", COMPRESSIONS, ids=str)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pipeline_saved_by_joblib_is_examined_to_its_last_byte(compress, protocol):
    rng = np.random.default_rng(0)
    labels = np.array(["no", "yes"], dtype=object)[rng.integers(0, 2, 60)]
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(rng.random((60, 4)), labels)
    target = io.BytesIO()
    joblib.dump({"model": model, "names": np.array(["a", None], dtype=object)}, target, compress, protocol)
    report = scan_bytes(target.getvalue(), "model.joblib")
    assert report.verdict is Verdict.CLEAN, [finding.detail for finding in report.findings]
    assert report.total_coverage is Coverage.EXAMINED
    arrays = [part.facts.get("arrays", 0) for part in report.walk() if part.format == "joblib"]
    assert sum(arrays) > 20


def test_arrays_of_every_order_and_type_are_stepped_over_exactly():
    parts = [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.zeros((0, 5)),
        np.array(3),
        np.array(["ab", "c"]),
        np.array([b"ab"]),
        np.zeros(2, [("a", "f8"), ("b", "i4", (3,))]),
        np.array(["2020-01-01"], "M8[ns]"),
        np.zeros(3, ">f4"),
        np.array([1, None], dtype=object),
        np.zeros(2, [("a", object), ("b", "f8")]),
    ]
    for part in parts:
        target = io.BytesIO()
        joblib.dump([part, "sentinel"], target)
        report = scan_bytes(target.getvalue(), "x")
        assert report.verdict is Verdict.CLEAN, (part.dtype, [finding.detail for finding in report.findings])
        assert report.facts["arrays"] == 1


def test_an_array_whose_bytes_look_like_a_pickle_raises_no_alarm():
    hostile_numbers = np.frombuffer(b"cos\nsystem\n(S'x'\ntR." * 100, np.uint8)
    assert not complaints({"weights": hostile_numbers, "model": LogisticRegression()}, (4,))


def test_a_numpy_archive_is_clean():
    target = io.BytesIO()
    np.savez_compressed(target, a=np.arange(5), b=np.array(["x"]))
    assert scan_bytes(target.getvalue(), "x.npz").verdict is Verdict.CLEAN


def test_a_sparse_matrix_file_is_clean():
    target = io.BytesIO()
    scipy.sparse.save_npz(target, scipy.sparse.eye(5, format="csr"))
    assert scan_bytes(target.getvalue(), "x.npz").verdict is Verdict.CLEAN
