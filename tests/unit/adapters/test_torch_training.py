"""Adversarial training in torch: each method withstands more than plain training, and the same seed gives the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bartizan.adapters.torch_training import (
    Method,
    Recipe,
    ascend,
    best_of,
    convolutional_network,
    ramp,
    small_network,
    train,
    withstanding,
)
from bartizan.core.errors import InputError

EPSILON = 0.15


@pytest.fixture(scope="module")
def digits():
    rows, labels = load_digits(return_X_y=True)
    return train_test_split(rows.astype(np.float32) / 16, labels, test_size=300, random_state=0, stratify=labels)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(digits, method, *, epochs=10, seed=0, **more):
    rows, _, labels, _ = digits
    recipe = Recipe(method=method, epsilon=EPSILON, epochs=epochs, steps=5, **more)
    return train(small_network(64, 10, 64, seed), rows, labels, shape=(64,), recipe=recipe, seed=seed)


def accuracies(module, digits):
    """Clean, and under twenty steps of projected gradient ascent."""
    rows, labels = torch.from_numpy(digits[1]), torch.from_numpy(digits[3])
    recipe = Recipe(method=Method.PGD, epsilon=EPSILON, steps=20)
    worst = ascend(module, rows, torch.zeros_like(rows), recipe, lambda z: torch.nn.functional.cross_entropy(z, labels))
    assert (worst - rows).abs().max() <= EPSILON + 1e-6
    assert worst.min() >= 0
    assert worst.max() <= 1
    return [(module(each).argmax(1) == labels).float().mean().item() for each in (rows, worst)]


@pytest.mark.parametrize("method", [Method.PGD, Method.TRADES, Method.FAST, Method.FREE])
def test_adversarial_training_withstands_what_plain_training_does_not(digits, method):
    plain, hardened = accuracies(trained(digits, Method.PLAIN), digits), accuracies(trained(digits, method), digits)
    assert plain[0] > 0.9
    assert hardened[0] > 0.85
    assert hardened[1] > plain[1] + 0.25


def test_the_same_seed_gives_the_same_weights_and_touches_no_other_random_numbers(digits):
    state = torch.get_rng_state()
    one, two, other = (trained(digits, Method.FAST, epochs=1, seed=seed) for seed in (3, 3, 4))
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert torch.equal(state, torch.get_rng_state())


def test_label_smoothing_makes_answers_softer(digits):
    rows = torch.from_numpy(digits[1])
    sure, soft = (
        torch.softmax(trained(digits, Method.PLAIN, smoothing=share)(rows), 1).max(1).values.mean().item()
        for share in (0.0, 0.2)
    )
    assert soft < sure - 0.05


def weights(module):
    return torch.cat([part.detach().flatten() for part in module.parameters()])


def test_early_stopping_keeps_the_epoch_that_the_judge_values_most(digits):
    seen, values = [], iter([0.2, 0.9, 0.4])

    def judge(module):
        seen.append(weights(module).clone())
        return next(values)

    module = small_network(64, 10, 16, 0)
    recipe = Recipe(method=Method.FAST, epsilon=EPSILON, epochs=6)
    train(module, digits[0], digits[2], shape=(64,), recipe=recipe, seed=0, judge=judge)
    assert len(seen) == 3  # epochs of the second half
    assert torch.equal(weights(module), seen[1])
    assert not torch.equal(seen[0], seen[1])


def test_a_judge_changes_nothing_about_the_training_itself(digits):
    recipe = Recipe(method=Method.FAST, epsilon=EPSILON, epochs=1)
    held = withstanding(digits[1], digits[3], shape=(64,), classes=10, recipe=recipe, steps=3, queries=3)
    alone, judged = (
        train(small_network(64, 10, 16, 0), digits[0], digits[2], shape=(64,), recipe=recipe, seed=0, judge=judge)
        for judge in (None, held)
    )
    assert torch.equal(weights(alone), weights(judged))


def test_of_several_seeds_the_one_that_is_valued_most_is_kept(digits):
    recipe = Recipe(method=Method.FAST, epsilon=EPSILON, epochs=4)
    held = withstanding(digits[1][:150], digits[3][:150], shape=(64,), classes=10, recipe=recipe, steps=10, queries=20)

    def make(seed):
        return small_network(64, 10, 32, seed)

    tried = best_of(make, digits[0], digits[2], shape=(64,), recipe=recipe, seeds=(0, 1, 2), judge=held)
    assert set(tried.values) == {0, 1, 2}
    assert tried.values[tried.seed] == max(tried.values.values())
    assert held(tried.module) == tried.values[tried.seed]
    with pytest.raises(InputError, match="no seed"):
        best_of(make, digits[0], digits[2], shape=(64,), recipe=recipe, seeds=(), judge=held)


def test_a_judge_is_not_taken_in_by_flat_slopes_and_wants_a_module_that_is_right(digits):
    recipe = Recipe(method=Method.FAST, epsilon=EPSILON)
    held = {"shape": (64,), "classes": 10, "recipe": recipe}
    judge = withstanding(digits[1], digits[3], **held)
    plain, hardened = trained(digits, Method.PLAIN), trained(digits, Method.PGD)
    sure = torch.nn.Sequential(plain, _Times(1000.0))
    assert judge(hardened) > judge(plain) + 0.25
    assert judge(sure) < judge(hardened) - 0.2
    strict = withstanding(digits[1], digits[3], **held, least_right=0.9999)
    assert -1 <= strict(hardened) < 0


class _Times(torch.nn.Module):
    """Makes answers so sure that their slopes vanish."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


def test_images_of_any_even_side_fit_the_published_network():
    for side in (8, 28):
        assert convolutional_network(10, side, 0)(torch.zeros(2, 1, side, side)).shape == (2, 10)


def test_the_learning_rate_rises_and_falls():
    assert ramp(0.0) == 0
    assert ramp(0.4) == pytest.approx(1)
    assert ramp(1.0) == 0


@pytest.mark.parametrize(
    "faulty",
    [
        {"method": Method.PGD},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"low": 1.0, "high": 0.0},
        {"epochs": 0},
        {"rate": 0.0},
        {"smoothing": 1.0},
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(digits, faulty):
    with pytest.raises(InputError):
        train(small_network(64, 10, 8, 0), digits[0], digits[2], shape=(64,), recipe=Recipe(**faulty), seed=0)


def test_no_rows_teach_nothing():
    with pytest.raises(InputError):
        train(small_network(4, 2, 8, 0), np.empty((0, 4)), np.empty(0), shape=(4,), recipe=Recipe(), seed=0)
