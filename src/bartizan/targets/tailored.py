"""A target seen through an interface that says less, as the gateway would tailor its answers.

What is kept back is completed as an adversary would who knows the tailoring: an interval by its middle, what is
missing to 1 evenly, a set of labels by scores that its members share. Noise is averaged over rows that hardly
differ, and that is paid for in queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import WorkError
from bartizan.targets.detail import (
    FINEST,
    Detail,
    bucket_of,
    consistent,
    keys_of,
    likeliest,
    noisy,
    of_label,
    shared_out_rows,
    told_rows,
)
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target
from bartizan.targets.text import TextTarget

FULL = Detail("scores")
LABELS = Detail("label")
TOP = Detail("confidence", decimals=6)
ROUNDED = Detail("rounded-scores", decimals=1)
DETAILS = (FULL, ROUNDED, TOP, LABELS)
"""From the most to the least."""
KEY = bytes(range(32))
"""Key of noise where nobody gives one: of the laboratory, in which results have to be the same again."""
NAMED_SHARE = 0.9
"""What an adversary lets the labels have together that ``top-k`` names; the first of them gets half of it."""
LEAST_SHARE = 1e-3
FIRST = 1e-9
"""By so much the label's score is taken for higher than one that is shown alike."""


class Tailored:
    """A target that gives no more than a ``Detail``. See ``Target``."""

    def __init__(self, target: Target, detail: Detail, *, key: bytes = KEY) -> None:
        self._target, self.detail, self._key = target, detail, key

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return self._target.name

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        given = {Access.LABELS, Access.TRAINING} | ({Access.SCORES} if self.detail.scores else set())
        return self._target.offers & given

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return self._target.classes

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return self._target.class_values

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return self._target.features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self._target.labels(rows)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``: what is told, completed."""
        if not self.detail.scores:
            raise WorkError(f"{self.name} answers labels only", remedy="use an attack that needs labels only.")
        return self.told(rows, np.asarray(self._target.scores(rows), dtype=np.float64))

    def told(self, rows: Rows, scores: Scores) -> Scores:
        """What is told of the scores that rows have, completed."""
        if self.detail.kind == "scores" or not len(scores):
            return scores
        return seen(scores, scores.argmax(axis=1), keys_of(rows), self.detail, self._key)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Tailored:
        """See ``Target.retrain``. The adversary's own models are tailored alike, but nobody knows the gateway's key."""
        key = blake2b(seed.to_bytes(8), digest_size=32, key=self._key).digest()
        return Tailored(self._target.retrain(rows, labels, seed=seed), self.detail, key=key)


class Averaged:
    """A target that an adversary asks several times about rows that hardly differ, to average noise. See ``Target``.

    Every answer costs ``times`` queries; whoever counts queries has to multiply.
    """

    def __init__(self, target: Tailored, times: int, *, reach: NDArray[np.float64] | float = 1e-6) -> None:
        self._target, self.times, self._reach = target, times, reach

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self._target.labels(rows)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``: the mean of the log-odds, because that is where the noise lies."""
        rng = np.random.default_rng(0)
        total = np.zeros((len(rows), self._target.classes))
        for _ in range(self.times):
            near = rows + self._reach * rng.uniform(-1, 1, rows.shape)
            share = np.clip(self._target.scores(near.astype(rows.dtype)), LEAST_SHARE, 1 - LEAST_SHARE)
            total += np.log(share) - np.log1p(-share)
        mean = 1 / (1 + np.exp(-total / self.times))
        averaged: Scores = mean / mean.sum(axis=1, keepdims=True)
        return averaged

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Averaged:
        """See ``Target.retrain``."""
        return Averaged(self._target.retrain(rows, labels, seed=seed), self.times, reach=self._reach)


