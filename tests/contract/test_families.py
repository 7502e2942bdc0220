"""What every attack beside evasion owes, multiplied over the targets it applies to: see ``test_attacks`` for evasion.

Each is played with its own family, as the check does it. What is asked and trained is counted at the target.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters.callable_target import CallableTarget
from bartizan.adapters.torch import TorchTarget
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Severity
from bartizan.redteam import registry
from bartizan.redteam.backdoor import Backdoors
from bartizan.redteam.check import why_not
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.journal_file import FolderJournals
from bartizan.targets.protocol import Access
from fixtures.games import material
from fixtures.victims import Victim, declare, desk

SETTINGS = {
    "seed": 3,
    "samples": 6,
    "query_budget": 60,
    "shadow_models": 8,
    "extraction_budget": 40,
    "poison_rates": (0.1,),
    "repeats": 2,
    "attacks": (),
}
FEATURES = 6


@cache
def tumours():
    rows, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order][:, :FEATURES], labels[order]
    return (rows[:160], labels[:160]), (rows[160:320], labels[160:320])


@cache
def digits():
    images, labels = load_digits(return_X_y=True)
    few = labels < 3
    images, labels = images[few] / 16, labels[few]
    return (images[:200], labels[:200]), (images[200:400], labels[200:400])


def small_net(rows, labels, seed):
    """A network trained for a moment, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**31)
        width = rows.shape[1]
        net = torch.nn.Sequential(torch.nn.Linear(width, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        optimiser = torch.optim.Adam(net.parameters(), 0.02)
        inputs, targets = torch.tensor(np.asarray(rows, np.float32)), torch.tensor(np.asarray(labels))
        for _ in range(40):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs), targets).backward()
            optimiser.step()
    return net


def tree():
    return Victim(DecisionTreeClassifier(random_state=0, max_depth=4).fit(*tumours()[0])), tumours()


def linear():
    return Victim(make_pipeline(StandardScaler(), LogisticRegression()).fit(*tumours()[0])), tumours()


def images():
    return Victim(KNeighborsClassifier(3).fit(*digits()[0])), digits()


def function():
    model = DecisionTreeClassifier(random_state=0, max_depth=4).fit(*tumours()[0])
    return CallableTarget(model.predict_proba, features=FEATURES, classes=2, answers="scores"), tumours()


def network():
    net = small_net(*digits()[0], 0)
    return TorchTarget(net, shape=(64,), classes=3, trainer=small_net), digits()


class Counted:
    """A target that counts what it is asked and what is trained like it."""

    def __init__(self, target, left=10**9):
        self._target, self._left = target, left
        self.rows = self.fits = 0

    def __getattr__(self, name):
        return getattr(self._target, name)

    def _asked(self, rows):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        self.rows += len(rows)

    def labels(self, rows):
        self._asked(rows)
        return self._target.labels(rows)

    def scores(self, rows):
        self._asked(rows)
        return self._target.scores(rows)

    def retrain(self, rows, labels, *, seed):
        self.fits += 1
        return self._target.retrain(rows, labels, seed=seed)


@dataclass
class Played:
    run: object
    measured: object
    rows: int
    """Rows that the victim was asked about by the attack, not by the measurement."""

    @property
    def plain(self):
        return msgspec.json.encode(msgspec.to_builtins(self.measured, str_keys=True), order="deterministic")


def play(attack, family, target, of, journal=None):
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(5).spawn(3)]
    engine = Engine(target, journal=journal)
    case = family.case(attack, of, streams[0])
    run = Run(attack.search(case.task, streams[1]), budget=case.budget, needs=attack.needs, watch=case.watch)
    engine.drive([run])
    rows = target.rows
    measuring = run.measuring(family.measure(case, run, streams[2]))
    engine.drive([measuring])
    return Played(run, measuring.candidates, rows)


def fits(attack, make):
    """Images for those that change images; tables for those that take their time on 64 pixels."""
    pictures = make in {images, network}
    slow = "attribute" in attack.name or (attack.family == "extraction" and make is images)
    return pictures if getattr(attack, "images", False) else not (pictures and slow)


def family_of(attack):
    return Backdoors((1, 8, 8)) if getattr(attack, "images", False) else registry.family(attack.name)


ELSEWHERE = ("evasion.", "text.", "availability.")
"""Evasion is in ``test_attacks``; texts and costs are driven by their own checks, which have tests."""
OTHERS = [a for a in registry.attacks() if not a.name.startswith(ELSEWHERE) and registry.has_family(a.name)]
GAMES = [
    pytest.param(attack, make, id=f"{attack.name}-{make.__name__}")
    for attack in OTHERS
    for make in (tree, linear, images, function, network)
    if not why_not(attack, make()[0].offers) and fits(attack, make)
]


AGAIN = [
    game
    for game in GAMES
    if game.values[1] is tree or (game.values[1] is network and game.values[0].family != "extraction")
]


FEW = {"backdoor.patch", "poisoning.labelflip", "privacy.inversion-gradients", "privacy.membership"}
"""What is played again on networks, too; with the rest it is left to `make soak`."""
LONG = [game for game in AGAIN if game.values[1] is network and game.values[0].name not in FEW]
LONG += [game for game in AGAIN if game.values[1] is tree and game.values[0].name.partition("-")[2] == "labels"]


def of(make):
    target, (train, rest) = make()
    return target, material(train, rest, **SETTINGS)


