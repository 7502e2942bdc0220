"""Files and folders: what is opened, what is not, and what the report says about it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import msgspec
import pytest

from bartizan.core.digest import ManifestEntry, digest_bytes, manifest_root
from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.scan import Coverage, Limits, Verdict, scan_path, scanner
from fixtures.hostile_models import EVIL

GOOD = pickle.dumps([1, 2, 3])


def test_a_file_is_named_by_the_digest_of_what_was_examined(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(GOOD)
    report = scan_path(path)
    assert (report.digest, report.size, report.exit_code) == (digest_bytes(GOOD), len(GOOD), 0)


def test_a_folder_is_named_by_the_root_of_its_signing_manifest(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.pkl").write_bytes(GOOD)
    (tmp_path / "sub" / "b.pkl").write_bytes(EVIL)
    report = scan_path(tmp_path)
    entries = [
        ManifestEntry(name="a.pkl", digest=digest_bytes(GOOD)),
        ManifestEntry(name="sub/b.pkl", digest=digest_bytes(EVIL)),
    ]
    assert report.digest == manifest_root(entries)
    assert [member.name for member in report.members] == ["a.pkl", "sub/b.pkl"]
    assert report.verdict is Verdict.DANGEROUS
    assert report.findings[0].where.startswith(f"{tmp_path.name}/sub/b.pkl@")


def test_a_large_file_is_mapped_and_gets_the_same_report(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"weights": b"x" * 100_000, "n": list(range(5000))}))
    assert scan_path(path, Limits(in_memory=1000)).to_json() == scan_path(path).to_json()


def test_links_are_not_followed(tmp_path):
    (tmp_path / "evil").write_bytes(EVIL)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.pkl").symlink_to(tmp_path / "evil")
    (folder / "sub").symlink_to(tmp_path)
    report = scan_path(folder)
    assert report.exit_code == 2
    assert report.coverage is Coverage.PARTLY
    assert not report.members
    with pytest.raises(ArtefactError, match="symbolic link"):
        scan_path(folder / "link.pkl")


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    report = scan_path(tmp_path)
    assert report.exit_code == 2
    assert "no regular file" in report.reasons[0]


def test_nothing_there_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ArtefactError, match="nothing at") as caught:
        scan_path(tmp_path / "absent")
    assert caught.value.remedy


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    (tmp_path / os.fsdecode(b"m\xff.pkl")).write_bytes(EVIL)
    document = msgspec.json.decode(scan_path(tmp_path).to_json())
    assert document["report"]["members"][0]["name"] == "m\\udcff.pkl"


def test_an_empty_file_holds_nothing_and_is_clean(tmp_path):
    (tmp_path / "empty").touch()
    assert scan_path(tmp_path / "empty").exit_code == 0


def test_the_number_of_files_and_the_depth_of_folders_are_bounded(tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "x").write_bytes(GOOD)
    (tmp_path / "y").write_bytes(GOOD)
    (tmp_path / "z").write_bytes(GOOD)
    assert scan_path(tmp_path).exit_code == 0
    assert scan_path(tmp_path, Limits(folder_depth=2)).exit_code == 2
    assert scan_path(tmp_path, Limits(members=2)).exit_code == 2


@pytest.mark.parametrize("in_memory", [10, 10_000])
def test_a_file_that_changes_meanwhile_is_not_examined(tmp_path, monkeypatch, in_memory):
    path = tmp_path / "model.pkl"
    path.write_bytes(GOOD)
    examine = scanner.Scan.examine

    def slow(self, source):
        report = examine(self, source)
        path.write_bytes(EVIL)
        return report

    monkeypatch.setattr(scanner.Scan, "examine", slow)
    report = scan_path(path, Limits(in_memory=in_memory))
    assert report.exit_code == 2
    assert "changed while" in report.reasons[0]


def cache(tmp_path):
    """A Hugging Face cache folder of one model, whose configuration names code."""
    root = tmp_path / "models--acme--triage"
    snapshot = root / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    config = b'{"model_type": "bert", "auto_map": {"AutoModel": "modeling.Net"}}'
    for number, (name, content) in enumerate({"model.pkl": GOOD, "config.json": config}.items()):
        blob = f"{number:064x}"
        (root / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return root


@pytest.mark.parametrize("below", [".", "snapshots/abc123"])
def test_a_cache_is_examined_by_the_names_of_its_links(tmp_path, below):
    folder = cache(tmp_path) / below
    assert scan_path(folder).coverage is Coverage.PARTLY
    report = scan_path(folder, follow=True)
    assert report.total_coverage is Coverage.EXAMINED
    assert {member.name.rpartition("/")[2] for member in report.members} == {"model.pkl", "config.json"}
    assert any("modeling.Net" in finding.detail for finding in report.findings)


def test_a_blob_that_no_link_names_is_examined_too(tmp_path):
    root = cache(tmp_path)
    (root / "blobs" / ("e" * 64)).write_bytes(EVIL)
    (root / "blobs" / "run.py").write_text("import os\n")
    (root / "snapshots" / "abc123" / "notes.txt").symlink_to("../../blobs/run.py")
    names = {member.name for member in scan_path(root, follow=True).members}
    assert {f"blobs/{'e' * 64}", "blobs/run.py", "snapshots/abc123/notes.txt"} <= names
    assert scan_path(root, follow=True).verdict is Verdict.DANGEROUS


def test_links_that_lead_elsewhere_are_never_followed(tmp_path):
    folder = cache(tmp_path) / "snapshots" / "abc123"
    (tmp_path / "outside").write_bytes(EVIL)
    (folder / "out.pkl").symlink_to(tmp_path / "outside")
    (folder / "loop.pkl").symlink_to("loop.pkl")
    (folder / "gone.pkl").symlink_to("../../blobs/gone")
    (folder / "up").symlink_to("..")
    report = scan_path(folder, follow=True)
    missed = {finding.detail.split()[0] for finding in report.findings if finding.rule == "file/not-examined"}
    assert missed == {"out.pkl", "loop.pkl", "gone.pkl", "up"}


def test_a_link_that_was_asked_for_keeps_its_own_name(tmp_path):
    link = cache(tmp_path) / "snapshots" / "abc123" / "model.pkl"
    report = scan_path(link, follow=True)
    assert (report.name, report.digest, report.exit_code) == ("model.pkl", digest_bytes(GOOD), 0)


def test_a_folder_without_a_name_of_its_own_gets_one(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "model.pkl").write_bytes(EVIL)
    monkeypatch.chdir(tmp_path)
    assert scan_path(Path()).name == tmp_path.name
    assert scan_path(Path("inner/..")).findings[0].where.startswith(f"{tmp_path.name}/model.pkl@")
