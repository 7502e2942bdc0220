"""A process is started for each model, which takes a second; what can be asked of one is asked of one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from bartizan.adapters.sklearn import SklearnTargets
from bartizan.core.errors import ArtefactError, SandboxError, WorkError
from bartizan.targets.isolated import Limits
from bartizan.targets.protocol import Access
from fixtures.victims import declare, named

ROWS, NUMBERS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[NUMBERS]
TRAIN, REST = (ROWS[::2], NAMES[::2]), (ROWS[1::2], NAMES[1::2])


def scanned(_digest):
    return True


def opened(folder, model, limits=None, file=None, **more):
    """The declared model, opened; ``file`` replaces what lies in the file and is scanned."""
    system = declare(folder, model, TRAIN, REST, **more)
    if file is not None:
        (folder / "model.joblib").write_bytes(file)
    return SklearnTargets(scanned, limits).open(system, named(folder, "model", "victim", "model.joblib"))


@pytest.fixture(scope="module")
def forest():
    return make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0, n_jobs=2)).fit(*TRAIN)


@pytest.fixture(scope="module")
def target(tmp_path_factory, forest):
    with opened(tmp_path_factory.mktemp("forest"), forest) as target:
        yield target


def test_it_says_what_it_is(target):
    assert (target.name, target.classes, target.features) == ("model:victim", 3, 4)
    assert target.offers == {Access.LABELS, Access.SCORES, Access.TRAINING, Access.WEIGHTS}


def test_labels_and_scores_are_those_of_the_model_in_this_process(target, forest):
    assert np.array_equal(np.sort(forest.classes_)[target.labels(ROWS)], forest.predict(ROWS))
    assert np.array_equal(target.scores(ROWS), forest.predict_proba(ROWS))


def test_no_rows_are_answered_with_nothing_by_the_engine_and_with_an_error_by_the_model(target):
    with pytest.raises(WorkError, match=r"cannot do what was asked \(labels\): ValueError: Found array with 0 sample"):
        target.labels(np.empty((0, 4)))
    assert len(target.labels(ROWS[:1])) == 1


def test_retraining_gives_the_same_pipeline_with_the_seed_in_every_part(target, forest):
    retrained = target.retrain(ROWS, NUMBERS, seed=7)
    here = clone(forest).set_params(randomforestclassifier__random_state=7).fit(ROWS, NUMBERS)
    assert np.array_equal(retrained.scores(ROWS), here.predict_proba(ROWS))
    assert np.array_equal(target.scores(ROWS), forest.predict_proba(ROWS))


def test_a_model_retrained_without_some_class_keeps_the_indices_of_the_others(target):
    without = NUMBERS != 1
    retrained = target.retrain(ROWS[without], NUMBERS[without], seed=0)
    assert set(retrained.labels(ROWS).tolist()) <= {0, 2}
    assert (retrained.scores(ROWS)[:, 1] == 0).all()


def test_models_that_nobody_holds_are_dropped(target):
    retrained = target.retrain(ROWS, NUMBERS, seed=0)
    again = type(retrained)(retrained._models, retrained._facts, retrained._handle)
    del retrained
    target.labels(ROWS[:1])
    with pytest.raises(WorkError, match="KeyError"):
        again.labels(ROWS[:1])


@pytest.mark.parametrize(
    ("rows", "labels"), [(ROWS, NUMBERS + 1), (ROWS, NUMBERS[:-1]), (ROWS, -NUMBERS), (ROWS[:, :3], NUMBERS)]
)
def test_training_data_that_do_not_fit_are_refused_on_this_side(target, rows, labels):
    with pytest.raises(WorkError):
        target.retrain(rows, labels, seed=0)


def test_rows_of_another_width_are_refused(target):
    with pytest.raises(WorkError, match=r"takes rows of 4 features and was given an array \(2, 3\)"):
        target.labels(np.ones((2, 3)))


def test_what_the_model_cannot_do_is_said_and_the_process_lives_on(target):
    with pytest.raises(WorkError, match="ValueError: Input X contains infinity"):
        target.labels(np.full((2, 4), np.inf))
    assert len(target.labels(ROWS)) == len(ROWS)


def test_this_side_imports_no_framework():
    program = "import sys, bartizan.adapters.sklearn; sys.exit('sklearn' in sys.modules or 'joblib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_model_without_probabilities_offers_no_scores(tmp_path):
    with opened(tmp_path, LinearSVC().fit(*TRAIN)) as target:
        assert target.offers == {Access.LABELS, Access.TRAINING, Access.WEIGHTS, Access.LOGITS, Access.GRADIENTS}
        assert len(target.labels(ROWS)) == len(ROWS)
        with pytest.raises(WorkError, match="answers labels only"):
            target.scores(ROWS)


def test_a_model_without_a_clean_scan_is_not_even_read(tmp_path):
    system = declare(tmp_path, None, TRAIN, REST)
    (tmp_path / "model.joblib").unlink()
    targets = SklearnTargets(lambda _digest: False)
    with (
        pytest.raises(WorkError, match="has no clean scan and is not loaded"),
        targets.open(system, system.of_kind("model")[0]),
    ):
        pass


class Mark:
    """Whoever loads it leaves a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_bytes_that_were_not_scanned_are_not_loaded(tmp_path):
    system = declare(tmp_path, LogisticRegression(max_iter=500).fit(*TRAIN), TRAIN, REST)
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(Mark(tmp_path / "mark")))
    with (
        pytest.raises(ArtefactError, match="has changed since it was digested"),
        SklearnTargets(scanned).open(system, system.of_kind("model")[0]),
    ):
        pass
    assert not (tmp_path / "mark").exists()