def attempt(attack, make, *, left=10**9, journal=None):
    target, given = of(make)
    return play(attack, family_of(attack), Counted(target, left), given, journal)


@pytest.mark.parametrize(("attack", "make"), GAMES)
def test_budgets_are_kept_as_counted_at_the_target_and_every_metric_has_an_interval(attack, make):
    played = attempt(attack, make)
    budget, ledger = played.run.ledger.budget, played.run.ledger
    assert ledger.queries <= min(budget.total, budget.samples * budget.per_sample)
    assert played.rows <= ledger.queries + ledger.own_queries
    assert ledger.fits <= budget.fits
    assert played.measured.summary
    assert played.measured.metrics
    for metric in played.measured.metrics.values():
        assert metric.low <= metric.value <= metric.high
        assert metric.n > 0


@pytest.mark.parametrize(("attack", "make"), [game for game in AGAIN if game not in LONG])
def test_the_same_seed_gives_the_same_bytes_and_a_resumed_run_equals_an_uninterrupted_one(attack, make, tmp_path):
    first = attempt(attack, make)
    journals = FolderJournals(tmp_path)
    with journals.open("0" * 64) as journal, contextlib.suppress(KeyboardInterrupt):
        attempt(attack, make, left=2, journal=journal)
    with journals.open("0" * 64) as journal:
        resumed = attempt(attack, make, journal=journal)
    assert resumed.plain == first.plain
    assert resumed.run.ledger.spent.tolist() == first.run.ledger.spent.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "make"), LONG)
def test_the_same_holds_of_games_that_take_longer(attack, make, tmp_path):
    test_the_same_seed_gives_the_same_bytes_and_a_resumed_run_equals_an_uninterrupted_one(attack, make, tmp_path)


class Impostor:
    """Asks nothing, and hands back something as if it were what it had found."""

    def __init__(self, attack, candidates):
        self._attack, self._candidates = attack, candidates

    def __getattr__(self, name):
        return getattr(self._attack, name)

    def search(self, task, rng):
        del task, rng
        yield from ()
        return self._candidates


FIRST = {type(registry.family(a.name)): a for a in reversed(OTHERS)}
JUNK = [None, "success", (), [None], np.full((6, 6), np.nan), np.ones((2, 2)), {"auc": 1.0}, 1.0]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: type(junk).__name__)
@pytest.mark.parametrize("attack", FIRST.values(), ids=lambda attack: attack.name)
def test_a_broken_attack_cannot_report_success(attack, junk):
    make = next(game.values[1] for game in GAMES if game.values[0].name == attack.name)
    target, given = of(make)
    try:
        played = play(Impostor(attack, junk), family_of(attack), Counted(target), given)
    except WorkError:
        return
    assert all(finding.severity in {Severity.NOTE, Severity.LOW} for finding in played.measured.findings)


class Broken(Victim):
    """Scores that are no numbers."""

    def scores(self, rows):
        return np.full((len(rows), self.classes), np.nan)

    def labels(self, rows):
        return np.full(len(rows), 99)

    def retrain(self, rows, labels, *, seed):
        del rows, labels, seed
        return Broken(self.model)


@pytest.mark.parametrize("attack", FIRST.values(), ids=lambda attack: attack.name)
def test_a_target_that_answers_nonsense_is_named_as_the_fault(attack):
    make = images if getattr(attack, "images", False) else tree
    target, given = of(make)
    broken = Counted(Broken(target.model))
    if why_not(attack, broken.offers):
        pytest.skip("needs the inside of a model")
    with pytest.raises(WorkError, match="no class or no number"):
        play(attack, family_of(attack), broken, given)


class Constant(Victim):
    """Answers its first class whatever it is asked, and learns nothing."""

    offers = frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def scores(self, rows):
        return np.eye(self.classes)[np.zeros(len(rows), dtype=int)]

    def labels(self, rows):
        return np.zeros(len(rows), dtype=np.int64)

    def retrain(self, rows, labels, *, seed):
        del rows, labels, seed
        return Constant(self.model)


@pytest.mark.parametrize("attack", OTHERS, ids=lambda attack: attack.name)
def test_a_constant_model_gives_nothing_away_or_the_attack_says_why_it_does_not_apply(attack):
    make = images if getattr(attack, "images", False) else tree
    target, given = of(make)
    constant = Counted(Constant(target.model))
    if why_not(attack, constant.offers):
        pytest.skip("needs the inside of a model")
    played = play(attack, family_of(attack), constant, given)
    told = {f.id: f.title for f in played.measured.findings if f.severity not in {Severity.NOTE, Severity.LOW}}
    assert not told or attack.family == "extraction"  # a copy of nothing is soon had, and that is said


@pytest.mark.parametrize("name", sorted({a.name.split(".")[0] for a in OTHERS}))
def test_one_class_of_training_data_is_an_error_that_says_so(name, tmp_path):
    model = DecisionTreeClassifier(max_depth=2).fit(*tumours()[0])
    one = [(part[0], np.zeros_like(part[1])) for part in tumours()]
    system = declare(tmp_path, model, *one, classes=("benign", "malignant"))
    plain = {Access.LABELS, Access.SCORES, Access.TRAINING}
    mine = [a.name for a in OTHERS if a.name.startswith(name) and a.needs <= plain and not hasattr(a, "images")]
    check = registry.check(mine[0])
    with pytest.raises(ArtefactError, match="its training data has 1"):
        check.run(system, system.of_kind("model")[0], desk(None))
