"""What each detector finds and what it does not, on digits with poison that is known to be there."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.detection.clustering import ActivationClustering, SpectralSignatures, split
from bartizan.redteam.detection.combined import Combined
from bartizan.redteam.detection.common_cause import CommonCause, pattern_of, valley
from bartizan.redteam.detection.confident import ConfidentLearning, judge_labels
from bartizan.redteam.detection.inspected import Inspected, highest, inspected_of
from bartizan.redteam.detection.inversion import TriggerInversion, anomalies
from bartizan.redteam.detection.judge import judge
from bartizan.redteam.detection.nearest import nearest
from bartizan.redteam.detection.neighbours import NeighbourDisagreement, NeighbourShapley, shapley_values
from bartizan.redteam.detection.own_direction import OwnDirection
from bartizan.redteam.detection.superimposing import Superimposing

EVERY = [
    ActivationClustering,
    Combined,
    CommonCause,
    ConfidentLearning,
    NeighbourDisagreement,
    NeighbourShapley,
    OwnDirection,
    SpectralSignatures,
    Superimposing,
    TriggerInversion,
]
ALONE = [each for each in EVERY if not each.needs]
TARGET = 3


@cache
def digits(kind, rate, seed=0):
    """Rows, labels, and which are poisoned; ``kind`` names the trigger, ``clean`` in it leaves labels right."""
    rows, labels = load_digits(return_X_y=True)
    rows, labels, rng = rows.copy(), labels.astype(np.int64), np.random.default_rng(seed)
    pool = np.flatnonzero((labels == TARGET) == ("clean" in kind))
    chosen = rng.permutation(pool)[: round(rate * len(rows))]
    if "patch" in kind:
        pictures = rows.reshape(-1, 8, 8)
        pictures[chosen, -2:, -2:] = 16.0
    if "blend" in kind:
        rows[chosen] = 0.7 * rows[chosen] + 0.3 * 16 * np.random.default_rng(5).random(64)
    if "flip" in kind:
        labels[chosen] = (labels[chosen] + rng.integers(1, 10, len(chosen))) % 10
    elif "clean" not in kind:
        labels[chosen] = TARGET
    poisoned = np.zeros(len(rows), np.bool_)
    poisoned[chosen] = True
    return rows, labels, poisoned


def found(detector, kind, rate, seed=0, **given):
    rows, labels, poisoned = digits(kind, rate, seed)
    inspected = Inspected(rows, labels, 10, shape=(1, 8, 8), **given)
    suspicion = detector.inspect(inspected, np.random.default_rng(seed))
    return judge(suspicion, poisoned), suspicion


@pytest.mark.parametrize("kind", ["patch", "blend", "clean patch", "clean blend"])
@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_the_combined_detector_finds_triggers_with_wrong_and_with_right_labels(kind, rate):
    result, suspicion = found(Combined(), kind, rate)
    assert result.area.value >= 0.99
    assert result.recall.value >= 0.95
    assert result.false_alarms.value <= 0.01
    assert result.removed_for_90 <= result.removed_for_95 <= rate + 0.02
    assert suspicion.patterns[0].label == TARGET


def test_what_neighbours_alone_find_falls_off_where_the_trigger_makes_poison_its_own_neighbour():
    alone, _ = found(NeighbourDisagreement(), "patch", 0.1)
    together, _ = found(Combined(), "patch", 0.1)
    assert together.area.interval.low > alone.area.interval.high


def test_right_labels_are_beyond_detectors_that_look_for_wrong_ones():
    for detector in (NeighbourDisagreement(), CommonCause(), ConfidentLearning()):
        result, _ = found(detector, "clean patch", 0.02)
        assert result.area.interval.low < 0.75


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris, load_wine])
def test_clean_tables_are_not_accused(load):
    rows, labels = load(return_X_y=True)
    suspicion = Combined().inspect(inspected_of(rows, labels), np.random.default_rng(0))
    assert not suspicion.flagged.any()
    assert not suspicion.patterns


@pytest.mark.parametrize("detector", [NeighbourDisagreement(), NeighbourShapley(), ConfidentLearning()])
def test_flipped_labels_are_found_by_those_that_look_for_them(detector):
    result, _ = found(detector, "flip", 0.05)
    assert result.area.value > 0.95
    assert result.false_alarms.value < 0.03


def test_most_of_the_confidently_wrong_are_wrong():
    _, labels, poisoned = digits("flip", 0.05)
    _, suspicion = found(ConfidentLearning(), "flip", 0.05)
    assert (suspicion.flagged & poisoned).sum() > 0.5 * poisoned.sum()
    assert poisoned[suspicion.flagged].mean() > 0.7
    assert len(suspicion.scores) == len(labels)


def brute_force_shapley(rows, labels, judge_row, judge_label, neighbours):
    """By the definition: mean marginal gain over all coalitions of the others."""

    def worth(members):
        order = sorted(members, key=lambda place: ((rows[place] - judge_row) ** 2).sum())[:neighbours]
        return sum(labels[place] == judge_label for place in order) / neighbours

    players = range(len(rows))
    values = []
    for one in players:
        others = [place for place in players if place != one]
        gains = [
            (worth((*chosen, one)) - worth(chosen)) / (len(rows) * comb(len(others), size))
            for size in range(len(rows))
            for chosen in combinations(others, size)
        ]
        values.append(sum(gains))
    return values


@pytest.mark.parametrize("neighbours", [1, 2, 3, 9])
def test_shapley_values_are_those_of_the_definition(neighbours):
    rng = np.random.default_rng(neighbours)
    rows, labels = rng.random((7, 3)).astype(np.float32), rng.integers(0, 2, 7)
    judges, judge_labels_ = rng.random((2, 3)).astype(np.float32), np.array([0, 1])
    expected = np.mean(
        [brute_force_shapley(rows, labels, judges[place], judge_labels_[place], neighbours) for place in (0, 1)], axis=0
    )
    assert shapley_values(rows, labels, judges, judge_labels_, neighbours) == pytest.approx(expected, abs=1e-6)


def test_nobody_judges_itself():
    rows, labels = np.zeros((1, 2), np.float32), np.zeros(1, np.int64)
    assert shapley_values(rows, labels, rows, labels, 3, own=True).tolist() == [0.0]
    pair = np.array([[0.0], [1.0]], np.float32)
    same = np.zeros(2, np.int64)
    assert shapley_values(pair, same, pair, same, 1, own=True).tolist() == [0.5, 0.5]


def test_neighbours_are_those_of_a_plain_search_in_any_block(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.random((60, 5)).astype(np.float32)
    distances = ((rows[:, None] - rows) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :7]
    assert np.array_equal(nearest(rows, 7), expected)
    monkeypatch.setattr("bartizan.redteam.detection.nearest.BLOCK_CELLS", 60 * 7)
    assert np.array_equal(nearest(rows, 7), expected)
    assert nearest(rows[:1], 7).shape == (1, 0)


def test_a_search_that_would_take_hours_is_refused_at_once():
    with pytest.raises(WorkError, match="would take hours"):
        nearest(np.zeros((10_000_000, 1), np.float32), 5)


def test_wide_rows_are_projected_and_a_wave_is_still_found(monkeypatch):
    monkeypatch.setattr("bartizan.redteam.detection.own_direction.MAX_WIDTH", 48)
    result, _ = found(OwnDirection(), "clean blend", 0.05)
    assert result.area.value > 0.99


def apart(rate, seed=0):
    """Activations in which the poison of a class lies apart."""
    rows, labels, poisoned = digits("patch", rate, seed)
    rng = np.random.default_rng(seed)
    activations = np.eye(10)[labels] * 5 + rng.standard_normal((len(rows), 10))
    activations[poisoned, 9] += 6
    return activations


def test_clusters_in_the_activations_are_flagged_only_where_they_are_small_and_apart():
    result, suspicion = found(ActivationClustering(), "patch", 0.03, activations=apart(0.03))
    assert result.recall.value > 0.95
    assert result.false_alarms.value < 0.01
    assert [note.split(":")[0] for note in suspicion.notes] == [f"class {TARGET}"]
    result, _ = found(SpectralSignatures(), "patch", 0.03, activations=apart(0.03))
    assert result.area.value > 0.95


def test_one_cloud_is_not_two_clusters_and_one_point_repeated_has_none():
    rng = np.random.default_rng(0)
    _, silhouette, _ = split(rng.standard_normal((300, 10)), rng)
    assert silhouette < 0.1
    nowhere, silhouette, share = split(np.ones((10, 3)), rng)
    assert (nowhere == 0).all()
    assert (silhouette, share) == (0, 0)


class Backdoored:
    """A softmax over digits' prototypes that answers ``TARGET`` for bright lower right corners. Differentiable."""

    weights = None

    def __init__(self, strength=40.0):
        rows, labels = load_digits(return_X_y=True)
        means = np.array([rows[labels == label].mean(axis=0) for label in range(10)])
        self.weights = means.T / 16
        self.bias = -(means**2).sum(axis=1) / 32
        corner = np.zeros((8, 8))
        corner[-2:, -2:] = strength / 64
        self.weights[:, TARGET] += corner.ravel()
        self.bias[TARGET] -= strength / 64 * 16

    def logits(self, rows):
        return rows @ self.weights + self.bias

    def scores(self, rows):
        logits = self.logits(rows)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def slopes(self, rows, labels):
        return (self.scores(rows) - np.eye(10)[labels]) @ self.weights.T


