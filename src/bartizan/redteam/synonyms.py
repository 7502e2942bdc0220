"""Words that stand in the same places: a table of substitutes learnt from texts alone, without any dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_WORDS = 3_000
"""Most frequent words that are looked at; bounds the matrix of co-occurrences."""
WINDOW = 3
"""Words on each side that count as company."""
WIDTH = 50
"""Numbers that describe a word."""
LEAST_SEEN = 2
LEAST_ALIKE = 0.5
"""Cosine from which a word counts as a substitute."""


def learn_synonyms(texts: Sequence[str], *, most: int = 8, least_alike: float = LEAST_ALIKE) -> dict[str, list[str]]:
    """For each word of ``texts``, those that keep the most similar company, the most alike first.

    Positive pointwise mutual information with the words around, reduced by singular values (Levy and
    Goldberg 2014): what such a table calls alike can stand in the same place, which is less than to
    mean the same. Give a dictionary instead where there is one.
    """
    tokens = [text.lower().split() for text in texts]
    counts = Counter(word for line in tokens for word in line)
    words = [word for word, count in counts.most_common(MAX_WORDS) if count >= LEAST_SEEN and word.isalpha()]
    if len(words) < 2:  # noqa: PLR2004 - nobody to stand in
        return {}
    vectors = _vectors(tokens, {word: place for place, word in enumerate(words)})
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1.0)
    order = np.argsort(-alike, axis=1, kind="stable")[:, :most]
    return {
        word: [words[other] for other in order[place] if alike[place, other] >= least_alike]
        for place, word in enumerate(words)
        if alike[place, order[place, 0]] >= least_alike
    }


def _vectors(tokens: Sequence[Sequence[str]], place: dict[str, int]) -> NDArray[np.float64]:
    """``(words, width)``, each of length 1."""
    company = np.zeros((len(place), len(place)))
    for line in tokens:
        known = [place.get(word, -1) for word in line]
        for at, word in enumerate(known):
            if word >= 0:
                for other in known[max(at - WINDOW, 0) : at] + known[at + 1 : at + 1 + WINDOW]:
                    if other >= 0:
                        company[word, other] += 1
    total = max(company.sum(), 1.0)
    share = company.sum(axis=1)
    expected = np.maximum(np.outer(share, share) / total, np.finfo(float).tiny)
    informed = np.log(np.maximum(company / expected, 1.0))
    left, values, _ = np.linalg.svd(informed)
    vectors = left[:, :WIDTH] * np.sqrt(values[:WIDTH])
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0))
