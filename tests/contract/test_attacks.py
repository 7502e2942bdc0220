"""What every attack owes, whatever it is: multiplied over all that are registered and every target they apply to.

Queries and gradients are counted at the target, not in the ledger; candidates are judged on the task's own space.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import pkgutil
import re
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bartizan.redteam.attacks
from bartizan.adapters.callable_target import CallableTarget
from bartizan.adapters.torch import TorchTarget
from bartizan.catalogue.load import catalogue
from bartizan.core.errors import BartizanError, InputError, WorkError
from bartizan.redteam import registry
from bartizan.redteam.check import why_not
from bartizan.redteam.journal_file import FolderJournals
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import TOLERANCE, image_space
from bartizan.targets.protocol import Access, Transparent
from fixtures.victims import Victim, space_around

NORMS = {"evasion.carlini-wagner": 2, "evasion.ead": 1, "evasion.simba": 2}
"""Attacks that minimise one norm only; the others are played by Linf."""
SAMPLES, QUERIES, GRADIENTS = 6, 60, 40
EVASION = [attack for attack in registry.attacks() if attack.family == "evasion"]
BLACK = [attack for attack in EVASION if attack.needs <= {Access.LABELS, Access.SCORES}]


class Counted:
    """A target that counts what it is asked, by sample where rows can be told apart, and in all."""

    def __init__(self, target):
        self._target = target
        self.rows = self.slopes = 0

    def __getattr__(self, name):
        return getattr(self._target, name)

    def labels(self, rows):
        self.rows += len(rows)
        return self._target.labels(rows)

    def scores(self, rows):
        self.rows += len(rows)
        return self._target.scores(rows)

    def gradients(self, rows, *more):
        self.slopes += len(rows)
        return self._target.gradients(rows, *more)


@cache
def tumours():
    rows, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order][:, :12], labels[order]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[:300], labels[:300])
    return model, rows, labels


@cache
def digits():
    """A small network on 8 x 8 digits, trained for a moment."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 10),
    )
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    inputs, targets = torch.tensor(images[:1200]).view(-1, 1, 8, 8), torch.tensor(labels[:1200])
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), targets).backward()
        optimiser.step()
    return net, images, labels


def table_task(**more):
    _, rows, labels = tumours()
    more = {"max_change": 0.5, "budget": QUERIES, "gradients": GRADIENTS} | more
    owned = rows[320:500], labels[320:500]
    space = space_around(rows[:300])
    return task_of(rows[300:306], labels[300:306], space=space, classes=2, starts=owned, **more)


def image_task(attack):
    _, images, labels = digits()
    bound = {np.inf: 0.15, 2: 1.0, 1: 4.0, 0: 4}
    norm = 0 if getattr(attack, "images", False) else NORMS.get(attack.name, np.inf)
    return task_of(
        images[1300:1306],
        labels[1300:1306],
        space=image_space((1, 8, 8)),
        classes=10,
        budget=QUERIES,
        gradients=GRADIENTS,
        shape=(1, 8, 8),
        starts=(images[1310:1500], labels[1310:1500]),
        norm=norm,
        max_change=bound[norm],
    )


def sklearn_case(_attack):
    return Victim(tumours()[0]), table_task()


def callable_case(attack):
    model = tumours()[0]
    if Access.SCORES in attack.needs:
        target = CallableTarget(model.predict_proba, features=12, classes=2, answers="scores")
    else:
        target = CallableTarget(model.predict, features=12, classes=2)
    return target, table_task()


def torch_case(attack):
    return TorchTarget(digits()[0], shape=(1, 8, 8), classes=10), image_task(attack)


def applies(attack, make):
    target, _ = make(attack)
    if Access.WEIGHTS in attack.needs and not isinstance(target, Transparent):
        return False  # a network shows its weights, and is no tree
    if getattr(attack, "images", False) and make is not torch_case:
        return False
    return not why_not(attack, target.offers)


CASES = [
    pytest.param(attack, make, id=f"{attack.name}-{make.__name__.removesuffix('_case')}")
    for attack in EVASION
    for make in (sklearn_case, callable_case, torch_case)
    if applies(attack, make)
]


