"""Budgets: how much whoever asks may ask, learn and cost, counted once for all replicas."""

from __future__ import annotations

from bartizan.lifecycle.deploy.gateway.budgets.leased import LeasedBudgets
from bartizan.lifecycle.deploy.gateway.budgets.refusal import too_much
from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.lifecycle.deploy.gateway.budgets.slowing import Slowing, SlowingSettings

__all__ = ["BudgetSettings", "LeasedBudgets", "Slowing", "SlowingSettings", "too_much"]
