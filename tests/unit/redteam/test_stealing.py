"""What an interface keeps back: fidelity at each detail of output, in one table; and copies by torch."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.attacks.extraction.random import RandomExtraction, RandomExtractionFromLabels
from bartizan.redteam.learners import Learner
from bartizan.redteam.stealing import by_detail, steal, stealing_task, table
from bartizan.targets.feasible import image_space
from bartizan.targets.protocol import Access
from bartizan.targets.tailored import DETAILS, FULL, LABELS, ROUNDED, TOP, Tailored
from fixtures.victims import Victim, space_around

ROWS, TRUTH = load_digits(return_X_y=True)
ROWS = ROWS / 16


@pytest.fixture(scope="module")
def target():
    return Victim(LogisticRegression(max_iter=300).fit(ROWS[:600], TRUTH[:600]))


def task_on(own, *checkpoints):
    learner = Learner("linear", 1e-3).fit
    return stealing_task(own, space=space_around(own), classes=10, checkpoints=checkpoints, learner=learner)


def test_less_detail_gives_less_away(target):
    kept = (ROWS[1000:], TRUTH[1000:])
    attacks = (RandomExtraction(), RandomExtractionFromLabels())
    thefts = by_detail(target, attacks, task_on(ROWS[600:1000], 40, 120), kept)
    shown = table(thefts)
    assert [record["output"] for record in shown] == [detail.name for detail in DETAILS for _ in range(2)]
    last = {record["output"]: record["fidelity"] for record in shown if record["queries"] == 120}
    assert last[FULL.name][0] > last[LABELS.name][0]
    assert all(low < value < high for value, low, high in last.values())
    assert [theft.attack for theft in thefts][-1] == "extraction.random-labels"


def test_tailored_answers_keep_back_what_they_say(target):
    full, top, rounded, labels = (Tailored(target, detail) for detail in (FULL, TOP, ROUNDED, LABELS))
    rows = ROWS[:50]
    np.testing.assert_array_equal(full.scores(rows), target.scores(rows))
    best = top.scores(rows)
    np.testing.assert_allclose(best.sum(axis=1), 1)
    np.testing.assert_allclose(best.max(axis=1), target.scores(rows).max(axis=1), atol=1e-6)
    assert all(len(np.unique(row.round(9))) <= 2 for row in best)
    assert set(np.unique(rounded.scores(rows).round(6))) <= set(np.round(np.arange(11) / 10, 6))
    assert Access.SCORES not in labels.offers
    np.testing.assert_array_equal(labels.labels(rows), target.labels(rows))
    with pytest.raises(WorkError, match="labels only"):
        labels.scores(rows)


def test_attacks_that_do_not_apply_are_refused(target):
    kept, task = (ROWS[1000:], TRUTH[1000:]), task_on(ROWS[:100], 10)
    with pytest.raises(WorkError, match="needs scores"):
        steal(Tailored(target, LABELS), RandomExtraction(), task, kept)
    with pytest.raises(WorkError, match="no attack applies"):
        by_detail(target, (RandomExtraction(),), task, kept)
    with pytest.raises(InputError, match="do not fit"):
        steal(target, RandomExtraction(), task, (ROWS[:0], TRUTH[:0]))


@pytest.mark.parametrize("checkpoints", [(), (0,), (5, 5), (9, 3)])
def test_checkpoints_that_do_not_rise_are_refused(checkpoints):
    with pytest.raises(InputError, match="do not rise"):
        task_on(ROWS[:10], *checkpoints)


def test_an_adversary_without_rows_is_refused():
    with pytest.raises(InputError, match="at least one row"):
        stealing_task(ROWS[:0], space=space_around(ROWS), classes=10, checkpoints=(5,))


def test_a_convolutional_copy_is_trained_on_shifted_pictures_and_seeded():
    torch = pytest.importorskip("torch")
    from bartizan.adapters.torch_learner import TorchLearner  # noqa: PLC0415 - needs torch

    torch.set_num_threads(1)
    images, space = ROWS.astype(np.float32), image_space((1, 8, 8))
    target = Victim(LogisticRegression(max_iter=300).fit(images[:600], TRUTH[:600]))
    learner = TorchLearner((1, 8, 8), epochs=1, steps=250, shift=1, width=8, batch=32)
    task = stealing_task(images[600:1000], space=space, classes=10, checkpoints=(150,), learner=learner)
    state = torch.random.get_rng_state()
    first, second = (
        steal(target, RandomExtraction(), task, (images[1000:], TRUTH[1000:]), seed=2).last for _ in range(2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.substitute.predict(images), second.substitute.predict(images))
    assert first.fidelity.interval.low > 0.5
    shifted = learner._shifted(torch.from_numpy(images[:50]).reshape(-1, 1, 8, 8), torch.Generator().manual_seed(0))
    middle = torch.from_numpy(images[:50]).reshape(-1, 8, 8)[:, 1:-1, 1:-1]
    places = [(down, right) for down in range(3) for right in range(3)]
    alike = [
        [torch.equal(one[0, a : a + 6, b : b + 6], part) for a, b in places]
        for one, part in zip(shifted, middle, strict=True)
    ]
    assert all(any(each) for each in alike)
    assert not all(each[4] for each in alike)
    with pytest.raises(InputError, match="no pictures"):
        TorchLearner((64,))(ROWS[:3], np.eye(10)[:3], np.random.default_rng(0))
