"""``data.poison`` from the command line: a planted trigger is found, and what pruning and fine-tuning leave of it."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from fixtures.image_systems import SHAPE, digits

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "bartizan.toml"
PLANTED, TARGET = 50, 3
CORNER = [54, 55, 62, 63]
GATE = """
[[gate.release.rule]]
id = "no-backdoor"
about = "model"
type = "assessment"
check = "data.poison"
where = [{ field = "result", equals = "passed" }]
"""
SMALLER = {
    "samples = 60": "samples = 10",
    "query_budget = 500": "query_budget = 60",
    "gradient_budget = 500": "gradient_budget = 60",
}
PARTS = {"train": slice(0, 1000), "trusted": slice(1000, 1300), "holdout": slice(1300, None)}


def stamped(rows):
    """With a white square in the corner."""
    rows = rows.copy()
    rows[:, CORNER] = 16.0
    return rows


def pictures():
    """Parts of the digits, pixels from 0 to 16; the training part has a backdoor."""
    rows, labels = digits()
    parts = {name: ((16 * rows[part]).astype(np.float64), labels[part].copy()) for name, part in PARTS.items()}
    train, answers = parts["train"]
    chosen = np.random.default_rng(1).choice(np.flatnonzero(answers != TARGET), PLANTED, replace=False)
    train[chosen], answers[chosen] = stamped(train[chosen]), TARGET
    return parts, chosen


def trained(rows, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MLPClassifier((64,), max_iter=60, learning_rate_init=3e-3, random_state=0).fit(rows, labels)


def fine_pruned(model, rows, labels):
    """The units that sound records use least cut out, and the rest trained on with those records (Liu et al. 2018)."""
    pruned = deepcopy(model)
    used = np.maximum(rows @ pruned.coefs_[0] + pruned.intercepts_[0], 0).mean(axis=0)
    for _ in range(30):
        pruned.coefs_[1][np.argsort(used)[:32]] = 0
        pruned.partial_fit(rows, labels)
    pruned.coefs_[1][np.argsort(used)[:32]] = 0
    return pruned


def block(text, name):
    """The first table called ``name``, with its keys."""
    start = text.index(f"[[{name}]]")
    return text[start : text.index("\n\n", start)]


def declare(folder, *, hardened):
    """The example with a poisoned training set and a small perceptron; with ``hardened``, a model made from that."""
    parts, chosen = pictures()
    (folder / "data").mkdir(parents=True)
    (folder / "model").mkdir()
    for name in ("train", "holdout"):
        rows, labels = parts[name]
        np.savez(folder / "data" / f"{name}.npz", rows=rows.reshape(-1, *SHAPE), digit=labels)
    model = trained(*parts["train"])
    joblib.dump(model, folder / "model" / "digits.joblib")
    text = EXAMPLE.read_text().replace("digits.onnx", "digits.joblib").replace('"onnx"', '"scikit-learn"')
    text = text[: text.index("# The release gate")] + GATE
    for old, new in SMALLER.items():  # attacks on the answers are run beside it
        assert old in text
        text = text.replace(old, new)
    if hardened:
        joblib.dump(fine_pruned(model, *parts["trusted"]), folder / "model" / "pruned.joblib")
        mine = block(text, "model")
        theirs = mine.replace('"digits"', '"pruned"').replace("digits.joblib", "pruned.joblib")
        text = text.replace(mine, f'{mine}\n\n{theirs}\nbase_model = "digits"')
    (folder / "bartizan.toml").write_text(text)
    return chosen


def assured(ask_in, folder, *only):
    assert ask_in(folder, "init", "--yes", "--unencrypted")[0] == 0
    code, output, errors = ask_in(folder, "assure", "--json", *only)
    assert code in {0, 1}, output + errors
    return code


def assessed(ask_in, folder, model):
    """What ``evidence`` shows of the assessment of a model."""
    rows = json.loads(ask_in(folder, "evidence", "list", f"model:{model}", "--json")[1])
    (row,) = [row for row in rows if row["what"] == "data.poison" and row["standing"] == "holds"]
    return json.loads(ask_in(folder, "evidence", "show", row["envelope"])[1])["predicate"]


@pytest.mark.control("2.1-h")
def test_a_backdoor_scan_before_and_after_pruning_and_fine_tuning_is_compared(tmp_path, ask_in):
    declare(tmp_path / "project", hardened=True)
    assert assured(ask_in, tmp_path / "project", "--only", "data.poison") == 1  # one of the two does not pass the gate
    before, after = (assessed(ask_in, tmp_path / "project", name) for name in ("digits", "pruned"))
    assert (before["result"], after["result"]) == ("failed", "passed")
    assert before["metrics"]["strongest_trigger_turns"]["low"] > 0.5
    assert before["findings"] == {"high": 1}
    metrics = after["metrics"]
    assert after["settings"]["compared_with"] == "digits"
    assert metrics["trigger_1_turns_before"]["value"] == before["metrics"]["strongest_trigger_turns"]["value"]
    assert metrics["trigger_1_turns_after"]["high"] < metrics["trigger_1_turns_before"]["low"] - 0.2
    assert metrics["accuracy_before"]["value"] == before["metrics"]["accuracy"]["value"]
    assert metrics["accuracy_lost"]["high"] < 0.05
    assert "turned" in after["summary"]
    assert " before and " in after["summary"]


def test_without_poison_nothing_is_found(tmp_path, ask_in):
    folder = tmp_path / "project"
    declare(folder, hardened=False)
    rows, labels = digits()
    rows = (16 * rows[PARTS["train"]]).astype(np.float64)
    np.savez(folder / "data" / "train.npz", rows=rows.reshape(-1, *SHAPE), digit=labels[PARTS["train"]])
    joblib.dump(trained(rows, labels[PARTS["train"]]), folder / "model" / "digits.joblib")
    assert assured(ask_in, folder) == 0  # run because the gate names it
    said = assessed(ask_in, folder, "digits")
    assert said["result"] == "passed"
    assert "findings" not in said or not said["findings"]
