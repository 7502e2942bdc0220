"""The rules of membership inference against their definitions, and what drawing estimates together is good for."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import special, stats

from bartizan.redteam import membership, statistics
from bartizan.redteam.membership import Shadows
from bartizan.redteam.shadows import Job, Recipe, train
from fixtures.games import noisy_digits


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


def test_the_fixed_rule_is_the_ratio_with_one_variance_for_each_kind_of_model():
    known, easy, rng = shadows()
    target = easy + rng.normal(0, 1, len(easy))
    inside, outside = (
        np.sqrt((((known.confidence - mean) ** 2) * chosen).sum() / (chosen.sum() - len(easy)) + 1e-3)
        for mean, chosen in ((known.seen, known.inside), (known.unseen, ~known.inside))
    )
    ratio = stats.norm.logpdf(target, known.seen, inside) - stats.norm.logpdf(target, known.unseen, outside)
    np.testing.assert_allclose(membership.lira_fixed(known, target), ratio, atol=1e-9)


def test_the_offline_rule_ranks_as_the_tail_probability_does_and_uses_no_model_that_saw_the_record():
    known, easy, rng = shadows()
    target = easy + rng.normal(0, 1, len(easy))
    scores = membership.lira_offline(known, target)
    tail = stats.norm.sf(target, known.unseen, np.sqrt(known.variance(both=False)))
    np.testing.assert_allclose(stats.norm.sf(scores), tail)
    forgotten = Shadows(np.where(known.inside, 99.0, known.confidence), known.inside)
    for rule in ("lira_offline", "lira_offline_fixed", "rmia_offline", "calibrated", "loss_threshold"):
        np.testing.assert_allclose(
            membership.RULES[rule](forgotten, target), membership.RULES[rule](known, target), err_msg=rule
        )


def test_the_calibrated_rule_takes_the_usual_loss_off():
    known, easy, _ = shadows()
    assert np.corrcoef(membership.loss_threshold(known, easy), easy)[0, 1] == pytest.approx(1.0)
    calibrated = membership.calibrated(known, easy)
    assert abs(np.corrcoef(calibrated, easy)[0, 1]) < 0.35


def test_the_relative_rule_counts_the_records_that_gain_less_than_half_as_much():
    known, easy, rng = shadows()
    target = easy + rng.normal(0, 1, len(easy))
    usual = (
        np.array([special.expit(known.confidence[known.inside[:, r], r]).mean() for r in range(len(easy))])
        + np.array([special.expit(known.confidence[~known.inside[:, r], r]).mean() for r in range(len(easy))])
    ) / 2
    gain = special.expit(target) / usual
    dominated = (gain[:, None] / gain[None] >= 2).mean(axis=1)
    np.testing.assert_allclose(membership.rmia(known, target), dominated, atol=1 / len(easy))


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


def recipe_of_carlini(known, target):
    """Two normal distributions with each record's own means and spreads, nothing shared (Carlini et al. 2022)."""
    spreads = [
        np.sqrt(summed / (freedom + 1) + 1e-30) for summed, freedom in (known.squares_seen, known.squares_unseen)
    ]
    inside, outside = zip((known.seen, known.unseen), spreads, strict=True)
    return stats.norm.logpdf(target, *inside) - stats.norm.logpdf(target, *outside)


@cache
def networks(models):
    """Small networks trained on halves of noisy digits: shadow models, and six victims with the truth."""
    rows, labels = noisy_digits()
    rng = np.random.default_rng(7)
    half = rng.random((models // 2 + 6, len(rows))) < 0.5
    inside = np.concatenate([np.stack([half[6:], ~half[6:]], axis=1).reshape(models, -1), half[:6]])
    jobs = [Job(rows[chosen], labels[chosen], seed) for seed, chosen in enumerate(inside)]
    trained = train(jobs, 10, Recipe(hidden=48, epochs=25))
    confidence = membership.logits(np.array([membership.chance_of(model.scores(rows), labels) for model in trained]))
    return Shadows(confidence[:models], inside[:models]), confidence[models:], inside[models:]


def found(rule, models, rate=0.002):
    known, victims, truth = networks(models)
    return np.mean(
        [statistics.roc(rule(known, sure), members).found(rate) for sure, members in zip(victims, truth, strict=True)]
    )


@pytest.mark.parametrize("models", [8, 32])
def test_drawing_the_estimates_of_like_records_together_finds_more_at_few_false_alarms(models):
    pooled = found(membership.lira_pooled, models)
    for rule in (recipe_of_carlini, membership.lira_fixed, membership.lira_offline, membership.calibrated):
        assert pooled > found(rule, models), rule
    assert pooled > 5 * found(membership.loss_threshold, models)
    assert found(membership.rmia, models) > 5 * found(membership.loss_threshold, models)


@pytest.mark.parametrize("rule", membership.RULES)
def test_without_any_difference_no_rule_finds_one(rule):
    rng = np.random.default_rng(1)
    half = rng.random((8, 4000)) < 0.5
    inside = np.stack([half, ~half], axis=1).reshape(16, 4000)
    known = Shadows(rng.normal(0, 1, (16, 4000)), inside)
    members = rng.random(4000) < 0.5
    curve = statistics.roc(membership.RULES[rule](known, rng.normal(size=4000)), members)
    assert 0.5 in statistics.auc(curve, 0.999).interval


@pytest.mark.parametrize("rule", membership.RULES)
def test_models_that_all_answer_the_same_give_finite_scores(rule):
    inside = np.array([[True, False], [False, True]] * 4)
    scores = membership.RULES[rule](Shadows(np.zeros((8, 2)), inside), np.zeros(2))
    assert np.isfinite(scores).all()


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
