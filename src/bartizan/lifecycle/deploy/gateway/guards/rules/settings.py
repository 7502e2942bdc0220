"""What the configuration says of rules: ``[[guard]]`` with ``use = "rules"``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bartizan.lifecycle.deploy.gateway.guards.rules.tree import MOST_ROWS, TreeRow

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Expression = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class RuleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[guard.rule]]``: if ``when``, then ``then``."""

    name: Name
    when: Expression
    then: Literal["refuse", "hold", "coarsen", "flag", "answer"]
    answer: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Class that is answered instead of the model's, with ``then = "answer"``."""
    shadow: bool = False
    """Whether it is only recorded when it is met."""


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[guard.fusion.source]]``: a signal, read as an opinion about whether the answer is right."""

    name: Name
    signal: Expression
    """A number, such as ``confidence``, ``outliers.distance`` or ``tree.agrees``."""
    bad: float = 0.0
    """Value at which it speaks against the answer as much as it can."""
    good: float = 1.0
    """Value at which it speaks for it as much as it can; may be the smaller one."""
    certainty: Share = 0.9
    """How much of an opinion it is at most; the rest stays uncertain."""
    doubt: Literal["wrong", "unknown"] = "wrong"
    """Whether a bad value says that the answer is wrong, or that nothing is known about it."""
    trust: Share = 1.0
    """How far the source itself is trusted; what is lacking becomes uncertainty."""


class FusionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[guard.fusion]``: several signals as one opinion, ``opinion.uncertainty`` and its like."""

    source: Annotated[tuple[SourceSettings, ...], msgspec.Meta(min_length=1, max_length=16)]
    method: Literal["cumulative", "averaging"] = "averaging"
    """``cumulative`` only for sources that rest on different evidence: it grows surer with every one."""
    base: Share = 0.5
    """Probability that an answer is right, when nothing is known of it."""


class TreeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[guard.tree]``: a decision tree that answers beside the model."""

    rows: Annotated[tuple[TreeRow, ...], msgspec.Meta(max_length=MOST_ROWS)] = ()
    """As written by hand; empty takes the tree that the check ``gateway.rules`` fitted."""
    disagrees: Literal["refuse", "hold", "coarsen", "flag", "nothing"] = "flag"
    """What follows when tree and model answer differently; ``nothing`` leaves it to rules with ``tree.agrees``."""


class RulesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules, the tree and the fusion of one guard."""

    rule: Annotated[tuple[RuleSettings, ...], msgspec.Meta(max_length=200)] = ()
    fusion: FusionSettings | None = None
    tree: TreeSettings | None = None
    impossible: Literal["refuse", "hold"] = "refuse"
    """What follows an answer that no model can mean: scores that are no probabilities, a class that there is not."""
    bound: Share | None = None
    """Greatest uncertainty of an answer that no rule has to cover. A model that was measured to be less certain is
    not served without such a rule, and an answer beyond it that no rule has met goes the way of ``beyond``."""
    beyond: Literal["refuse", "hold", "coarsen"] = "hold"


__all__ = ["FusionSettings", "RuleSettings", "RulesSettings", "SourceSettings", "TreeSettings"]
