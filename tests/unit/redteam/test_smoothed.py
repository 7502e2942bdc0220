"""The slope of smoothed trees is that of their mean under noise, checked by differences and by sampling."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

from bartizan.adapters import sklearn_structure
from bartizan.redteam.cells import Cells
from bartizan.redteam.smoothed import Smoothed
from fixtures.victims import space_around


def test_the_slope_is_that_of_the_mean_under_noise(monkeypatch):
    monkeypatch.setattr("bartizan.redteam.smoothed.REACH", 100.0)
    rows, labels = load_wine(return_X_y=True)
    ensemble = sklearn_structure.read(RandomForestClassifier(5, random_state=0).fit(rows, labels))
    space = space_around(rows)
    cells = Cells.of(ensemble, space)
    margins = ensemble.value[cells.leaf] / ensemble.trees
    row, width = rows[3], 0.3 * space.scale
    slope = Smoothed(cells).slope(row, width, margins)
    assert slope.shape == (13, 3)
    np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-12)
    # By the likelihood ratio, the slope is the mean of outputs times noise over width.
    noise = np.random.default_rng(0).standard_normal((40_000, 13))
    outputs = ensemble.outputs(row + noise * width)
    sampled = (noise[:, :, None] * (outputs - outputs.mean(axis=0))[:, None]).mean(axis=0) / width[:, None]
    error = (noise[:, :, None] * outputs[:, None]).std(axis=0) / np.sqrt(len(noise)) / width[:, None]
    assert (np.abs(sampled - slope) < 5 * error + 1e-12).all()
