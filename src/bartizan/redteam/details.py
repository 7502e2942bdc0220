"""What each detail of output is worth to an adversary: the same attacks against one model that tells more and less.

The adversary knows the tailoring. What is cut off is completed (``targets.tailored``), noise is averaged over rows that
hardly differ and paid for in queries, own models are tailored alike before they are compared, and of all attacks that
apply at a detail, those from labels alone included, the one that finds most counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.predicates import Metric
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.nes import NES
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.extraction.active import ActiveExtraction, ActiveExtractionFromLabels
from bartizan.redteam.attacks.extraction.equation_solving import EquationSolving
from bartizan.redteam.attacks.extraction.knockoff import Copycat, Knockoff
from bartizan.redteam.attacks.privacy.attribute import AttributeByLabels, AttributeByScores
from bartizan.redteam.attacks.privacy.membership import Membership, MembershipFromLabels
from bartizan.redteam.attacks.privacy.population import Population, PopulationFromLabels
from bartizan.redteam.attribute import AttributeInference
from bartizan.redteam.check import stream
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.extraction import Extraction
from bartizan.redteam.family import Family, Material, Measurement
from bartizan.redteam.population import PopulationMembership
from bartizan.redteam.privacy import Privacy
from bartizan.redteam.text import TextAttack, play_text
from bartizan.redteam.text_check import TextMaterial, measured_texts, text_case
from bartizan.targets.detail import KINDS, Detail
from bartizan.targets.protocol import Access, Target
from bartizan.targets.tailored import Averaged, Tailored, TailoredText
from bartizan.targets.text import TextTarget

AVERAGED = 8
"""Rows that hardly differ over which an adversary averages noise."""
NEAR = 1e-6
"""How far those are apart, in units of each feature's scale."""
LADDER = (
    Detail("label"),
    Detail("top-k"),
    Detail("buckets"),
    Detail("graphic"),
    Detail("noisy-scores", noise=2.0),
    Detail("noisy-scores"),
    Detail("confidence"),
    Detail("rounded-scores", decimals=1),
    Detail("rounded-scores"),
    Detail("scores"),
)
"""Details that are compared, from the least to the most."""
EACH_KIND = tuple(detail for detail in LADDER if detail in {Detail(kind) for kind in KINDS})
"""One of each kind, as it is unless something else is configured."""
EXACT = frozenset({"extraction.equation-solving"})
"""Attacks that rounding by a digit stops; they then do what others do better."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Aim:
    """What adversaries want, and the attacks by which they try."""

    name: str
    family: Family
    attacks: tuple[Attack, ...]
    metric: str
    """Of the family; the higher, the more was found."""
    chance: float = 0.0
    """What the metric is when nothing is found."""


AIMS = (
    Aim("evasion", Evasion(), (Square(), NES(), HopSkipJump()), "attack_success"),
    Aim("membership", Privacy(), (Membership(), MembershipFromLabels()), "pipeline_auc", 0.5),
    Aim("membership without training", PopulationMembership(), (Population(), PopulationFromLabels()), "auc", 0.5),
    Aim("attribute", AttributeInference(), (AttributeByScores(), AttributeByLabels()), "leak"),
    Aim(
        "extraction",
        Extraction(),
        (ActiveExtraction(), EquationSolving(), ActiveExtractionFromLabels()),
        "fidelity_near_boundary",
    ),
    Aim("extraction without own rows", Extraction(), (Knockoff(), Copycat()), "fidelity"),
)
"""What is tried on rows of numbers."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What an adversary got at one detail."""

    aim: str
    detail: Detail
    attack: str
    """The one that found most."""
    averaged: bool
    """Whether noise was averaged."""
    value: Metric
    measured: Measurement = field(repr=False)


def gains(
    target: Target,
    material: Material,
    *,
    details: Sequence[Detail] = LADDER,
    aims: Sequence[Aim] = AIMS,
    seed: int = 0,
    tell: Tell = lambda _: None,
) -> tuple[Gain, ...]:
    """Play every aim at every detail. What does not apply to the model or its data at all is left out.

    Args:
        target: answers everything that a detail may show.
        material: as for campaigns; its settings bound what attacks may spend.
        details: each is compared.
        aims: what is tried.
        seed: of all attacks.
        tell: hears what is being played.
    """
    bench = _Bench(target, material, seed, tell)
    return tuple(found for aim in aims for detail in details if (found := bench.most(aim, detail)) is not None)


