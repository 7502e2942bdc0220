"""Building the catalogue from sources that somebody has just edited, rightly or wrongly."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from bartizan.catalogue import build
from bartizan.catalogue.sources import SOURCES, assemble
from bartizan.core.errors import InputError


@pytest.fixture
def folder(tmp_path):
    kinds = ("principles", "controls", "techniques", "mitigations", "access-points", "profiles", "schema")
    kinds += ("families", "audiences", "standards")
    for kind in kinds:
        shutil.copytree(SOURCES / kind, tmp_path / kind)
    for name in ("meta.yaml", "atlas.yaml"):
        shutil.copy(SOURCES / name, tmp_path)
    return tmp_path


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_build_writes_the_file_and_check_notices_a_later_edit(folder, capsys):
    assert build.main(["--folder", str(folder), "--check"]) == 1
    assert build.main(["--folder", str(folder)]) == 0
    assert "digest" in capsys.readouterr().err
    assert build.main(["--folder", str(folder), "--check"]) == 0
    edit(folder / "techniques" / "T06-white-box-evasion.yaml", "name: White-box evasion", "name: Evasion with weights")
    assert build.main(["--folder", str(folder), "--check"]) == 1


def test_build_refuses_dangling_ids_and_writes_nothing(folder, capsys):
    edit(folder / "mitigations" / "M05-gateway-budget.yaml", "blocks: [T14]", "blocks: [T94]")
    assert build.main(["--folder", str(folder)]) == 2
    assert "M05 names technique 'T94'" in capsys.readouterr().err
    assert not (folder / "catalogue.json").exists()


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("family: evasion", "family: magic", "breaks its schema: family"),
        ("id: T06", "id: T06\nid: T07", "occurs twice"),
        ("id: T06", "id: T07", "name the file after its entry"),
        ("yields: [gain.misprediction]", "yields: []", "breaks its schema: yields"),
        ("family: evasion", "family: evasion\nseverity: high", "breaks its schema"),
        ("id: T06", "id: [T06", "cannot be read"),
        ("id: T06", "id: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_faulty_source_is_named_with_its_fault(folder, before, after, complaint):
    edit(folder / "techniques" / "T06-white-box-evasion.yaml", before, after)
    with pytest.raises(InputError, match=r"T06-white-box-evasion\.yaml") as caught:
        assemble(folder)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("pointer", ["as 9.9-z", "see 4.2-l to 4.2-z", "as nothing"])
def test_a_pointer_to_no_test_is_refused(folder, pointer):
    edit(folder / "controls" / "guidelines.yaml", "test: as 1.1-a", f"test: {pointer}")
    with pytest.raises(InputError, match="points to nothing known"):
        assemble(folder)


def test_sources_build_alike_whatever_the_hash_seed(folder):
    command = [sys.executable, "-m", "bartizan.catalogue.build", "--folder", str(folder)]
    built = set()
    for seed in ("0", "1"):
        subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": seed})
        built.add((folder / "catalogue.json").read_bytes())
    assert built == {(SOURCES / "catalogue.json").read_bytes()}