def test_files_that_hold_no_classifier_are_refused(tmp_path):
    for file, fault in (
        (pickle.dumps(LogisticRegression()), "holds a LogisticRegression, which is no fitted"),
        (b"no pickle", "is no model that can be asked: "),
    ):
        with pytest.raises(ArtefactError, match=fault), opened(tmp_path, None, file=file):
            pass


class Code:
    """Evaluated when it is unpickled."""

    def __init__(self, text):
        self.text = " ".join(text.split())

    def __reduce__(self):
        return eval, (self.text,)


OLD = """__import__('warnings').warn(__import__('sklearn').exceptions.InconsistentVersionWarning(
    estimator_name='m', current_sklearn_version='1.9.1', original_sklearn_version='1.2.0'))"""


def test_a_model_of_another_version_is_refused(tmp_path):
    fault = r"written by scikit-learn 1\.2\.0, and 1\.9\.1 is installed"
    with pytest.raises(ArtefactError, match=fault), opened(tmp_path, None, file=pickle.dumps(Code(OLD))):
        pass


def test_columns_in_another_order_than_the_model_was_fitted_to_are_refused(tmp_path):
    model = LogisticRegression(max_iter=500).fit(*TRAIN)
    model.feature_names_in_ = np.array(["a", "b", "c", "d"], dtype=object)
    with (
        pytest.raises(ArtefactError, match="fitted to a column 'a' where dataset 'train' has 'b'"),
        opened(tmp_path, model, columns=["b", "a", "c", "d"]),
    ):
        pass


HOSTILE = """
type('Hostile', (__import__('sklearn').base.ClassifierMixin, __import__('sklearn').base.BaseEstimator), dict(
    classes_=__import__('numpy').array([0, 1, 2]), n_features_in_=4, predict=lambda self, rows: {{
        1: lambda: [7] * len(rows),
        2: lambda: open({path!r}, 'w').write('x' * 100_000),
        3: lambda: int(' '.join([*__import__('os').environ, *filter(
            lambda number: __import__('os').path.exists('/proc/self/fd/' + number), map(str, range(64)))])),
        4: lambda: [0] * (len(rows) - 1),
        5: lambda: bytearray(1 << 40),
    }}[int(rows[0, 0])]()))()
"""


def test_a_model_that_attacks_from_its_process_gets_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "of the parent")
    hostile = Code(HOSTILE.format(path=str(tmp_path / "file")))
    limits = Limits(memory_bytes=3 << 30, answer_seconds=3)
    with (tmp_path / "held").open("w") as held, opened(tmp_path, None, limits, file=pickle.dumps(hostile)) as target:
        os.set_inheritable(held.fileno(), True)  # noqa: FBT003 - not our signature

        def deed(number):
            target.labels(np.full((2, 4), float(number)))

        with pytest.raises(WorkError, match="a class that it does not know"):
            deed(1)
        with pytest.raises(WorkError, match=r"File too large|Operation not permitted"):
            deed(2)
        assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size == 0
        environment = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS JOBLIB_MULTIPROCESSING LC_ALL"
        with pytest.raises(WorkError, match=f"'{environment}( [A-Z_]+)* 0 1 2 3'") as seen:
            deed(3)
        assert "SECRET" not in seen.value.message
        with pytest.raises(SandboxError, match="gave no answer within 3 seconds"):
            deed(4)
        assert target._models.process._process.poll() is not None


def test_a_model_that_takes_too_much_memory_is_ended(tmp_path):
    limits = Limits(memory_bytes=3 << 30)
    file = pickle.dumps(Code(HOSTILE.format(path="")))
    with (
        opened(tmp_path, None, limits, file=file) as target,
        pytest.raises(SandboxError, match="needs more than its 3072 MiB of memory"),
    ):
        target.labels(np.full((2, 4), 5.0))


def test_a_large_model_survives_the_way(tmp_path):
    big = LogisticRegression(max_iter=500).fit(*TRAIN)
    big.ballast_ = np.random.default_rng(0).integers(0, 256, 20_000_000, dtype=np.uint8)
    with opened(tmp_path, big) as target:
        assert len(target.labels(ROWS)) == len(ROWS)
