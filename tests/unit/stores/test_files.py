"""Files and folders as people hand them over, hostile ones included."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from bartizan.core.digest import manifest_root
from bartizan.core.errors import ArtefactError
from bartizan.stores import files
from bartizan.stores.files import LocalFiles


@pytest.fixture
def local():
    return LocalFiles()


@pytest.mark.parametrize("size", [0, 1, files.BUFFER_BYTES - 1, files.BUFFER_BYTES, 3 * files.BUFFER_BYTES + 7])
def test_files_are_named_by_sha256(local, tmp_path, size):
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(size))
    assert local.digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    [entry] = local.manifest(path)
    assert (entry.name, entry.digest) == (".", local.digest(path))


def test_folders_are_named_by_their_manifest(local, tmp_path):
    for name in ("b.bin", "a/deep/x", "a/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    manifest = local.manifest(tmp_path)
    assert [entry.name for entry in manifest] == ["a/deep/x", "a/y", "b.bin"]
    assert local.digest(tmp_path) == manifest_root(manifest)
    before = local.digest(tmp_path)
    (tmp_path / "a/y").write_text("changed")
    assert local.digest(tmp_path) != before


def test_links_are_refused_wherever_they_are(local, tmp_path):
    (tmp_path / "real").write_text("x")
    link = tmp_path / "folder" / "link"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "real")
    for path in (link, link.parent):
        with pytest.raises(ArtefactError, match="symbolic link"):
            local.digest(path)


def test_sockets_pipes_and_devices_are_refused_without_waiting(local, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in (tmp_path / "pipe", tmp_path / "socket"):
            with pytest.raises(ArtefactError, match="no regular file"):
                local.digest(name)
    with pytest.raises(ArtefactError, match="no regular file"):
        local.digest(tmp_path)


def test_empty_folders_and_missing_paths_are_errors(local, tmp_path):
    with pytest.raises(ArtefactError, match="holds no files"):
        local.digest(tmp_path)
    with pytest.raises(ArtefactError, match="cannot be read"):
        local.digest(tmp_path / "absent")
    with pytest.raises(ArtefactError, match="cannot be read"):
        local.digest(tmp_path / "nul\0byte")


def test_names_that_are_no_text_are_refused_and_shown_safely(local, tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")).write_bytes(b"x")
    with pytest.raises(ArtefactError, match="not UTF-8"):
        local.digest(tmp_path)


def test_unreadable_files_are_named(local, tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_text("x")

    def deny(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", deny)
    with pytest.raises(ArtefactError, match="secret cannot be read"):
        local.digest(path)


def test_files_that_change_while_they_are_read_are_refused(local, tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    real = os.fstat
    calls = []

    def grow(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            path.write_bytes(b"x" * 200)
        return real(descriptor)

    monkeypatch.setattr(files.os, "fstat", grow)
    with pytest.raises(ArtefactError, match="changed while"):
        local.digest(path)


def test_deep_folders_end_in_an_error(local, tmp_path):
    path = tmp_path
    for _ in range(files.MAX_DEPTH + 2):
        path /= "d"
        path.mkdir()
    with pytest.raises(ArtefactError, match="folders deep"):
        local.digest(tmp_path)


def test_too_many_files_end_in_an_error(local, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).write_text("x")
    with pytest.raises(ArtefactError, match="more than 3 files"):
        local.digest(tmp_path)
