"""What each detail of output costs an adversary, and what it costs a user, on the three example models.

The tumour classifier is made by its example and opened as declared; the digits and the messages are those of the
lessons. Everything is measured on records that training did not see, with 95 % intervals; membership is asked about
both. Writes a table, a picture and all numbers into ``--output``, a folder. About 20 CPU minutes; ``--only NAME`` plays
one model::

    OMP_NUM_THREADS=1 python benchmarks/output_detail.py --output build/output-detail
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from bartizan.redteam.attacks.text.characters import Characters
from bartizan.redteam.check import material_of, stream
from bartizan.redteam.details import AIMS, LADDER, gains, table, text_gains
from bartizan.redteam.usefulness import usefulness
from bartizan.stores.files import LocalFiles
from bartizan.targets.detail import keys_of
from bartizan.targets.hosted import HostedTargets
from bartizan.wiring.declared import load
from bartizan.wiring.labs import example_ground, example_messages
from bartizan.wiring.services import FRAMEWORKS
from bartizan.wiring.workspace import utc_now
from output_detail_picture import picture

HERE = Path(__file__).resolve().parent
SEED = 20261121
SPENT = {"samples": 100, "query_budget": 100, "shadow_models": 32, "extraction_budget": 200}
"""What attacks may spend: queries for a row, models of the adversary, queries for a copy."""
TUMOUR_AIMS = AIMS
DIGITS_AIMS = tuple(aim for aim in AIMS if aim.name != "attribute")
"""A pixel of a digit is nobody's attribute."""


def spending(material, **other):
    """The material with what attacks may spend here."""
    return replace(material, settings=msgspec.structs.replace(material.settings, **(SPENT | other)))


@contextmanager
def tumour():
    """The example, made and opened as declared."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tumour"
        shutil.copytree(HERE.parent / "examples/tumour", folder)
        spec = importlib.util.spec_from_file_location("prepare_tumour", folder / "prepare.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(folder)
        system = load(folder / "bartizan.toml", LocalFiles(), utc_now)
        model = system.artefact("model:tumour")
        with HostedTargets(FRAMEWORKS, lambda _digest: True).open(system, model) as target:
            yield target, spending(material_of(system, model))


@contextmanager
def digits():
    """The network of the lessons."""
    ground = example_ground()
    yield ground.target, spending(ground.material)


def of_rows(opened, aims, tell):
    """Both sides for a model of rows."""
    with opened() as (target, material):
        found = table(gains(target, material, aims=aims, seed=SEED, tell=tell))
        rows, truth = material.evaluation.rows, material.evaluation.labels
        return found, used(target.scores(rows), truth, keys_of(rows))


def of_texts(tell):
    """Both sides for the filter of messages."""
    ground = example_messages()
    material = replace(
        ground.material, settings=msgspec.structs.replace(ground.material.settings, samples=100, query_budget=100)
    )
    found = table(text_gains(ground.target, material, Characters(), seed=SEED, tell=tell))
    texts, truth = material.evaluation.texts, material.evaluation.labels
    return found, used(ground.target.scores(texts), truth, [text.encode() for text in texts])


def used(scores, truth, asked):
    """One record for each detail."""
    scores = np.asarray(scores, dtype=np.float64)
    records = []
    for detail in LADDER:
        use = usefulness(scores, truth, asked, detail, stream(SEED, "use", detail.name))
        records.append(
            {
                "detail": detail.name,
                "bits": detail.bits(scores.shape[1]),
                **{
                    name: [value.value, value.low, value.high]
                    for name in ("accuracy", "log_loss", "calibration_error", "same_decisions", "truth_named")
                    if (value := getattr(use, name)) is not None
                },
            }
        )
    return records


MODELS = {
    "tumour": lambda tell: of_rows(tumour, TUMOUR_AIMS, tell),
    "digits": lambda tell: of_rows(digits, DIGITS_AIMS, tell),
    "messages": of_texts,
}


def markdown(name, found, uses):
    """Two tables of one model."""
    aims = list(dict.fromkeys(record["aim"] for record in found))
    by_place = {(record["detail"], record["aim"]): record for record in found}
    lines = [f"### {name}", "", "| detail | bits | " + " | ".join(aims) + " |", "| --- " * (len(aims) + 2) + "|"]
    for use in uses:
        cells = [gained(by_place.get((use["detail"], aim))) for aim in aims]
        lines.append(f"| {use['detail']} | {use['bits']:.1f} | " + " | ".join(cells) + " |")
    heads = ("log_loss", "calibration_error", "same_decisions", "truth_named")
    lines += ["", "| detail | " + " | ".join(head.replace("_", " ") for head in heads) + " |", "| --- " * 5 + "|"]
    for use in uses:
        lines.append(f"| {use['detail']} | " + " | ".join(interval(use.get(head)) for head in heads) + " |")
    return "\n".join([*lines, ""])


def gained(record):
    if record is None:
        return ""
    by = record["attack"].partition(".")[2] + (", averaged" if record["averaged"] else "")
    return f"{record['value']:.3f} ({record['low']:.3f} to {record['high']:.3f}), {by}"


def interval(numbers):
    return "{:.3f} ({:.3f} to {:.3f})".format(*numbers) if numbers else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for table, picture and numbers")
    parser.add_argument("--only", choices=MODELS, action="append")
    wanted = parser.parse_args()
    wanted.output.mkdir(parents=True, exist_ok=True)
    kept = wanted.output / "numbers.json"
    numbers = json.loads(kept.read_text()) if kept.exists() and wanted.only else {}
    for name in wanted.only or MODELS:
        began = time.process_time()
        found, uses = MODELS[name](lambda note: print(f"  {note}", file=sys.stderr, flush=True))
        numbers[name] = {"gains": found, "uses": uses, "seconds": round(time.process_time() - began)}
        kept.write_text(json.dumps(numbers, indent=1))
    numbers = {name: numbers[name] for name in MODELS if name in numbers}
    tables = "\n".join(markdown(name, each["gains"], each["uses"]) for name, each in numbers.items())
    (wanted.output / "tables.md").write_text(tables)
    (wanted.output / "output-detail.svg").write_text(picture(numbers))
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
