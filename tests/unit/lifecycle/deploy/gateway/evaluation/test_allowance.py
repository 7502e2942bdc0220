"""What budgets let an attacker ask."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.lifecycle.deploy.gateway.evaluation.allowance import allowances
from bartizan.lifecycle.deploy.gateway.evaluation.guarded import Guarded, Manner
from bartizan.lifecycle.deploy.gateway.pipeline import Pipeline
from bartizan.targets.detail import Detail
from bartizan.targets.protocol import Access

DAY = 86_400.0


class Constant:
    """Answers every row with the second of two classes."""

    name = "model:constant"
    offers = frozenset({Access.LABELS})
    classes, class_values, features = 2, ("a", "b"), 3

    def labels(self, rows):
        return np.ones(len(rows), np.int64)


def asked(manner, *budgets, questions=50):
    """How many questions were answered."""
    front = Guarded(
        Constant(), lambda: Pipeline([]), Detail("label"), manner=manner, budgets=allowances(budgets), seed=1
    )
    front.labels(np.zeros((questions, 3)))
    return front.shown


@pytest.mark.parametrize(
    ("manner", "budget", "answered"),
    [
        (Manner(), BudgetSettings(limit=20, window="1d", unit="labels"), 20),
        (Manner(), BudgetSettings(limit=20, window="30d", unit="rows"), 20),
        (Manner(), BudgetSettings(limit=10, window="1d", burst=20), 30),
        (Manner("accounts", accounts=0), BudgetSettings(limit=20, window="1d", unit="labels"), 50),
        (Manner("accounts", accounts=2), BudgetSettings(limit=20, window="1d", unit="labels"), 40),
        (Manner("accounts", accounts=0), BudgetSettings(limit=20, window="1d", per="everyone"), 20),
        (Manner("drip", seconds=3600), BudgetSettings(limit=12, window="1d"), 26),
        (Manner("drip", seconds=DAY), BudgetSettings(limit=1, window="1d"), 50),
        (Manner(), BudgetSettings(limit=1, window="1min"), 50),  # whoever attacks waits
        (Manner(), BudgetSettings(limit=1, window="1d", unit="bytes"), 50),
    ],
)
def test_a_budget_is_spent_by_each_account_and_comes_back_with_its_window(manner, budget, answered):
    assert asked(manner, budget) == answered


def test_the_tightest_of_several_budgets_counts():
    day = BudgetSettings(limit=30, window="1d", unit="labels")
    month = BudgetSettings(limit=40, window="30d", unit="labels")
    assert asked(Manner(), day, month) == 30
    assert asked(Manner("drip", seconds=3600), day, month) == 40
