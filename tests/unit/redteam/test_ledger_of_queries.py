from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import BudgetError
from bartizan.redteam import ledger as ledgers
from bartizan.redteam.ledger import Budget, Ledger, ordinals

batches = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=12)


@given(batches, st.integers(0, 9), st.integers(0, 30))
def test_nothing_is_ever_spent_beyond_the_budget_and_a_refused_batch_costs_nothing(batches, per_sample, total):
    ledger, paid = Ledger(Budget(samples=5, per_sample=per_sample, total=total)), Counter[int]()
    for batch in batches:
        too_much = any((paid + Counter(batch))[sample] > per_sample for sample in range(5))
        too_much |= paid.total() + len(batch) > total
        if too_much:
            with pytest.raises(BudgetError):
                ledger.charge(np.array(batch, dtype=np.int64))
        else:
            ledger.charge(np.array(batch, dtype=np.int64))
            paid += Counter(batch)
        assert ledger.spent.tolist() == [paid[sample] for sample in range(5)]


@given(st.lists(st.integers(0, 6), max_size=60))
def test_ordinals_count_occurrences(sample):
    seen = Counter[int]()
    expected = []
    for name in sample:
        seen[name] += 1
        expected.append(seen[name])
    assert ordinals(np.array(sample, dtype=np.int64)).tolist() == expected


def test_each_row_learns_which_query_of_its_sample_it_is():
    ledger = Ledger(Budget(samples=2, per_sample=10))
    ledger.charge(np.array([0, 0, 1]))
    assert ledger.charge(np.array([1, 0, 1, 0])).tolist() == [2, 3, 3, 4]


@pytest.mark.parametrize("name", [-1, 2])
def test_a_sample_that_nobody_pays_for_is_refused(name):
    with pytest.raises(BudgetError, match=r"outside 0\.\.1"):
        Ledger(Budget(samples=2, per_sample=10)).charge(np.array([name]))


def test_the_message_says_how_much_is_left():
    ledger = Ledger(Budget(samples=2, per_sample=3))
    ledger.charge(np.array([1, 1]))
    with pytest.raises(BudgetError, match="sample 1 has 1 of 3 queries left and 2 more were asked for"):
        ledger.charge(np.array([0, 1, 1]))


def test_training_runs_are_counted_too():
    ledger = Ledger(Budget(samples=1, per_sample=1, fits=1))
    ledger.charge_fit()
    with pytest.raises(BudgetError, match="all 1 training runs are spent"):
        ledger.charge_fit()


def test_when_the_time_is_over_nothing_is_charged_and_beginning_again_gives_no_more(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ledgers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ledger = Ledger(Budget(samples=1, per_sample=9, fits=9, seconds=5))
    one = np.zeros(1, dtype=np.int64)
    ledger.begin()
    now[0] += 4
    ledger.begin()
    ledger.charge(one)
    ledger.charge_gradients(one)
    assert not ledger.late
    now[0] += 2
    for refused in (lambda: ledger.charge(one), lambda: ledger.charge_gradients(one), ledger.charge_fit):
        with pytest.raises(BudgetError, match="5 seconds of this run are over"):
            refused()
    assert (ledger.queries, ledger.gradients, ledger.fits, ledger.late) == (1, 1, 0, True)
