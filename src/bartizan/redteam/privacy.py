"""Privacy: whether the model gives away which records it was trained on.

Two games are measured. In the first, the declared model is the target: its training records are
the members, the evaluation records the others. In the second, each shadow model plays the target in
its turn, on records that were handed out at random by this family; that gives far more decisions
and an answer about the training procedure rather than one model. The truth of both games stays
here: a task says neither which records are members nor what the model that plays the target was
trained on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, InputError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.core.system import ModelPart
from bartizan.redteam import learners, statistics
from bartizan.redteam.attack import VICTIM, Attack, Fit, Query, Request, Search
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, Point, ask
from bartizan.redteam.journal import Answer
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Estimate
from bartizan.redteam.tasks import MembershipGuess, MembershipResult, MembershipTask, Shadow
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access, Labels, Rows
from bartizan.targets.table import Table

Truth = NDArray[np.bool_]
"""``(records,)``: which records the target was trained on."""

MAX_RECORDS = 20_000
"""Records in question; a larger pool is thinned out, because each shadow model trains on half of it."""
NOISE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)
"""Sizes of the noise around a record, in standard deviations of each feature, where labels alone are answered."""
MAX_ANSWERS = 1 << 26
"""Numbers that all shadow models answer together; bounds the memory."""
LEAST_SHADOWS = 8
"""In the second game the attack has two fewer, and sets its thresholds with two fewer still."""
RATES = {"tpr_at_1_percent_fpr": 0.01, "tpr_at_0_1_percent_fpr": 0.001}
"""False positive rates at which a leak is stated: accusing few and being right is what harms people."""
CURVE_POINTS = 13
DRAWN = ("loss_threshold", "lira_offline", "lira_pooled", "rmia")
"""Rules whose curves are part of the report; the figures of all are."""
BLIND_RECORDS = 2_000
"""Records on which the control without a model is trained; more would not make it see more."""
BLIND_LEARNERS = (learners.Learner("linear", 1e-2), learners.Learner("radial", 1e-2))
TOLERANCE = 1e-6
"""Difference between two answers of the same model that is no sign of foul play."""
SEVERITIES = ((0.5, Severity.HIGH), (0.1, Severity.MEDIUM), (0.03, Severity.LOW))
"""Share of members found at 1 % false alarms, at the lower end of its interval, for each severity."""


@dataclass(frozen=True, slots=True)
class Game:
    """What the attack must not know."""

    attack: Attack
    members: Truth
    model: ModelPart


class Privacy:
    """See ``Family``."""

    name = "privacy"
    settings: tuple[str, ...] = ("seed", "shadow_models", "query_budget")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """All records, mixed; random halves for the shadow models.

        Raises:
            ArtefactError: a class has so few records that halves could lack it.
            InputError: too few shadow models are allowed.
        """
        shadows = material.settings.shadow_models // 2 * 2
        if shadows < LEAST_SHADOWS:
            raise InputError(
                f"[redteam] shadow_models = {material.settings.shadow_models}; membership inference needs "
                f"at least {LEAST_SHADOWS}",
                remedy="allow more shadow models, or name the attacks to run without privacy.membership.",
            )
        views = 0 if Access.SCORES in attack.needs else len(NOISE)
        answers = 1 + views if views else len(material.model.classes)
        most = min(MAX_RECORDS // (1 + views // 4), MAX_ANSWERS // (shadows * answers))
        table, members, dropped = pool(material.training, material.evaluation, most, rng)
        halves = _halves(table.labels, shadows, material.model.classes, rng)
        seeds = rng.choice(2**31, shadows, replace=False)
        task = MembershipTask(
            rows=table.rows,
            labels=table.labels,
            classes=len(material.model.classes),
            shadows=tuple(Shadow(half, int(seed)) for half, seed in zip(halves, seeds, strict=True)),
            neighbours=_neighbours(table.rows, material.space, rng) if views else np.empty((0, table.rows.shape[1])),
        )
        return Case(
            task=task,
            budget=Budget(samples=len(table), per_sample=1 + views, fits=shadows),
            truth=Game(attack, members, material.model),
            knowledge="holds the records in question with their classes, and can train models of the same kind on them",
            settings={
                "members": int(members.sum()),
                "non_members": int((~members).sum()),
                "in_both_sets_dropped": dropped,
                "shadow_models": shadows,
                "shadow_training_records": len(table) // 2,
                "queries_per_record": 1 + views,
            },
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Score both games, and what can be told without any model."""
        game: Game = case.truth
        result = run.candidates
        if not isinstance(result, MembershipResult):
            raise WorkError(f"{game.attack.name} stopped before it was done: {run.stopped or 'no candidates'}")
        yield from _spot_check(case.task, result)
        blind = blindly(case.task.rows, case.task.labels, case.task.classes, game.members, rng)
        this_model = {guess.rule: measured(guess, game.members) for guess in result.guesses}
        pipeline = _pipeline(game.attack, case.task, result.answers, rng)
        named = next(guess.rule for guess in result.guesses if guess.headline)
        metrics = {**this_model[named].estimates(), **_prefixed(pipeline[named])}
        return Measurement(
            summary=_summary(metrics, game.members),
            metrics={name: estimate.metric() for name, estimate in metrics.items()} | {"blind_auc": blind.metric()},
            curves={f"roc_{rule}": score.points() for rule, score in this_model.items() if rule in DRAWN}
            | {f"pipeline_roc_{rule}": score.points() for rule, score in pipeline.items() if rule in DRAWN},
            tables={
                "headline_rule": named,
                "rules": {rule: plain(score.estimates()) for rule, score in this_model.items()},
                "pipeline_rules": {rule: plain(score.estimates()) for rule, score in pipeline.items()},
                "fpr_resolution": resolution(int((~game.members).sum())),
                "pipeline_fpr_resolution": resolution(len(case.task.rows) // 2 * len(case.task.shadows)),
            },
            findings=(
                *leak(game.model, metrics["pipeline_tpr_at_1_percent_fpr"], "models trained alike"),
                *sets_differ(game.model, blind, elsewhere="rely on the pipeline figures, or split the data at random"),
            ),
        )


# -- the records -----------------------------------------------------------------------------------


def pool(training: Table, evaluation: Table, most: int, rng: np.random.Generator) -> tuple[Table, Truth, int]:
    """Records in random order, who is a member, and how many were dropped because they are in both sets."""
    seen = {row.tobytes() for row in training.rows}
    fresh = np.array([row.tobytes() not in seen for row in evaluation.rows], dtype=np.bool_)
    if not fresh.any():
        raise ArtefactError(
            "every evaluation row is also a training row, so nobody is no member",
            remedy="evaluate on records that the model was not trained on.",
        )
    rows = np.concatenate([training.rows, evaluation.rows[fresh]])
    labels = np.concatenate([training.labels, evaluation.labels[fresh]])
    members = np.arange(len(rows)) < len(training)
    order = rng.permutation(len(rows))[:most]
    table = Table(training.columns, rows[order], labels[order], training.label_values)
    return table, members[order], int((~fresh).sum())


def _halves(
    labels: NDArray[np.int64], count: int, classes: Sequence[str], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """``(count, records)``: random halves of each class, each followed by its complement."""
    lone = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 1)
    if lone.size:
        raise ArtefactError(
            f"class {classes[lone[0]]!r} has a single record; shadow models need at least two of each",
            remedy="add records of this class, or take it out of the model's classes.",
        )
    return np.concatenate([_complements(labels, rng) for _ in range(count // 2)])


def _complements(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """``(2, records)``: a random half of each class, and the other half."""
    order = np.lexsort((rng.random(len(labels)), labels))
    inside = np.zeros(len(labels), dtype=np.bool_)
    inside[order[int(rng.integers(2)) :: 2]] = True
    return np.array([inside, ~inside])


def _neighbours(rows: Rows, space: Space, rng: np.random.Generator) -> Rows:
    """``(len(NOISE) * records, features)``: possible rows around each record, ever farther away."""
    views = [space.project(rows + size * space.scale * rng.normal(size=rows.shape), rows) for size in NOISE]
    return np.concatenate(views)


# -- the measure -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """How one rule did in one game."""

    curve: statistics.Roc
    accused_members: tuple[int, int]
    accused_others: tuple[int, int]

    def estimates(self) -> dict[str, Estimate]:
        """The metrics of a game."""
        advantage = statistics.difference(self.accused_members, self.accused_others)
        rates = {name: statistics.tpr_at(self.curve, rate) for name, rate in RATES.items()}
        return {"auc": statistics.auc(self.curve), **rates, "balanced_accuracy_advantage": advantage}

    def values(self) -> dict[str, float]:
        """The metrics without their intervals."""
        (hits, members), (alarms, others) = self.accused_members, self.accused_others
        rates = {name: self.curve.found(rate) for name, rate in RATES.items()}
        return {"auc": self.curve.area, **rates, "balanced_accuracy_advantage": hits / members - alarms / others}

    def points(self) -> tuple[Point, ...]:
        """Share of members found at false positive rates that are evenly spaced on a logarithmic axis."""
        grid = np.geomspace(min(1e-3, 1 / self.curve.others), 1.0, CURVE_POINTS)
        found = [(float(f"{rate:.6g}"), statistics.tpr_at(self.curve, float(rate))) for rate in grid]
        return tuple(Point(rate, e.value, e.interval.low, e.interval.high) for rate, e in found)


def measured(guess: MembershipGuess, members: Truth) -> Score:
    """One guess against the truth."""
    hits, alarms = int(guess.accused[members].sum()), int(guess.accused[~members].sum())
    curve = statistics.roc(guess.scores, members)
    return Score(curve, (hits, curve.members), (alarms, curve.others))


@dataclass(frozen=True, slots=True)
class _Pooled(Score):
    """How one rule did when each shadow model played the target, with what it did without each pair."""

    parts: tuple[Score, ...] = ()

    def estimates(self) -> dict[str, Estimate]:
        """The metrics of the game; the pairs of models are what was drawn, so they make the interval."""
        whole = Score.estimates(self)
        parts = [part.values() for part in self.parts]
        return {name: _over_pairs(name, estimate, parts) for name, estimate in whole.items()}


def _over_pairs(name: str, whole: Estimate, parts: Sequence[Mapping[str, float]]) -> Estimate:
    """A metric with its interval over pairs of models, never narrower than the one over records."""
    interval = statistics.jackknife(whole.value, [part[name] for part in parts])
    low = max(min(interval.low, whole.interval.low), -1.0 if name.endswith("advantage") else 0.0)
    high = min(max(interval.high, whole.interval.high), 1.0)
    return replace(whole, interval=statistics.Interval(low, high), n=2 * len(parts), method="jackknife over models")


def _pipeline(
    attack: Attack, task: MembershipTask, answers: Sequence[Answer], rng: np.random.Generator
) -> dict[str, _Pooled]:
    """The second game: what the attack says of each shadow model, by rule."""
    said: dict[str, list[MembershipGuess]] = {}
    for model in range(len(task.shadows)):
        for guess in _play(attack, task, answers, model, rng).guesses:
            said.setdefault(guess.rule, []).append(guess)
    truth = np.array([shadow.inside for shadow in task.shadows])
    return {rule: _pooled(guesses, truth) for rule, guesses in said.items()}


def _pooled(guesses: Sequence[MembershipGuess], truth: NDArray[np.bool_]) -> _Pooled:
    """All decisions of one rule together, and those without each pair."""

    def together(models: NDArray[np.int64]) -> Score:
        scores = np.concatenate([guesses[model].scores for model in models])
        accused = np.concatenate([guesses[model].accused for model in models])
        return measured(MembershipGuess("", scores, accused), truth[models].ravel())

    models = np.arange(len(guesses))
    whole = together(models)
    parts = tuple(together(models[models // 2 != pair]) for pair in range(len(guesses) // 2))
    return _Pooled(whole.curve, whole.accused_members, whole.accused_others, parts)


def _play(
    attack: Attack, task: MembershipTask, answers: Sequence[Answer], model: int, rng: np.random.Generator
) -> MembershipResult:
    """Let one shadow model be the victim of the same attack, which has all others but its complement.

    With the complement, the number of models trained on a record would give the truth away.
    """
    kept = [other for other in range(len(task.shadows)) if other // 2 != model // 2]
    search = attack.search(replace(task, shadows=tuple(task.shadows[other] for other in kept)), rng)
    seeds = {task.shadows[other].seed: other for other in kept}
    return _drive(search, task, answers, model, seeds)


def _drive(
    search: Search, task: MembershipTask, answers: Sequence[Answer], victim: int, seeds: Mapping[int, int]
) -> MembershipResult:
    """Answer a search from what the shadow models have answered already."""
    reply: Any = None
    try:
        while True:
            request = search.send(reply)
            if isinstance(request, Fit):
                reply = seeds[request.seed] + 1
                continue
            if not isinstance(request, Query):
                raise WorkError("a membership attack asks for something else than answers about its records")
            reply = answers[victim if request.model == VICTIM else request.model - 1]
            if not np.array_equal(request.rows, _askable(task, len(reply))):
                raise WorkError("a membership attack asks about other rows than those of its task")
    except StopIteration as end:
        result: MembershipResult = end.value
        return result


def _askable(task: MembershipTask, asked: int) -> Rows:
    """The first ``asked`` rows that a membership attack may ask about."""
    every = task.rows if asked == len(task.rows) else np.concatenate([task.rows, task.neighbours])
    return every[:asked]


def _spot_check(task: MembershipTask, result: MembershipResult) -> Generator[Request, Any, None]:
    """Ask the last shadow model again: what the attack says it answered is what it answers."""
    shadow, claimed = task.shadows[-1], result.answers[-1]
    model = yield Fit(task.rows[shadow.inside], task.labels[shadow.inside], shadow.seed)
    answer = yield ask(_askable(task, len(claimed)), model=model, scores=claimed.ndim > 1)
    if answer.shape != claimed.shape or not np.allclose(answer, claimed, atol=TOLERANCE):
        raise WorkError(
            "a shadow model trained again on the same records with the same seed answers otherwise",
            remedy="make the training pipeline deterministic: give every random part a fixed random_state.",
        )


def blindly(rows: Rows, labels: Labels, classes: int, members: Truth, rng: np.random.Generator) -> Estimate:
    """How well members are told from others without any model: what the two files give away by themselves.

    Blind baselines, Das et al. 2024, arXiv:2406.16201. One half would mean that they are alike.
    """
    some = rng.permutation(len(members))[:BLIND_RECORDS]
    known = np.column_stack([rows, learners.one_hot(labels, classes)])[some]
    targets = learners.one_hot(members[some].astype(np.int64), 2)
    learner = learners.select(BLIND_LEARNERS, known, targets, rng)
    folds = learners.folds(members[some], rng)
    scores = learners.out_of_fold(learner, known, targets, folds, rng)[:, 1]
    return statistics.auc(statistics.roc(scores, members[some]))


# -- words -----------------------------------------------------------------------------------------


def _prefixed(score: Score) -> dict[str, Estimate]:
    return {f"pipeline_{name}": estimate for name, estimate in score.estimates().items()}


def plain(estimates: Mapping[str, Estimate]) -> dict[str, list[float]]:
    """Value, lower and upper end, for the report."""
    metrics = {name: estimate.metric() for name, estimate in estimates.items()}
    return {name: [metric.value, metric.low, metric.high] for name, metric in metrics.items()}


def resolution(others: int) -> dict[str, float | bool]:
    """The finest false positive rate that can be seen, and whether 0.1 % can."""
    return {"finest": 1 / others, "resolves_0_1_percent": others >= 1 / RATES["tpr_at_0_1_percent_fpr"]}


def _summary(metrics: Mapping[str, Estimate], members: Truth) -> str:
    found, alike = metrics["tpr_at_1_percent_fpr"], metrics["pipeline_tpr_at_1_percent_fpr"]
    others = int((~members).sum())
    coarse = (
        ""
        if others >= 1 / RATES["tpr_at_0_1_percent_fpr"]
        else (f" {others} non-members are too few to see what happens at 0.1 %.")
    )
    return (
        f"An adversary who may wrongly accuse 1 % of the others recognises {share(found)} of the records "
        f"this model was trained on, and {share(alike)} for models trained alike.{coarse}"
    )


def share(estimate: Estimate) -> str:
    """A share with its interval, in words."""
    return f"{estimate.value:.1%} ({estimate.interval.low:.1%} to {estimate.interval.high:.1%})"


def leak(model: ModelPart, found: Estimate, over: str) -> tuple[Finding, ...]:
    """A finding when members are surely given away; ``found`` is the share recognised at 1 % false alarms."""
    severity = next((level for least, level in SEVERITIES if found.interval.low >= least), None)
    if severity is None:
        return ()
    return (
        Finding(
            rule="redteam/membership",
            severity=severity,
            title=f"{found.value:.0%} of training records can be recognised at 1 % false alarms",
            where=model.name,
            detail=f"At least {found.interval.low:.1%} at 95 % confidence, over {found.n} {over}. "
            "Whoever holds a person's record can learn that it was in the training data.",
            remedy="regularise or simplify the model, answer with labels or rounded scores, "
            "or train with differential privacy; then run this attack again.",
        ),
    )


def sets_differ(model: ModelPart, blind: Estimate, *, elsewhere: str) -> tuple[Finding, ...]:
    """A note when the two sets differ so much that the first game measures that as well."""
    if blind.interval.low <= 0.5:  # noqa: PLR2004 - chance
        return ()
    return (
        Finding(
            rule="redteam/sets-differ",
            severity=Severity.NOTE,
            title="training and evaluation records can be told apart without the model",
            where=f"{model.trained_on}, {model.evaluated_on}",
            detail=f"AUC {blind.value:.3f} from the records alone, so the figures for this very model also measure "
            "how the two sets differ. Figures of models trained alike (pipeline_) do not: there the records were "
            "handed out at random.",
            remedy=f"{elsewhere}.",
        ),
    )