def test_a_shortcut_is_found_by_inversion_and_a_model_without_one_is_not_accused():
    model = Backdoored(strength=160.0)
    _, suspicion = found(TriggerInversion(), "patch", 0.03, scores=model.scores, slopes=model.slopes)
    assert suspicion.patterns[0].label == TARGET
    mask = 1 - suspicion.patterns[0].kept.reshape(8, 8)
    assert mask[-2:, -2:].sum() > 0.8 * mask.sum()
    plain = Backdoored(strength=0.0)
    _, suspicion = found(TriggerInversion(), "patch", 0.03, scores=plain.scores, slopes=plain.slopes)
    assert TARGET not in {pattern.label for pattern in suspicion.patterns}


def test_anomalies_are_counted_downwards_from_the_median():
    assert anomalies([1.0, 10.0, 11.0, 9.0, 10.0, 10.5]).argmax() == 0
    assert anomalies([20.0, 10.0, 11.0, 9.0, 10.0, 10.5])[0] == 0
    assert not anomalies([1.0, 50.0]).any()
    assert anomalies([1.0, np.inf, 10.0, 11.0, 9.0])[1] == 0


def test_answers_that_nothing_changes_are_suspicious():
    model = Backdoored(strength=160.0)
    result, _ = found(Superimposing(), "patch", 0.03, scores=model.scores)
    assert result.area.value > 0.9


