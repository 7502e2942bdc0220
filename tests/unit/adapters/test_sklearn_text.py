"""Pipelines of texts in a process of their own."""

from __future__ import annotations

import time

import joblib
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from bartizan.adapters.sklearn_text import SklearnTexts
from bartizan.core.errors import ArtefactError, SandboxError, WorkError
from bartizan.targets.isolated import Limits
from bartizan.targets.protocol import Clocked
from fixtures.text_systems import LABELS, TEXTS, WORDS, text_system


def pipeline(last=None):
    return make_pipeline(TfidfVectorizer(), last or LogisticRegression()).fit(TEXTS, WORDS[LABELS])


def opened(system, *, clean=True, limits=None):
    return SklearnTexts(lambda _: clean, limits).open(system, system.artefact("model:victim"))


def test_scores_are_those_of_the_pipeline(tmp_path):
    model = pipeline()
    with opened(text_system(tmp_path, model)) as target:
        assert target.class_values == ("ham", "spam")
        assert target.classes == 2
        np.testing.assert_array_equal(target.scores(TEXTS[:30]), model.predict_proba(TEXTS[:30]))
        assert target.scores([]).shape == (0, 2)
        odd = ["", "\x00", "\ud800 alone", "ﷺ" * 100, "a" * 50_000]
        assert np.isfinite(target.scores(odd)).all()


def test_many_texts_go_over_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("bartizan.adapters.sklearn_text.MOST_LETTERS", 200)
    model = pipeline()
    with opened(text_system(tmp_path, model)) as target:
        np.testing.assert_array_equal(target.scores(TEXTS), model.predict_proba(TEXTS))


def test_a_pipeline_without_scores_answers_0_and_1(tmp_path):
    model = pipeline(LinearSVC())
    with opened(text_system(tmp_path, model)) as target:
        scores = target.scores(TEXTS[:10])
        assert not target.gives_scores
    np.testing.assert_array_equal(WORDS[scores.argmax(axis=1)], model.predict(TEXTS[:10]))
    assert set(scores.ravel()) == {0.0, 1.0}


def test_its_clock_counts_its_own_work_and_not_ours(tmp_path):
    with opened(text_system(tmp_path, pipeline())) as target:
        assert isinstance(target, Clocked)
        before = target.clock()
        time.sleep(0.05)
        sum(range(10**6))
        idle = target.clock() - before
        before = target.clock()
        target.scores([" ".join(TEXTS)] * 40)
        busy = target.clock() - before
    assert idle < 0.01 < busy


def test_a_model_without_a_clean_scan_is_not_loaded(tmp_path):
    with pytest.raises(WorkError, match="has no clean scan"), opened(text_system(tmp_path, pipeline()), clean=False):
        pass


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "does not take texts"),
        (CountVectorizer().fit(TEXTS), "which is no fitted classifier"),
        ({"a": 1}, "which is no fitted classifier"),
    ],
)
def test_files_that_hold_something_else(tmp_path, model, complaint):
    with pytest.raises(ArtefactError, match=complaint), opened(text_system(tmp_path, model)):
        pass


def test_a_file_that_was_changed_after_the_scan(tmp_path):
    system = text_system(tmp_path, pipeline())
    joblib.dump(pipeline(LinearSVC()), tmp_path / "model.joblib")
    with pytest.raises(ArtefactError, match="has changed"), opened(system):
        pass


def test_a_text_that_takes_too_long_ends_the_process(tmp_path):
    slow = make_pipeline(TfidfVectorizer(token_pattern=r"(?u)^(?:(?:\w)+)+$"), LogisticRegression())
    slow.fit(["a", "b", "c", "d"], ["ham", "spam", "ham", "spam"])
    limits = Limits(answer_seconds=0.5)
    with (
        pytest.raises(SandboxError, match=r"within 0.5 seconds"),
        opened(text_system(tmp_path, slow), limits=limits) as on,
    ):
        on.scores(["a" * 60 + "!"])
