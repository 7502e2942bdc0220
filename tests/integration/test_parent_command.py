"""A model that was made from a public one: the attack from its parent is run without anybody naming it."""

from __future__ import annotations

import json

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fixtures.project import declare

SMALL = {
    "samples = 60": "samples = 30",
    "query_budget = 1000": "query_budget = 60",
    "max_change = 0.25": "max_change = 0.6",
}


def attacked(ask_in, folder):
    """Run what the declaration selects; statements about the model by the name of the check."""
    code, _, errors = ask_in(folder, "attack", "--json")
    assert code in {0, 1}, errors
    rows = json.loads(ask_in(folder, "evidence", "list", "model:tumour", "--json")[1])
    envelopes = {row["what"]: row["envelope"] for row in rows if row["standing"] == "holds"}
    return {
        name: json.loads(ask_in(folder, "evidence", "show", envelope)[1])["predicate"]
        for name, envelope in envelopes.items()
        if name.startswith("redteam.evasion.")
    }


def with_parent(text):
    """The declaration with a second model, from which the first was made."""
    start = text.index("[[model]]")
    end = text.index("\n\n", start)
    mine = text[start:end]
    parent = mine.replace('"tumour"', '"public"').replace("tumour.joblib", "public.joblib")
    return text[:end] + '\nbase_model = "public"\n\n' + parent + text[end:]


@pytest.mark.control("2.4-k")
def test_the_transfer_attack_from_the_public_parent_is_run_when_one_is_declared(tmp_path, ask_in):
    declare(tmp_path)
    declaration = tmp_path / "bartizan.toml"
    text = declaration.read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    # No gate, which would name more attacks.
    text = text[: text.index("# The release gate")].replace("[redteam]", '[redteam]\nattacks = ["evasion.square"]', 1)
    declaration.write_text(text)
    assert set(attacked(ask_in, tmp_path)) == {"redteam.evasion.square"}
    table = np.loadtxt(tmp_path / "data" / "train.csv", delimiter=",", skiprows=1)
    parent = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)).fit(table[:, :-1], table[:, -1])
    joblib.dump(parent, tmp_path / "model" / "public.joblib")
    declaration.write_text(with_parent(declaration.read_text()))
    said = attacked(ask_in, tmp_path)["redteam.evasion.transfer"]
    assert said["settings"]["parent"] == "public"
    assert "holds the public parent model 'public'" in said["threat"]["knowledge"]
    metrics = said["metrics"]
    assert metrics["robust_accuracy"]["value"] < metrics["clean_accuracy"]["value"] - 0.2
    assert (
        metrics["robust_accuracy"]["low"] <= metrics["robust_accuracy"]["value"] <= metrics["robust_accuracy"]["high"]
    )
    assert said["budget"]["most_queries_spent_on_a_sample"] <= 7
