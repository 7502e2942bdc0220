"""Networks trained together are those trained alone, learn as they should, and are trained together by the engine."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam.attack import Fit, Query
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget
from bartizan.redteam.shadows import Job, Network, Recipe, _slopes, train, untrained
from bartizan.targets.protocol import Access, TrainsTogether
from fixtures.games import halves

QUICK = Recipe(hidden=16, epochs=5)


def jobs(count, records=200):
    (rows, labels), _ = halves(load_digits)
    rng = np.random.default_rng(0)
    chosen = [np.sort(rng.permutation(len(rows))[:records]) for _ in range(count)]
    return [Job(rows[half], labels[half], seed) for seed, half in enumerate(chosen)]


def test_a_network_comes_out_the_same_whatever_it_is_trained_with():
    several = jobs(11)
    odd = jobs(1, records=137)[0]
    together = train([*several[:5], odd, *several[5:]], 10, QUICK)
    rows = several[0].rows
    for job, network in zip([*several[:5], odd, *several[5:]], together, strict=True):
        np.testing.assert_array_equal(network.scores(rows), train([job], 10, QUICK)[0].scores(rows))
    assert len({network.scores(rows).tobytes() for network in together}) == 12


def test_the_slopes_are_those_of_the_mean_loss():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 4, 5), (1, 1, 5), (1, 5, 3), (1, 1, 3))]
    rows, targets = rng.normal(size=(1, 6, 4)).astype(np.float32), np.eye(3, dtype=np.float32)[[[0, 1, 2, 0, 1, 2]]]

    def loss(parts):
        hidden = np.maximum(rows.astype(float) @ parts[0] + parts[1], 0)
        scores = hidden @ parts[2] + parts[3]
        return float((np.log(np.exp(scores).sum(axis=2)) - (scores * targets).sum(axis=2)).mean())

    for place, slope in enumerate(_slopes(weights, rows, targets)):
        parts = [part.astype(float) for part in weights]
        for index in np.ndindex(slope.shape):
            value = parts[place][index]
            parts[place][index] = value + 1e-5
            above = loss(parts)
            parts[place][index] = value - 1e-5
            assert slope[index] == pytest.approx((above - loss(parts)) / 2e-5, abs=2e-4)
            parts[place][index] = value


def test_a_network_learns_the_digits():
    train_set, rest = halves(load_digits)
    network = train([Job(*train_set, 0)], 10)[0]
    assert (network.labels(rest[0]) == rest[1]).mean() > 0.95
    assert (train([Job(*train_set, 0)], 10, Recipe(decay=0.1))[0].scores(rest[0]).max(axis=1)).mean() < 0.9


def test_it_is_a_target_that_trains_together():
    network = untrained(64, 10, QUICK)
    assert isinstance(network, TrainsTogether)
    assert network.offers == {Access.LABELS, Access.SCORES, Access.TRAINING}
    job = jobs(1)[0]
    one, many = network.retrain(job.rows, job.labels, seed=3), network.retrain_many([(job.rows, job.labels, 3)])
    np.testing.assert_array_equal(one.scores(job.rows), many[0].scores(job.rows))


class Counting(Network):
    """Says how many models were asked for at a time."""

    at_once = 5
    groups: list[int]

    def retrain_many(self, fits):
        self.groups.append(len(fits))
        return super().retrain_many(fits)


def counting():
    network = untrained(64, 10, QUICK)
    victim = Counting(QUICK, 10, network._weights, network._scaling)
    victim.groups = []
    return victim


def fit_and_ask(several, order):
    models, answers = [], {}
    for job in several:
        models.append((yield Fit(job.rows, job.labels, job.seed)))  # noqa: PERF401 - a comprehension cannot yield
    for place in order:
        rows = several[place].rows[:3]
        answers[place] = yield Query(rows, np.zeros(3, np.int64), scores=True, model=models[place])
    return answers


@pytest.mark.parametrize("order", [range(12), [*range(12), 0, 1], [11, 3, 7], [4, 4, 4]])
def test_the_engine_trains_together_what_is_asked_for_and_answers_as_if_it_did_not(order):
    several, victim = jobs(12), counting()
    run = Run(fit_and_ask(several, order), budget=Budget(samples=1, per_sample=0, fits=12), needs=victim.offers)
    engine = Engine(victim)
    engine.drive([run])
    for place, answer in run.candidates.items():
        np.testing.assert_array_equal(answer, train([several[place]], 10, QUICK)[0].scores(several[place].rows[:3]))
    assert max(victim.groups) <= 5
    assert len(engine._fitted) <= 5
    assert sum(victim.groups) == engine.usage.fits
    if order == range(12):
        assert victim.groups == [5, 5, 2]


def test_two_runs_that_ask_for_the_same_model_share_it():
    several, victim = jobs(3), counting()
    budget = Budget(samples=1, per_sample=0, fits=3)
    runs = [Run(fit_and_ask(several, range(3)), budget=budget, needs=victim.offers) for _ in range(2)]
    Engine(victim).drive(runs)
    assert victim.groups == [3]


def test_bad_jobs_are_refused_by_name():
    job = jobs(1)[0]
    with pytest.raises(ArtefactError, match="no rows"):
        train([Job(job.rows[:0], job.labels[:0], 0)], 10)
    with pytest.raises(ArtefactError, match="outside of the 3 classes"):
        train([job], 3)
    with pytest.raises(WorkError, match="diverged"):
        train([Job(job.rows * 1e12, job.labels, 0)], 10, Recipe(standardise=False, rate=1e6))


def test_a_single_row_and_a_constant_feature_are_no_trouble():
    network = train([Job(np.ones((1, 3)), np.zeros(1, np.int64), 0)], 2, QUICK)[0]
    assert np.isfinite(network.scores(np.zeros((2, 3)))).all()
