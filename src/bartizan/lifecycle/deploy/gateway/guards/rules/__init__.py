"""The guard "rules": rules, a decision tree and fused opinions outside the model."""

from bartizan.lifecycle.deploy.gateway.guards.rules.guard import RulesGuard
from bartizan.lifecycle.deploy.gateway.guards.rules.settings import RulesSettings

__all__ = ["RulesGuard", "RulesSettings"]
