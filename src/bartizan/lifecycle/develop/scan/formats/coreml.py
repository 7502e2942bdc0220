"""Core ML models (``.mlmodel``) and the packages that hold them (``.mlpackage``).

Format: ``mlmodel/format/*.proto`` of coremltools. A model runs no code of its own, but it can name
classes of the app that loads it, further models, and files of weights beside it.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.formats.paths import why_outside
from bartizan.lifecycle.develop.scan.formats.protobuf import (
    FITTED,
    Message,
    Tree,
    WireError,
    fits,
    payload,
    scan_fields,
    schema,
)
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Folder, Source
from bartizan.lifecycle.develop.scan.verdict import Report

FIRST_KIND = 200
"""Field numbers from here hold the model itself, one kind each."""
HIGHEST_VERSION = 1000
WEIGHTS = "@model_path/"
BLOB_HEADER = 64
"""Bytes of the description before each array in a file of weights."""
MANIFEST = "Manifest.json"
LONGEST_MANIFEST = 1 << 20
_CUSTOM = re.compile(r"custom(?:_|\Z)|py_?func|python", re.IGNORECASE)


def recognise_coreml(source: Source) -> bool:
    """Whether the fields are those of a ``Model``: a version, a description, one kind of model."""
    if not fits(source.data, "coreml", "Model", frozenset({"specificationVersion", "description"})):
        return False
    numbers: set[int] = set()
    version = 0
    try:
        for count, value in enumerate(scan_fields(source.data, 0, len(source.data))):
            numbers.add(value.number)
            version = value.value if value.number == 1 else version
            if count >= FITTED:
                break
    except WireError:
        return 0 < version < HIGHEST_VERSION and 2 in numbers  # noqa: PLR2004 -- the description
    return 0 < version < HIGHEST_VERSION and any(
        number >= FIRST_KIND for number in numbers & schema("coreml")["Model"].keys()
    )


def examine_coreml(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a model: classes, files and models that it names, texts."""
    draft = Draft(source, "coreml", meter.limits.findings)
    examiner = CoremlExaminer(Tree(source, meter, draft, "coreml"), draft, examine)
    try:
        examiner.run()
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    return draft.close()


class CoremlExaminer:
    """The examination of one model."""

    def __init__(self, tree: Tree, draft: Draft, examine: Examine) -> None:
        self.tree = tree
        self.draft = draft
        self.embedded = Embedded(draft, examine)
        self.counts = {"models": 0, "layers": 0, "operations": 0}

    def run(self) -> None:
        """Look at everything."""
        visits = {
            "Model": self._model,
            "NeuralNetworkLayer": self._layer,
            "CustomLayerParams": self._custom,
            "CustomModel": self._custom,
            "LinkedModelFile": self._linked,
            "SerializedModel": self._serialized,
            "BlobFileValue": self._blob,
            "Operation": self._operation,
            "UserDefinedEntry": self._entry,
            "Metadata": self._metadata,
        }
        self.tree.walk("Model", 0, len(self.tree.data), visits)
        self.draft.facts.update(self.counts)

    def _model(self, model: Message) -> None:
        self.counts["models"] += 1
        kinds = [
            rule.name
            for number, rule in self.tree.schema["Model"].items()
            if number >= FIRST_KIND and model.has(rule.name)
        ]
        if len(kinds) != 1:
            self.draft.fire("coreml/malformed", f"a model is of {len(kinds)} kinds {kinds[:4]}", model.start)

    def _layer(self, _layer: Message) -> None:
        self.counts["layers"] += 1

    def _custom(self, custom: Message) -> None:
        self.draft.fire(
            "coreml/custom-code", f"{custom.kind} of the class {custom.text('className')[:120]!r}", custom.start
        )

    def _linked(self, linked: Message) -> None:
        for field in ("linkedModelFileName", "linkedModelSearchPath"):
            named = linked.message(field)
            path = named.text("defaultValue") if named else ""
            if path and (why := why_outside(path)):
                self.draft.fire("coreml/external-path", f"{field} {path[:200]!r} {why}", linked.start)
            elif field == "linkedModelFileName":
                self.draft.fire("coreml/linked-model", f"{path[:200]!r}", linked.start)

    def _serialized(self, serialized: Message) -> None:
        self.draft.fire("coreml/compiled", f"{serialized.text('identifier')[:80]!r}", serialized.start)

    def _blob(self, blob: Message) -> None:
        """Weights lie in a file of the package; anything else is another file."""
        name, offset = blob.text("fileName"), blob.number("offset")
        inside = name.removeprefix(WEIGHTS)
        why = "does not begin with @model_path" if inside == name else why_outside(inside)
        if why:
            self.draft.fire("coreml/external-path", f"{name[:200]!r} {why}", blob.start)
        elif offset < 0:
            self.draft.fire("coreml/malformed", f"weights at {offset}", blob.start)
        else:
            self.draft.claims[inside] = max(offset + BLOB_HEADER, self.draft.claims.get(inside, 0))

    def _operation(self, operation: Message) -> None:
        self.counts["operations"] += 1
        kind = operation.text("type")
        if _CUSTOM.match(kind):
            self.draft.fire("coreml/custom-code", f"operation {kind[:80]!r}", operation.start)

    def _entry(self, entry: Message) -> None:
        for value in entry.values("value"):
            self.embedded.judge_text(f"metadata {entry.text('key')[:60]!r}", payload(entry, value), value.start)

    def _metadata(self, metadata: Message) -> None:
        for field in ("shortDescription", "versionString", "author", "license"):
            for value in metadata.values(field):
                self.embedded.judge_text(f"metadata {field}", payload(metadata, value), value.start)


def examine_packages(folder: Folder, draft: Draft) -> None:
    """Compare the manifest of each package with the files that lie in it."""
    for name in folder.reports:
        if posixpath.basename(name) != MANIFEST:
            continue
        raw = folder.read(name, LONGEST_MANIFEST + 1)
        try:
            manifest = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        if isinstance(manifest, dict) and isinstance(manifest.get("itemInfoEntries"), dict):
            _judge_manifest(folder, posixpath.dirname(name), manifest, draft)


def _judge_manifest(folder: Folder, package: str, manifest: dict[str, Any], draft: Draft) -> None:
    entries = manifest["itemInfoEntries"]
    if manifest.get("rootModelIdentifier") not in entries:
        draft.fire("coreml/malformed", "the manifest names no model")
    for entry in entries.values():
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str):
            draft.fire("coreml/malformed", "an entry of the manifest has no path")
        elif why := why_outside(path):
            draft.fire("coreml/external-path", f"{path[:200]!r} in the manifest {why}")
        else:
            place = posixpath.join(package, "Data", path)
            if not any(name == place or name.startswith(place + "/") for name in folder.reports):
                draft.fire("coreml/malformed", f"{path[:200]!r} is in the manifest and not in the package")