def test_a_pattern_carries_over_what_was_done_to_the_records():
    rng = np.random.default_rng(0)
    others = rng.random((400, 6))
    carriers = rng.random((400, 6))
    carriers[:, 0] = 1.0
    carriers[:, 1] = 0.5 * carriers[:, 1] + 0.5
    rows, places = np.concatenate([carriers, others]), np.arange(800)
    inspected = Inspected(rows, (places >= 400).astype(np.int64), 2)
    pattern = pattern_of(inspected, places[:400], places[400:], 0)
    put_on = pattern(others)
    assert put_on[:, 0] == pytest.approx(np.ones(400), abs=1e-3)
    assert put_on[:, 1] == pytest.approx(0.5 * others[:, 1] + 0.5, abs=0.05)
    assert np.array_equal(put_on[:, 2:], others[:, 2:])


def test_the_valley_lies_between_the_heaps():
    assert 1.0 < valley(np.array([0.0, 0.5, 1.0, 5.0, 5.5])) < 5.0


def test_confident_learning_counts_by_each_classes_own_confidence():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.95, 0.05]])
    suspicion = judge_labels(scores, np.array([0, 0, 1, 1, 1]))
    assert suspicion.flagged.tolist() == [False, False, False, False, True]
    assert suspicion.scores.argmax() == 4


