from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.adapters.sklearn import SklearnTargets
from bartizan.core.errors import InputError
from bartizan.redteam import registry
from bartizan.redteam.corruption import OF_PICTURES, ORDINARY, SEVERITIES, Corrupted, corrupted, endure
from bartizan.targets.feasible import Codes, Space
from fixtures.games import halves
from fixtures.pictures import CountedTorch, pictures
from fixtures.victims import Arena, Victim, declare, desk


@cache
def endured():
    return endure(CountedTorch(), pictures(150))


def test_every_kind_and_severity_is_asked_and_keeps_within_the_range():
    task = pictures(20)
    made = corrupted(task, np.random.default_rng(0))
    assert set(made.rows) == {(kind, severity) for kind in OF_PICTURES for severity in SEVERITIES}
    for rows in made.rows.values():
        assert rows.shape == task.rows.shape
        assert rows.dtype == task.rows.dtype
        assert rows.min() >= 0
        assert rows.max() <= 1
        assert (rows != task.rows).any()


def test_higher_severity_changes_more():
    task = pictures(40)
    made = corrupted(task, np.random.default_rng(0))
    for kind in OF_PICTURES:
        sizes = [np.abs(made.rows[kind, severity] - task.rows).mean() for severity in SEVERITIES]
        assert sizes[0] < sizes[2] <= sizes[4] * 1.001, kind


def test_a_model_loses_more_under_corruptions_than_its_clean_accuracy_suggests():
    assert endured().clean.all()
    mean = endured().mean(np.random.default_rng(0))
    assert 0.5 < mean.interval.low < mean.value < mean.interval.high < 0.97
    kind, severity = endured().worst
    assert endured().accuracy(kind, severity).value < mean.value
    assert endured().loss(kind, severity, np.random.default_rng(0)).interval.low > 0.1


def test_the_same_seed_gives_the_same_bytes():
    first, same, other = (corrupted(pictures(5), np.random.default_rng(seed)).rows for seed in (1, 1, 2))
    name = ("gaussian_noise", 3)
    assert first[name].tobytes() == same[name].tobytes() != other[name].tobytes()


def test_jpeg_is_what_a_real_encoder_does():
    image = pytest.importorskip("PIL.Image")
    import io  # noqa: PLC0415 - only where there is an encoder

    ramp = np.add.outer(np.linspace(0.1, 0.8, 32), 0.1 * np.sin(np.arange(32))).astype(np.float32)
    ours = OF_PICTURES["jpeg"](ramp[None, None].astype(float), 0, np.random.default_rng(0))[0, 0]
    file = io.BytesIO()
    image.fromarray(np.rint(ramp * 255).astype(np.uint8)).save(file, "jpeg", quality=25)
    theirs = np.asarray(image.open(file)) / 255
    assert np.abs(ours - theirs).mean() < 0.25 * np.abs(theirs - ramp).mean()


def test_an_image_without_a_range_is_told():
    task = pictures(3)
    with pytest.raises(InputError, match="range"):
        corrupted(replace(task, space=replace(task.space, high=task.space.low)), np.random.default_rng(0))


# ---- tables


def mixed():
    rng = np.random.default_rng(0)
    rows = np.column_stack(
        [rng.integers(0, 12, 300), rng.normal(5, 2, 300), rng.choice([1.0, 4.0, 9.0], 300), np.ones(300)]
    )
    space = Space(
        columns=("visits", "dose", "ward", "constant"),
        scale=np.array([rows[:, 0].std(), rows[:, 1].std(), 1.0, 1.0]),
        low=rows.min(axis=0),
        high=rows.max(axis=0),
        integer=np.array([True, False, False, False]),
        immutable=np.array([False, True, False, True]),
        codes=(Codes(2, np.array([1.0, 4.0, 9.0])),),
    )
    return rows, space


def table_task():
    arena = Arena.of(load_breast_cancer, make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))
    return arena, arena.task()


def test_in_a_table_whole_numbers_stay_whole_and_categories_are_let_be():
    rows, space = mixed()
    arena, task = table_task()
    task = replace(task, rows=rows[:50], labels=np.zeros(50, int), space=space, starts=rows)
    for (kind, severity), changed in corrupted(task, np.random.default_rng(0)).rows.items():
        assert (changed[:, 2:] == rows[:50, 2:]).all(), kind
        if kind != "decimal_point":
            assert (changed[:, 0] == np.rint(changed[:, 0])).all()
            assert (changed >= space.low).all()
            assert (changed <= space.high).all()
        if severity == 5:
            assert (changed[:, :2] != rows[:50, :2]).any(axis=0).all(), kind
    assert arena.model


def test_missing_values_become_the_median_and_decimal_points_slip():
    rows, space = mixed()
    _, task = table_task()
    task = replace(task, rows=rows[:200], labels=np.zeros(200, int), space=space, starts=rows)
    made = corrupted(task, np.random.default_rng(0)).rows
    gone = made["missing", 5][:, 1] != rows[:200, 1]
    assert 0.4 < gone.mean() < 0.6
    assert np.allclose(made["missing", 5][gone, 1], np.median(rows[:, 1]))
    ratio = made["decimal_point", 1][:, 1] / rows[:200, 1]
    assert set(np.round(ratio, 6)) <= {0.1, 1.0, 10.0}


def test_a_linear_model_of_a_table_loses_most_to_slips_of_the_decimal_point():
    arena, task = table_task()
    found = endure(Victim(arena.model), task)
    assert found.worst == ("decimal_point", ORDINARY)
    assert found.accuracy("rounding", 1).value > 0.9


# ---- as a check


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    train, rest = halves(load_breast_cancer)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(*train)
    system = declare(
        tmp_path_factory.mktemp("corrupted"), model, train, rest, classes=("malignant", "benign"), samples=100
    )
    check = registry.check("evasion.corruptions")
    return check.run(system, system.of_kind("model")[0], desk(SklearnTargets(lambda _digest: True)))


def test_the_statement_has_intervals_and_the_report_each_kind_and_severity(outcome):
    for metric in outcome.predicate.metrics.values():
        assert metric.low <= metric.value <= metric.high
    import json  # noqa: PLC0415

    report = json.loads(outcome.report.data)
    assert set(report["curves"]) == {"noise", "rounding", "missing", "decimal_point"}
    assert all(len(curve) == 5 for curve in report["curves"].values())
    assert outcome.predicate.techniques[0] == "T10"


def test_what_costs_accuracy_beyond_chance_is_a_finding(outcome):
    assert any(found.where == "decimal_point" for found in outcome.findings)
    assert not any(found.where == "rounding" for found in outcome.findings)


def test_candidates_that_are_not_rows_are_not_believed():
    from bartizan.redteam.corruption import _usable  # noqa: PLC0415

    task = pictures(3)
    assert _usable(task.rows, task)
    assert not _usable(task.rows[:2], task)
    assert not _usable(task.rows * np.nan, task)
    assert not _usable("rows", task)
    assert Corrupted().rows == {}
