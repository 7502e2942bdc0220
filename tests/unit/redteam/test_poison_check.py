"""Where ``data.poison`` applies, what its result rests on, and models and data that leave little to say."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from bartizan.core.check import Check
from bartizan.core.errors import ArtefactError
from bartizan.core.system import Condition, Gate, Rule
from bartizan.redteam.poison_check import PoisonCheck
from bartizan.wiring.registry import checks, selected
from fixtures.image_systems import Opened, declare_images, digits, perceptron
from fixtures.systems import make_system
from fixtures.victims import Victim, desk, named

CHECK = PoisonCheck()
GATE = {
    "release": Gate(
        rule=(
            Rule(
                id="no-backdoor",
                about="model",
                type="assessment",
                check="data.poison",
                where=(Condition(field="result", equals="passed"),),
            ),
        )
    )
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("poison")


@pytest.fixture(scope="module")
def system(folder):
    return declare_images(folder)


def run(target, system):
    return CHECK.run(system, system.of_kind("model")[0], desk(Opened(target)))


def constant():
    return Victim(answer=lambda rows: np.zeros(len(rows)), features=64, classes=10)


def hardened(system, folder, **changes):
    """The same with a second model that was made from the first."""
    mine = system.declaration.model[0]
    new = msgspec.structs.replace(mine, name="pruned", base_model="digits", **changes)
    return msgspec.structs.replace(
        system,
        declaration=msgspec.structs.replace(system.declaration, model=(mine, new)),
        artefacts=(*system.artefacts, named(folder, "model", "pruned", "model.bin")),
    )


def test_it_is_run_where_a_gate_or_a_person_names_it(folder, system):
    assert isinstance(CHECK, Check)
    assert not selected(CHECK, system)
    assert selected(CHECK, declare_images(folder, gate=GATE))
    assert {CHECK.name, "scan"} <= {check.name for check in checks((CHECK.name,))}
    assert [model.name for model in CHECK.subjects(system)] == ["digits"]


def test_texts_are_none_of_its_business():
    system = make_system()
    texts = tuple(msgspec.structs.replace(part, text="message") for part in system.declaration.dataset)
    system = msgspec.structs.replace(system, declaration=msgspec.structs.replace(system.declaration, dataset=texts))
    assert CHECK.subjects(system) == ()
    assert "texts" in CHECK.why_not(system)


def test_its_result_rests_on_the_parent_too(folder, system):
    both = hardened(system, folder)
    old, new = both.of_kind("model")
    assert set(CHECK.inputs(both, old)) == set(CHECK.inputs(system, old))
    assert CHECK.inputs(both, new)["model:digits"] == old.digest
    assert CHECK.inputs(both, old) == CHECK.inputs(system, old)


def test_clean_data_pass_and_the_report_is_the_same_every_time(system):
    rows = digits()[0]
    one, same = (run(Victim(perceptron()), system) for _ in range(2))
    assert one.report.data == same.report.data
    said = one.predicate
    assert (said.result, one.findings) == ("passed", ())
    assert said.metrics["accuracy"].n == len(rows) - 1000
    assert said.metrics["accuracy"].low > 0.9
    assert json.loads(one.report.data)["statement"]["seed"] == said.seed


def test_a_model_that_answers_one_class_obeys_no_trigger(system):
    said = run(constant(), system).predicate
    assert said.result == "passed"
    assert said.metrics["accuracy"].value < 0.2


def test_a_parent_for_other_data_is_refused(folder, system):
    rows, labels = digits()
    np.savez(folder / "half.npz", rows=rows[:100, :32].reshape(-1, 1, 4, 8), digit=labels[:100])
    both = hardened(system, folder)
    half = msgspec.structs.replace(both.declaration.dataset[0], name="half", path="half.npz", shape=(1, 4, 8))
    parent = msgspec.structs.replace(both.declaration.model[0], trained_on="half", evaluated_on="half")
    declaration = msgspec.structs.replace(
        both.declaration, model=(parent, both.declaration.model[1]), dataset=(*both.declaration.dataset, half)
    )
    both = msgspec.structs.replace(
        both, declaration=declaration, artefacts=(*both.artefacts, named(folder, "dataset", "half", "half.npz"))
    )
    with pytest.raises(ArtefactError, match="not trained on the same columns"):
        CHECK.run(both, both.of_kind("model")[1], desk(Opened(constant())))
