"""The same attacks at every detail of output, by an adversary who knows it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.extraction.random import RandomExtraction
from bartizan.redteam.attacks.text.characters import Characters
from bartizan.redteam.details import AVERAGED, Aim, gains, table, text_gains
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.extraction import Extraction
from bartizan.targets.detail import Detail
from bartizan.wiring.labs import example_ground, example_messages

LABELS, SCORES = Detail("label"), Detail("scores")
EVASION = Aim("evasion", Evasion(), (Square(), HopSkipJump()), "attack_success")


@pytest.fixture(scope="module")
def ground():
    found = example_ground()
    settings = msgspec.structs.replace(found.material.settings, samples=40, query_budget=80, extraction_budget=40)
    return replace(found, material=replace(found.material, settings=settings))


def test_scores_give_an_adversary_more_than_labels_and_labels_are_played_once(ground):
    heard = []
    found = gains(
        ground.target,
        ground.material,
        details=(LABELS, Detail("buckets"), SCORES),
        aims=(EVASION,),
        seed=1,
        tell=heard.append,
    )
    value = {gain.detail.kind: gain.value.value for gain in found}
    assert value["scores"] > value["label"] + 0.2
    assert value["buckets"] >= value["label"]
    assert found[0].attack == "evasion.hopskipjump"
    assert found[-1].attack == "evasion.square"
    assert sum("hopskipjump" in note for note in heard) == 1
    assert [record["detail"] for record in table(found)] == ["labels only", "confidence in 3 buckets", "all scores"]
    assert all(record["low"] <= record["value"] <= record["high"] for record in table(found))


def test_details_that_tell_the_same_are_played_once(ground):
    heard = []
    same = (Detail("graphic", steps=10), Detail("rounded-scores", decimals=1))
    first, second = gains(
        ground.target,
        ground.material,
        details=same,
        aims=(Aim("evasion", Evasion(), (Square(),), "attack_success"),),
        tell=heard.append,
    )
    assert len(heard) == 1
    assert first.value == second.value


def test_noise_is_averaged_by_an_adversary_who_pays_for_it(ground):
    heard = []
    (found,) = gains(
        ground.target,
        ground.material,
        details=(Detail("noisy-scores"),),
        aims=(Aim("extraction", Extraction(), (RandomExtraction(),), "fidelity"),),
        tell=heard.append,
    )
    assert [note.endswith("averaged") for note in heard] == [False, True]
    budget = ground.material.settings.extraction_budget
    assert max(point.x for point in found.measured.curves["fidelity_by_queries"]) in {budget, budget // AVERAGED}


def test_attacks_that_do_not_fit_the_data_are_left_out(ground):
    few = replace(ground.material, evaluation=ground.material.evaluation.take(range(5)))
    heard = []
    aim = Aim("extraction", Extraction(), (RandomExtraction(),), "fidelity")
    assert gains(ground.target, few, details=(SCORES,), aims=(aim,), tell=heard.append) == ()
    assert "does not apply" in heard[-1]


def test_texts_give_in_more_often_where_scores_are_told():
    ground = example_messages()
    settings = msgspec.structs.replace(ground.material.settings, samples=25, query_budget=60)
    found = text_gains(
        ground.target, replace(ground.material, settings=settings), Characters(), details=(LABELS, SCORES), seed=2
    )
    assert found[1].value.value > found[0].value.value
