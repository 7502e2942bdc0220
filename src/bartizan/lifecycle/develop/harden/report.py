"""What hardening came to: each defence against the undefended model, in numbers and in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.comparison import Comparison, Entry
from bartizan.lifecycle.develop.choose.paired import Pair, holm
from bartizan.lifecycle.develop.choose.recommend import ahead, pair_of
from bartizan.lifecycle.develop.harden.defence import Defence

TRADED = {
    "accuracy": "accuracy",
    "robust_accuracy": "robust accuracy",
    "membership_tpr_at_1_percent_fpr": "members found at 1 % false alarms",
    "linked": "records linked after a leak",
}
"""Shares whose change is told in the sentence."""
COUNTED = {
    "parameters": "numbers learnt",
    "microseconds_in_batch": "microseconds an answer",
    "epsilon_lower_bound": "epsilon seen",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One defence."""

    defence: str
    name: str
    """Of its entry in the comparison."""
    title: str
    kind: str
    credit: bool
    """Whether it may count as preventing evasion, if the numbers say so."""
    references: tuple[str, ...]
    settings: dict[str, Any]
    words: str
    accuracy: Pair
    """Undefended against defended, on the same rows."""
    robustness: Pair | None
    helps: tuple[str, ...]
    """What it surely improves."""
    costs: tuple[str, ...]
    """What it surely makes worse."""


class Hardening(msgspec.Struct, frozen=True, kw_only=True):
    """All defences of one base."""

    comparison: Comparison
    """The undefended model first."""
    rows: tuple[Row, ...]
    not_applied: dict[str, str]
    """Defence to the reason why it does not apply."""


def row_of(comparison: Comparison, defence: Defence) -> Row:
    """Weigh one defence."""
    before = comparison.entries[0]
    after = comparison.entry(f"{before.name}+{defence.name}")
    robust = against(comparison.robust_pairs, before.name)
    accuracy = pair_of(against(comparison.pairs, before.name), before.name, after.name)
    robustness = pair_of(robust, before.name, after.name) if robust else None
    helps, costs = _changes(before, after, accuracy, robustness)
    return Row(
        defence=defence.name,
        name=after.name,
        title=defence.title,
        kind=defence.kind,
        credit=defence.credit,
        references=defence.references,
        settings=defence.settings(),
        words=_words(before, after, defence, helps, costs),
        accuracy=accuracy,
        robustness=robustness,
        helps=tuple(helps),
        costs=tuple(costs),
    )


def against(pairs: Sequence[Pair], base: str) -> tuple[Pair, ...]:
    """Only the pairs with the undefended model: the correction counts just these."""
    with_base = [pair for pair in pairs if base in {pair.first, pair.second}]
    adjusted = holm([pair.p for pair in with_base])
    return tuple(
        msgspec.structs.replace(pair, p_adjusted=float(f"{chance:.4g}"))
        for pair, chance in zip(with_base, adjusted, strict=True)
    )


def _changes(before: Entry, after: Entry, accuracy: Pair, robustness: Pair | None) -> tuple[list[str], list[str]]:
    """What surely changed: by paired tests where rows are shared, else by intervals that do not touch."""
    helps, costs = list[str](), list[str]()
    for name, pair in (("accuracy", accuracy), ("robust accuracy", robustness)):
        if pair is not None and ahead(pair, after.name):
            helps.append(name)
        elif pair is not None and ahead(pair, before.name):
            costs.append(name)
    for metric in ("membership_tpr_at_1_percent_fpr", "linked"):
        old, new = before.metrics.get(metric), after.metrics.get(metric)
        if old is not None and new is not None and new.high < old.low:
            helps.append(TRADED[metric])
        elif old is not None and new is not None and new.low > old.high:
            costs.append(TRADED[metric])
    return helps, costs


def _words(before: Entry, after: Entry, defence: Defence, helps: list[str], costs: list[str]) -> str:
    told = [
        f"{words} {_share(before.metrics[name])} to {_share(after.metrics[name])}"
        for name, words in TRADED.items()
        if name in before.metrics and name in after.metrics and _worth_telling(name, before, after)
    ]
    told += [
        f"{words} {before.metrics[name].value:,.3g} to {after.metrics[name].value:,.3g}"
        for name, words in COUNTED.items()
        if name in before.metrics and name in after.metrics
    ]
    sure = f"Surely better: {', '.join(helps)}." if helps else "Nothing is surely better."
    price = f" Surely worse: {', '.join(costs)}." if costs else ""
    return f"{defence.title}: {'; '.join(told)}. {sure}{price}{_broken(after)}{_no_credit(after, defence)}"


def _broken(after: Entry) -> str:
    """A promise of privacy that the audit refutes."""
    part = after.parts.get("audit")
    if part is None or part.missing or part.details.get("kept") is not False:
        return ""
    return f" Its promise of epsilon {part.details['promised']['epsilon']:g} is refuted by the audit."


def _worth_telling(name: str, before: Entry, after: Entry) -> bool:
    """Linkage is told only where a defence touches the data."""
    return name != "linked" or before.metrics[name].value != after.metrics[name].value


def _no_credit(after: Entry, defence: Defence) -> str:
    if defence.credit:
        return ""
    transfer = after.metrics.get("member_transfer")
    share = f": {_share(transfer)} of rows made for one member fool another one" if transfer else ""
    return f" It is not credited with preventing evasion{share}."


def _share(metric: Metric) -> str:
    return f"{metric.value:.1%} ({metric.low:.1%} to {metric.high:.1%})"
