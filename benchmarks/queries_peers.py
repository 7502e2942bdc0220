"""Peers of the attacks by query, one sample at a time as they come, under a budget that is enforced from outside.

Runs under the interpreter of an environment of its own (ART needs NumPy 1, Foolbox is happy with it) and
is called by ``queries.py``: ``python queries_peers.py ATTACK MODULE.pt ROWS.npz OUT.npz``.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from networks import small_net, wong_net

torch.set_num_threads(1)


class OverError(Exception):
    """The budget of a sample is spent."""


class Counted(torch.nn.Module):
    """The network, which counts rows and calls, keeps the closest row that fooled it, and stops at the budget."""

    def __init__(self, net, budget, *, probabilities):
        super().__init__()
        self.net, self.budget, self.calls, self.rows = net, budget, 0, 0
        self.probabilities = probabilities

    def begin(self, row, label, norm):
        """Take the next sample."""
        self.row, self.label, self.norm = row.ravel(), label, norm
        self.left, self.best, self.found = self.budget, np.inf, self.row

    def forward(self, images):
        """Answer, count, and stop at the budget."""
        images = images.to(torch.float32)
        self.calls += 1
        images = images.clamp(0, 1)
        answers = self.net(images)
        counted = min(len(images), max(self.left, 0))
        self.left -= len(images)
        self.rows += counted
        flat = images.detach().numpy().reshape(len(images), -1)[:counted]
        fooled = answers.detach().numpy().argmax(axis=1)[:counted] != self.label
        change = flat - self.row
        size = np.abs(change).max(axis=1) if self.norm == np.inf else np.linalg.norm(change, axis=1)
        size[~fooled] = np.inf
        if counted and size.min() < self.best:
            self.best, self.found = float(size.min()), flat[size.argmin()].copy()
        if self.left <= 0:
            raise OverError
        return torch.softmax(answers, 1) if self.probabilities else answers


def art_attack(name, classifier, norm):
    from art.attacks import evasion  # noqa: PLC0415 - only in the environment of the peers

    attacks = {
        "hopskipjump": lambda: evasion.HopSkipJump(
            classifier, norm=norm, max_iter=1000, max_eval=10000, init_eval=100, verbose=False
        ),
        "boundary": lambda: evasion.BoundaryAttack(classifier, targeted=False, max_iter=5000, verbose=False),
        "geoda": lambda: evasion.GeoDA(classifier, norm=norm, max_iter=1000, verbose=False, sub_dim=min(10, 28)),
        "simba": lambda: evasion.SimBA(
            classifier, attack="px", max_iter=5000, epsilon=0.2, batch_size=1, verbose=False
        ),
        "simba-dct": lambda: evasion.SimBA(
            classifier, attack="dct", max_iter=5000, epsilon=0.2, freq_dim=28, stride=7, batch_size=1, verbose=False
        ),
        "zoo": lambda: evasion.ZooAttack(
            classifier,
            max_iter=1000,
            use_resize=False,
            use_importance=False,
            nb_parallel=64,
            binary_search_steps=1,
            learning_rate=0.1,
            initial_const=1.0,
            variable_h=1e-2,
            verbose=False,
        ),
    }
    return attacks[name]()


def foolbox_attack(name, model, norm):
    import foolbox  # noqa: PLC0415

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = {
        "hopskipjump": lambda: foolbox.attacks.HopSkipJumpAttack(
            constraint="l2" if norm == 2 else "linf", steps=1000, max_gradient_eval_steps=10000
        ),
        "boundary": lambda: foolbox.attacks.BoundaryAttack(steps=25000),
    }[name]()
    return wrapped, attack


def main():
    what, network, data, out = sys.argv[1:]
    library, name = what.split(".")
    given = np.load(data)
    rows, labels = given["rows"], given["labels"]
    norm, budget, shape = float(given["norm"]), int(given["budget"]), tuple(given["shape"])
    net = (small_net if shape[1] == 8 else wong_net)()
    net.load_state_dict(torch.load(network, weights_only=True))
    model = Counted(net.eval(), budget, probabilities=name.startswith("simba")).eval()
    found = rows.copy()
    began = time.process_time()
    for place, (row, label) in enumerate(zip(rows, labels)):  # noqa: B905 - Python of the peers
        torch.manual_seed(place)
        np.random.seed(place)  # noqa: NPY002 - what the peers draw from
        model.begin(row, label, norm)
        image = row.reshape(1, *shape)
        try:
            if library == "art":
                from art.estimators.classification import PyTorchClassifier  # noqa: PLC0415

                classifier = PyTorchClassifier(
                    model, loss=torch.nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0)
                )
                onehot = np.eye(10, dtype=np.float32)[[label]]
                kwargs = {"y": onehot} if name != "geoda" else {}
                art_attack(name, classifier, norm).generate(image, **kwargs)
            else:
                wrapped, attack = foolbox_attack(name, model, norm)
                attack(wrapped, torch.from_numpy(image), torch.from_numpy(np.array([label])), epsilons=None)
        except OverError:
            pass
        found[place] = model.found
    spent = time.process_time() - began
    np.savez(out, found=found, calls=model.calls, queries=model.rows, seconds=spent)


if __name__ == "__main__":
    main()
