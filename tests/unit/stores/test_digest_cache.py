"""Remembered digests: used only while nothing can have changed, and never where a signature is verified."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from bartizan.core.errors import StoreError
from bartizan.stores import digest_cache
from bartizan.stores.digest_cache import DigestCache, default_path
from bartizan.stores.files import LocalFiles


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "digests"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten files that count as settled at once."""
    monkeypatch.setattr(digest_cache, "SETTLED_NS", -(10**9))
    monkeypatch.setattr(digest_cache, "_filesystem", lambda _: "ext4")
    root = tmp_path / "model"
    root.mkdir()
    for number in range(10):
        (root / f"{number}").write_text(f"weights {number}")
    return root


class Counting(DigestCache):
    """Counts what had to be read."""

    def __init__(self, path, **options):
        super().__init__(path, **options)
        self.read = []

    def put(self, found, digest, path):
        self.read.append(path.name)
        super().put(found, digest, path)


def digest(folder, path, **options):
    cache = Counting(path, **options)
    found = LocalFiles(known=cache).manifest(folder)
    cache.save()
    return found, sorted(cache.read), cache.contradicted


def test_only_what_changed_is_read_again(folder, path):
    first, read, _ = digest(folder, path)
    assert len(read) == 10
    assert digest(folder, path) == (first, [], [])
    (folder / "3").write_text("other weights")
    (folder / "new").write_text("x")
    (folder / "5").unlink()
    second, read, _ = digest(folder, path)
    assert read == ["3", "new"]
    assert second == LocalFiles().manifest(folder)


def test_the_same_size_and_time_of_modification_do_not_deceive(folder, path):
    digest(folder, path)
    target = folder / "3"
    before = target.stat()
    time.sleep(0.02)  # the kernel's clock ticks every few milliseconds
    target.write_text("weights X")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    second, read, _ = digest(folder, path)
    assert read == ["3"]
    assert second == LocalFiles().manifest(folder)


def test_a_file_that_was_just_written_is_not_remembered(folder, path, monkeypatch):
    monkeypatch.setattr(digest_cache, "SETTLED_NS", 2 * 10**9)
    digest(folder, path)
    assert len(digest(folder, path)[1]) == 10
    assert not path.exists()


def test_filesystems_without_dependable_times_are_read_every_time(folder, path, monkeypatch):
    for kind in ("nfs4", "fuse.sshfs", ""):
        monkeypatch.setattr(digest_cache, "_filesystem", lambda _, kind=kind: kind)
        digest(folder, path)
        assert len(digest(folder, path)[1]) == 10


def test_a_full_reading_tells_which_digests_were_wrong_and_mends_them(folder, path):
    digest(folder, path)
    stored = msgspec.msgpack.decode(path.read_bytes(), type=digest_cache._Stored)
    inode = (folder / "7").stat().st_ino
    [key] = [key for key in stored.entries if key[1] == inode]
    stored.entries[key] = bytes(32)  # as if the file had been written through a mapping
    path.write_bytes(msgspec.msgpack.encode(stored))
    assert digest(folder, path)[0] != LocalFiles().manifest(folder)
    found, read, contradicted = digest(folder, path, full=True)
    assert len(read) == 10
    assert contradicted == [str(folder / "7")]
    assert found == LocalFiles().manifest(folder)
    assert digest(folder, path) == (found, [], [])


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x92\x01", b"\x92\x02\x80", b"\x91" * 5000, os.urandom(1000)])
def test_a_broken_cache_knows_nothing_and_is_made_anew(folder, path, data):
    path.parent.mkdir()
    path.write_bytes(data)
    assert len(digest(folder, path)[1]) == 10
    assert digest(folder, path)[1] == []


def test_a_cache_that_others_may_write_is_refused(folder, path):
    digest(folder, path)
    path.chmod(0o666)
    with pytest.raises(StoreError, match="others may write"):
        DigestCache(path)
    path.unlink()
    path.symlink_to(folder / "1")
    with pytest.raises(StoreError, match="cannot be read"):
        DigestCache(path)


def test_an_unwritable_place_is_an_error(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be (read|written)"):
        digest(folder, tmp_path / "file" / "digests")


def test_the_file_is_the_owner_s_alone_and_bounded(folder, path, monkeypatch):
    monkeypatch.setattr(digest_cache, "MAX_ENTRIES", 4)
    digest(folder, path)
    assert path.stat().st_mode & 0o077 == 0
    assert len(digest_cache._load(path)) == 4
    assert not list(path.parent.glob(".digests.*"))


def test_the_kernel_names_the_filesystem(tmp_path):
    assert digest_cache._filesystem(Path("/proc").stat().st_dev) == "proc"
    assert not digest_cache._filesystem(os.makedev(4095, 4095))


def test_the_default_lies_in_the_user_s_cache_folder(tmp_path):
    assert default_path({"XDG_CACHE_HOME": "/c"}).as_posix() == "/c/bartizan/digests"
    assert default_path({"HOME": "/h"}).as_posix() == "/h/.cache/bartizan/digests"
