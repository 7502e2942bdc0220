"""The rules of membership inference against their definitions, and what the attack asks for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.tree import DecisionTreeClassifier

from bartizan.redteam.attack import VICTIM, Fit, Query
from bartizan.redteam.attacks.privacy import membership
from bartizan.redteam.attacks.privacy.membership import Membership, MembershipFromLabels, Shadows
from bartizan.redteam.privacy import Privacy
from fixtures.games import halves, material, noisy_digits, play


def shadows(models=16, records=300, seed=0):
    """Models whose confidence is higher, by one, for records that they were trained on."""
    rng = np.random.default_rng(seed)
    half = rng.random((models // 2, records)) < 0.5
    inside = np.stack([half, ~half], axis=1).reshape(models, records)
    easy = rng.normal(0, 3, records)
    return Shadows(easy + inside + rng.normal(0, 0.5, (models, records)), inside), easy, rng


def test_the_online_rule_is_the_log_likelihood_ratio_of_two_normal_distributions():
    known, easy, rng = shadows()
    target = easy + rng.normal(0, 1, len(easy))
    spread = np.sqrt(known.variance(both=True))
    ratio = stats.norm.logpdf(target, known.seen, spread) - stats.norm.logpdf(target, known.unseen, spread)
    np.testing.assert_allclose(membership.lira_online(known, target), ratio, atol=1e-9)


def test_the_offline_rule_ranks_as_the_tail_probability_does_and_uses_no_model_that_saw_the_record():
    known, easy, rng = shadows()
    target = easy + rng.normal(0, 1, len(easy))
    scores = membership.lira_offline(known, target)
    tail = stats.norm.sf(target, known.unseen, np.sqrt(known.variance(both=False)))
    np.testing.assert_allclose(stats.norm.sf(scores), tail)
    forgotten = Shadows(np.where(known.inside, 99.0, known.confidence), known.inside)
    np.testing.assert_allclose(membership.lira_offline(forgotten, target), scores)


def test_the_calibrated_rule_takes_the_usual_loss_off():
    known, easy, _ = shadows()
    assert np.corrcoef(membership.loss_threshold(known, easy), easy)[0, 1] == pytest.approx(1.0)
    calibrated = membership.calibrated(known, easy)
    assert abs(np.corrcoef(calibrated, easy)[0, 1]) < 0.35


def test_spread_is_shared_with_few_models_and_a_records_own_with_many():
    rng = np.random.default_rng(0)
    own = np.repeat([0.1, 2.0], 100)

    def ratio(models):
        inside = np.arange(models)[:, None] % 2 == np.zeros(200)
        estimated = np.sqrt(Shadows(rng.normal(0, own, (models, 200)), inside).variance(both=True))
        return estimated[100:].mean() / estimated[:100].mean()

    assert ratio(4) < ratio(16) < ratio(256) < 20
    assert ratio(4) < 2
    assert ratio(256) > 4


def test_logits_stay_finite_and_keep_the_steps_of_an_ensemble():
    steps = np.arange(51) / 50
    found = membership.logits(steps)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -found[::-1], atol=1e-9)
    assert found[-1] == pytest.approx(np.log(1.01 / 0.01))
    fine = membership.logits(np.array([1e-9, 0.5, 1 - 1e-9]))
    assert fine[-1] == pytest.approx(np.log(1e9), rel=0.05)
    assert np.isfinite(membership.logits(np.array([0.0, 1.0]))).all()


def test_leaving_a_pair_out_leaves_every_record_in_half_of_the_models():
    known, _, _ = shadows()
    left = known.without(3)
    assert len(left.inside) == len(known.inside) - 2
    assert (left.inside.sum(axis=0) == len(left.inside) // 2).all()


@pytest.mark.parametrize(("models", "named"), [(8, "lira_offline"), (14, "lira_offline"), (16, "lira_online")])
def test_the_headline_is_named_by_the_number_of_models_alone(models, named):
    assert membership.headline(models) == named


def test_the_threshold_is_learnt_from_the_adversarys_own_models():
    known, easy, rng = shadows(records=4000)
    members = rng.random(len(easy)) < 0.5
    target = easy + members + rng.normal(0, 0.5, len(easy))
    threshold = membership._threshold(membership.lira_online, known)
    accused = membership.lira_online(known, target) >= threshold
    best = stats.norm.cdf(1.0)  # two normal distributions, two standard deviations apart
    reached = (accused[members].mean() + 1 - accused[~members].mean()) / 2
    assert best - 0.03 < reached < best + 0.02


def requests(attack, task, classes):
    """All that the attack asks when every model is sure of class 0."""
    search, reply, asked = attack.search(task, np.random.default_rng(0)), None, []
    try:
        while True:
            request = search.send(reply)
            asked.append(request)
            if isinstance(request, Fit):
                reply = sum(isinstance(one, Fit) for one in asked)
            else:
                shape = (len(request.rows), classes) if request.scores else len(request.rows)
                reply = np.zeros(shape, np.float64 if request.scores else np.int64)
    except StopIteration as end:
        return asked, end.value


@pytest.mark.parametrize("attack", [Membership(), MembershipFromLabels()])
def test_the_victim_is_asked_once_about_each_record_and_shadows_train_on_their_halves(attack):
    case = Privacy().case(attack, material(*halves(noisy_digits), shadow_models=8), np.random.default_rng(0))
    asked, result = requests(attack, case.task, 10)
    queries = [request for request in asked if isinstance(request, Query)]
    of_victim = [query for query in queries if query.model == VICTIM]
    assert [len(query.rows) for query in of_victim] == [len(case.task.rows)]
    np.testing.assert_array_equal(of_victim[0].sample, np.arange(len(case.task.rows)))
    assert {query.scores for query in queries} == {attack.name == "privacy.membership"}
    fits = [request for request in asked if isinstance(request, Fit)]
    for fit, shadow in zip(fits, case.task.shadows, strict=True):
        np.testing.assert_array_equal(fit.rows, case.task.rows[shadow.inside])
    assert sum(guess.headline for guess in result.guesses) == 1
    assert {guess.rule for guess in result.guesses} == set(membership.RULES)


def test_labels_alone_give_an_overfitted_tree_away_as_well():
    train, rest = halves(noisy_digits)
    model = DecisionTreeClassifier(random_state=0).fit(*train)
    game = play(MembershipFromLabels(), Privacy(), model, material(train, rest, shadow_models=16))
    assert game.metrics["pipeline_auc"].low > 0.68