class TailoredText:
    """A target of texts that gives no more than a ``Detail``. See ``TextTarget``."""

    def __init__(self, target: TextTarget, detail: Detail, *, key: bytes = KEY) -> None:
        self._target, self.detail, self._key = target, detail, key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def scores(self, texts: Sequence[str]) -> Scores:
        """See ``TextTarget.scores``: what is told, completed; of labels alone 0 and 1."""
        scores = self._target.scores(texts)
        labels = scores.argmax(axis=1)
        if not self.detail.scores:
            alone: Scores = np.eye(scores.shape[1])[labels]
            return alone
        if self.detail.kind == "scores" or not len(scores):
            return scores
        return seen(scores, labels, [text.encode(errors="surrogatepass") for text in texts], self.detail, self._key)


def seen(scores: Scores, labels: Labels, asked: Sequence[bytes], detail: Detail, key: bytes) -> Scores:
    """What an adversary takes scores for, who is told so much of them, ``(batch, classes)``; rows sum to 1.

    ``asked`` are the bytes of each input, which noise is drawn from.
    """
    if not consistent(scores, labels):
        raise WorkError("labels that a rule changed are told without scores")
    classes = scores.shape[1]
    match detail.kind:
        case "rounded-scores" | "graphic":
            told = told_rows(scores, labels, detail.units) / detail.units
            told[np.arange(len(told)), labels] += FIRST
            return told
        case "top-k":
            return _of_named(likeliest(scores, labels, detail.named(classes)), classes)
        case "confidence":
            share = of_label(told_rows(scores, labels, detail.units), labels) / detail.units
        case "noisy-scores":
            share = noisy_rows(scores, labels, asked, detail, key)
        case _:
            share = _middles(of_label(shared_out_rows(scores, FINEST), labels), detail, classes)
    return _completed(share, labels, classes)


def noisy_rows(
    scores: Scores, labels: Labels, asked: Sequence[bytes], detail: Detail, key: bytes
) -> NDArray[np.float64]:
    """The score that is shown of each row's label, ``(batch,)``, with noise and rounded."""
    classes = scores.shape[1]
    units = of_label(shared_out_rows(scores, FINEST), labels).tolist()
    shown = [
        round(noisy(each, row, key=key, classes=classes, noise=detail.noise), detail.decimals)
        for each, row in zip(units, asked, strict=True)
    ]
    return np.array(shown)


def _middles(units: NDArray[np.int64], detail: Detail, classes: int) -> NDArray[np.float64]:
    """The middle of each row's bucket, as far as it lies above what a label has at least."""
    bounds = [max(low, 1 / classes) for _, low in detail.buckets] + [1.0]
    places: Sequence[int] = [bucket_of(each, detail.buckets) for each in units.tolist()]
    middles = np.array([(low + high) / 2 for low, high in pairwise(bounds)])
    return middles[np.array(places, dtype=np.int64)]


def _of_named(named: NDArray[np.int64], classes: int) -> Scores:
    height, count = named.shape
    shares = np.full(count, NAMED_SHARE / 2 / max(count - 1, 1))
    shares[0] = NAMED_SHARE / 2 if count > 1 else NAMED_SHARE
    found = np.full((height, classes), (1 - NAMED_SHARE) / max(classes - count, 1))
    np.put_along_axis(found, named, np.broadcast_to(shares, named.shape), axis=1)
    return found


def _completed(share: NDArray[np.float64], labels: Labels, classes: int) -> Scores:
    """The label's share, which is no less than any other's; the others have what is missing to 1 evenly."""
    share = np.maximum(share, 1 / classes) + FIRST
    found = np.repeat(((1 - share) / (classes - 1))[:, None], classes, axis=1)
    found[np.arange(len(found)), labels] = share
    return found


__all__ = [
    "DETAILS",
    "FIRST",
    "FULL",
    "KEY",
    "LABELS",
    "ROUNDED",
    "TOP",
    "Averaged",
    "Detail",
    "Tailored",
    "TailoredText",
    "noisy_rows",
    "seen",
]
