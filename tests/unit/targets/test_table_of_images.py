"""Images in declared files: what is read, and what is refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError
from bartizan.core.system import Artefact
from bartizan.lifecycle.develop.data.reading import read_sample
from bartizan.targets.feasible import space_of
from bartizan.targets.table import read_table
from fixtures.victims import dataset_part

COLOUR = (3, 2, 4)
RNG = np.random.default_rng(0)


def images(count=5, shape=COLOUR, kind=np.uint8):
    return RNG.integers(0, 256, (count, *shape)).astype(kind)


def part(shape=COLOUR, value_range=(0.0, 255.0), **more):
    return dataset_part(shape=shape, value_range=value_range, **more)


def written(folder, rows, name="train.npz", **more):
    path = folder / name
    np.savez(path, rows=rows, target=np.arange(len(rows)) % 2, **more)
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("flat", [True, False])
def test_images_are_read_flat_by_channel_row_and_column_in_single_precision(tmp_path, kind, flat):
    stack = images(kind=kind)
    table = read_table(written(tmp_path, stack.reshape(5, -1) if flat else stack), part())
    assert table.rows.dtype == np.float32
    assert table.rows.shape == (5, 24)
    assert (table.rows.reshape(stack.shape) == stack).all()
    assert table.rows[1, 2 * 8 + 1 * 4 + 3] == stack[1, 2, 1, 3]


def test_the_check_of_data_quality_reads_the_same_images(tmp_path):
    path = written(tmp_path, images())
    artefact = Artefact(kind="dataset", name="train", digest=digest_bytes(path.read_bytes()), path=str(path))
    sample = read_sample(artefact, part())
    assert (sample.rows == read_table(path, part()).rows).all()
    assert not sample.missing.any()


def test_a_csv_of_as_many_columns_as_values_holds_images(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("a,b,c,d,target\n0,0.25,0.5,1,x\n1,0,0,0,y\n")
    table = read_table(path, part((1, 2, 2), (0.0, 1.0)))
    assert table.rows.tolist() == [[0, 0.25, 0.5, 1], [1, 0, 0, 0]]
    assert table.rows.dtype == np.float32


def test_the_space_of_images_is_their_range_and_changes_are_in_its_units(tmp_path):
    table = read_table(written(tmp_path, images()), part())
    space = space_of(part(), table)
    assert (space.scale == 1).all()
    assert (space.low == 0).all()
    assert (space.high == 255).all()
    assert space.channels == 3
    changed = table.rows.copy()
    changed[:, [0, 8, 16]] += 1 - 2 * (changed[:, [0, 8, 16]] > 128)  # one pixel in all its colours
    assert space.change(changed, table.rows).tolist() == [1.0] * 5
    assert space.change(changed, table.rows, 0).tolist() == [1.0] * 5


def test_a_range_that_single_precision_has_not_holds_its_own_ends(tmp_path):
    ends = np.array([[0.1, 0.3], [0.3, 0.1]])
    table = read_table(written(tmp_path, ends.reshape(2, 1, 1, 2)), part((1, 1, 2), (0.1, 0.3)))
    assert (space_of(part((1, 1, 2), (0.1, 0.3)), table).possible(table.rows, table.rows)).all()


HOSTILE = [
    (
        np.zeros((4, 2, 4, 3)),
        r"'rows' is float64 \(4, 2, 4, 3\); images of the declared shape are \(records, 3, 2, 4\)",
    ),
    (np.zeros((4, 2, 4)), "channels first"),
    (np.zeros((4, 23)), r"or \(records, 24\)"),
    (np.zeros((4, 1, 3, 2, 4)), "images of the declared shape"),
    (np.zeros((0, *COLOUR)), "at least one"),
    (np.full((2, *COLOUR), np.nan), "record 0, feature 0 is not finite"),
    (np.full((2, *COLOUR), 256.0), "record 0, value 0 is 256, outside the value_range from 0 to 255"),
    (np.full((2, *COLOUR), -1, np.int8), "outside the value_range"),
    (np.full((2, *COLOUR), 1e300), "outside the value_range"),
    (np.zeros((2, *COLOUR), complex), "numbers are read"),
    (np.zeros((2, *COLOUR), "U1"), "numbers are read"),
    (np.zeros(()), "images of the declared shape"),
]


@pytest.mark.parametrize(("rows", "says"), HOSTILE)
def test_what_is_no_such_image_is_refused_with_what_would_be_right(tmp_path, rows, says):
    path = tmp_path / "train.npz"
    np.savez(path, rows=rows, target=np.zeros(len(rows) if rows.ndim else 1, int))
    with pytest.raises(ArtefactError, match=says):
        read_table(path, part())


def test_one_shape_that_does_not_fit_the_file_and_one_too_large_are_refused(tmp_path):
    path = written(tmp_path, images())
    with pytest.raises(ArtefactError, match=r"images of the declared shape are \(records, 1, 5, 5\)"):
        read_table(path, part((1, 5, 5)))
    with pytest.raises(ArtefactError, match="images of the declared shape"):
        read_table(written(tmp_path, np.zeros((1, 10_000), np.uint8), "big.npz"), part((1, 100, 100)))
    text = tmp_path / "train.csv"
    text.write_text("a,b,target\n0,1,x\n")
    with pytest.raises(ArtefactError, match=r"2 values a record; images of shape \[3, 2, 4\] have 24"):
        read_table(text, part())


def test_a_table_is_still_no_image(tmp_path):
    with pytest.raises(ArtefactError, match="features"):
        read_table(written(tmp_path, images()), dataset_part())
    assert read_table(written(tmp_path, np.ones((2, 3))), dataset_part()).rows.dtype == np.float64
