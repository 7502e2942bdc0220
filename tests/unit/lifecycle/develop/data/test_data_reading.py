"""Reading datasets as they are: faults kept, limits kept, nothing but a sample or an ArtefactError."""

from __future__ import annotations

import contextlib
import io

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.data import reading
from bartizan.lifecycle.develop.data.reading import ABSENT, Sample, read_sample
from bartizan.targets.table import read_table
from fixtures.tables import artefact, part, real, sample_of, write_csv


def read(tmp_path, text: str | bytes, **declared) -> Sample:
    path = tmp_path / "train.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return sample_of(path, part(**declared))


@pytest.mark.parametrize("name", ["breast-cancer", "digits"])
def test_a_sound_file_reads_as_the_models_see_it(tmp_path, name):
    path = write_csv(tmp_path / "train.csv", *real(name))
    sample, table = sample_of(path, part()), read_table(path, part())
    np.testing.assert_array_equal(sample.rows, table.rows)
    np.testing.assert_array_equal(sample.labels, table.labels)
    assert (sample.columns, sample.label_values) == (table.columns, table.label_values)
    assert not sample.missing.any()


def test_an_npz_archive_reads_as_the_models_see_it(tmp_path):
    rows, labels = real("wine")
    path = tmp_path / "train.npz"
    np.savez(path, rows=rows, label=labels, site=labels % 2, columns=[f"f{place}" for place in range(rows.shape[1])])
    sample, table = sample_of(path, part(group="site")), read_table(path, part(group="site"))
    np.testing.assert_array_equal(sample.rows, table.rows)
    assert (sample.columns, sample.label_values) == (table.columns, table.label_values)
    assert sample.groups[:3] == ("0", "0", "0")


def test_faults_are_kept_and_told_apart(tmp_path):
    sample = read(tmp_path, "a,b,label,site\n1,,x,s1\nNaN,high,y,s2\n3,inf,,s1\n4,5,x\n6,7,y,s2,9\n", group="site")
    np.testing.assert_array_equal(sample.missing, [[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]])
    assert sample.unreadable.tolist() == [[1, 1], [2, 1]]
    assert sample.ragged.tolist() == [3, 4]
    assert sample.labels.tolist() == [0, 1, ABSENT, 0, 1]
    assert sample.groups == ("s1", "s2", "s1", "", "s2")
    assert np.isnan(sample.rows[1, 1])


def test_places_of_faults_are_right_beyond_the_first_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK_ROWS", 2)
    sample = read(tmp_path, "a,b,label\n" + "1,2,x\n" * 5 + "1,bad,x\n1\n")
    assert sample.unreadable.tolist() == [[5, 1]]
    assert sample.ragged.tolist() == [6]


def test_text_labels_stand_in_order_and_numbers_by_size(tmp_path):
    assert read(tmp_path, "a,label\n1,10\n2,9\n").label_values == ("9", "10")
    assert read(tmp_path, "a,label\n1,b\n2,a\n").label_values == ("a", "b")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "header of 0 columns"),
        ("a\n1\n", "header of 1 columns"),
        ("a,b\n1,2\n", "no column 'label'"),
        ("a,a,label\n1,2,3\n", "'a' comes twice"),
        ("a,label\n", "no record"),
        ('a,label\n"1,2\n', "not CSV"),
        (b"a,label\n\xff,1\n", "not UTF-8"),
        ("label,site\n1,2\n", "no feature"),
    ],
)
def test_what_is_no_table_is_refused_with_a_remedy(tmp_path, text, complaint):
    with pytest.raises(ArtefactError, match=complaint) as caught:
        read(tmp_path, text, group="site")
    assert caught.value.remedy


@pytest.mark.parametrize("limit", ["MAX_CELLS", "MAX_BYTES", "MAX_COLUMNS", "MAX_CLASSES"])
def test_limits_hold(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(reading, limit, 2)
    with pytest.raises(ArtefactError, match=r"are read|more than"):
        read(tmp_path, "a,b,label\n1,2,x\n3,4,y\n5,6,z\n")


def test_bytes_that_changed_since_they_were_declared_are_refused(tmp_path):
    path = write_csv(tmp_path / "train.csv", [[1.0], [2.0]], [0, 1])
    declared = artefact(path)
    write_csv(path, [[1.0], [2.5]], [0, 1])
    with pytest.raises(ArtefactError, match="changed since it was declared"):
        read_sample(declared, part())


def test_a_file_that_is_not_there_is_refused(tmp_path):
    gone = msgspec.structs.replace(artefact(write_csv(tmp_path / "a.csv", [[1.0]], [1])), path=str(tmp_path / "b.csv"))
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_sample(gone, part())
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_sample(msgspec.structs.replace(gone, path=str(tmp_path)), part())


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"rows": [[1.0]]}, "no array 'label'"),
        ({"rows": [1.0], "label": [1]}, "'rows' is"),
        ({"rows": [["x"]], "label": [1]}, "'rows' is"),
        ({"rows": [[1.0]], "label": [[1]]}, "'label' is"),
        ({"rows": [[1.0]], "label": [1.5]}, "'label' is"),
        ({"rows": [[1.0]], "label": [1], "columns": ["a", "b"]}, "'columns' is"),
        ({"rows": [[1.0]], "label": [1], "site": [1, 2]}, "group array"),
        ({"rows": [[1.0]], "label": np.array([object()])}, "not an npz archive of plain arrays"),
    ],
)
def test_archives_of_other_things_are_refused(tmp_path, arrays, complaint):
    path = tmp_path / "train.npz"
    np.savez(path, **arrays)
    with pytest.raises(ArtefactError, match=complaint):
        sample_of(path, part(group="site"))


def test_missing_numbers_in_an_archive_are_counted_not_refused(tmp_path):
    path = tmp_path / "train.npz"
    np.savez(path, rows=[[1.0, np.nan], [np.inf, 2.0]], label=[0, 1])
    sample = sample_of(path, part())
    assert sample.missing.tolist() == [[False, True], [False, False]]
    assert sample.unreadable.tolist() == [[1, 0]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.text('ab,\n"1.-eE+ ?naN\r\x00é', max_size=200).map(str.encode)))
@example(b"\xef\xbb\xbfa,label\n1e999,2\n")
@example(b"a,label\n1_0,2\n")
def test_any_bytes_are_a_sample_or_an_artefact_error(tmp_path, data):
    try:
        sample = read(tmp_path, b"a,label\n" + data)
    except ArtefactError:
        return
    assert sample.rows.shape == (len(sample), len(sample.columns))
    assert len(sample.labels) == len(sample)
    assert not np.isinf(sample.rows).any()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 600), flip=st.integers(0, 599), bit=st.integers(0, 7))
def test_a_damaged_archive_is_a_sample_or_an_artefact_error(tmp_path, cut, flip, bit):
    file = io.BytesIO()
    np.savez(file, rows=np.arange(6.0).reshape(3, 2), label=[0, 1, 0])
    data = bytearray(file.getvalue())
    data[flip % len(data)] ^= 1 << bit
    path = tmp_path / "train.npz"
    path.write_bytes(bytes(data[: len(data) - cut]))
    with contextlib.suppress(ArtefactError):
        assert len(sample_of(path, part())) == 3
