"""Public tools against a gateway that really serves: ART over HTTP, with protections and without.

``python benchmarks/gateway_public_tools.py [--rows N] [--queries N] [--seed N]``

The interpreter of an environment with the Adversarial Robustness Toolbox is named by ``$BARTIZAN_ART``; without one,
nothing is measured:

    uv venv PEERS/art && uv pip install --python PEERS/art/bin/python adversarial-robustness-toolbox scikit-learn
    BARTIZAN_ART=PEERS/art/bin/python python benchmarks/gateway_public_tools.py

``bartizan serve`` serves the digits (a network of 64 units). Open: a role with all scores, no guard and no budget. The
default: what ``bartizan gateway init`` writes, without the rate, the slowing and the padding of its role, which only
take time. Each row is attacked by somebody new; each attack meets a server of its own. A row is lost when a row within
the bound was answered over HTTP with another class, and the file itself, asked directly, says so too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from bartizan.redteam.statistics import proportion

HERE = Path(__file__).parent
KEPT = HERE.parent / "build" / "public_tools.json"
"""What was measured; it is not measured again with the same settings."""
ART = os.environ.get("BARTIZAN_ART", "")
SIZE, RANGE = (1, 8, 8), (0.0, 16.0)
BOUNDS = {"inf": 1.5, "2": 9.0}
"""What the digits example allows, and 0.56 of the range for the whole of a picture."""
EVASIONS = {
    "hopskipjump": ("HopSkipJump", "inf"),
    "boundary": ("Boundary", "2"),
    "square": ("Square", "inf"),
}
EXTRACTIONS = {"knockoff": "KnockoffNets, natural rows", "copycat": "CopycatCNN, rows mixed with noise"}
ACCOUNTS = 20
"""Among which somebody who knows of the gateway sends questions round."""
OPEN = """
[identity.keys]

