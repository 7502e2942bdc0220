"""What reading texts as they look is worth, against an adversary who goes through it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bartizan.lifecycle.deploy.gateway.guards.sanitise.texts import normalised
from bartizan.redteam.attacks.text.characters import Characters
from bartizan.redteam.attacks.text.imperceptible import Imperceptible
from bartizan.redteam.text import Letters, TextTask, Unseen, play_text
from bartizan.targets.text import CallableText
from fixtures.letters import messages


@pytest.fixture(scope="module")
def spam_filter():
    texts, labels = messages(400)
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)).fit(texts, labels)


def robust(spam_filter, attack, edit, most, read):
    texts, labels = messages(200, seed=1)
    unwanted = np.flatnonzero(labels == 1)[:40]
    task = TextTask(tuple(texts[place] for place in unwanted), labels[unwanted], 2, edit, most, 200)
    target = CallableText(lambda given: spam_filter.predict_proba([read(text) for text in given]), classes=2)
    return play_text(target, attack, task).robust_accuracy


def test_what_nobody_sees_fools_nobody_any_more(spam_filter):
    """Known to the adversary: every query goes through it."""
    bare = robust(spam_filter, Imperceptible(), Unseen(), 0.3, str)
    through = robust(spam_filter, Imperceptible(), Unseen(), 0.3, normalised)
    assert bare.interval.high < 0.2
    assert through.interval.low > 0.8


def test_typing_errors_are_not_what_it_is_for(spam_filter):
    assert robust(spam_filter, Characters(), Letters(), 0.15, normalised).value < 0.2