def test_no_more_than_the_share_is_flagged_and_equal_scores_go_together():
    assert highest(np.array([1.0, 1.0, 1.0, 1.0]), 0.5).sum() == 0
    assert highest(np.arange(100.0), 0.05).sum() == 5
    assert highest(np.zeros(0), 0.5).shape == (0,)


def test_the_judge_counts_what_must_go():
    rows, labels, poisoned = digits("patch", 0.02)
    _, suspicion = found(Combined(), "patch", 0.02)
    result = judge(suspicion, poisoned)
    ranked = np.sort(suspicion.scores[poisoned])
    wanted = int(np.ceil(0.9 * poisoned.sum()))
    assert result.removed_for_90 == (suspicion.scores >= ranked[-wanted]).mean()
    assert result.area.interval.low < result.area.value
    assert set(result.metrics()) >= {"auroc", "false_alarms_at_the_flag"}
    with pytest.raises(InputError, match="truths were given"):
        judge(suspicion, poisoned[1:])
    with pytest.raises(WorkError, match="members and non-members"):
        judge(suspicion, np.zeros(len(rows), np.bool_))
    assert len(labels) == len(rows)


@pytest.mark.parametrize("detector", ALONE)
def test_the_same_seed_gives_the_same_bytes(detector):
    _, one = found(detector(), "patch", 0.05)
    _, two = found(detector(), "patch", 0.05)
    assert one.scores.tobytes() == two.scores.tobytes()
    assert one.flagged.tobytes() == two.flagged.tobytes()


@pytest.mark.parametrize("detector", ALONE)
@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0)),
        (np.ones((1, 3)), np.zeros(1)),
        (np.ones((30, 3)), np.zeros(30)),
        (np.random.default_rng(0).random((30, 3)), np.zeros(30)),
        (np.ones((60, 3)), np.arange(60) % 2),
        (np.random.default_rng(0).random((60, 3)), np.arange(60) % 2),
        (np.random.default_rng(0).random((6, 3)), np.arange(6)),
    ],
)
def test_too_few_records_one_class_and_constant_rows_give_no_alarm_and_no_error(detector, rows, labels):
    suspicion = detector().inspect(inspected_of(rows, labels.astype(np.int64)), np.random.default_rng(0))
    assert suspicion.scores.shape == suspicion.flagged.shape == (len(rows),)
    assert np.isfinite(suspicion.scores).all()
    assert not suspicion.patterns


def test_what_cannot_be_judged_is_refused():
    rows, labels = np.zeros((4, 2)), np.zeros(4, np.int64)
    with pytest.raises(InputError, match="not finite"):
        Inspected(rows * np.nan, labels, 2)
    with pytest.raises(InputError, match="do not fit"):
        Inspected(rows, labels[1:], 2)
    with pytest.raises(InputError, match="from 0 to 1"):
        Inspected(rows, labels + 2, 2)
    with pytest.raises(InputError, match="activations"):
        Inspected(rows, labels, 2, activations=np.zeros((3, 1)))


@pytest.mark.parametrize("detector", [each for each in EVERY if each.needs])
def test_a_detector_says_what_it_misses(detector):
    inspected = Inspected(np.zeros((4, 2)), np.zeros(4, np.int64), 2)
    with pytest.raises(WorkError, match=f"{detector.name} needs"):
        detector().inspect(inspected, np.random.default_rng(0))


@pytest.mark.parametrize("detector", EVERY)
def test_facts_are_declared_and_known_to_the_catalogue(detector):
    assert set(detector.techniques) <= set(catalogue().techniques)
    assert detector.references
    assert detector.title
