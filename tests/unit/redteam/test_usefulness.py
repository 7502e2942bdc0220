"""What an answer is worth to an honest user at each detail."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.core.errors import InputError
from bartizan.redteam.details import LADDER
from bartizan.redteam.usefulness import usefulness
from bartizan.targets.detail import Detail


@pytest.fixture(scope="module")
def calibrated():
    """Scores of a model that is right exactly as often as it says."""
    rng = np.random.default_rng(1)
    scores = rng.dirichlet(np.full(4, 0.4), 1500)
    truth = np.array([rng.choice(4, p=row) for row in scores])
    return scores, truth, [str(place).encode() for place in range(len(truth))]


def use(calibrated, detail):
    return usefulness(*calibrated, detail, np.random.default_rng(0))


def test_words_and_numbers_of_a_calibrated_model_are_worth_more_the_more_is_told(calibrated):
    loss = {kind: use(calibrated, Detail(kind)).log_loss.value for kind in ("label", "buckets", "confidence", "scores")}
    assert loss["label"] > loss["buckets"] > loss["confidence"] > loss["scores"]
    noisy = [use(calibrated, Detail("noisy-scores", noise=noise)).log_loss.value for noise in (0.3, 1.0, 3.0)]
    assert noisy == sorted(noisy)


def test_a_calibrated_model_is_found_so_and_noise_spoils_it(calibrated):
    assert use(calibrated, Detail("scores")).calibration_error.value < 0.05
    assert use(calibrated, Detail("label")).calibration_error.value < 0.05
    assert use(calibrated, Detail("noisy-scores", noise=3.0)).calibration_error.value > 0.1


def test_decisions_are_those_of_all_scores_where_numbers_are_fine_enough(calibrated):
    same = {detail.name: use(calibrated, detail).same_decisions.value for detail in LADDER}
    assert same["all scores"] == 1.0
    assert same["scores to 2 digits"] > 0.97
    assert same["confidence in 3 buckets"] > same["labels only"]


def test_no_detail_changes_the_label(calibrated):
    assert len({use(calibrated, detail).accuracy.value for detail in LADDER}) == 1


def test_the_truth_is_among_those_named_more_often_than_it_is_the_label(calibrated):
    found = use(calibrated, Detail("top-k", k=3))
    assert found.truth_named.value > found.accuracy.value
    assert use(calibrated, Detail("buckets")).truth_named is None


def test_rows_that_do_not_fit_are_refused(calibrated):
    scores, truth, asked = calibrated
    for wrong in ((scores[:1], truth[:1], asked[:1]), (scores, truth[:-1], asked), (scores, truth, asked[:-1])):
        with pytest.raises(InputError, match="do not fit"):
            usefulness(*wrong, Detail("label"), np.random.default_rng(0))
