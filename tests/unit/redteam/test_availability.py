"""Time is counted by a clock of the test's own where that is enough, and measured where it is the point."""

from __future__ import annotations

import gzip
import json
import re
import zlib

import numpy as np
import pytest

from bartizan.core.errors import InputError
from bartizan.redteam.attacks.availability.blowup import Blowup
from bartizan.redteam.attacks.availability.slow_texts import PATTERNS, SlowTexts
from bartizan.redteam.attacks.availability.sponge import Sponge
from bartizan.redteam.availability import CostQuery, CostTask, cost, play_cost
from fixtures.letters import messages
from fixtures.victims import space_around


class Worker:
    """A target whose work is counted, with a clock that shows it: a unit is a microsecond."""

    def __init__(self, work):
        self.work, self.now, self.asked = work, 0.0, []

    def __call__(self, item):
        self.asked.append(item)
        self.now += 1e-6 * self.work(item)

    def clock(self):
        return self.now


def texts():
    return messages(30)[0]


def test_a_pattern_that_backtracks_is_found_by_the_time_it_takes():
    greedy = re.compile(r"^(\w+\s?)*$")
    found = play_cost(greedy.match, SlowTexts(), CostTask(texts(), 200, 600, most_seconds=0.2))
    assert found.is_slow
    assert found.ratio.interval.low > 50
    assert len(found.item) <= 200
    assert found.seconds < 2


def test_a_pattern_that_does_not_backtrack_is_left_in_peace():
    sober = re.compile(r"[a-z]+")
    found = play_cost(sober.match, SlowTexts(), CostTask(texts(), 100, 600))
    assert found.ratio.value < 10


def test_quadratic_work_shows_in_the_ratio():
    worker = Worker(lambda text: len(text) ** 2 / 100)
    found = play_cost(worker, SlowTexts(), CostTask(("x" * 100,), 1000, 600), clock=worker.clock)
    assert found.ratio.value == pytest.approx(100, rel=0.01)
    assert found.is_slow


def test_a_target_that_takes_the_same_time_for_all_is_not_called_slow():
    worker = Worker(lambda _: 50)
    found = play_cost(worker, SlowTexts(), CostTask(texts(), 500, 300), clock=worker.clock)
    assert not found.is_slow
    assert found.ratio.value == pytest.approx(1)
    assert found.p_value == 1


def test_luck_in_the_search_is_not_believed():
    rng = np.random.default_rng(0)
    worker = Worker(lambda _: rng.exponential(50))
    slow = [
        play_cost(worker, SlowTexts(), CostTask(texts(), 500, 100), seed=seed, clock=worker.clock).is_slow
        for seed in range(30)
    ]
    assert sum(slow) <= 1


@pytest.mark.parametrize("attack", [SlowTexts(), Blowup()], ids=lambda attack: attack.name)
@pytest.mark.parametrize("budget", [0, 1, 40])
def test_no_more_items_are_asked_than_the_budget_allows_and_none_is_too_large(attack, budget):
    worker = Worker(lambda _: 1)
    ordinary = (b"ordinary",) if attack.name == "availability.blowup" else ("ordinary",)
    found = play_cost(worker, attack, CostTask(ordinary, 3000, budget), clock=worker.clock)
    assert found.queries <= budget
    assert len(worker.asked) <= budget + 1 + 2 * 25
    assert all(len(item) <= 3000 for item in worker.asked)


def test_patterns_are_as_long_as_they_are_asked_to_be():
    for name, pattern in PATTERNS.items():
        assert all(size - 3 <= len(pattern(size)) <= size for size in (16, 33, 1000)), name


def test_a_sponge_finds_the_rows_on_which_an_early_exit_goes_deepest():
    """A model that leaves after the first layer that is sure, as in the paper's adaptive networks."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 10))
    directions = rng.normal(size=(20, 10))

    def depth(row):
        sure = np.flatnonzero(np.abs(directions @ row) > 1.0)
        return float(sure[0] + 1 if sure.size else 20)

    ordinary = np.mean([depth(row) for row in rows])
    worker = Worker(lambda row: 10 * depth(row))
    attack = Sponge(space_around(rows))
    found = play_cost(worker, attack, CostTask(tuple(rows), 0, 3000), clock=worker.clock)
    assert depth(found.item) > 3 * ordinary
    assert found.ratio.interval.low > 2
    counted = Sponge(space_around(rows), work=depth)
    again = play_cost(worker, counted, CostTask(tuple(rows), 0, 3000), clock=worker.clock)
    assert depth(again.item) > 3 * ordinary


def test_a_sponge_finds_nothing_where_every_row_takes_the_same_path():
    rows = np.random.default_rng(0).normal(size=(30, 4))
    worker = Worker(lambda _: 7)
    assert not play_cost(worker, Sponge(), CostTask(tuple(rows), 0, 500), clock=worker.clock).is_slow


def test_packed_bytes_within_the_limit_cost_far_more_than_ordinary_ones():
    ordinary = tuple(gzip.compress(json.dumps({"text": text}).encode()) for text in texts())
    found = play_cost(gzip.decompress, Blowup(), CostTask(ordinary, 20_000, 60, most_seconds=0.3))
    assert found.is_slow
    assert found.ratio.interval.low > 20
    assert len(found.item) <= 20_000


def test_a_target_that_bounds_what_it_unpacks_is_not_slowed():
    def bounded(item):
        data = zlib.decompressobj(wbits=47).decompress(item, 4096)
        if len(data) == 4096:
            raise ValueError("too large")
        return data

    ordinary = tuple(gzip.compress(bytes(np.random.default_rng(seed).bytes(3000))) for seed in range(20))
    found = play_cost(bounded, Blowup(), CostTask(ordinary, 20_000, 60, most_seconds=0.3))
    assert found.ratio.value < 5


def test_a_refusal_is_timed_like_an_answer():
    def refuse(_):
        raise ValueError("no")

    assert cost(refuse, "x") > 0


def test_without_ordinary_items_there_is_nothing_to_compare_with():
    with pytest.raises(InputError, match="ordinary"):
        play_cost(len, SlowTexts(), CostTask((), 100, 10))


def test_an_attack_that_finds_nothing_is_measured_as_ordinary():
    class Idle:
        def search(self, task, _rng):
            yield CostQuery((task.ordinary[0],))
            return []

    worker = Worker(len)
    assert not play_cost(worker, Idle(), CostTask(("abc",), 10, 5), clock=worker.clock).is_slow
