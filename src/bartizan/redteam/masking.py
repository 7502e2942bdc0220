"""Gradient masking: whether the gradients of a model can be trusted to judge how robust it is.

A defence can make gradients useless without making the model any more robust: rounded inputs, answers
so sure that their slopes vanish, a surface that training bent just where one step leads. Attacks by
gradient then fail, and a claim of robustness that rests on them is false (Athalye et al. 2018).

What gives it away are results that cannot be if gradients are any good (Athalye et al. 2018, section 3.1; Carlini et
al. 2019): on the same samples, an adversary without gradients, with one step instead of many, or with
another model, breaks clearly more than the one with many steps along gradients; part of a step breaks
what the whole step does not; even without any bound some samples stand; slopes are exactly 0. Each
is tested, paired on the samples, with Holm's correction.

Attacks by gradients that are merely too weak show the same on a smaller scale: with few features, random
search breaks a few points more than forty steps do, on models whose gradients are sound. That is a
verdict of its own.

References:
    1. Athalye, Carlini, Wagner: Obfuscated gradients give a false sense of security. ICML 2018, arXiv:1802.00420
    2. Carlini et al.: On evaluating adversarial robustness. 2019, arXiv:1902.06705
    3. Kim, Lee, Lee: Understanding catastrophic overfitting in single-step adversarial training. AAAI 2021,
       arXiv:2010.01799
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import WorkError
from bartizan.redteam.attack import Attack, Gradient, Query, Request, Search
from bartizan.redteam.attacks.evasion.fgsm import FGSM
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.evasion.transfer import COPIED_ROWS, Transfer
from bartizan.redteam.ball import EUCLID, box
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import UNLIMITED, Budget
from bartizan.redteam.planning import holm, paired
from bartizan.redteam.play import Evaded, play
from bartizan.redteam.statistics import CONFIDENCE, Estimate, proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import is_picture
from bartizan.targets.protocol import Access, Loss, Rows, Target
from bartizan.targets.tailored import FULL, LABELS, Tailored

Mask = NDArray[np.bool_]

QUERIES = 1000
"""Queries for a sample that the adversary without gradients may ask."""
OWNED = 500
"""Own rows, at most, around which the model is asked when it is copied for a transfer."""
COPY = "transfer from a copy"
BY_HAND = (
    "transfer from its differentiable approximation: what cannot be differentiated has to be replaced by hand "
    "(bartizan.adapters.torch.StraightThrough) and given to the diagnosis"
)
"""Why one sign is not looked for where nobody gave ``others``."""
STANDING, FLAT = 0.05, 0.05
"""Shares of samples that may stand without any bound, or have a slope of exactly 0, before it is a sign."""
UNSURE = 0.1
"""By how much a rival may do better on a model with sound gradients; measured there: up to 0.06."""
USUAL = 0.6
"""By how much many steps may break more than the claimed attack: against a single step that is usual up to here."""
MANY_STEPS = 100
SHORTER = (0.25, 0.5, 0.75)
"""Parts of a step that are tried beside the whole."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that gives masking away, and whether it is there."""

    name: str
    """``gradient-free``, ``one step``, ``margin``, ``more steps``, ``shorter steps``, ``without a bound``,
    ``slopes of 0``, ``transfer from ...``."""
    says: str
    """What was seen, in one sentence."""
    excess: Estimate
    """Share of the samples that fall to it less those that fall to the attack by gradients, or that it holds of."""
    p_value: float
    """Of as much as this with sound gradients; one-sided, exact, not corrected."""
    weakness: float = 1.0
    """Of any excess at all, if the attack by gradients is as strong as it should be."""
    seen: bool = False
    """Whether it is significant, corrected for all signs that were looked for."""
    doubt: bool = False
    """Whether ``weakness`` is, corrected likewise."""


class Verdict(enum.StrEnum):
    """What can be said about an evaluation by gradients."""

    MASKED = "masked"
    """Gradients mislead: nothing that rests on them counts."""
    TOO_WEAK = "too weak"
    """Gradients are sound as far as one sees, but the attack that used them missed what weaker adversaries found."""
    SOUND = "sound"
    """No sign of either."""
    STOPPED = "no gradients"
    """The model stops gradients, so that nothing can be claimed from them."""
    NOTHING = "nothing to say"
    """The model is constant, or wrong about every sample."""


