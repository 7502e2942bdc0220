"""The file of the key that cases are sealed with."""

from __future__ import annotations

import threading

import pytest

from bartizan.core.errors import KeyFileError
from bartizan.stores.review_key import KEY_BYTES, review_key


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_is_made_once_for_its_owner_alone(tmp_path, passphrase):
    path = tmp_path / "keys" / "review.key"
    key = review_key(path, passphrase)
    assert len(key) == KEY_BYTES
    assert review_key(path, passphrase) == key
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == ["review.key"]


def test_a_wrapped_key_needs_its_passphrase(tmp_path):
    path = tmp_path / "review.key"
    review_key(path, "one")
    for other in ("two", None, ""):
        with pytest.raises(KeyFileError):
            review_key(path, other)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"not json", b'{"kind":"other","key":"AAAA"}', b'{"kind":"bartizan review key","key":"%%"}',
     b'{"kind":"bartizan review key","key":"AAAA","wrapped":true}', b'{"kind":"x"' + b"[" * 5000],
)  # fmt: skip
def test_what_is_no_key_file_is_refused(tmp_path, data):
    path = tmp_path / "review.key"
    path.write_bytes(data)
    with pytest.raises(KeyFileError):
        review_key(path, "one")


def test_whoever_comes_second_takes_the_first_ones_key(tmp_path):
    path, found = tmp_path / "review.key", []
    threads = [threading.Thread(target=lambda: found.append(review_key(path, None))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_folder_in_its_place_is_an_error(tmp_path):
    with pytest.raises(KeyFileError):
        review_key(tmp_path, None)
