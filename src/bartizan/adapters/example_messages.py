"""The example of texts that lessons run on: short messages, wanted and unwanted, and a filter fitted in this process.

The messages are a selection of the SMS Spam Collection (Almeida and Gomez Hidalgo 2011, CC-BY-4.0) that ships with
this package; long numbers and addresses in it are blanked.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import msgspec
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline

from bartizan.targets.protocol import Labels
from bartizan.targets.text import CallableText

CLASSES = ("ham", "spam")
TRAINING_SHARE = 0.6
STRENGTH = 10.0
"""Inverse strength of regularisation."""


class _Collection(msgspec.Struct, frozen=True):
    source: str
    url: str
    licence: str
    messages: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages in two parts, and the filter that was trained on the first."""

    target: CallableText
    training: tuple[tuple[str, ...], Labels]
    evaluation: tuple[tuple[str, ...], Labels]


def collection() -> tuple[tuple[str, ...], Labels]:
    """All messages, and their classes as indices into ``CLASSES``."""
    data = resources.files("bartizan.adapters").joinpath("example_messages.json").read_bytes()
    kept = msgspec.json.decode(data, type=_Collection).messages
    labels = np.array([CLASSES.index(label) for label, _ in kept], dtype=np.int64)
    return tuple(text for _, text in kept), labels


def messages(seed: int) -> Messages:
    """The example; the same seed gives the same filter."""
    texts, labels = collection()
    ours, kept = train_test_split(
        np.arange(len(texts)), train_size=TRAINING_SHARE, stratify=labels, random_state=seed % 2**32
    )
    training, evaluation = (
        (tuple(texts[place] for place in places), labels[places]) for places in (ours.tolist(), kept.tolist())
    )
    model = message_filter().fit(training[0], training[1])
    return Messages(CallableText(model.predict_proba, classes=2, name="model:messages"), training, evaluation)


def message_filter() -> Pipeline:
    """Word weights, then logistic regression: what most filters begin with."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=STRENGTH))
