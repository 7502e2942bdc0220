"""One contract over every blob store: a folder, memory, and S3 over a real socket."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from pathlib import Path

import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import StatementError, StoreError
from bartizan.stores.blobs import FolderBlobs, open_blobs


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def blobs(request, tmp_path):
    match request.param:
        case "folder":
            return open_blobs(str(tmp_path / "blobs"))
        case "file":
            return open_blobs((tmp_path / "blobs with space").as_uri())
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


def test_links_on_the_way_are_not_followed(tmp_path):
    blobs = FolderBlobs(tmp_path / "blobs")
    digest = blobs.put(b"report")
    shard = tmp_path / "blobs/objects" / digest[:2]
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    for ask in (blobs.get, blobs.has, lambda _: blobs.put(b"report")):
        with pytest.raises(StoreError):
            ask(digest)
    assert list(blobs.list()) == []


def test_pipes_and_folders_in_the_place_of_a_blob_are_refused_without_waiting(tmp_path):
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"report")
    path = tmp_path / "objects" / digest[:2] / digest[2:]
    for make in (os.mkfifo, Path.mkdir):
        path.unlink()
        make(path)
        with pytest.raises(StoreError):
            blobs.get(digest)
        assert not blobs.has(digest)
        if path.is_dir():
            path.rmdir()
            path.touch()


def test_blobs_are_private_and_leave_no_half_files(tmp_path):
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"report")
    path = tmp_path / "objects" / digest[:2] / digest[2:]
    for place in (path, path.parent, path.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0
    assert [item.name for item in path.parent.iterdir()] == [digest[2:]]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "objects").write_text("a file is in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        FolderBlobs(tmp_path).put(b"x")


def test_a_write_that_fails_leaves_no_half_file(tmp_path, monkeypatch):
    blobs = FolderBlobs(tmp_path)

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    digest = blobs.put(b"first")
    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "objects" / digest[:2] / digest[2:]).write_bytes(b"altered")
    with pytest.raises(StoreError, match="No space left"):
        blobs.put(b"first")
    assert [item.name for item in (tmp_path / "objects" / digest[:2]).iterdir()] == [digest[2:]]


def _put_many(folder, start):
    blobs = FolderBlobs(folder)
    for number in range(start, 200):
        blobs.put(b"%d" % (number // 2))


def test_processes_that_put_the_same_blobs_do_not_disturb_one_another(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(tmp_path, start)) for start in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    blobs = FolderBlobs(tmp_path)
    assert {blobs.get(digest) for digest in blobs.list()} == {b"%d" % number for number in range(100)}


def test_blobs_that_are_too_large_are_refused(blobs, monkeypatch):
    digest = blobs.put(b"four")
    monkeypatch.setattr("bartizan.stores.blobs.common.MAX_BLOB_BYTES", 3)
    with pytest.raises(StoreError, match="at most 3"):
        blobs.put(b"four")
    for module in ("folder", "objects"):
        monkeypatch.setattr(f"bartizan.stores.blobs.{module}.MAX_BLOB_BYTES", 2)
    with pytest.raises(StoreError, match="altered"):
        blobs.get(digest)


def test_plain_http_is_refused_unless_it_is_asked_for(s3_options, monkeypatch):
    url, options = s3_options
    refusing = open_blobs(url, **(options | {"client_options": {}}))
    with pytest.raises(StoreError, match="cannot be written"):
        refusing.put(b"x")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    asked = open_blobs(url, **(options | {"client_options": {}}))
    assert asked.get(asked.put(b"x")) == b"x"


def test_the_usual_variables_of_the_environment_lead_to_the_server(s3_options, monkeypatch):
    url, options = s3_options
    for name in ("aws_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_region"):
        monkeypatch.setenv(name.upper(), options[name])
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert open_blobs(url).put(b"x") == digest_bytes(b"x")


def test_a_wrong_login_or_bucket_is_an_error(s3_options):
    url, options = s3_options
    blobs = open_blobs(url.replace("bucket-", "absent-"), **options)
    with pytest.raises(StoreError):
        blobs.put(b"x")
    with pytest.raises(StoreError):
        list(blobs.list())


def test_an_unreachable_server_is_an_error_within_seconds():
    blobs = open_blobs(
        "s3://bucket/x",
        aws_endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        aws_region="us-east-1",
        client_options={"allow_http": True},
    )
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        blobs.put(b"x")
    assert time.monotonic() - began < 30
    assert caught.value.remedy
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("place", ["gopher://x/y", "file://elsewhere/x", "file:///", "s3://", "://"])
def test_unknown_places_are_refused(place):
    with pytest.raises(StoreError) as caught:
        open_blobs(place)
    assert caught.value.remedy


def test_relative_folders_stay_where_they_were_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blobs = open_blobs("here")
    digest = blobs.put(b"x")
    assert Path("here/objects", digest[:2], digest[2:]).exists()
    assert [item.name for item in tmp_path.iterdir()] == ["here"]