def test_every_attack_in_the_tree_is_registered_under_its_name_and_none_that_is_not():
    found = set()
    for module in pkgutil.walk_packages(bartizan.redteam.attacks.__path__, "bartizan.redteam.attacks."):
        for member in vars(importlib.import_module(module.name)).values():
            own = inspect.isclass(member) and member.__module__ == module.name
            if own and hasattr(member, "search") and isinstance(getattr(member, "name", None), str):
                found.add(member.name)
    assert found == set(registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_every_attack_says_what_it_is(name):
    attack = registry.attack(name)
    assert attack.technique in catalogue().techniques
    for entry in attack.atlas:
        assert entry in catalogue().techniques or re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", entry)
    assert attack.needs
    assert attack.needs <= set(Access)
    assert attack.position in catalogue().entries.meta.positions
    assert any(re.search(r"(19|20)\d\d|CWE-\d+", reference) for reference in attack.references)
    assert attack.title[0].isupper()
    assert name.startswith(f"{attack.family}.") or attack.family == "corruption"


@pytest.mark.parametrize(("attack", "make"), CASES)
def test_candidates_are_possible_and_budgets_are_kept_as_counted_at_the_target(attack, make):
    target, task = make(attack)
    counted = Counted(target)
    found = play(counted, attack, task, seed=1)
    again = 2 * 2 * len(task.rows)  # the samples and what was found, twice
    assert counted.rows - again == found.ledger.queries <= SAMPLES * QUERIES
    assert counted.slopes == found.ledger.gradients <= SAMPLES * GRADIENTS
    assert found.ledger.spent.max(initial=0) <= QUERIES
    assert found.ledger.slopes.max(initial=0) <= GRADIENTS
    fooled = np.isfinite(found.change)
    assert task.space.possible(found.rows[fooled], task.rows[fooled]).all()
    assert (target.labels(found.rows)[fooled] != task.labels[fooled]).all()
    counts = found.change <= task.max_change * (1 + TOLERANCE)
    assert (found.robust == ((found.clean == task.labels) & ~counts)).all()


@pytest.mark.parametrize(("attack", "make"), CASES)
def test_the_same_seed_gives_the_same_bytes_and_a_resumed_run_equals_an_uninterrupted_one(attack, make, tmp_path):
    target, task = make(attack)
    first = play(target, attack, task, seed=2)
    journals = FolderJournals(tmp_path)
    with journals.open("0" * 64) as journal, contextlib.suppress(KeyboardInterrupt):
        play(Mortal(make(attack)[0], 3), attack, task, seed=2, journal=journal)
    with journals.open("0" * 64) as journal:
        resumed = play(make(attack)[0], attack, task, seed=2, journal=journal)
    assert resumed.rows.tobytes() == first.rows.tobytes()
    assert resumed.answers.tobytes() == first.answers.tobytes()
    assert resumed.ledger.spent.tolist() == first.ledger.spent.tolist()


class Mortal(Counted):
    """A target in whose fourth call the process is stopped."""

    def __init__(self, target, calls):
        super().__init__(target)
        self._left = calls

    def _live(self):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def labels(self, rows):
        self._live()
        return super().labels(rows)

    def scores(self, rows):
        self._live()
        return super().scores(rows)

    def gradients(self, rows, *more):
        self._live()
        return super().gradients(rows, *more)


class Impostor:
    """Claims that rows far outside the allowed set, or rows that fool nobody, are its successes."""

    name, title, family, technique, atlas = "evasion.impostor", "Impostor", "evasion", "T08", ()
    needs, position, references = frozenset({Access.LABELS}), "user", ("nobody 2026",)

    def __init__(self, rows):
        self.rows = rows

    def search(self, task, rng):
        del rng
        yield from ()
        return self.rows(task)


@pytest.mark.parametrize(
    "rows",
    [
        lambda task: task.rows + 1e6,
        lambda task: task.rows.copy(),
        lambda _task: None,
        lambda _task: "success",
        lambda task: np.full_like(task.rows, np.nan),
        lambda task: task.rows[:1],
    ],
    ids=["outside", "unchanged", "nothing", "a word", "NaN", "too few"],
)
def test_a_broken_attack_cannot_report_success(rows):
    model, *_ = tumours()
    task = table_task()
    found = play(Victim(model), Impostor(rows), task)
    assert found.robust.tolist() == (model.predict(task.rows) == task.labels).tolist()


# ---- targets that misbehave, and data at the edge


def answering(function, answers="scores"):
    return CallableTarget(function, features=12, classes=2, answers=answers)


@pytest.mark.parametrize("attack", BLACK, ids=lambda attack: attack.name)
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda rows: np.full((len(rows), 2), np.nan), "not finite"),
        (lambda rows: np.ones((len(rows), 3)), "are due"),
        (lambda rows: np.full((len(rows), 2), 7.0), "no probabilities"),
        (lambda _rows: 1 / 0, "broke: ZeroDivisionError"),
    ],
    ids=["NaN", "shape", "range", "raises"],
)
def test_a_target_that_answers_nonsense_is_no_robust_one(attack, broken, words):
    if getattr(attack, "images", False):
        pytest.skip("changes images")
    with pytest.raises(WorkError, match=words):
        play(answering(broken), attack, table_task())


@pytest.mark.parametrize("attack", BLACK, ids=lambda attack: attack.name)
def test_nobody_fools_a_constant_model_and_each_says_so_or_why(attack):
    if getattr(attack, "images", False):
        pytest.skip("changes images")
    rows, labels = tumours()[1][300:306], np.ones(6, dtype=np.int64)
    task = task_of(
        rows,
        labels,
        space=space_around(tumours()[1]),
        classes=2,
        max_change=0.5,
        budget=QUERIES,
        starts=(tumours()[1][320:400], tumours()[2][320:400]),
    )
    constant = answering(lambda asked: np.tile([0.0, 1.0], (len(asked), 1)))
    found = None
    with contextlib.suppress(BartizanError):  # one that says it has nothing to start from is as good
        found = play(constant, attack, task)
    if found is not None:
        assert found.robust.all()
        assert not np.isfinite(found.change).any()


