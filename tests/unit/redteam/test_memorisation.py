"""Canaries and the audit: what is learnt by heart shows, what is private holds, what only claims to be is caught."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy import special, stats
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam import audit
from bartizan.redteam.attacks.privacy.canaries import Improbable, Mislabelled, MislabelledFromLabels
from bartizan.redteam.canaries import UNINFORMED, Memorisation, Trial, _audit, _coins, _exposure, _learnt
from bartizan.redteam.privacy_tasks import Canaries
from fixtures.games import halves, material, play
from fixtures.victims import Victim

CANCER = halves(load_breast_cancer)


def played(model, attack=None, family=None, seed=0, **settings):
    settings.setdefault("shadow_models", 16)
    attack = attack or Mislabelled()
    return play(attack, family or Memorisation(), model.fit(*CANCER[0]), material(*CANCER, **settings), seed=seed)


# -- exposure --------------------------------------------------------------------------------------


def test_a_tree_learns_canaries_by_heart_and_many_neighbours_do_not():
    deep, smooth = played(DecisionTreeClassifier(random_state=0)), played(KNeighborsClassifier(60))
    assert deep.metrics["exposure_bits"].low > UNINFORMED + 2
    assert smooth.metrics["exposure_bits"].low < UNINFORMED < smooth.metrics["exposure_bits"].high + 0.3
    assert {finding.rule for finding in deep.measurement.findings} == {"redteam/memorisation"}
    assert not smooth.measurement.findings


def test_more_copies_expose_more():
    points = played(KNeighborsClassifier(30)).measurement.curves["exposure_by_copies"]
    assert [point.x for point in points] == [1, 4, 16]
    assert points[0].value < points[1].value < points[2].value
    assert points[2].low > points[0].high


def test_labels_alone_show_it_as_well():
    game = played(DecisionTreeClassifier(random_state=0), MislabelledFromLabels())
    assert game.metrics["exposure_bits"].low > UNINFORMED + 2


def test_a_constant_model_exposes_nothing_and_refutes_nothing():
    game = played(DummyClassifier(strategy="constant", constant=0), Improbable())
    assert game.metrics["exposure_bits"].value <= UNINFORMED
    assert game.metrics["epsilon_lower_bound"].value == 0
    assert not game.measurement.findings


def test_without_learning_exposure_is_what_chance_gives():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        inside = _coins(8, 128, rng)
        exposure = _exposure(rng.normal(size=(8, 128)), inside)
        ranks = np.log2(65 / np.arange(1, 66)).mean()
        covered += ranks in exposure.interval
    assert covered >= 50


def test_exposure_counts_bits_of_rank():
    inside = np.array([[True] + [False] * 7] * 2)
    best, middle = np.array([[9.0, *range(7)]] * 2), np.array([[3.5, *range(7)]] * 2)
    assert _exposure(best, inside).value == pytest.approx(np.log2(8 / 1))
    assert _exposure(middle, inside).value == pytest.approx(np.log2(8 / 4))


# -- the bound -------------------------------------------------------------------------------------


def test_the_bound_of_pure_privacy_is_the_exact_one_of_a_coin():
    for right, guesses in ((30, 40), (100, 100), (57, 64)):
        share = stats.binomtest(right, guesses, alternative="greater").proportion_ci(0.95, "exact").low
        assert audit.epsilon_bound(right, guesses, 1000) == pytest.approx(special.logit(share), abs=1e-4)


def test_a_larger_delta_allows_less_to_be_said():
    bounds = [audit.epsilon_bound(95, 100, 1000, delta) for delta in (0.0, 1e-6, 1e-5, 1e-4, 1e-2)]
    assert (np.diff(bounds) <= 0).all()
    assert bounds[0] > bounds[3] >= bounds[4] == 0
    assert bounds[1] > 2


def test_guessing_no_better_than_chance_refutes_nothing():
    assert audit.epsilon_bound(50, 100, 100) == audit.epsilon_bound(0, 0, 100) == 0
    assert audit.epsilon_from_rates((5, 100), (5, 100)) == 0
    assert 2 < audit.epsilon_from_rates((60, 100), (0, 1000)) < 6


@pytest.mark.parametrize("coins", [1, 2, 5, 6, 7])
def test_no_coin_is_guessed_twice(coins):
    scores = np.arange(3.0 * coins).reshape(3, coins)
    for fell in (np.zeros_like(scores, bool), np.ones_like(scores, bool)):
        _, right, guesses = audit.best_bound(scores, fell, (1.0,))
        # Half of them are called in and as many out: of coins that all fell alike exactly half are guessed right.
        assert guesses == 3 * (coins // 2 * 2)
        assert 2 * right == guesses


def test_what_one_audited_model_answers_moves_no_score_of_another():
    rng = np.random.default_rng(0)
    of = Trial(Mislabelled(), 8, "model")
    canaries, fits = Canaries(np.zeros((6, 2)), np.ones(6, np.int64)), list(range(8))
    answers = rng.uniform(0.2, 0.8, (8, 6))

    def learnt(chances):
        asking = _learnt(of, canaries, fits)
        answer = next(asking)
        try:
            for place in fits:
                answer = asking.send(place)
            for place in fits:
                answer = asking.send(np.column_stack([1 - chances[place], chances[place]]))
        except StopIteration as end:
            return end.value
        raise AssertionError(answer)

    extreme = answers.copy()
    extreme[-1, 0] = 1e-9  # the last model is audited
    before, after = learnt(answers), learnt(extreme)
    assert (before[:-1] == after[:-1]).all()
    assert (before[-1, 1:] == after[-1, 1:]).all()
    assert after[-1, 0] < before[-1, 0]
    calibrated = answers.copy()
    calibrated[0, 0] = 1e-9
    assert (learnt(calibrated)[4:] != before[4:]).all()


def randomised(epsilon, inside, rng):
    """Randomised response (Warner 1965): each coin is told rightly with just the odds that epsilon allows."""
    told = np.where(rng.random(inside.shape) < special.expit(epsilon), inside, ~inside)
    return np.where(told, 1.0, -1.0) + rng.normal(0, 1e-3, inside.shape)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_a_mechanism_that_keeps_its_promise_is_rarely_accused_and_the_bound_comes_near(epsilon):
    """No bound above epsilon in 95 % of the audits; of 100, 11 or more would happen once in 100 times."""
    rng = np.random.default_rng(3)
    bounds = []
    for _ in range(100):
        inside = _coins(16, 128, rng)
        bounds.append(_audit(randomised(epsilon, inside, rng), inside, 0.0)[0])
    assert sum(bound > epsilon for bound in bounds) <= 10
    assert np.median(bounds) > 0.55 * epsilon


class Told(Victim):
    """A training that tells of each row whether it was in, through randomised response of its own strength."""

    def __init__(self, epsilon, known=(), seed=0):
        super().__init__(answer=lambda rows: np.zeros(len(rows)), features=30)
        self.epsilon, self.known, self.seed = epsilon, known, seed

    def retrain(self, rows, _labels, *, seed):
        return Told(self.epsilon, {row.tobytes() for row in rows}, seed)

    def scores(self, rows):
        told = np.array([(row.tobytes() in self.known) == self.honest(row) for row in rows])
        return np.column_stack([np.where(told, 0.9, 0.2), np.where(told, 0.1, 0.8)])

    def honest(self, row):
        coin = np.random.default_rng([self.seed, *np.frombuffer(row[:2].tobytes(), np.uint32)]).random()
        return coin < special.expit(self.epsilon)


class OneClass(Mislabelled):
    """Canaries of class 0 alone, so that what is told does not hang on the label."""

    def search(self, task, rng):
        canaries = yield from super().search(task, rng)
        return Canaries(canaries.rows, np.zeros_like(canaries.labels))


def test_a_training_that_claims_more_privacy_than_it_gives_is_caught_and_an_honest_one_is_not():
    of = material(*CANCER, shadow_models=32)
    honest = play(OneClass(), Memorisation(claimed_epsilon=2.0, copies=(1,)), Told(2.0), of)
    broken = play(OneClass(), Memorisation(claimed_epsilon=0.5, copies=(1,)), Told(2.0), of)
    assert 1.0 < honest.metrics["epsilon_lower_bound"].value <= 2.0
    assert "redteam/privacy-claim-refuted" not in {finding.rule for finding in honest.measurement.findings}
    (refuted,) = [each for each in broken.measurement.findings if each.rule == "redteam/privacy-claim-refuted"]
    assert refuted.severity.value == "critical"
    assert "promises epsilon 0.5" in refuted.title


# -- design, bad input -----------------------------------------------------------------------------


def test_mislabelled_canaries_have_another_class_than_the_record_they_come_from():
    task = played(DecisionTreeClassifier(random_state=0)).case.task
    canaries = next_of(Mislabelled(), task)
    distance = ((canaries.rows[:, None] - task.rows[None]) ** 2 / task.space.scale**2).sum(axis=2)
    assert (task.labels[distance.argmin(axis=1)] != canaries.labels).mean() > 0.9
    assert task.space.possible(canaries.rows, task.rows[distance.argmin(axis=1)]).all()


def next_of(attack, task):
    try:
        next(attack.search(task, np.random.default_rng(0)))
    except StopIteration as end:
        return end.value


def test_the_coins_are_tossed_after_the_design_and_are_fair():
    coins = _coins(16, 128, np.random.default_rng(0))
    assert (coins[:8].sum(axis=0) == 4).all()
    assert 0.45 < coins[8:].mean() < 0.55
    assert len(np.unique(coins[8:].sum(axis=1))) > 1


def test_the_same_seed_gives_the_same_bytes():
    one, same, other = (
        msgspec.json.encode(played(DecisionTreeClassifier(random_state=0), seed=seed).measurement) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_too_few_records_and_designs_that_are_no_rows_are_refused():
    few = tuple((rows[:60], labels[:60]) for rows, labels in CANCER)
    with pytest.raises(ArtefactError, match="60 training records are too few"):
        Memorisation().case(Mislabelled(), material(*few), np.random.default_rng(0))

    class Odd(Mislabelled):
        def search(self, task, rng):
            canaries = yield from super().search(task, rng)
            return Canaries(canaries.rows, canaries.labels + 7)

    with pytest.raises(WorkError, match="no labelled rows"):
        played(DecisionTreeClassifier(random_state=0), Odd())
