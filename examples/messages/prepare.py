"""Make the message filter: write its data, train it, save it. The same bytes every time.

The data are 652 short messages of the SMS Spam Collection (Almeida and Gomez Hidalgo 2011, CC-BY-4.0) that ship with
Bartizan. Four in ten are put aside, by class, before anything is learned. Word weights and logistic regression learn
from the rest.

Run ``python prepare.py`` in this folder, or give another folder as the only argument.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import joblib

from bartizan.adapters.example_messages import CLASSES, message_filter, messages

SEED = 20261121


def main(folder: Path) -> None:
    """Write ``data/train.csv``, ``data/holdout.csv`` and ``model/messages.joblib`` below ``folder``."""
    made = messages(SEED)
    for name, (texts, labels) in (("train", made.training), ("holdout", made.evaluation)):
        path = folder / "data" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["message", "class"])
            writer.writerows((text, CLASSES[label]) for text, label in zip(texts, labels.tolist(), strict=True))
    texts, labels = made.training
    target = folder / "model" / "messages.joblib"
    target.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(message_filter().fit(texts, [CLASSES[label] for label in labels.tolist()]), target)
    print(f"{len(texts)} messages for training, {len(made.evaluation[0])} held out")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
