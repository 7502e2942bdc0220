"""Subjective logic: the operators against worked numbers and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.lifecycle.deploy.gateway.guards.rules.opinions import VACUOUS, Opinion, conflict, cumulative, fused

SURE = Opinion(0.8, 0.1, 0.1)
UNSURE = Opinion(0.2, 0.2, 0.6)


@st.composite
def opinions(draw):
    belief = draw(st.floats(0, 1))
    disbelief = draw(st.floats(0, 1)) * (1 - belief)
    return Opinion(belief, disbelief, max(0.0, 1 - belief - disbelief))


def evidence(opinion, weight=2.0):
    """Opinion to counts of evidence for and against (Jøsang 2016, chapter 3: the beta mapping)."""
    return np.array([weight * opinion.belief / opinion.uncertainty, weight * opinion.disbelief / opinion.uncertainty])


def test_cumulative_fusion_adds_the_evidence_of_the_sources():
    together = fused([SURE, UNSURE, UNSURE], "cumulative")
    np.testing.assert_allclose(evidence(together), evidence(SURE) + 2 * evidence(UNSURE))


def test_averaging_fusion_is_the_mean_of_the_evidence():
    together = fused([SURE, UNSURE, VACUOUS], "averaging")
    np.testing.assert_allclose(evidence(together), (evidence(SURE) + evidence(UNSURE)) / 3)


def test_hearing_the_same_twice_makes_surer_only_by_cumulative_fusion():
    assert fused([SURE, SURE], "averaging") == pytest.approx(SURE)
    assert fused([SURE, SURE], "cumulative").uncertainty < SURE.uncertainty


def test_whoever_knows_nothing_changes_nothing_by_cumulative_fusion():
    assert cumulative(SURE, VACUOUS) == pytest.approx(SURE)
    assert fused([], "cumulative") == VACUOUS


def test_two_that_are_wholly_certain_are_weighed_alike():
    together = cumulative(Opinion(1.0, 0.0, 0.0), Opinion(0.0, 1.0, 0.0))
    assert together[:3] == pytest.approx((0.5, 0.5, 0.0))
    averaged = fused([Opinion(1.0, 0.0, 0.0), Opinion(0.0, 1.0, 0.0)], "averaging")
    assert averaged[:3] == pytest.approx((0.5, 0.5, 0.0), abs=1e-6)


def test_distrust_becomes_uncertainty_and_never_disbelief():
    heard = SURE.discounted(0.5)
    assert heard == pytest.approx(Opinion(0.4, 0.05, 0.55))
    assert SURE.discounted(0.0) == pytest.approx(VACUOUS)


def test_conflict_needs_distance_and_certainty():
    assert conflict([Opinion(1.0, 0.0, 0.0), Opinion(0.0, 1.0, 0.0)]) == 1.0
    assert conflict([SURE, SURE]) == 0.0
    assert conflict([Opinion(1.0, 0.0, 0.0), VACUOUS]) == 0.0


@given(st.lists(opinions(), min_size=1, max_size=4), st.sampled_from(["cumulative", "averaging"]))
def test_every_fusion_is_an_opinion(several, method):
    together = fused(several, method)
    assert together.belief + together.disbelief + together.uncertainty == pytest.approx(1.0, abs=1e-6)
    assert min(together[:3]) >= -1e-9
    assert -1e-9 <= together.probability <= 1 + 1e-9


@given(
    st.lists(st.tuples(opinions(), opinions()), min_size=1, max_size=5), st.sampled_from(["cumulative", "averaging"])
)
def test_arrays_are_fused_like_single_numbers(pairs, method):
    several = [Opinion(*(np.array([pair[place][part] for pair in pairs]) for part in range(3))) for place in (0, 1)]
    together, apart = fused(several, method), conflict(several)
    for row, pair in enumerate(pairs):
        single = fused(list(pair), method)
        assert [part[row] for part in together[:3]] == pytest.approx(list(single[:3]), abs=1e-9)
        assert apart[row] == pytest.approx(conflict(list(pair)), abs=1e-9)
