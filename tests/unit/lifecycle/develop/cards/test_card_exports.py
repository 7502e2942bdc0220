"""Cards in the forms of others."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from bartizan.lifecycle.develop.cards import DatasetCard, ModelCard, croissant, hugging_face_card, render_markdown
from bartizan.lifecycle.develop.data.quality import DataQuality
from fixtures.tables import Silent, part, real, system_of, write_csv


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    rows, labels = real("wine")
    path = write_csv(tmp_path_factory.mktemp("wine") / "wine.csv", rows.tolist(), labels.tolist())
    return system_of((path, part(path=str(path), limits="Wines of one region; ask jane.doe@example.org")))


@pytest.fixture(scope="module")
def data_card(system):
    train = system.artefact("dataset:train")
    report = DataQuality().run(system, train, Silent()).report.data
    return DatasetCard().run(system, train, Silent({("data.quality", train.id): report})).predicate


def test_a_hub_card_has_metadata_and_the_public_facts_only(system, data_card):
    model = msgspec.structs.replace(system.declaration.model[0], evaluated_on="train")
    declared = msgspec.structs.replace(system.declaration, model=(model,))
    one = msgspec.structs.replace(system, declaration=declared)
    card = ModelCard().run(one, one.artefact("model:tumour"), Silent())
    for text, name in ((hugging_face_card(card.predicate), "tumour"), (hugging_face_card(data_card), "train")):
        _, front, body = text.split("---\n", 2)
        metadata = yaml.safe_load(front)
        assert metadata["tags"]
        assert f"card: {name}" in body
        assert "Trained on" not in body
        assert "Location" not in body
        assert "jane" not in text
    assert yaml.safe_load(hugging_face_card(card.predicate).split("---\n")[1])["library_name"] == "sklearn"
    assert hugging_face_card(data_card) != render_markdown(data_card)


def test_croissant_metadata_name_the_file_by_digest_and_every_column(system, data_card):
    metadata = croissant(data_card)
    assert metadata["distribution"][0]["sha256"] == system.artefact("dataset:train").digest
    fields = metadata["recordSet"][0]["field"]
    assert [field["name"] for field in fields] == [*sorted(f"c{place}" for place in range(13)), "label"]
    assert metadata["rai:dataLimitations"][0] == "Wines of one region; ask [withheld]"
    assert json.loads(json.dumps(metadata)) == metadata


def test_croissant_metadata_of_unmeasured_data_describe_the_file_only(system):
    card = DatasetCard().run(system, system.artefact("dataset:train"), Silent()).predicate
    assert "recordSet" not in croissant(card)


def test_croissant_metadata_are_read_by_their_own_library(system, data_card, tmp_path):
    croissants = pytest.importorskip("mlcroissant", reason="the reference library of the format is not installed")
    folder = tmp_path / "metadata"
    folder.mkdir()
    (folder / "wine.csv").write_bytes(Path(system.artefact("dataset:train").path).read_bytes())
    (folder / "croissant.json").write_text(json.dumps(croissant(data_card)))
    dataset = croissants.Dataset(jsonld=folder / "croissant.json")
    assert not dataset.metadata.issues.errors
    first = next(iter(dataset.records("records")))
    assert first["records/c0"] == pytest.approx(real("wine")[0][0][0])
