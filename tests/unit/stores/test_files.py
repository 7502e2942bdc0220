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


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_any_number_of_threads_gives_the_same_manifest(tmp_path, threads):
    for number in range(40):
        path = tmp_path / f"part{number % 3}" / ("deep" * (number % 2)) / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 100))
    expected = [
        (path.relative_to(tmp_path).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in tmp_path.rglob("*.bin")
    ]
    assert [(entry.name, entry.digest) for entry in LocalFiles(threads).manifest(tmp_path)] == sorted(expected)


def test_hostile_names_cannot_play_tricks_on_a_terminal(local, tmp_path):
    (tmp_path / "\x1b[2Jgone\nsecond line").symlink_to("/etc/passwd")
    with pytest.raises(ArtefactError) as caught:
        local.digest(tmp_path)
    assert "\\x1b[2Jgone\\nsecond line" in caught.value.message
    assert caught.value.message.isprintable()


def test_a_folder_that_becomes_a_link_while_it_is_read_is_not_followed(tmp_path, monkeypatch):
    artefact, elsewhere = tmp_path / "artefact", tmp_path / "elsewhere"
    for folder in (artefact / "part", elsewhere):
        folder.mkdir(parents=True)
        (folder / "weights").write_text("x")
    real = files.walk

    def then_swap(folder):
        names = list(real(folder))
        (artefact / "part").rename(tmp_path / "moved")
        (artefact / "part").symlink_to(elsewhere)
        return names

    monkeypatch.setattr(files, "walk", then_swap)
    with pytest.raises(ArtefactError, match="cannot be read"):
        LocalFiles().digest(artefact)


def test_one_bad_file_stops_the_others(tmp_path, monkeypatch):
    for number in range(200):
        (tmp_path / f"{number:03}").write_text("x")
    real, read = files._digest_at, []

    def fail_once(path, *rest):
        read.append(path.name)
        if len(read) == 5:
            raise ArtefactError("bad file")
        return real(path, *rest)

    monkeypatch.setattr(files, "_digest_at", fail_once)
    with pytest.raises(ArtefactError, match="bad file"):
        LocalFiles(2).digest(tmp_path)
    assert len(read) < 200


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_stays_open(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    LocalFiles().digest(tmp_path)
    (tmp_path / "a/link").symlink_to("b")
    with pytest.raises(ArtefactError):
        LocalFiles().digest(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
