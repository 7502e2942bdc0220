"""Attacks of the Adversarial Robustness Toolbox on a model that is asked over HTTP.

``python art_client.py FOLDER`` in an environment of its own (ART 1.20 needs NumPy 1): reads ``order.json`` and
``rows.npz`` there, and writes what was asked and answered to ``asked.npz``. Each question is one request with one row.
Whoever gets no answer takes it that the row is what it was, and goes on; a wait of up to two seconds is waited for.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
from art.attacks import evasion, extraction  # noqa: E402 - they warn of frameworks that are not there
from art.estimators.classification import BlackBoxClassifierNeuralNetwork  # noqa: E402
from art.estimators.classification.scikitlearn import ScikitlearnClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

PATIENCE, LONGEST = 3, 2.0
"""Times that somebody waits who is told to, and seconds that are waited at most."""


class SpentError(Exception):
    """So many questions were to be asked, and no more."""


class Asker:
    """Asks the server, counts, and keeps what was answered otherwise than before."""

    def __init__(self, order):
        self.order = order
        self.connection = http.client.HTTPConnection("127.0.0.1", order["port"], timeout=120)
        self.begin([], 0, 0)

    def begin(self, keys, label, budget):
        """Somebody new, who attacks a row that has this label."""
        self.keys, self.label, self.budget = keys, label, budget
        self.asked = self.answered = 0
        self.turned, self.when = [], []

    def __call__(self, rows):
        """Scores; certainty where the label alone comes back."""
        return np.stack([self._one(row.ravel().astype(np.float64)) for row in rows]).astype(np.float32)

    def _one(self, row):
        if self.asked >= self.budget:
            raise SpentError
        key = self.keys[self.asked % len(self.keys)]
        self.asked += 1
        outputs = self._answer(row, key)
        label, scores = self.label, None
        if outputs is not None:
            self.answered += 1
            label = int(outputs["label"][0])
            scores = outputs.get("scores")
            if label != self.label:
                self.turned.append(row)
                self.when.append(self.asked)
        return np.eye(self.order["classes"])[label] if scores is None else np.asarray(scores)

    def _answer(self, row, key):
        tensor = {"name": "features", "shape": [1, len(row)], "datatype": "FP64", "data": row.tolist()}
        body = json.dumps({"inputs": [tensor]})
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        for _ in range(PATIENCE):
            try:
                self.connection.request("POST", self.order["path"], body, headers)
                answer = self.connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException):
                self.connection.close()  # a server closes connections that were idle; the next request opens one
                continue
            if answer.status == 200:
                return {output["name"]: output["data"] for output in json.loads(data)["outputs"]}
            wait = float(answer.getheader("retry-after") or "inf")
            if answer.status != 429 or wait > LONGEST:
                return None
            time.sleep(wait)
        return None


class Thief(MLPClassifier):
    """Ignores settings that only networks of other frameworks know."""

    def fit(self, rows, labels, **_):
        """See ``MLPClassifier.fit``."""
        return super().fit(rows, labels)


def evade(order, data, asker):
    low, high = order["range"]
    classifier = BlackBoxClassifierNeuralNetwork(
        asker, input_shape=tuple(order["shape"]), nb_classes=order["classes"], clip_values=(low, high)
    )
    norm = np.inf if order["norm"] == "inf" else 2
    found = {"turned": [], "when": [], "row": [], "asked": [], "answered": []}
    for place, (row, label) in enumerate(zip(data["rows"], data["labels"], strict=True)):
        asker.begin(order["keys"][place], int(label), order["budget"])
        np.random.seed(order["seed"] + place)  # noqa: NPY002 - what ART draws from
        made = {
            "hopskipjump": lambda: evasion.HopSkipJump(
                classifier, norm=norm, max_iter=50, max_eval=1000, init_eval=50, verbose=False
            ),
            "boundary": lambda: evasion.BoundaryAttack(classifier, targeted=False, max_iter=500, verbose=False),
            "square": lambda: evasion.SquareAttack(
                classifier, norm=np.inf, eps=order["bound"], max_iter=order["budget"], verbose=False
            ),
        }[order["attack"]]()
        sample = row.reshape(1, *order["shape"]).astype(np.float32)
        try:
            made.generate(sample, y=np.eye(order["classes"], dtype=np.float32)[[int(label)]])
        except SpentError:
            pass
        except Exception as error:  # noqa: BLE001 - what another tool cannot do is told
            print(f"{order['attack']}: {type(error).__name__}: {error}", file=sys.stderr)
        found["turned"] += asker.turned
        found["when"] += asker.when
        found["row"] += [place] * len(asker.turned)
        found["asked"].append(asker.asked)
        found["answered"].append(asker.answered)
    width = data["rows"].shape[1]
    found["turned"] = np.array(found["turned"]).reshape(-1, width)
    return found


def extract(order, data, asker):
    """Copies the model; what the copy says of rows that it has not seen."""
    asker.begin(order["keys"][0], 0, order["budget"])
    np.random.seed(order["seed"])  # noqa: NPY002
    classifier = BlackBoxClassifierNeuralNetwork(
        asker, input_shape=(data["rows"].shape[1],), nb_classes=order["classes"], clip_values=tuple(order["range"])
    )
    classes = order["classes"]
    thief = Thief((64,), max_iter=300, random_state=order["seed"]).fit(data["rows"][:classes], np.arange(classes))
    copy = ScikitlearnClassifier(thief, clip_values=tuple(order["range"]))
    if order["attack"] == "copycat":
        made = extraction.CopycatCNN(classifier, nb_stolen=order["budget"])
    else:
        made = extraction.KnockoffNets(classifier, nb_stolen=order["budget"], sampling_strategy="random", verbose=False)
    copied = made.extract(data["rows"].astype(np.float32), thieved_classifier=copy)
    said = copied.model.predict(data["unseen"].astype(np.float32))
    return {"said": said, "asked": [asker.asked], "answered": [asker.answered]}


def main():
    folder = Path(sys.argv[1])
    order, data = json.loads((folder / "order.json").read_text()), np.load(folder / "rows.npz")
    act = extract if order["attack"] in {"copycat", "knockoff"} else evade
    found = act(order, data, Asker(order))
    np.savez(folder / "asked.npz", **{name: np.asarray(value) for name, value in found.items()})


if __name__ == "__main__":
    main()
