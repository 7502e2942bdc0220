"""A declaration on disk becomes a system: digests of everything it names, or faults on the lines that name it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.digest import ManifestEntry, digest_bytes, manifest_root
from bartizan.core.errors import ArtefactError, DeclarationError
from bartizan.lifecycle.design.declaration import load_system
from bartizan.lifecycle.design.vocabulary import Vocabulary

SMALL = (Path(__file__).parents[3] / "assets" / "declaration" / "small.toml").read_text(encoding="utf-8")
VOCABULARY = Vocabulary.of(catalogue())


class PlainFiles:
    """Files on this disk, without any of the protections of the real store."""

    def digest(self, path):
        if path.is_dir():
            return manifest_root(self.manifest(path))
        if "unreadable" in path.name:
            raise ArtefactError(f"{path.name} cannot be read: permission denied", remedy="check permissions.")
        return digest_bytes(path.read_bytes())

    def manifest(self, path):
        files = (found for found in path.rglob("*") if found.is_file())
        return [ManifestEntry(found.relative_to(path).as_posix(), digest_bytes(found.read_bytes())) for found in files]


@pytest.fixture
def folder(tmp_path):
    for name, data in {"model/fruit.joblib": b"m", "data/train.csv": b"t", "data/holdout.csv": b"h"}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "bartizan.toml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def load(folder):
    return load_system(
        folder / "bartizan.toml", PlainFiles(), VOCABULARY, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC)
    )


def line_of(text):
    return SMALL[: SMALL.index(text)].count("\n") + 1


def test_documents_are_digested_and_may_be_asked_for_by_a_gate(folder):
    text = SMALL.replace("[exposure]", '[[document]]\nname = "p"\npath = "p.txt"\nkind = "prompt"\n\n[exposure]', 1)
    rule = '\n[[gate.release.rule]]\nid = "signed"\nabout = "document:p"\ntype = "signature"\n'
    (folder / "bartizan.toml").write_text(text + rule, encoding="utf-8")
    with pytest.raises(DeclarationError, match=r'there is no "p\.txt"'):
        load(folder)
    (folder / "p.txt").write_bytes(b"be brief")
    (document,) = load(folder).of_kind("document")
    assert (document.id, document.digest) == ("document:p", digest_bytes(b"be brief"))


def test_everything_that_is_named_is_digested(folder):
    system = load(folder)
    assert [artefact.id for artefact in system.artefacts] == [
        "model:fruit",
        "dataset:train",
        "dataset:holdout",
        "system:demo",
    ]
    assert system.artefact("dataset:train").digest == digest_bytes(b"t")
    assert system.artefact("system:demo").digest == digest_bytes(SMALL.encode())
    assert system.declaration_digest == digest_bytes(SMALL.encode())
    assert Path(system.artefact("model:fruit").path) == folder.resolve() / "model/fruit.joblib"
    assert system.folder == str(folder.resolve())


def test_a_comment_makes_a_new_system_and_leaves_the_rest(folder):
    before = load(folder)
    (folder / "bartizan.toml").write_text(SMALL + "# reviewed\n", encoding="utf-8")
    after = load(folder)
    assert after.declaration == before.declaration
    assert after.declaration_digest != before.declaration_digest
    assert after.artefact("system:demo").digest == after.declaration_digest
    assert after.artefacts[:3] == before.artefacts[:3]


def test_a_folder_is_named_by_its_manifest(folder):
    (folder / "model/fruit.joblib").unlink()
    (folder / "model/fruit.joblib").mkdir()
    (folder / "model/fruit.joblib/weights.npy").write_bytes(b"w")
    expected = manifest_root([ManifestEntry("weights.npy", digest_bytes(b"w"))])
    assert load(folder).artefact("model:fruit").digest == expected


def test_every_missing_file_is_told_on_its_line(folder):
    (folder / "model/fruit.joblib").unlink()
    (folder / "data/holdout.csv").unlink()
    with pytest.raises(DeclarationError) as caught:
        load(folder)
    assert [(fault.path, fault.line) for fault in caught.value.faults] == [
        ("model[0].path", line_of('path = "model')),
        ("dataset[1].path", line_of('path = "data/holdout')),
    ]


def test_a_file_that_cannot_be_read_is_told_on_its_line(folder):
    (folder / "data/unreadable.csv").write_bytes(b"x")
    (folder / "bartizan.toml").write_text(SMALL.replace("data/train.csv", "data/unreadable.csv"), encoding="utf-8")
    with pytest.raises(DeclarationError, match=r"dataset\[0\]\.path: unreadable.csv cannot be read"):
        load(folder)


def test_a_link_must_not_lead_out_of_the_folder(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.csv"
    outside.write_bytes(b"secret")
    (folder / "data/train.csv").unlink()
    (folder / "data/train.csv").symlink_to(outside)
    with pytest.raises(DeclarationError, match="leads out of"):
        load(folder)


def test_a_link_in_a_circle_is_no_file(folder):
    (folder / "data/train.csv").unlink()
    (folder / "data/train.csv").symlink_to(folder / "data/train.csv")
    with pytest.raises(DeclarationError, match=r"dataset\[0\]\.path"):
        load(folder)


def test_a_copy_of_the_training_data_is_no_holdout(folder):
    (folder / "data/holdout.csv").write_bytes(b"t")
    with pytest.raises(DeclarationError, match=r"model\[0\]\.evaluated_on: .*same bytes"):
        load(folder)


def test_without_a_declaration_the_next_step_is_named(tmp_path):
    with pytest.raises(ArtefactError) as caught:
        load(tmp_path)
    assert "bartizan init" in caught.value.remedy


@pytest.mark.parametrize("make", ["folder", "nul"])
def test_what_is_no_file_cannot_be_read(tmp_path, make):
    path = tmp_path / "bartizan.toml" if make == "folder" else Path("a\0b")
    if make == "folder":
        path.mkdir()
    with pytest.raises(ArtefactError, match="cannot be read"):
        load_system(path, PlainFiles(), VOCABULARY)


def test_an_endless_file_is_not_read_to_its_end():
    with pytest.raises(DeclarationError, match="at most"):
        load_system(Path(os.devnull).with_name("zero"), PlainFiles(), VOCABULARY)
