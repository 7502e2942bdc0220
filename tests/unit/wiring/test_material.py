"""What commands and lessons are given of a declaration: with small budgets, and otherwise all that a campaign gets."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from bartizan.redteam.check import material_of
from bartizan.wiring import labs, measuring
from fixtures.image_systems import SHAPE, declare_images


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return declare_images(
        tmp_path_factory.mktemp("material"),
        data={"sensitivity": "public", "personal_data": False},
        samples=500,
        query_budget=5000,
    )


def quick(system, subject):
    return measuring.material(system, subject, quick=True)


@pytest.mark.parametrize("shortened", [quick, labs.declared_material])
def test_a_short_run_spends_less_and_knows_as_much(system, shortened):
    (subject,) = system.of_kind("model")
    whole, short = material_of(system, subject), shortened(system, subject)
    assert short.shape == SHAPE
    assert short.showable
    assert short.settings.samples < whole.settings.samples
    assert short.settings.query_budget < whole.settings.query_budget
    for field in fields(whole):
        if field.name in {"settings", "training", "evaluation", "space"}:
            continue
        assert getattr(short, field.name) == getattr(whole, field.name), field.name
    for name in ("training", "evaluation"):
        np.testing.assert_array_equal(getattr(short, name).rows, getattr(whole, name).rows)
