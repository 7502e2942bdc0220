"""One contract over every blob store: a folder, memory, and S3 over a real socket."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import StatementError, StoreError
from bartizan.stores.blobs import FolderBlobs, open_blobs


@pytest.fixture(params=["folder", "memory", "s3"])
def blobs(request, tmp_path):
    match request.param:
        case "folder":
            return open_blobs(str(tmp_path / "blobs"))
        case "memory":
            return open_blobs("memory:///")
        case _:
            url, options = request.getfixturevalue("s3_options")
            return open_blobs(url, **options)


def test_what_was_put_is_got(blobs):
    digest = blobs.put(b"report", "text/plain")
    assert digest == digest_bytes(b"report")
    assert blobs.get(digest) == b"report"
    assert blobs.has(digest)
    assert list(blobs.list()) == [digest]


def test_putting_twice_keeps_one(blobs):
    assert blobs.put(b"x") == blobs.put(b"x")
    assert len(list(blobs.list())) == 1


def test_what_is_not_there_is_an_error_with_a_remedy(blobs):
    absent = Digest("0" * 64)
    assert not blobs.has(absent)
    with pytest.raises(StoreError, match="not there") as caught:
        blobs.get(absent)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 63, "G" * 64, "0" * 64 + "/x"])
def test_names_that_are_no_digest_reach_nothing(blobs, name):
    for ask in (blobs.get, blobs.has):
        with pytest.raises(StatementError):
            ask(name)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=5000))
def test_any_bytes_survive(blobs, data):
    assert blobs.get(blobs.put(data)) == data


def test_altered_blobs_are_noticed_in_a_folder(tmp_path):
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"report")
    path = tmp_path / "objects" / digest[:2] / digest[2:]
    for altered in (b"Report", b"", b"reportx"):
        path.write_bytes(altered)
        with pytest.raises(StoreError, match="altered"):
            blobs.get(digest)
    assert blobs.put(b"report") == digest
    assert blobs.get(digest) == b"report"


def test_altered_blobs_are_noticed_in_object_storage(s3_options):
    url, options = s3_options
    blobs = open_blobs(url, **options)
    digest = blobs.put(b"report")
    obstore.put(blobs._store, f"objects/{digest[:2]}/{digest[2:]}", b"other")
    with pytest.raises(StoreError, match="altered"):
        blobs.get(digest)
    with pytest.raises(StoreError, match="altered"):
        blobs.put(b"report")


def test_links_in_a_folder_are_not_followed(tmp_path):
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"report")
    path = tmp_path / "objects" / digest[:2] / digest[2:]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(StoreError):
        blobs.get(digest)


def test_blobs_are_private_and_leave_no_half_files(tmp_path):
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"report")
    path = tmp_path / "objects" / digest[:2] / digest[2:]
    assert path.stat().st_mode & 0o077 == 0
    assert [item.name for item in path.parent.iterdir()] == [digest[2:]]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "objects").write_text("a file is in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        FolderBlobs(tmp_path).put(b"x")


def test_an_unreachable_server_is_an_error():
    blobs = open_blobs(
        "s3://bucket/x",
        aws_endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        aws_region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(StoreError) as caught:
        blobs.put(b"x")
    assert caught.value.remedy


def test_unknown_places_are_refused():
    with pytest.raises(StoreError):
        open_blobs("gopher://x/y")


def test_relative_folders_stay_where_they_were_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blobs = open_blobs("here")
    digest = blobs.put(b"x")
    assert Path("here/objects", digest[:2], digest[2:]).exists()
    assert [item.name for item in tmp_path.iterdir()] == ["here"]
