"""Cards in the forms of others: Hugging Face cards, and Croissant metadata for datasets.

A Hugging Face card is made for publication and therefore of the public view. Croissant metadata
travels with a dataset to those who receive it and holds what they need to read and judge the file.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import yaml

from bartizan.core.predicates import Card
from bartizan.lifecycle.develop.cards.public import public_view
from bartizan.lifecycle.develop.cards.render import in_words, render_markdown

LIBRARIES = {"scikit-learn": "sklearn", "torch": "pytorch"}
"""Names of frameworks on the hub."""
CROISSANT = "http://mlcommons.org/croissant/1.0"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the Croissant 1.0 specification prescribes, with its responsible-AI extension."""


def hugging_face_card(card: Card) -> str:
    """A model or data card for the hub: YAML metadata, then the public facts as Markdown."""
    view = public_view(card)
    metadata: dict[str, Any] = {"tags": ["bartizan", "tabular"]}
    if card.kind == "model":
        metadata["pipeline_tag"] = "tabular-classification"
        framework = card.facts.get("framework", "")
        if framework:
            metadata["library_name"] = LIBRARIES.get(framework, framework)
    else:
        metadata |= {"pretty_name": card.name, "task_categories": ["tabular-classification"]}
    if view.facts.get("licence"):
        metadata["license"] = "other"
        metadata["license_name"] = view.facts["licence"]
    front = yaml.safe_dump(metadata, sort_keys=True, allow_unicode=True)
    return f"---\n{front}---\n\n{render_markdown(view)}"


def croissant(card: Card) -> dict[str, Any]:
    """Croissant 1.0 JSON-LD of a data card, with the file's digest and the responsible-AI fields.

    The owner appears as a role. Columns are described when the quality of the data was measured.
    """
    facts, file = card.facts, PurePath(card.facts["location"]).name
    public = public_view(card)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": card.name,
        "description": f"For {in_words(facts['uses'])}. {public.facts['limits']}".strip(),
        "license": facts["licence"] or "not stated",
        "url": facts["sources"]["url"] or f"urn:sha256:{facts['digest']}",
        "creator": {"@type": "sc:Organization", "name": facts["sources"]["host"]},
        "publisher": {"@type": "sc:Organization", "name": public.facts["owner"]["role"]},
        "citeAs": f"{card.name}, {facts['sources']['host']}, sha256:{facts['digest']}",
        "version": f"0.0.0+{facts['digest'][:12]}",
        "rai:dataCollection": public.facts["collected"],
        "rai:dataUseCases": facts["uses"],
        "rai:dataLimitations": [public.facts["limits"], *(f"Not for {use}" for use in facts["prohibitedUses"])],
        "rai:personalSensitiveInformation": [f"personal data: {in_words(facts['personalData'])}"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "contentUrl": file,
                "encodingFormat": "text/csv" if not file.endswith(".npz") else "application/x-npz",
                "sha256": facts["digest"],
            }
        ],
        **({"recordSet": [_records(card, file)]} if facts.get("columns") and not file.endswith(".npz") else {}),
    }


def _records(card: Card, file: str) -> dict[str, Any]:
    """The table: one field for each column, and the label."""
    columns = [(name, "sc:Float") for name in card.facts["columns"]] + [(card.facts["target"], "sc:Text")]
    return {
        "@type": "cr:RecordSet",
        "@id": "records",
        "name": "records",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"records/{name}",
                "name": name,
                "dataType": kind,
                "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
            }
            for name, kind in columns
        ],
    }
