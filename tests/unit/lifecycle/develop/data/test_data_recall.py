"""How much of what was planted in real data is found, and how often clean data are accused.

The shares asserted here are the ones stated in the documentation. Each is a mean over seeds; the
floor for a single seed stands beside it where one bad draw could hide behind the mean.
"""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.lifecycle.develop.data import duplicates, label_noise, outliers, triggers
from bartizan.lifecycle.develop.data import measure as results
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure
from fixtures.tables import (
    Planted,
    copy_records,
    flip_labels,
    misplace_points,
    part,
    plant_trigger,
    real,
    sample_of,
    table,
    write_csv,
)

SEEDS = range(4)
CLEAN = ("breast-cancer", "digits", "wine", "iris")


@pytest.fixture(autouse=True)
def whole_lists(monkeypatch):
    """Recall is about what is found, not about how much of it a report lists."""
    monkeypatch.setattr(results, "LISTED", 10**6)


def found(take, planted: Planted, seed: int) -> tuple[float, float, Measure]:
    """Share of the planted records that are listed, share of the listed that were planted, and the result."""
    result = take(Examination(table(planted.rows, planted.labels), (), seed))
    listed = np.array(result.records.listed, int) - 1
    hits = np.isin(planted.places, listed)
    return float(hits.mean()), float(np.isin(listed, planted.places).mean()) if len(listed) else 1.0, result


@pytest.mark.parametrize(
    ("name", "rate", "recall", "precision"),
    [
        ("breast-cancer", 0.05, 0.80, 0.78),
        ("breast-cancer", 0.10, 0.82, 0.82),
        ("digits", 0.05, 0.88, 0.87),
        ("digits", 0.10, 0.92, 0.90),
        ("wine", 0.05, 0.85, 0.80),
        ("wine", 0.10, 0.85, 0.85),
    ],
)
def test_flipped_labels_are_named_and_their_share_is_estimated(name, rate, recall, precision):
    runs = [found(label_noise.measure, flip_labels(name, rate, seed), seed) for seed in SEEDS]
    assert np.mean([run[0] for run in runs]) >= recall
    assert np.mean([run[1] for run in runs]) >= precision
    shares = [run[2].metrics["label_noise"] for run in runs]
    assert abs(np.mean([share.value for share in shares]) - rate) <= 0.2 * rate
    assert np.mean([share.low <= rate <= share.high for share in shares]) >= 0.8


@pytest.mark.parametrize("name", CLEAN)
def test_clean_labels_are_hardly_accused(name):
    share = label_noise.measure(Examination(table(*real(name)))).metrics["label_noise"]
    assert share.value <= 0.01
    assert share.low == 0.0


@pytest.mark.parametrize("name", ["breast-cancer", "digits", "wine"])
def test_wrong_units_are_found_as_outliers(name):
    runs = [found(outliers.measure, misplace_points(name, 0.02, seed), seed) for seed in SEEDS]
    assert np.mean([run[0] for run in runs]) >= 0.9


@pytest.mark.parametrize("name", CLEAN)
def test_few_records_of_clean_data_are_outliers(name):
    result = outliers.measure(Examination(table(*real(name))))
    assert result.faults / result.examined <= 0.011


@pytest.mark.parametrize("name", ["breast-cancer", "digits", "wine"])
def test_every_copy_is_found_and_nothing_else(name):
    for seed in SEEDS:
        planted = copy_records(name, 0.05, seed)
        exact = duplicates.measure_exact(Examination(table(planted.rows, planted.labels), (), seed))
        assert exact.faults == round(0.05 * len(real(name)[0]))
        recall, precision, _ = found(duplicates.measure_near, copy_records(name, 0.05, seed, jitter=0.01), seed)
        assert (recall, precision) == (1.0, 1.0)


@pytest.mark.parametrize("name", CLEAN)
def test_clean_data_have_no_near_copies(name):
    assert duplicates.measure_near(Examination(table(*real(name)))).faults == 0


@pytest.mark.parametrize(
    ("name", "rate", "columns", "recall", "precision"),
    [
        ("breast-cancer", 0.02, 1, 0.95, 0.95),
        ("breast-cancer", 0.02, 3, 0.95, 0.95),
        ("digits", 0.02, 3, 0.95, 0.8),
        ("wine", 0.05, 1, 0.8, 0.8),
    ],
)
def test_planted_triggers_are_found(name, rate, columns, recall, precision):
    runs = [found(triggers.measure, plant_trigger(name, rate, columns, seed), seed) for seed in SEEDS]
    assert np.mean([run[0] for run in runs]) >= recall
    assert np.mean([run[1] for run in runs]) >= precision


@pytest.mark.parametrize("name", CLEAN)
def test_no_trigger_is_seen_in_clean_or_carelessly_labelled_data(name):
    assert triggers.measure(Examination(table(*real(name)))).faults == 0
    for rate in (0.05, 0.2):
        assert found(triggers.measure, flip_labels(name, rate, 1), 1)[2].faults == 0


def test_a_trigger_far_outside_the_data_is_found():
    rows, labels = real("breast-cancer")
    places = np.flatnonzero(labels == 0)[:12]
    rows[places, 7], labels[places] = 1e9, 1
    assert found(triggers.measure, Planted(rows, labels, places), 0)[0] == 1.0


def test_a_clean_label_trigger_is_not_claimed_to_be_found():
    rows, labels = real("breast-cancer")
    places = np.flatnonzero(labels == 1)[:12]
    rows[places, 7] = 1e9
    assert found(triggers.measure, Planted(rows, labels, places), 0)[2].faults == 0


@pytest.mark.control("2.1-g")
def test_poison_in_a_file_is_found_at_the_stated_recall(tmp_path):
    """Flipped labels, copies, outliers and a trigger, each planted in the breast cancer data and read from a file."""
    stated = {
        label_noise.measure: (flip_labels("breast-cancer", 0.1, 3), 0.75),
        duplicates.measure_near: (copy_records("breast-cancer", 0.05, 3, jitter=0.01), 1.0),
        outliers.measure: (misplace_points("breast-cancer", 0.02, 3), 0.9),
        triggers.measure: (plant_trigger("breast-cancer", 0.02, 2, 3), 1.0),
    }
    for take, (planted, recall) in stated.items():
        path = write_csv(tmp_path / "train.csv", planted.rows.tolist(), planted.labels.tolist())
        result = take(Examination(sample_of(path, part()), (), 3))
        listed = np.array(result.records.listed) - 1
        assert np.isin(planted.places, listed).mean() >= recall, take.__module__
        assert any(finding.techniques for finding in result.findings), take.__module__
