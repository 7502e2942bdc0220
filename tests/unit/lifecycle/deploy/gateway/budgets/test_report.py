"""One count for enforcement and report."""

from __future__ import annotations

import asyncio

import pytest

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.budget import Cost, Denied
from bartizan.lifecycle.deploy.gateway.budgets import BudgetSettings, LeasedBudgets
from bartizan.lifecycle.deploy.gateway.budgets.report import reset, usage
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.stores.shared import open_state

ANA = Caller(id="key:ana", role="user", method="key", attributes={"organisation": "acme ltd"})
BUDGETS = {
    "daily": BudgetSettings(limit=10, window="1d"),
    "firm": BudgetSettings(limit=100, window="30d", unit="rows", per="attribute:organisation"),
    "pace": BudgetSettings(limit=60, window="1min", burst=5),
}


@pytest.fixture(params=["memory", "file", "valkey"])
def address(request, tmp_path):
    match request.param:
        case "memory":
            return "memory://"
        case "file":
            return str(tmp_path / "state.db")
        case _:
            return request.getfixturevalue("valkey_server").url


def test_what_is_reported_is_what_is_enforced(address):
    async def work():
        state = open_state(address)
        budgets = LeasedBudgets(BUDGETS, state)
        said = [await ask(budgets) for _ in range(5)]
        denied = await ask(budgets)
        await budgets.close()
        found = {each.budget: each for each in await usage(state, BUDGETS)}
        cleared = await reset(state, BUDGETS, "pace", "key:ana")
        with pytest.raises(InputError, match="counts nothing"):
            await reset(state, BUDGETS, "pace", "key:ana")
        again = LeasedBudgets(BUDGETS, state)
        after = [await ask(again) for _ in range(5)]
        await again.close()
        everything = await reset(state, BUDGETS, "daily")
        left = await usage(state, BUDGETS, "daily")
        await state.close()
        return said, denied, found, cleared, after, everything, left

    async def ask(budgets):
        reserved = budgets.reserve(ANA, ("daily", "firm", "pace"), "m", Cost(rows=3), 0.0)
        return reserved if reserved is None or isinstance(reserved, Denied) else await reserved

    said, denied, found, cleared, after, everything, left = asyncio.run(work())
    assert said == [None] * 5
    assert denied.budget == "pace"
    assert (found["daily"].spent, found["daily"].left, found["daily"].subject) == (5, 5, "key:ana")
    assert found["firm"].spent == 15
    assert found["firm"].subject.startswith("sha256:"), "no name of a customer in keys"
    assert found["pace"].spent == 5
    assert found["daily"].resets > 86_000
    assert cleared == 1
    assert after == [None] * 5
    assert (everything, left) == (1, [])


def test_budgets_that_are_not_configured_are_refused():
    async def work():
        state = open_state("memory:")
        with pytest.raises(InputError, match="no budget is called"):
            await usage(state, BUDGETS, "typo")
        with pytest.raises(InputError, match="no budget is called"):
            await reset(state, BUDGETS, "typo")

    asyncio.run(work())
