"""Make the slice reader: draw slices of a chest, train a model on them, save both. The same bytes every time.

No patient is in these pictures. A slice is a chest drawn from ellipses (body, two lungs, spine), with vessels as
thin bright lines, partial-volume blur, and the noise of a low dose. In half of the slices one lung holds a
nodule: a soft round spot of 2 to 4 pixels, as bright as a vessel, which is why the task is not trivial. The
pictures are 20 x 20 pixels, so that attacks on every pixel run in seconds; what they show about method
carries over, what they show about numbers does not.

Run ``python prepare.py`` in this folder, or give another folder as the only argument.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 20261121
SIDE = 20
CASES = 1500
HOLDOUT = 300
TARGET = "nodule"
"""Name of the label column: 1 where there is a nodule."""
AIR, LUNG, TISSUE, BONE = 0.0, 0.15, 0.55, 0.95
"""Brightness of each, on the scale of the window that a radiologist would choose."""
NOISE = 0.05
GRID = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5


def main(folder: Path) -> None:
    """Write ``data/train.csv``, ``data/holdout.csv`` and ``model/slices.joblib`` below ``folder``."""
    rng = np.random.default_rng(SEED)
    labels = rng.permutation(np.arange(CASES + HOLDOUT) % 2)
    rows = np.stack([slice_of(bool(label), rng).ravel() for label in labels]).round(4)
    write_table(folder / "data" / "train.csv", rows[:CASES], labels[:CASES])
    write_table(folder / "data" / "holdout.csv", rows[CASES:], labels[CASES:])
    model = fit(rows[:CASES], labels[:CASES])
    target = folder / "model" / "slices.joblib"
    target.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, target)
    print(f"{CASES} slices for training, {HOLDOUT} held out; {model.score(rows[CASES:], labels[CASES:]):.1%} right")


def slice_of(has_nodule: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """One slice ``(SIDE, SIDE)`` with values from 0 to 1."""
    picture = np.full((SIDE, SIDE), AIR)
    picture[ellipse((0.0, 0.0), (0.44, 0.49), rng)] = TISSUE
    lungs = [ellipse((0.0, side), (0.3, 0.16), rng) for side in (-0.22, 0.22)]
    for lung in lungs:
        picture[lung] = LUNG
    picture[ellipse((0.3, 0.0), (0.08, 0.07), rng)] = BONE
    for _ in range(rng.integers(2, 5)):
        picture = np.maximum(picture, vessel(lungs[rng.integers(2)], rng))
    if has_nodule:
        picture = np.maximum(picture, nodule(lungs[rng.integers(2)], rng))
    blurred = gaussian_filter(picture, 0.5)
    return np.clip(blurred + rng.normal(0, NOISE, blurred.shape), 0, 1)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels inside an ellipse that is a little different in every body."""
    at = np.asarray(centre) + rng.normal(0, 0.015, 2)
    size = np.asarray(radii) * rng.uniform(0.93, 1.07, 2)
    inside: NDArray[np.bool_] = (((GRID - at[:, None, None]) / size[:, None, None]) ** 2).sum(axis=0) < 1
    return inside


def vessel(lung: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """A thin line from the middle of the chest into a lung."""
    start = rng.uniform(-0.1, 0.1, 2)
    end = pixel(lung, rng)
    steps = start + np.linspace(0, 1, 3 * SIDE)[:, None] * (end - start)
    line = np.zeros((SIDE, SIDE))
    places = np.clip(np.rint((steps + 0.5) * (SIDE - 1)).astype(int), 0, SIDE - 1)
    line[places[:, 0], places[:, 1]] = rng.uniform(0.35, 0.5)
    return np.where(lung, line, 0.0)


def nodule(lung: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """A soft round spot inside a lung."""
    distance = np.sqrt(((GRID - pixel(lung, rng)[:, None, None]) ** 2).sum(axis=0)) * (SIDE - 1)
    radius = rng.uniform(1.2, 2.2)
    spot = rng.uniform(0.6, 0.8) * np.exp(-(np.maximum(distance - radius, 0) ** 2))
    return np.where(lung, spot, 0.0)


def pixel(lung: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """A place inside a lung, in the coordinates of the grid."""
    places = np.argwhere(lung)
    return np.asarray(places[rng.integers(len(places))] / (SIDE - 1) - 0.5)


def write_table(path: Path, rows: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    """A CSV file with a header: one column for each pixel, by row and column of the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"r{row:02}c{column:02}" for row in range(SIDE) for column in range(SIDE)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*names, TARGET])
        writer.writerows([*row, label] for row, label in zip(rows.tolist(), labels.tolist(), strict=True))


def fit(rows: NDArray[np.float64], labels: NDArray[np.int64]) -> Pipeline:
    """A small neural network."""
    network = MLPClassifier((64,), alpha=1.0, max_iter=150, early_stopping=True, random_state=SEED)
    model: Pipeline = make_pipeline(StandardScaler(), network).fit(rows, labels)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
