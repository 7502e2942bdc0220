from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError
from bartizan.targets import table
from bartizan.targets.table import read_columns, read_table
from fixtures.victims import dataset_part


def written(folder, data: bytes | str, name="data.csv"):
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def archive(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_columns_come_in_the_order_of_the_file_without_target_and_group(tmp_path):
    path = written(tmp_path, "b,target,patient,a\n1,0,7,2\n3,1,8,4\n")
    part = dataset_part(group="patient")
    read = read_table(path, part)
    assert read.columns == ("b", "a")
    assert read.rows.tolist() == [[1, 2], [3, 4]]
    assert read_columns(path, part) == ("b", "a")


def test_numeric_labels_are_ordered_as_numbers_and_words_as_words(tmp_path):
    numbers = read_table(written(tmp_path, "a,target\n1,10\n2,9\n3,10\n"), dataset_part())
    words = read_table(written(tmp_path, "a,target\n1,pear\n2,apple\n"), dataset_part())
    assert (numbers.label_values, numbers.labels.tolist()) == (("9", "10"), [1, 0, 1])
    assert (words.label_values, words.labels.tolist()) == (("apple", "pear"), [1, 0])


def test_a_table_without_some_class_keeps_the_indices_of_training(tmp_path):
    path = written(tmp_path, "a,target\n1,2\n")
    assert read_table(path, dataset_part(), label_values=("0", "1", "2")).labels.tolist() == [2]


def test_a_class_that_training_has_not_is_refused(tmp_path):
    path = written(tmp_path, "a,target\n1,2\n")
    with pytest.raises(ArtefactError, match=r"'2', which training has not"):
        read_table(path, dataset_part(), label_values=("0", "1"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a,target\n1,0\nx,1\n", r"data\.csv:3: column 'a' holds 'x', which is no finite number"),
        ("a,b,target\n1,inf,0\n", r":2: column 'b' holds 'inf'"),
        ("a,target\nnan,0\n", r":2: column 'a' holds 'nan'"),
        ("a,target\n,0\n", r":2: column 'a' holds ''"),
        ("a,target\n1\n", r":2: 1 cells where the header has 2"),
        ("a,target\n1,2,3\n", r":2: 3 cells where the header has 2"),
        ("", r":1: no column 'target'"),
        ("a,target\n", r":2: no record follows the header"),
        ("a,a,target\n1,1,1\n", r":1: the column 'a' comes twice"),
        ("a,b\n1,2\n", r":1: no column 'target'"),
        ("target\n1\n", r":1: no feature is left"),
        ('a,target\n"1,0\n', r"not CSV"),
        (b"a,target\n1,\xff\n", r"not UTF-8"),
        ('a,target\n"' + "1" * 200_000 + '",0\n', r":2: not CSV: field larger"),
    ],
)
def test_every_fault_names_file_and_line(tmp_path, text, fault):
    with pytest.raises(ArtefactError, match=fault):
        read_table(written(tmp_path, text), dataset_part())


def test_a_fault_far_down_is_found_at_its_line(tmp_path):
    lines = [f"{number},0" for number in range(10_000)]
    lines[7_776] = "7776 ,oops,0"
    lines[7_776] = "oops,0"
    path = written(tmp_path, "a,target\n" + "\n".join(lines))
    with pytest.raises(ArtefactError, match=r":7778: column 'a' holds 'oops'"):
        read_table(path, dataset_part())


def test_too_much_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    path = written(tmp_path, "a,target\n" + "1,0\n" * 50)
    monkeypatch.setattr(table, "MAX_CELLS", 20)
    with pytest.raises(ArtefactError, match=r":12: more than 20 cells"):
        read_table(path, dataset_part())
    monkeypatch.setattr(table, "MAX_BYTES", 20)
    with pytest.raises(ArtefactError, match="more than 20 bytes"):
        read_table(path, dataset_part())


def test_bytes_that_are_not_those_that_were_digested_are_refused(tmp_path):
    path = written(tmp_path, "a,target\n1,0\n")
    digest = digest_bytes(path.read_bytes())
    assert len(read_table(path, dataset_part(), digest=digest)) == 1
    written(tmp_path, "a,target\n2,0\n")
    with pytest.raises(ArtefactError, match="changed since it was digested"):
        read_table(path, dataset_part(), digest=digest)


def test_a_missing_file_and_a_folder_are_told_apart_from_faults(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(ArtefactError, match="cannot be read"):
            read_table(path, dataset_part())


def test_an_npz_archive_gives_the_same_table_as_its_csv(tmp_path):
    rows, labels = np.array([[1.5, -2e-300], [3.25, 4.0]]), np.array([1, 0])
    path = archive(tmp_path, rows=rows, target=labels, columns=np.array(["a", "b"]))
    text = "a,b,target\n" + "\n".join(
        f"{a!r},{b!r},{label}" for (a, b), label in zip(rows.tolist(), labels, strict=True)
    )
    from_npz, from_csv = read_table(path, dataset_part()), read_table(written(tmp_path, text), dataset_part())
    assert from_npz.columns == from_csv.columns == read_columns(path, dataset_part())
    assert np.array_equal(from_npz.rows, from_csv.rows)
    assert np.array_equal(from_npz.labels, from_csv.labels)
    assert from_npz.label_values == from_csv.label_values


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"rows": np.ones((2, 2))}, "no array 'target'; there are rows"),
        ({"rows": np.ones(2), "target": np.ones(2, int)}, r"'rows' is float64 \(2,\)"),
        ({"rows": np.ones((2, 2)), "target": np.ones(3, int)}, r"'target' is int64 \(3,\)"),
        ({"rows": np.ones((2, 2)), "target": np.ones(2)}, "'target' is float64"),
        ({"rows": np.array([[1.0], [np.nan]]), "target": np.ones(2, int)}, "record 1, feature 0 is not finite"),
        ({"rows": np.ones((2, 2)), "target": np.ones(2, int), "columns": np.array(["a", "a"])}, "2 different names"),
    ],
)
def test_an_archive_of_other_arrays_is_refused(tmp_path, arrays, fault):
    with pytest.raises(ArtefactError, match=fault):
        read_table(archive(tmp_path, **arrays), dataset_part())