@dataclass(frozen=True, slots=True)
class _Bench:
    target: Target
    material: Material
    seed: int
    tell: Tell
    known: dict[tuple[str, str, str, bool], Measurement | None] = field(default_factory=dict)
    """What attacks found, by aim, attack, what they were told, and whether noise was averaged."""

    def most(self, aim: Aim, detail: Detail) -> Gain | None:
        """The attack that finds most at a detail."""
        found: list[Gain] = []
        for attack in aim.attacks:
            for averaged in (False, True) if detail.kind == "noisy-scores" else (False,):
                if averaged and Access.SCORES not in attack.needs:
                    continue
                measured = self._measured(aim, attack, detail, averaged=averaged)
                if measured is not None and aim.metric in measured.metrics:
                    value = measured.metrics[aim.metric]
                    found.append(Gain(aim.name, detail, attack.name, averaged, value, measured))
        return max(found, key=lambda gain: gain.value.value, default=None)

    def _measured(self, aim: Aim, attack: Attack, detail: Detail, *, averaged: bool) -> Measurement | None:
        shown = Tailored(self.target, detail)
        if not attack.needs <= shown.offers:
            return None
        alone = Access.SCORES not in attack.needs
        if attack.name in EXACT and detail.kind != "scores":
            return None
        told = "labels" if alone else _told(detail, self.target.classes)
        if told == "labels" and not alone:
            return None  # its scores would be the label once more
        place = (aim.name, attack.name, told, averaged)
        if place not in self.known:
            self.tell(f"{aim.name}: {attack.name}, {told}{', averaged' if averaged else ''}")
            self.known[place] = self._play(aim, attack, shown, averaged=averaged)
        return self.known[place]

    def _play(self, aim: Aim, attack: Attack, shown: Tailored, *, averaged: bool) -> Measurement | None:
        """One attack; None when it does not fit these data."""
        target: Target = shown
        settings = self.material.settings
        if averaged:
            target = Averaged(shown, AVERAGED, reach=NEAR * self.material.space.scale)
            settings = msgspec.structs.replace(
                settings,
                query_budget=max(settings.query_budget // AVERAGED, 1),
                extraction_budget=max(settings.extraction_budget // AVERAGED, 1),
            )
        try:
            return play(target, replace(self.material, settings=settings), aim.family, attack, seed=self.seed)
        except (ArtefactError, WorkError) as error:
            self.tell(f"{attack.name} does not apply: {error.message}")
            return None


def _told(detail: Detail, classes: int) -> str:
    """What an adversary is told; details that tell the same have the same words."""
    if detail.kind == "top-k" and detail.named(classes) == 1:
        return "labels"
    return f"scores in {detail.units} units" if detail.kind in {"graphic", "rounded-scores"} else detail.name


def play(target: Target, material: Material, family: Family, attack: Attack, *, seed: int) -> Measurement:
    """Run one attack as a campaign would, and let its family measure what came of it."""
    case = family.case(attack, material, stream(seed, family.name))
    search = attack.search(case.task, stream(seed, attack.name, "search"))
    run = Run(search, budget=case.budget, needs=attack.needs, watch=case.watch)
    engine = Engine(target)
    engine.drive([run], note=attack.name)
    measuring = run.measuring(family.measure(case, run, stream(seed, attack.name, "measure")))
    engine.drive([measuring], note="measuring")
    measured: Measurement = measuring.candidates
    return measured


def text_gains(
    target: TextTarget,
    material: TextMaterial,
    attack: TextAttack,
    *,
    details: Sequence[Detail] = LADDER,
    seed: int = 0,
    tell: Tell = lambda _: None,
) -> tuple[Gain, ...]:
    """One attack on texts at every detail: changes that get a text another class."""
    found = []
    for detail in details:
        tell(f"evasion: {attack.name}, {detail.name}")
        case = text_case(attack, material, stream(seed, "text"))
        evaded = play_text(TailoredText(target, detail), attack, case.task, seed=seed)
        measured = measured_texts(evaded, material, case.truth, seed)
        value = measured.metrics["attack_success"]
        found.append(Gain("evasion", detail, attack.name, averaged=False, value=value, measured=measured))
    return tuple(found)


def table(found: Sequence[Gain]) -> list[Mapping[str, Any]]:
    """One plain record for each aim and detail."""
    return [
        {
            "aim": gain.aim,
            "detail": gain.detail.name,
            "attack": gain.attack,
            "averaged": gain.averaged,
            "value": gain.value.value,
            "low": gain.value.low,
            "high": gain.value.high,
            "n": gain.value.n,
        }
        for gain in found
    ]


__all__ = ["AIMS", "AVERAGED", "EACH_KIND", "LADDER", "Aim", "Gain", "gains", "play", "table", "text_gains"]
