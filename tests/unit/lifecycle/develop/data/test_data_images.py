"""Data quality and cards of datasets that hold images."""

from __future__ import annotations

import msgspec
import numpy as np

from bartizan.core.digest import digest_bytes
from bartizan.core.system import Artefact
from bartizan.lifecycle.develop.cards.facts import schema_of
from bartizan.lifecycle.develop.data.quality import examine
from bartizan.lifecycle.develop.data.reading import read_sample
from fixtures.image_systems import SHAPE, digits
from fixtures.victims import dataset_part

PART = dataset_part(shape=SHAPE, value_range=(0.0, 1.0))


def sample(folder, rows, part=PART):
    path = folder / "train.npz"
    np.savez(path, rows=rows.reshape(-1, *SHAPE), target=digits()[1][: len(rows)])
    artefact = Artefact(kind="dataset", name="train", digest=digest_bytes(path.read_bytes()), path=str(path))
    return read_sample(artefact, part)


def test_values_outside_the_range_are_counted_as_invalid(tmp_path):
    rows = digits()[0][:200].copy()
    sound = examine(sample(tmp_path, rows)).measured("validity")
    assert (sound.examined, sound.faults) == (200 * 64, 0)
    rows[3, 5], rows[7, 0] = 1.5, -0.25
    broken = examine(sample(tmp_path, rows)).measured("validity")
    assert broken.faults == 2
    assert broken.metrics["validity"].value < 1
    wider = msgspec.structs.replace(PART, value_range=(-1.0, 2.0))
    assert examine(sample(tmp_path, rows, wider)).measured("validity").faults == 0


def test_cards_say_what_the_images_are_and_nothing_of_it_for_tables():
    assert schema_of(PART) | {"shape": [1, 8, 8], "valueRange": [0.0, 1.0]} == schema_of(PART)
    assert "shape" not in schema_of(dataset_part())
