from __future__ import annotations

import random

import pytest

from bartizan.lifecycle.deploy.gateway.audit.access import DAY, HOUR, Access, unusual, upper

NOON = 20_000 * DAY + 12 * HOUR


def usual(days=30, readers=("uid:1", "uid:2"), seed=1):
    """Reads of about 400 rows, between nine and five, each day."""
    generator = random.Random(seed)
    return [
        Access(NOON - day * DAY + generator.randrange(-3, 5) * HOUR, reader, generator.randrange(300, 500))
        for day in range(1, days + 1)
        for reader in readers
    ]


def test_usual_reads_raise_nothing():
    """Over many seeded histories; the interval of the rate of false alarms follows from the count."""
    alarms = 0
    for seed in range(400):
        history = usual(seed=seed)
        generator = random.Random(seed + 10_000)
        now = Access(NOON + generator.randrange(-3, 5) * HOUR, "uid:1", generator.randrange(300, 500))
        alarms += bool(unusual(history, now))
    assert alarms == 0  # at most 0.9 % by the rule of three


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Access(NOON, "uid:9", 400), "first read by this reader"),
        (Access(NOON, "uid:1", 50_000), "50000 rows in one read"),
        (Access(NOON - 9 * HOUR, "uid:1", 400), "read at 3 o'clock"),
    ],
)
def test_what_is_unusual_is_said(now, words):
    assert words in unusual(usual(), now)[0]


def test_many_small_reads_add_up():
    history = usual()
    said = ()
    for number in range(10):
        now = Access(NOON + number, "uid:1", 450)
        said = unusual(history, now)
        if said:
            break
        history.append(now)
    assert "rows in one day" in said[0]
    assert number <= 2


def test_a_few_enormous_reads_do_not_make_enormous_reads_usual():
    """The bound is robust: a tenth of the history cannot move it far."""
    history = [*usual(), *(Access(NOON - day * DAY, "uid:1", 90_000) for day in range(1, 4))]
    assert any("80000 rows" in said for said in unusual(history, Access(NOON, "uid:1", 80_000)))


def test_without_a_history_nothing_can_be_told():
    assert unusual([], Access(NOON, "uid:1", 10**9)) == ()
    assert unusual(usual(2)[:4], Access(NOON, "uid:9", 10**9)) == ()


def test_equal_reads_leave_room():
    assert upper([100] * 20) == 150
