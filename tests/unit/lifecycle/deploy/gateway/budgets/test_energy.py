"""Energy-latency attacks run dry: what an attacker can make the service spend is what the budget says."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from bartizan.lifecycle.deploy.gateway.budget import Cost
from bartizan.lifecycle.deploy.gateway.budgets import BudgetSettings, LeasedBudgets
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.redteam.attacks.availability.slow_texts import SlowTexts
from bartizan.redteam.availability import CostTask, play_cost
from bartizan.stores.shared import MemoryState
from fixtures.letters import messages

ATTACKER = Caller(id="key:mallory", role="user", method="key")
USER = Caller(id="key:ana", role="user", method="key")
GREEDY = re.compile(r"^(\w+\s?)*$")
LIMIT = 200_000
"""Microseconds of processor time that a caller has in a day."""
BUDGET = BudgetSettings(limit=LIMIT, window="1d", unit="microseconds")


class Front:
    """A pattern that backtracks behind a budget of processor time."""

    def __init__(self, loop):
        self.loop, self.spent, self.answered = loop, {}, {}
        self.budgets = LeasedBudgets({"processor": BUDGET}, MemoryState())

    def ask(self, caller, text):
        """Whether it was answered."""
        return self.loop.run_until_complete(self._ask(caller, text))

    async def _ask(self, caller, text):
        cost = Cost(rows=1, bytes=len(text), tokens=len(text.split()))
        said = self.budgets.reserve(caller, ("processor",), "m", cost, 0.0)
        if said is not None and await said is not None:
            return False
        began = time.thread_time_ns()
        GREEDY.match(text)
        taken = (time.thread_time_ns() - began) // 1000
        self.spent[caller.id] = self.spent.get(caller.id, 0) + taken
        self.answered[caller.id] = self.answered.get(caller.id, 0) + 1
        self.budgets.settle(caller, ("processor",), "m", Cost(requests=0, microseconds=taken), 0.0)
        return True


@pytest.fixture
def front():
    with asyncio.Runner() as runner:
        front = Front(runner.get_loop())
        yield front
        runner.run(front.budgets.close())


def test_a_slow_text_attack_through_the_budget_runs_dry(front):
    """The attack searches through the front, and floods it with the costliest text that it found."""
    ordinary = messages(30)[0]
    task = CostTask(ordinary, 200, 600, most_seconds=0.05)
    found = play_cost(lambda text: front.ask(ATTACKER, text), SlowTexts(), task)
    text = found.item or ordinary[0]
    answered = [front.ask(ATTACKER, text) for _ in range(500)]
    assert not any(answered[-400:]), "the flood is over"
    spent = front.spent[ATTACKER.id]
    # Beyond the budget goes at most one request of the search, whose cost nobody could know before.
    assert LIMIT / 2 < spent < LIMIT + 400_000
    assert all(front.ask(USER, each) for each in ordinary[:30]), "others have their own budget"


def test_without_costly_requests_the_same_budget_lasts_long(front):
    ordinary = messages(30)[0]
    answered = sum(front.ask(USER, ordinary[number % 30]) for number in range(2000))
    assert answered == 2000
    assert front.spent[USER.id] < LIMIT