class Mark:
    """Unpickling it would leave a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_in_an_archive_are_never_loaded(tmp_path):
    path, mark = tmp_path / "data.npz", tmp_path / "mark"
    np.savez(path, rows=np.array([Mark(mark)], dtype=object), target=np.array([0]))
    with pytest.raises(ArtefactError, match="not an npz archive of plain arrays"):
        read_table(path, dataset_part())
    written(tmp_path, pickle.dumps(Mark(mark)), "data.npz")
    with pytest.raises(ArtefactError, match="not an npz archive"):
        read_table(path, dataset_part())
    assert not mark.exists()


def test_an_archive_that_unpacks_to_more_than_is_read_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MAX_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "data.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("rows.npy", bytes(10_000_000))
    with pytest.raises(ArtefactError, match=r"1 arrays of 10000000 bytes"):
        read_table(tmp_path / "data.npz", dataset_part())


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 30)})
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as liar:
        liar.writestr("rows.npy", header.getvalue())
    with pytest.raises(ArtefactError, match=r"data\.npz"):
        read_table(tmp_path / "data.npz", dataset_part())


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='a1,."\n\r;target\x00', max_size=80).map(str.encode)))
def test_any_bytes_are_a_table_or_an_error_that_names_the_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    for name in ("data.csv", "data.npz"):
        try:
            read = read_table(
                written(folder, b"a,target\n" + data if name == "data.csv" else data, name), dataset_part()
            )
        except ArtefactError as error:
            assert name in error.message  # noqa: PT017 - every outcome is checked
        else:
            assert np.isfinite(read.rows).all()
            assert read.labels.max() < len(read.label_values)


def sound_archive(*, compressed):
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, rows=np.arange(12.0).reshape(4, 3), target=np.array([0, 1, 0, 1]), columns=np.array(["a", "b", "c"]))
    return file.getvalue()


ARCHIVES = [sound_archive(compressed=False), sound_archive(compressed=True)]


@settings(max_examples=200)
@given(st.sampled_from(ARCHIVES), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6))
def test_an_archive_with_altered_bytes_is_a_table_or_an_error(tmp_path_factory, archive, changes):
    data = bytearray(archive)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        read = read_table(written(tmp_path_factory.mktemp("altered"), bytes(data), "data.npz"), dataset_part())
    except ArtefactError as error:
        assert "data.npz" in error.message  # noqa: PT017 - every outcome is checked
    else:
        assert np.isfinite(read.rows).all()


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_numbers_come_back_bit_by_bit(tmp_path_factory, rows):
    text = "a,b,target\n" + "".join(f"{a!r},{b!r},0\n" for a, b in rows)
    read = read_table(written(tmp_path_factory.mktemp("bits"), text), dataset_part())
    assert read.rows.tobytes() == np.array(rows, dtype=np.float64).tobytes()
