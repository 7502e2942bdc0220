"""Attacks of the Adversarial Robustness Toolbox against whoever answers on the standard streams.

``python sequence_peers.py`` in an environment of its own (ART 1.20 needs NumPy 1). Reads the name of an attack, a seed,
a norm, the shape, a label and a row; writes rows to be asked and reads their scores; a count of -1 ends the attack, and
so does the end of the attack itself, which writes a count of -1.
"""

from __future__ import annotations

import json
import struct
import sys

import numpy as np
from art.attacks import evasion
from art.estimators.classification import BlackBoxClassifierNeuralNetwork

IN, OUT = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr


class EndError(Exception):
    """Whoever answers will not answer any more."""


def ask(rows):
    rows = np.ascontiguousarray(rows.reshape(len(rows), -1), dtype="<f4")
    OUT.write(struct.pack("<ii", *rows.shape) + rows.tobytes())
    OUT.flush()
    count, width = struct.unpack("<ii", IN.read(8))
    if count < 0:
        raise EndError
    return np.frombuffer(IN.read(4 * count * width), "<f4").reshape(count, width).astype(np.float32)


def attack(name, classifier, norm):
    return {
        "hopskipjump": lambda: evasion.HopSkipJump(
            classifier, norm=norm, max_iter=50, max_eval=1000, init_eval=50, verbose=False
        ),
        "boundary": lambda: evasion.BoundaryAttack(classifier, targeted=False, max_iter=500, verbose=False),
        "signopt": lambda: evasion.SignOPTAttack(classifier, targeted=False, max_iter=50, verbose=False),
        "square": lambda: evasion.SquareAttack(classifier, norm=np.inf, eps=EPSILON[0], max_iter=2000, verbose=False),
        "simba": lambda: evasion.SimBA(classifier, attack="px", max_iter=2000, epsilon=0.2, verbose=False),
        "zoo": lambda: evasion.ZooAttack(
            classifier,
            max_iter=100,
            use_resize=False,
            use_importance=False,
            nb_parallel=16,
            binary_search_steps=1,
            learning_rate=0.1,
            initial_const=1.0,
            variable_h=1e-2,
            verbose=False,
        ),
    }[name]()


EPSILON = [0.1]


def play(order):
    row = np.frombuffer(IN.read(4 * order["features"]), "<f4").reshape(1, *order["shape"]).astype(np.float32)
    np.random.seed(order["seed"])  # noqa: NPY002 - what ART draws from
    EPSILON[0] = order["bound"]
    classifier = BlackBoxClassifierNeuralNetwork(
        ask, input_shape=tuple(order["shape"]), nb_classes=order["classes"], clip_values=(0.0, 1.0)
    )
    norm = np.inf if order["norm"] == "inf" else 2
    try:
        attack(order["attack"], classifier, norm).generate(
            row, y=np.eye(order["classes"], dtype=np.float32)[[order["label"]]]
        )
    except EndError:
        return
    except Exception as error:  # noqa: BLE001 - told to whoever ordered it
        print(f"{order['attack']}: {type(error).__name__}: {error}", file=sys.stderr)
    OUT.write(struct.pack("<ii", -1, 0))
    OUT.flush()


def main():
    for line in iter(IN.readline, b""):
        play(json.loads(line))


if __name__ == "__main__":
    main()