@dataclass(frozen=True, slots=True)
class Masking:
    """A verdict about the gradients of a model."""

    verdict: Verdict
    summary: str
    """One or two sentences; begin with the verdict."""
    signs: tuple[Sign, ...]
    robust_by_gradients: Estimate
    """What an evaluation by gradients would claim."""
    robust_to_all: Estimate
    """What is left of it when everything that was tried here is counted: an upper bound."""
    missing: tuple[str, ...] = ()
    """Signs that could not be looked for, and why."""

    @property
    def masked(self) -> bool:
        """Whether gradients mislead."""
        return self.verdict is Verdict.MASKED

    def refuse(self) -> None:
        """Stop a claim of robustness that rests on an attack by gradients.

        Raises:
            WorkError: the gradients are masked, or the attack was too weak.
        """
        if self.verdict is Verdict.MASKED:
            raise WorkError(
                self.summary,
                remedy="attack it without gradients (evasion.square), through its differentiable approximation, or "
                "from another model, and claim no more than what then stands.",
            )
        if self.verdict is Verdict.TOO_WEAK:
            raise WorkError(
                self.summary, remedy="evaluate it with evasion.autoattack, or with more steps and restarts."
            )


def diagnose(
    target: Target,
    task: EvasionTask,
    *,
    claimed: Attack | None = None,
    others: Mapping[str, Target] | None = None,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Masking:
    """Look for signs that gradients of ``target`` mislead.

    Args:
        target: offers gradients and scores.
        task: rows to judge by, with bound and norm; a few hundred show small effects too.
        claimed: the attack by gradients whose result would be claimed; PGD with 40 steps if none is named.
        others: models to attack in the target's place and carry the rows over, beside the copy that is trained
            here: the target itself with what cannot be differentiated approximated, or another model.
        seed: of all attacks.
        confidence: of the verdict and all intervals.

    Raises:
        WorkError: the target gives no gradients, or cannot answer.
    """
    return diagnose_each(target, task, [claimed or PGD()], others=others, seed=seed, confidence=confidence)[0]


def diagnose_each(
    target: Target,
    task: EvasionTask,
    claimed: Sequence[Attack],
    *,
    others: Mapping[str, Target] | None = None,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[Masking, ...]:
    """The same for several attacks, one verdict for each; what they are compared with is run once.

    Raises:
        WorkError: the target gives no gradients, or cannot answer.
    """
    if Access.GRADIENTS not in target.offers:
        raise WorkError(f"{target.name} gives no gradients that could be judged", remedy="attack it by queries.")
    whites = [play(target, attack, task, seed=seed) for attack in claimed]
    right = np.asarray(whites[0].clean == task.labels)
    constant = _is_constant(target, task, seed)
    if not right.any() or constant:
        return tuple(_nothing_to_say(white, right, constant=constant) for white in whites)
    compared = _Comparison(target, task, right, seed, confidence).all(others or {})
    return tuple(_Diagnosis(white, right, confidence).verdict(compared) for white in whites)


@dataclass(frozen=True, slots=True)
class _Compared:
    """What attacks by gradients are judged by; the same for each of them."""

    rivals: tuple[tuple[str, Evaded, float], ...]
    """Adversaries that should not do better: name, what they found, and how much better is still no sign."""
    signs: tuple[Sign, ...]
    """What the model alone shows."""
    stands: Mask
    """``(samples,)``: what stands under the attacks behind ``signs``."""
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Runs what attacks by gradients are compared with."""

    target: Target
    task: EvasionTask
    right: Mask
    seed: int
    confidence: float

    def all(self, others: Mapping[str, Target]) -> _Compared:
        rivals = [(name, play(self.target, attack, self.task, seed=self.seed), few) for name, attack, few in _rivals()]
        free, missing = gradient_free(self.task, self.target), []
        if free is None:
            missing.append(f"gradient-free: no attack without gradients searches the norm {self.task.norm:g} here")
        else:
            rivals.insert(0, ("gradient-free", play(self.target, free, self.task, seed=self.seed), UNSURE))
        rivals.append((COPY, by_copy(self.target, self.task, seed=self.seed), UNSURE))
        rivals += [(f"transfer from {name}", self._carried(other), UNSURE) for name, other in others.items()]
        sign, stands = self._shorter()
        signs = (sign, self._wide(), self._flat())
        return _Compared(tuple(rivals), signs, stands, (*missing, *(() if others else (BY_HAND,))))

    def _shorter(self) -> tuple[Sign, Mask]:
        """Part of one step against the whole: a surface that is bent just there is not what gradients say it is."""
        whole = play(self.target, FGSM(), self.task, seed=self.seed).robust
        parts = [dataclasses.replace(self.task, max_change=part * self.task.max_change) for part in SHORTER]
        stands = np.logical_and.reduce([play(self.target, FGSM(), part, seed=self.seed).robust for part in parts])
        fall = (~stands[self.right], ~whole[self.right])
        says = f"{fall[0].mean():.0%} fall to part of one step and {fall[1].mean():.0%} to the whole"
        sign = _paired("shorter steps", says, fall, UNSURE, self.confidence)
        return dataclasses.replace(sign, weakness=1.0), stands

    def _carried(self, other: Target) -> Evaded:
        """Rows made on another model, tried on the target."""
        made = play(other, PGD(), self.task, seed=self.seed)
        return play(self.target, _Given(made.rows), self.task, seed=self.seed)

    def _wide(self) -> Sign:
        """Without a bound everything can be broken: any row can become one of another class."""
        low, high = box(self.task.space, self.task.rows)
        reach = float(((high - low) / self.task.space.scale).max())
        radius = {np.inf: 1.0, EUCLID: np.sqrt(low.shape[1]), 1: float(low.shape[1])}[self.task.norm] * reach
        task = dataclasses.replace(self.task, max_change=max(radius, self.task.max_change))
        stands = play(self.target, PGD(steps=MANY_STEPS, restarts=2), task, seed=self.seed).robust[self.right]
        says = f"{stands.mean():.0%} stand although nothing bounds the change"
        return self._share("without a bound", says, stands, STANDING)

    def _flat(self) -> Sign:
        """Slopes of exactly 0 lead nowhere."""
        zero = _flat(self.target, self.task)[self.right]
        return self._share("slopes of 0", f"{zero.mean():.0%} have a slope of exactly 0", zero, FLAT)

    def _share(self, name: str, says: str, holds: Mask, allowed: float) -> Sign:
        count, n = int(holds.sum()), len(holds)
        share = proportion(count, n, self.confidence)
        return Sign(name, says, share, float(scipy.stats.binom.sf(count - 1, n, allowed)))


@dataclass(frozen=True, slots=True)
class _Diagnosis:
    """Judges one attack by gradients."""

    white: Evaded
    right: Mask
    confidence: float

    def verdict(self, compared: _Compared) -> Masking:
        signs = [self._against(name, rival, allowed) for name, rival, allowed in compared.rivals]
        found = [self.white.robust, compared.stands, *(rival.robust for _, rival, _ in compared.rivals)]
        corrected = _corrected([*signs, *compared.signs], 1 - self.confidence)
        return self._conclude(corrected, np.logical_and.reduce(found), compared.missing)

    def _against(self, name: str, rival: Evaded, allowed: float) -> Sign:
        """Compare what a rival breaks with what the claimed attack breaks, on the samples that are right."""
        by_rival, by_gradients = ~rival.robust[self.right], ~self.white.robust[self.right]
        says = f"{by_rival.mean():.0%} fall to it and {by_gradients.mean():.0%} to the attack by gradients"
        return _paired(name, says, (by_rival, by_gradients), allowed, self.confidence)

    def _conclude(self, signs: tuple[Sign, ...], robust: Mask, missing: tuple[str, ...]) -> Masking:
        masked, weak = [sign for sign in signs if sign.seen], [sign for sign in signs if sign.doubt]
        verdict = Verdict.MASKED if masked else Verdict.TOO_WEAK if weak else Verdict.SOUND
        claimed = self.white.robust_accuracy
        left = proportion(int(robust.sum()), len(robust), self.confidence)
        why = "; ".join(f"{sign.name}: {sign.says}" for sign in masked or weak)
        summary = (
            f"{verdict}: gradients claim {claimed.value:.0%} robust, and at most {left.value:.0%} are "
            f"({left.interval.low:.0%} to {left.interval.high:.0%}). "
        ) + (f"{why}." if why else f"None of {len(signs)} signs on {int(self.right.sum())} samples.")
        return Masking(verdict, summary, signs, claimed, left, missing)


def _rivals() -> list[tuple[str, Attack, float]]:
    """Adversaries by gradients that should not do better: name, attack, and how much better is still no sign."""
    return [
        ("one step", FGSM(), 0.0),
        ("margin", PGD(loss=Loss.MARGIN), UNSURE),
        ("more steps", PGD(steps=MANY_STEPS, step_size=0.05, falling=False, climbs=1, restarts=2), USUAL),
    ]


def _paired(name: str, says: str, fall: tuple[Mask, Mask], allowed: float, confidence: float) -> Sign:
    both = paired(*fall, confidence)
    # What is allowed counts as if that many more samples fell to the second only.
    spared = both.only_second + int(np.ceil(allowed * len(fall[0])))
    much, any_ = (_more(both.only_first, other) for other in (spared, both.only_second))
    return Sign(name, says, both.difference, much, weakness=any_)


def by_copy(target: Target, task: EvasionTask, *, seed: int) -> Evaded:
    """What a transfer finds from a copy that is trained on the target's own answers, without its gradients.

    The target is asked about the rows under attack, ``OWNED`` more at most, and ``COPIED_ROWS`` near them.
    """
    shown = Tailored(target, FULL if Access.SCORES in target.offers else LABELS)
    task = dataclasses.replace(task, starts=task.starts[:OWNED], start_labels=task.start_labels[:OWNED])
    return play(target, Transfer((shown,)), task, seed=seed)


def copy_queries(task: EvasionTask) -> int:
    """How often the target is asked by ``by_copy`` before an attack begins."""
    return len(task.rows) + min(OWNED, len(task.starts)) + COPIED_ROWS


class _Given:
    """An attack that tries rows made elsewhere."""

    name = "evasion.given"
    title = "Rows made elsewhere"
    family = "evasion"
    technique = "T09"
    atlas: tuple[str, ...] = ("AML.T0043.002",)
    needs: frozenset[Access] = frozenset({Access.LABELS})
    position = "user"
    references: tuple[str, ...] = ()

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        del rng
        everyone = np.arange(len(self.rows))
        yield Query(task.within(self.rows, everyone), everyone)


def gradient_free(task: EvasionTask, target: Target) -> Attack | None:
    """The strongest attack without gradients for a norm, limited in its queries."""
    if Access.SCORES in target.offers and (task.norm == np.inf or (task.norm == EUCLID and is_picture(task.shape))):
        return _Limited(Square())
    return _Limited(HopSkipJump(task.norm)) if task.norm in {np.inf, EUCLID} else None


class _Limited:
    """An attack that may not ask more than some queries for a sample."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attack, name)

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        return self._attack.search(dataclasses.replace(task, budget=min(task.budget, QUERIES)), rng)


def _corrected(signs: list[Sign], level: float) -> tuple[Sign, ...]:
    """The signs that hold when all are tested together (Holm 1979)."""
    seen, doubt = holm([sign.p_value for sign in signs]), holm([sign.weakness for sign in signs])
    return tuple(
        dataclasses.replace(sign, seen=first <= level, doubt=second <= level)
        for sign, first, second in zip(signs, seen, doubt, strict=True)
    )


def _more(first: int, second: int) -> float:
    """How likely at least ``first`` of all that differ differ this way, if both ways are alike."""
    return float(scipy.stats.binom.sf(first - 1, first + second, 0.5)) if first else 1.0


def _asked(target: Target, asking: Generator[Request, Any, Any]) -> Any:
    run = Run(asking, budget=Budget(samples=1, per_sample=UNLIMITED), needs=frozenset(Access))
    Engine(target).drive([run], note="masking")
    return run.candidates


def _flat(target: Target, task: EvasionTask) -> Mask:
    """``(samples,)``: where the slope of cross-entropy is exactly 0."""

    def ask() -> Generator[Request, Any, Mask]:
        nobody = np.zeros(len(task.rows), dtype=np.int64)
        answer = yield Gradient(task.rows, nobody, Loss.CROSS_ENTROPY, task.labels)
        slope = np.asarray(answer[:, task.classes :])
        return np.asarray((slope == 0).all(axis=1))

    flat: Mask = _asked(target, ask())
    return flat


def _is_constant(target: Target, task: EvasionTask, seed: int) -> bool:
    """Whether the target answers one class whatever it is asked."""
    rng = np.random.default_rng(seed)
    low, high = box(task.space, task.rows)
    noise = (low + (high - low) * rng.random(low.shape, dtype=np.float32)).astype(task.rows.dtype)
    rows = np.concatenate([task.rows, task.space.project(noise, task.rows)])
    return len(np.unique(target.labels(rows))) == 1 and len(np.unique(task.labels)) > 1


def _nothing_to_say(white: Evaded, right: Mask, *, constant: bool) -> Masking:
    why = "the model answers one class everywhere" if constant else "no sample is answered rightly"
    return Masking(
        verdict=Verdict.NOTHING,
        summary=f"{Verdict.NOTHING}: {why}, so that robustness means nothing ({int(right.sum())} samples are right).",
        signs=(),
        robust_by_gradients=white.robust_accuracy,
        robust_to_all=white.robust_accuracy,
        missing=("all: " + why,),
    )
