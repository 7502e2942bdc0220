"""Files of texts, sound and broken."""

from __future__ import annotations

import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError
from bartizan.targets import text_table
from bartizan.targets.table import read_table
from bartizan.targets.text_table import read_texts
from fixtures.tables import part

DECLARED = part(text="message", target="class")


def written(folder, text, encoding="utf-8"):
    path = folder / "texts.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_texts_and_labels_in_the_order_of_the_labels(tmp_path):
    path = written(tmp_path, 'class,message,note\nspam,"win, now",x\nham,"two\nlines ü",\n\nham, blank before,\n')
    found = read_texts(path, DECLARED)
    assert found.texts == ("win, now", "two\nlines ü", " blank before")
    assert found.label_values == ("ham", "spam")
    assert found.labels.tolist() == [1, 0, 0]
    assert len(found) == 3


def test_whole_numbers_are_ordered_as_numbers(tmp_path):
    path = written(tmp_path, "message,class\na,10\nb,9\nc,-1\n")
    assert read_texts(path, DECLARED).label_values == ("-1", "9", "10")


def test_a_smaller_set_takes_the_classes_of_training_and_no_others(tmp_path):
    path = written(tmp_path, "message,class\na,spam\n")
    assert read_texts(path, DECLARED, label_values=("ham", "spam")).labels.tolist() == [1]
    with pytest.raises(ArtefactError, match="which training has not"):
        read_texts(path, DECLARED, label_values=("ham", "eggs"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("message,class\n", "no record follows the header"),
        ("", "no record follows the header"),
        ("text,class\na,b\n", "'message' of dataset 'train' is there 0 times"),
        ("message,message,class\na,b,c\n", "is there 2 times"),
        ("message,class\na\n", "texts.csv:2: 1 cells where the header has 2"),
        ("message,class\na,x\n   ,x\n", "texts.csv:3: column 'message' is empty"),
        ('message,class\n"a,x\n', "not CSV"),
        ("message,class\n" + "a" * 50 + ",x\n", "a text of 50 characters"),
        ("message,class\n" + "a,x\n" * 9, "more than 8 texts"),
    ],
)
def test_broken_files_are_refused_with_the_line(tmp_path, monkeypatch, text, complaint):
    monkeypatch.setattr(text_table, "MAX_LETTERS", 40)
    monkeypatch.setattr(text_table, "MAX_TEXTS", 8)
    with pytest.raises(ArtefactError, match=complaint):
        read_texts(written(tmp_path, text), DECLARED)


def test_bytes_that_are_no_text_or_not_those_that_were_digested(tmp_path):
    with pytest.raises(ArtefactError, match=r"texts.csv:2: not UTF-8"):
        read_texts(written(tmp_path, "message,class\nä,x\n", "latin-1"), DECLARED)
    path = written(tmp_path, "message,class\na,x\n")
    read_texts(path, DECLARED, digest=digest_bytes(path.read_bytes()))
    with pytest.raises(ArtefactError, match="has changed"):
        read_texts(path, DECLARED, digest=digest_bytes(b"other"))
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_texts(tmp_path / "none.csv", DECLARED)


def test_a_table_of_numbers_is_none_of_texts(tmp_path):
    with pytest.raises(ArtefactError, match="declared as a table of numbers"):
        read_texts(written(tmp_path, "message,class\na,x\n"), part())
    with pytest.raises(ArtefactError, match="holds texts, and this works on rows of numbers"):
        read_table(written(tmp_path, "message,class\na,x\n"), DECLARED)
