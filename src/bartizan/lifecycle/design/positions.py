"""What each adversary position holds by design: the profile, and what the declaration makes of it.

A profile gives the rights of a typical system. The declaration's own facts then move rights by the
rules below, and the rights it names outright under ``exposure.positions`` come on top: those are
never taken away, so a rule can only make a profile fit, not overrule what somebody wrote down.

=====================  =======================================================================
declared               rights
=====================  =======================================================================
interface              ``public``: outsiders and users may query. ``partners``: users may,
                       outsiders not. ``internal``: whoever may query is staff, so the right
                       moves to insiders. ``offline``: the same, and no network reaches the host.
output                 whoever may query or sees labels gets what is declared. Anything finer than
                       the label counts as scores: rounding and cutting off make score attacks
                       dearer, they do not take the scores away.
continual learning     on: users, and whoever may query, write into the feedback loop; insiders
                       run the updating job. Off: nobody does.
base model             none declared: nobody can poison one. Declared: its supplier can.
trust of datasets      ``partly``: contributors can write at the source. ``untrusted``: anybody can.
components             a component at an access point outside our walls gives the rights there to
                       the positions that stand there (``NATURAL_HOLDERS``).
flows                  data that leaves the site is seen by the supplier who receives it.
=====================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from bartizan.catalogue.attackmap import Amendment
from bartizan.catalogue.graph import INTRUDER
from bartizan.catalogue.load import Catalogue
from bartizan.core.errors import InputError
from bartizan.core.system import Declaration

QUERY = "serving-input.query"
LABEL = "serving-output.label"
SCORES = "serving-output.scores"
EXPLAIN = "serving-output.explain"
TEXT = "serving-output.text"
FEEDBACK = "feedback-loop.write"
UPDATE = "cl-pipeline.exec"
NETWORK = "serving-host.network"
BASE_MODEL = "base-model.write"
SOURCE = "data-source.write"
PROVIDER = "hosted-model.observe"

INSIDER = "insider"
NATURAL_HOLDERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "edge-device": {"user": ("edge-device.physical",), "finder": ("edge-device.physical",)},
    "physical-environment": {"outsider": ("physical-environment.write",)},
    "hosted-model": {"supplier": ("hosted-model.observe", "hosted-model.write")},
    "federated-clients": {"contributor": ("federated-clients.read", "federated-clients.write")},
    "prompt-context": {"contributor": ("prompt-context.write",)},
    "agent-tool-supply": {"supplier": ("agent-tool-supply.write",)},
}
"""Access point to the positions that hold rights there as soon as a system has it."""


class Positions(msgspec.Struct, frozen=True, kw_only=True):
    """What every position holds, and how the declaration came to that."""

    rights: dict[str, tuple[str, ...]]
    """Position to its tokens, positions in the order of the catalogue, tokens sorted."""
    amendments: tuple[Amendment, ...]
    """What was changed against the profile, in the order of the rules."""
    contradictions: tuple[Amendment, ...]
    """Rights that a rule would have removed, had the declaration not named them outright."""


class _Drawing:
    """Rights while the rules are applied, with a note of every change."""

    def __init__(self, rights: Mapping[str, Iterable[str]], named: Mapping[str, Iterable[str]]) -> None:
        self.rights = {position: set(tokens) for position, tokens in rights.items()}
        self.named = {position: set(tokens) for position, tokens in named.items()}
        self.amendments: list[Amendment] = []
        self.contradictions: list[Amendment] = []

    def holders(self, *tokens: str) -> list[str]:
        """Positions that hold any of these tokens."""
        return [position for position, held in self.rights.items() if held & set(tokens)]

    def give(self, position: str, tokens: Iterable[str], because: str) -> None:
        """Add rights to a position."""
        added = set(tokens) - self.rights[position]
        if added:
            self.rights[position] |= added
            self.amendments.append(Amendment(position=position, added=tuple(sorted(added)), because=because))

    def take(self, position: str, tokens: Iterable[str], because: str) -> None:
        """Remove rights that come from the profile; note those that were named outright."""
        held = set(tokens) & self.rights[position]
        kept = held & self.named.get(position, set())
        if kept:
            self.contradictions.append(Amendment(position=position, removed=tuple(sorted(kept)), because=because))
        if held - kept:
            self.rights[position] -= held - kept
            self.amendments.append(Amendment(position=position, removed=tuple(sorted(held - kept)), because=because))

    def take_from_all(self, tokens: Iterable[str], because: str, but: tuple[str, ...] = ()) -> None:
        """Remove rights from every position except ``but``."""
        wanted = tuple(tokens)
        for position in self.rights:
            if position not in but:
                self.take(position, wanted, because)


def positions_of(
    declaration: Declaration, catalogue: Catalogue, beyond: Mapping[str, Iterable[str]] | None = None
) -> Positions:
    """Rights of every position of ``declaration``.

    ``beyond`` gives further tokens, knowledge included, for asking what a stronger adversary could do.

    Raises:
        InputError: a profile, position or token is not in the catalogue.
    """
    exposure = declaration.exposure
    named = {position: set(tokens) for position, tokens in exposure.positions.items()}
    for position, tokens in (beyond or {}).items():
        named.setdefault(position, set()).update(tokens)
    profile = catalogue.profile(exposure.profile).positions if exposure.profile else {}
    check_positions(catalogue, (*named, *exposure.consider))
    _check_tokens(catalogue, named)
    order = [position for position in catalogue.entries.meta.positions if position != INTRUDER]
    start = {position: set(profile.get(position, ())) | named.get(position, set()) for position in order}
    drawing = _Drawing(start, named)
    for rule in RULES:
        rule(declaration, drawing)
    return Positions(
        rights={position: tuple(sorted(drawing.rights[position])) for position in order},
        amendments=tuple(drawing.amendments),
        contradictions=tuple(drawing.contradictions),
    )


def _interface(declaration: Declaration, drawing: _Drawing) -> None:
    """Who may query."""
    kind = declaration.exposure.interface
    because = f"the interface is {kind}"
    if kind in {"public", "partners"}:
        drawing.give("user", (QUERY,), because)
        if kind == "public":
            drawing.give("outsider", (QUERY,), because)
        else:
            drawing.take("outsider", (QUERY,), because)
        return
    drawing.take_from_all((QUERY,), because, but=(INSIDER,))
    drawing.give(INSIDER, (QUERY,), f"{because}: whoever may query is staff")
    if kind == "offline":
        drawing.take_from_all((NETWORK,), because, but=(INSIDER,))


def _output(declaration: Declaration, drawing: _Drawing) -> None:
    """What callers get to see."""
    detail = declaration.exposure.output
    because = f"the output is {detail}"
    finer = detail != "label"
    for position in drawing.holders(QUERY, LABEL, SCORES):
        if TEXT not in drawing.rights[position]:
            drawing.give(position, (LABEL, SCORES) if finer else (LABEL,), because)
    if not finer:
        drawing.take_from_all((SCORES, EXPLAIN), because, but=(INSIDER,))


def _continual_learning(declaration: Declaration, drawing: _Drawing) -> None:
    """Who writes into what the model learns from next."""
    if declaration.exposure.continual_learning:
        because = "the model keeps learning in operation"
        for position in dict.fromkeys(("user", *drawing.holders(QUERY))):
            drawing.give(position, (FEEDBACK,), because)
        drawing.give(INSIDER, (UPDATE,), because)
    else:
        drawing.take_from_all((FEEDBACK, UPDATE), "the model does not learn in operation")


def _base_model(declaration: Declaration, drawing: _Drawing) -> None:
    """Who can reach a parent model."""
    parents = sorted({model.base_model for model in declaration.model if model.base_model.strip()})
    if parents:
        drawing.give("supplier", (BASE_MODEL,), f"base model {', '.join(parents)}")
    else:
        drawing.take_from_all((BASE_MODEL,), "no base model is declared")


def _data_trust(declaration: Declaration, drawing: _Drawing) -> None:
    """Who can write where data comes from."""
    for dataset in declaration.dataset:
        because = f"dataset {dataset.name} comes from a source of trust {dataset.trust!r}"
        if dataset.trust != "trusted":
            drawing.give("contributor", (SOURCE,), because)
        if dataset.trust == "untrusted":
            drawing.give("outsider", (SOURCE,), because)


def _components(declaration: Declaration, drawing: _Drawing) -> None:
    """Who stands at the access points outside our walls."""
    for component in declaration.component:
        for point in component.access_points:
            for position, tokens in NATURAL_HOLDERS.get(point, {}).items():
                drawing.give(position, tokens, f"component {component.name} lies at {point}")


def _flows(declaration: Declaration, drawing: _Drawing) -> None:
    """Who sees what leaves the site."""
    for flow in declaration.flow:
        if flow.leaves_site:
            drawing.give("supplier", (PROVIDER,), f"{flow.carries} leaves the site from {flow.source} to {flow.target}")


RULES: tuple[Callable[[Declaration, _Drawing], None], ...] = (
    _interface,
    _output,
    _continual_learning,
    _base_model,
    _data_trust,
    _components,
    _flows,
)
"""Applied in this order; a later rule sees what an earlier one did."""


def check_positions(catalogue: Catalogue, positions: Iterable[str]) -> None:
    """Raises InputError for a position that nobody can take."""
    known = catalogue.entries.meta.positions.keys() - {INTRUDER}
    strange = sorted(set(positions) - known)
    if strange:
        raise InputError(f"no adversary position {strange[0][:80]!r}", remedy=f"use one of {', '.join(sorted(known))}.")


def _check_tokens(catalogue: Catalogue, named: Mapping[str, Iterable[str]]) -> None:
    """Raises InputError for a token that nobody can hold by design."""
    allowed = catalogue.tokens - catalogue.entries.meta.gains.keys()
    for position, tokens in sorted(named.items()):
        unknown = sorted(set(tokens) - allowed)
        if unknown:
            raise InputError(
                f"position {position} cannot hold {unknown[0][:80]!r}",
                remedy="name a right at an access point (serving-input.query) or knowledge (know.architecture).",
            )