@pytest.mark.parametrize("attack", BLACK, ids=lambda attack: attack.name)
def test_a_target_whose_scores_lie_is_judged_by_what_it_answers(attack):
    """Scores that say nothing of the label must not let a vulnerable model look broken or a robust one look fooled."""
    if getattr(attack, "images", False):
        pytest.skip("changes images")
    model = tumours()[0]

    class Liar(Victim):
        def scores(self, rows):
            return np.full((len(rows), 2), 0.5)

    task = table_task()
    found = play(Liar(model), attack, task)
    fooled = np.isfinite(found.change)
    assert (model.predict(found.rows)[fooled] != task.labels[fooled]).all()


def test_no_samples_and_one_class_are_said():
    _, rows, _ = tumours()
    with pytest.raises(InputError, match="no samples"):
        task_of(rows[:0], np.empty(0, int), space=space_around(rows), classes=2, max_change=1)
    with pytest.raises(InputError, match="two classes"):
        CallableTarget(lambda asked: np.zeros(len(asked)), features=12, classes=1)


def test_ten_million_rows_are_asked_in_calls_of_bounded_size():
    """Memory is bounded by the call, not by the question; nothing is copied for each row more than once."""
    largest = 0

    def count(asked):
        nonlocal largest
        largest = max(largest, len(asked))
        return np.zeros(len(asked), dtype=np.int64)

    class Wide:
        name, needs = "evasion.wide", frozenset({Access.LABELS})

        def search(self, task, rng):
            del rng
            from bartizan.redteam.attack import Query  # noqa: PLC0415 - only here

            yield Query(np.zeros((10_000_000, 1)), np.zeros(10_000_000, dtype=np.int64))
            return task.rows

    rows = np.zeros((1, 1))
    task = task_of(rows, np.zeros(1, int), space=space_around(np.array([[0.0], [1.0]])), classes=2, max_change=1)
    play(CallableTarget(count, features=1, classes=2), Wide(), task)
    assert largest <= 8192


def test_trees_are_registered_for_targets_that_show_what_they_are_made_of():
    forest = RandomForestClassifier(3, random_state=0).fit(tumours()[1][:100], tumours()[2][:100])
    assert why_not(registry.attack("evasion.tree-exact"), Victim(forest).offers).startswith(
        "evasion.tree-exact needs weights"
    )


@pytest.mark.parametrize("attack", BLACK, ids=lambda attack: attack.name)
def test_counts_that_vary_little_end_in_an_answer_and_not_in_a_loop(attack):
    """Whole numbers with a small spread: steps of a deviation round to nothing."""
    if getattr(attack, "images", False):
        pytest.skip("changes images")
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (200, 4)).astype(np.float64)
    rows[:, 3] = 1.0
    labels = (rows[:, 0] + rows[:, 1] > 1).astype(int)
    model = LogisticRegression().fit(rows, labels)
    space = dataclasses.replace(space_around(rows), integer=np.ones(4, bool))
    task = task_of(
        rows[:6],
        labels[:6],
        space=space,
        classes=2,
        max_change=0.5,
        budget=QUERIES,
        starts=(rows[10:60], labels[10:60]),
    )
    found = play(Victim(model), attack, task)
    assert found.ledger.spent.max(initial=0) <= QUERIES


@pytest.mark.parametrize("attack", BLACK, ids=lambda attack: attack.name)
def test_noise_is_no_robustness(attack):
    """A model that answers at random is found out, and a row counts as broken that was answered wrongly once."""
    if getattr(attack, "images", False):
        pytest.skip("changes images")
    model, _, _ = tumours()
    rng = np.random.default_rng(1)
    noisy = answering(lambda rows: model.predict_proba(rows + 0.02 * rng.normal(size=rows.shape) * rows.std(axis=0)))
    plain, found = (play(target, attack, table_task(budget=200)) for target in (Victim(model), noisy))
    assert not plain.at_random
    assert found.robust.sum() <= plain.robust.sum() + 1


def test_a_model_that_answers_at_random_is_found_out():
    model, _, _ = tumours()
    rng = np.random.default_rng(1)
    noisy = answering(lambda rows: model.predict_proba(rows + 0.1 * rng.normal(size=rows.shape) * rows.std(axis=0)))
    assert play(noisy, registry.attack("evasion.hopskipjump"), table_task(budget=200)).at_random


@pytest.mark.parametrize("change", [{"max_change": 0.0}, {"max_change": np.nan}, {"budget": 0}, {"gradients": -5}])
def test_budgets_that_leave_nothing_to_try_are_refused(change):
    with pytest.raises(InputError, match="leave nothing to try"):
        table_task(**change)