[role.user]
extends = "administrator"
operations = ["infer", "metadata"]
factor = "not needed"
"""
ONLY_TIME = ('rate = "60/min"\n', "[slowing]\n")


def served():
    """Ways of serving, by name: the configuration, the checks that it needs, and accounts of each attacker."""
    from bartizan.wiring.gateway_init import OUTLIERS, TEMPLATE  # noqa: PLC0415 - not in the processes of a pool

    default = TEMPLATE.format(outliers=OUTLIERS, witness=".bartizan/audit-witness.txt")
    for line in ONLY_TIME:
        assert line in default, line
        default = default.replace(line, "")
    default = default.replace("[role.user]\n", "[role.user]\npad_milliseconds = 0\n")
    checks = ("scan", "gateway.sequence", "gateway.outliers")
    return {
        "open": (OPEN, ("scan",), 1),
        "default": (default, checks, 1),
        f"default, {ACCOUNTS} accounts each": (default, checks, ACCOUNTS),
    }


class Model:
    """The declared project, its file asked directly, and rows that it answers rightly."""

    def __init__(self, folder):
        import onnxruntime  # noqa: PLC0415

        sys.path.insert(0, str(HERE.parent / "tests"))
        from fixtures import gateways  # noqa: PLC0415 - the tests' way of declaring a project

        self.gateways, self.base = gateways, gateways.declare_digits(folder / "declared")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(self.base / "model" / "digits.onnx"), options)
        held = np.load(self.base / "data" / "holdout.npz")
        rows, labels = held["rows"].reshape(len(held["rows"]), -1).astype(np.float64), held["digit"]
        right = self.labels(rows) == labels
        self.rows, self.truth = rows[right], labels[right]

    def labels(self, rows):
        """What the file itself says."""
        name = self.session.get_inputs()[0].name
        return np.asarray(self.session.run(None, {name: rows.astype(np.float32)})[0]).astype(np.int64)


def new_key(project):
    from bartizan.lifecycle.deploy.gateway.identity.keys import KeyWanted  # noqa: PLC0415
    from bartizan.wiring import gatekeys  # noqa: PLC0415
    from bartizan.wiring.workspace import Workspace  # noqa: PLC0415

    return gatekeys.add(Workspace(project), KeyWanted(role="user")).secret


def attack(model, project, order, data, accounts):
    """One attack on a server of its own, by the other environment."""
    people = 1 if order["attack"] in EXTRACTIONS else len(data["rows"])
    keys = [[new_key(project) for _ in range(accounts)] for _ in range(people)]
    with tempfile.TemporaryDirectory() as folder, model.gateways.serving(project, recheck="60s") as client:
        order = order | {"port": client.port, "path": "/v2/models/digits/infer", "keys": keys, "range": RANGE}
        (Path(folder) / "order.json").write_text(json.dumps(order | {"classes": 10, "shape": SIZE}))
        np.savez(Path(folder) / "rows.npz", **data)
        subprocess.run([ART, str(HERE / "serving" / "art_client.py"), folder], check=True)
        return dict(np.load(Path(folder) / "asked.npz"))


def lost(model, found, data, norm):
    """The question that was the first to succeed, for each row; infinite where none did."""
    first = np.full(len(data["rows"]), np.inf)
    rows, of = found["turned"], found["row"].astype(int)
    if not len(rows):
        return first
    change = rows - data["rows"][of]
    size = np.abs(change).max(axis=1) if norm == "inf" else np.linalg.norm(change, axis=1)
    counts = (size <= BOUNDS[norm] * (1 + 1e-6)) & (rows.min(axis=1) >= RANGE[0]) & (rows.max(axis=1) <= RANGE[1])
    counts &= model.labels(rows) != data["labels"][of]
    np.minimum.at(first, of[counts], found["when"][counts].astype(float))
    return first


def share(count, of):
    interval = proportion(int(count), int(of)).interval
    return f"{count} of {of} ({100 * interval.low:.0f}-{100 * interval.high:.0f} %)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10, help="under attack")
    parser.add_argument("--queries", type=int, default=500, help="for each row")
    parser.add_argument("--copy", type=int, default=290, help="questions of an extraction")
    parser.add_argument("--seed", type=int, default=20261121)
    wanted = parser.parse_args()
    if not ART:
        print("no environment with ART is named by $BARTIZAN_ART: nothing is measured")
        return 0
    rng = np.random.default_rng(wanted.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder))
        order = rng.permutation(len(model.rows))
        table = {title: [] for title, _ in EVASIONS.values()} | {title: [] for title in EXTRACTIONS.values()}
        ways = served()
        for number, (way, (configuration, checks, accounts)) in enumerate(ways.items()):
            project = model.gateways.configured(model.base, Path(folder) / f"way{number}", configuration, checks=checks)
            for place, (name, (title, norm)) in enumerate(EVASIONS.items()):
                picked = order[place * wanted.rows : (place + 1) * wanted.rows]
                what = (name, norm, picked)
                table[title].append(kept(way, title, wanted, partial(evaded, model, project, what, wanted, accounts)))
            for name, title in EXTRACTIONS.items():
                what = (name, order)
                table[title].append(kept(way, title, wanted, partial(copied, model, project, what, wanted, accounts)))
    print(f"\n| attack of ART | {' | '.join(ways)} |\n| --- |{' --- |' * len(ways)}")
    for title, cells in table.items():
        print(f"| {title} | {' | '.join(cells)} |")
    return 0


def kept(way, title, wanted, measure):
    """One cell of the table, from the file if it is there."""
    found = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    key = f"{way}; {title}; {vars(wanted)}"
    if key not in found:
        found[key] = measure()
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(found, indent=1))
    print(f"{time.strftime('%H:%M:%S')} {way}: {title}: {found[key]}", file=sys.stderr, flush=True)
    return found[key]


def evaded(model, project, what, wanted, accounts):
    name, norm, picked = what
    data = {"rows": model.rows[picked], "labels": model.truth[picked]}
    asking = {"attack": name, "norm": norm, "bound": BOUNDS[norm], "budget": wanted.queries, "seed": wanted.seed}
    found = attack(model, project, asking, data, accounts)
    first = lost(model, found, data, norm)
    stood, fallen = np.isinf(first).sum(), first[np.isfinite(first)]
    after = f", the others after {np.median(fallen):.0f}" if len(fallen) else ""
    answered = found["answered"].sum() / found["asked"].sum()
    return f"{share(stood, len(first))} stand{after}; {answered:.0%} answered".replace("%", " %").replace("  ", " ")


def copied(model, project, what, wanted, accounts):
    """Agreement of the copy with the model, on rows that were not asked."""
    name, order = what
    half = len(order) // 2
    own, unseen = model.rows[order[:half]], model.rows[order[half:]]
    if name == "copycat":
        rng = np.random.default_rng(wanted.seed)
        # Rows that are like nothing: two pictures, half of each, and noise.
        own = np.concatenate([(own[rng.permutation(half)] + own) / 2 for _ in range(4)])
        own = np.clip(own + rng.normal(0, 4.0, own.shape), *RANGE)
    budget = wanted.copy if name == "knockoff" else 4 * wanted.copy
    asking = {"attack": name, "budget": budget, "seed": wanted.seed, "norm": "inf"}
    found = attack(model, project, asking, {"rows": own, "unseen": unseen, "labels": own[:, 0]}, accounts)
    agreed = (found["said"] == model.labels(unseen)).sum()
    answered = found["answered"].sum() / found["asked"].sum()
    return f"agrees on {share(agreed, len(unseen))}; {answered:.0%} answered".replace("%", " %").replace("  ", " ")


if __name__ == "__main__":
    sys.exit(main())
