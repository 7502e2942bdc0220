"""A model behind an interface that says less, as an adversary who knows the tailoring sees it."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.adapters.callable_target import CallableTarget
from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.roles import Role
from bartizan.lifecycle.deploy.gateway.tailoring import Tailoring
from bartizan.targets.detail import KINDS, Detail
from bartizan.targets.protocol import Access
from bartizan.targets.tailored import KEY, LABELS, Averaged, Tailored, TailoredText, seen
from bartizan.targets.text import CallableText

RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(6, 4))
ROWS = RNG.normal(size=(60, 6))
TOLD = tuple(Detail(kind) for kind in KINDS if kind not in {"label", "scores"})


def model(rows):
    odds = np.exp(rows @ WEIGHTS)
    return odds / odds.sum(axis=1, keepdims=True)


def trained(rows, labels, seed):
    del rows, labels, seed
    return model


@pytest.fixture
def target():
    return CallableTarget(model, features=6, classes=4, answers="scores", trainer=trained)


@pytest.mark.parametrize("detail", TOLD, ids=lambda detail: detail.kind)
def test_what_is_completed_keeps_the_label_and_sums_to_one(target, detail):
    shown = Tailored(target, detail)
    scores = shown.scores(ROWS)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(scores.argmax(axis=1), target.labels(ROWS))
    np.testing.assert_array_equal(shown.labels(ROWS), target.labels(ROWS))
    assert Access.LOGITS not in shown.offers


@pytest.mark.parametrize("kind", ["rounded-scores", "confidence", "noisy-scores", "graphic"])
def test_the_adversary_is_told_the_very_numbers_that_the_gateway_tells(target, kind):
    scores, labels = target.scores(ROWS), target.labels(ROWS)
    asked = Asked(request="r", caller=ANONYMOUS, model="m", digest="0", rows=ROWS, now=0.0)
    told = Tailoring({"m": ("a", "b", "c", "d")}, KEY).tell(Answer(labels, scores), asked, Role(name="r", detail=kind))
    played = Tailored(target, Detail(kind)).scores(ROWS)
    if kind == "rounded-scores":
        np.testing.assert_allclose(played.ravel(), told["scores"].data, atol=1e-8)
    elif kind == "graphic":
        heights = np.array([svg.count('height="0"') for svg in told["graphic"].data])
        np.testing.assert_array_equal((played < 0.05).sum(axis=1), heights)
    else:
        np.testing.assert_allclose(played.max(axis=1), told["confidence"].data, atol=1e-8)


def test_labels_alone_have_no_scores_and_rules_hide_them(target):
    with pytest.raises(WorkError, match="labels only"):
        Tailored(target, LABELS).scores(ROWS)
    with pytest.raises(WorkError, match="rule changed"):
        seen(np.array([[0.9, 0.1]]), np.array([1]), [b""], Detail("confidence"), KEY)


def test_own_models_are_tailored_alike_with_a_key_of_their_own(target):
    shown = Tailored(target, Detail("noisy-scores"))
    again = shown.retrain(ROWS, target.labels(ROWS), seed=3)
    assert again.detail == shown.detail
    assert (again.scores(ROWS) != shown.scores(ROWS)).any()


def test_averaging_takes_noise_off_and_asking_again_does_not(target):
    shown, truth = Tailored(target, Detail("noisy-scores", noise=0.5)), target.scores(ROWS).max(axis=1)
    once = shown.scores(ROWS).max(axis=1)
    np.testing.assert_array_equal(once, shown.scores(ROWS).max(axis=1))
    averaged = Averaged(shown, 32).scores(ROWS).max(axis=1)
    assert np.abs(averaged - truth).mean() < np.abs(once - truth).mean() / 2
    assert Averaged(shown, 32).classes == 4
    assert Averaged(shown, 2).retrain(ROWS, target.labels(ROWS), seed=0).times == 2
    np.testing.assert_array_equal(Averaged(shown, 2).labels(ROWS), target.labels(ROWS))


def test_texts_are_tailored_too():
    words = CallableText(lambda texts: [[0.7, 0.3] if "a" in text else [0.2, 0.8] for text in texts], classes=2)
    texts = ["a", "b", "\ud800a"]
    np.testing.assert_array_equal(TailoredText(words, LABELS).scores(texts), [[1, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(TailoredText(words, Detail("scores")).scores(texts), words.scores(texts))
    noisy = TailoredText(words, Detail("noisy-scores")).scores(texts)
    assert noisy[0, 0] != noisy[2, 0]
    np.testing.assert_allclose(noisy.sum(axis=1), 1)
    assert TailoredText(words, LABELS).classes == 2
