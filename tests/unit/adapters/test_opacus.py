"""DP-SGD: the accountant's numbers, clipped gradients, noise where it belongs, and a promise that an audit tests."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from scipy import optimize, stats
from sklearn.datasets import load_breast_cancer

from bartizan.adapters.opacus import PrivateRecipe, noise_for, train_privately
from bartizan.adapters.torch_training import small_network
from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.audit import epsilon_from_rates

ROWS, LABELS = load_breast_cancer(return_X_y=True)
LOW, HIGH = ROWS.min(axis=0), ROWS.max(axis=0)
SCALED = 2 * (ROWS - LOW) / (HIGH - LOW) - 1


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(rows=SCALED, labels=LABELS, *, seed=0, module=None, **more):
    recipe = PrivateRecipe(**({"epsilon": 1.0, "epochs": 20} | more))
    module = module or small_network(rows.shape[1], 2, 32, seed)
    return train_privately(module, rows, labels, shape=(rows.shape[1],), recipe=recipe, seed=seed)


def gaussian_epsilon(noise, delta):
    """Exact epsilon of one Gaussian mechanism of sensitivity 1 (Balle and Wang 2018, arXiv:1805.06530)."""

    def excess(epsilon):
        near, far = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
        return stats.norm.cdf(near) - math.exp(epsilon) * stats.norm.cdf(far) - delta

    return optimize.brentq(excess, 0, 60)


def test_the_accountant_agrees_with_the_exact_formula_where_there_is_one():
    """All records in one step: nothing is left to chance but the noise."""
    recipe = PrivateRecipe(epsilon=2.0, epochs=1, batch=500)
    noise, spent = noise_for(recipe, 500)
    assert spent <= 2.0
    assert gaussian_epsilon(noise, recipe.delta) == pytest.approx(spent, abs=0.03)


def test_more_budget_needs_less_noise_and_no_more_is_spent_than_was_asked_for():
    noises = []
    for epsilon in (0.5, 2.0, 8.0):
        noise, spent = noise_for(PrivateRecipe(epsilon=epsilon), 569)
        assert 0.9 * epsilon <= spent <= epsilon
        noises.append(noise)
    assert noises == sorted(noises, reverse=True)


def test_it_learns_under_a_budget_and_touches_no_other_random_numbers():
    order = np.random.default_rng(0).permutation(len(ROWS))
    train, test = order[:420], order[420:]
    state = torch.get_rng_state()
    made = trained(SCALED[train], LABELS[train], epsilon=3.0)
    assert torch.equal(state, torch.get_rng_state())
    right = (made.module(torch.tensor(SCALED[test], dtype=torch.float32)).argmax(1).numpy() == LABELS[test]).mean()
    assert right > 0.9
    again = trained(SCALED[train], LABELS[train], epsilon=3.0)
    for one, two in zip(made.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)
    assert type(made.module) is torch.nn.Sequential


def test_no_record_moves_a_step_by_more_than_its_length():
    """One step of what training uses, without noise, with and without a far row."""
    rows, seen = torch.tensor([[1.0, 0], [0, 1], [1e6, -1e6]]), []
    for count in (2, 3):
        module = torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.zeros_(module.weight)
        each = GradSampleModule(module, loss_reduction="sum")
        plain = torch.optim.SGD(module.parameters(), lr=1.0)
        optimiser = DPOptimizer(plain, noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=1)
        logits = each(rows[:count].requires_grad_())
        torch.nn.functional.cross_entropy(logits, torch.zeros(count, dtype=torch.long), reduction="sum").backward()
        optimiser.step()
        seen.append(module.weight.detach().clone())
    assert 0.5 < (seen[1] - seen[0]).norm() <= 1 + 1e-5


def test_the_promise_survives_an_audit_and_a_broken_one_does_not():
    """A record that alone has a feature, in or out: whatever is learnt of that feature is learnt from it."""
    rows = np.array([[1.0, 0.0]] * 30 + [[0.0, 1.0]])
    labels = np.array([0] * 30 + [1])

    def tells(count, seed, epsilon):
        module = torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.zeros_(module.weight)
        made = trained(rows[:count], labels[:count], seed=seed, module=module, epsilon=epsilon, epochs=2, batch=40)
        learnt = made.module.weight.detach()[:, 1]
        return float(learnt[1] - learnt[0])

    def bound(epsilon, runs):
        without = np.array([tells(30, seed, epsilon) for seed in range(runs)])
        with_it = np.array([tells(31, 10_000 + seed, epsilon) for seed in range(runs)])
        return epsilon_from_rates((int((with_it > 0).sum()), runs), (int((without > 0).sum()), runs))

    assert bound(1.0, 200) <= 1.0
    # A mechanism that spends a hundred times of what is claimed is caught by the same audit.
    assert bound(100.0, 60) > 1.0


@pytest.mark.parametrize(
    "faulty", [{"epsilon": 0.0}, {"epsilon": math.nan}, {"delta": 0.1}, {"delta": 0.0}, {"length": 0.0}, {"epochs": 0}]
)
def test_a_recipe_that_promises_nothing_is_refused(faulty):
    with pytest.raises(InputError):
        trained(**faulty)


def test_no_rows_and_mixed_records_are_refused():
    with pytest.raises(InputError):
        trained(SCALED[:0], LABELS[:0])
    mixing = torch.nn.Sequential(torch.nn.Linear(30, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    with pytest.raises(WorkError, match="cannot be trained privately"):
        trained(module=mixing)


def test_a_step_in_which_no_coin_falls_is_a_step_of_noise_alone():
    made = trained(SCALED[:3], LABELS[:3], epochs=3, batch=1)
    assert all(torch.isfinite(part).all() for part in made.module.parameters())


def test_hardening_without_opacus_says_what_would_bring_it():
    code = """
import sys
sys.modules["opacus"] = None
import importlib.util
from bartizan.wiring.networks import Network
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "opacus" else found(name, *more)
print(Network.why_not_privately(None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bartizan[private]" in done.stdout
