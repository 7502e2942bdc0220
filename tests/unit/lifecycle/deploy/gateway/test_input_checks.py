"""The checks of models: when they are due; and what ``gateway.outliers`` and ``gateway.sanitise`` rest on and say."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError, InputError
from bartizan.core.system import Artefact, DocumentPart, Gate, Rule
from bartizan.lifecycle.deploy.gateway.detail_check import DetailCheck
from bartizan.lifecycle.deploy.gateway.guards.outliers.wire import unpacked
from bartizan.lifecycle.deploy.gateway.outlier_check import OutlierCheck
from bartizan.lifecycle.deploy.gateway.rules_check import RulesCheck
from bartizan.lifecycle.deploy.gateway.sanitise_check import SanitiseCheck
from bartizan.lifecycle.deploy.gateway.sequence_check import SequenceCheck
from bartizan.redteam.check import stream
from fixtures.image_systems import Opened, declare_images, perceptron
from fixtures.victims import Victim, desk

CHECKS = (OutlierCheck(), SanitiseCheck())
OF_GUARDS = (*CHECKS, SequenceCheck(), RulesCheck())
OF_MODELS = (*OF_GUARDS, DetailCheck())
QUICK = {"samples": 8, "query_budget": 60}


def with_configuration(system, folder, text):
    """The system with a declared ``gateway.toml``."""
    path = folder / "gateway.toml"
    path.write_text(text)
    part = DocumentPart(name="gateway", path="gateway.toml", kind="configuration")
    artefact = Artefact(kind="document", name="gateway", digest=digest_bytes(path.read_bytes()), path=str(path))
    others = tuple(item for item in system.artefacts if item.kind != "document")
    declaration = msgspec.structs.replace(system.declaration, document=(part,))
    return msgspec.structs.replace(system, declaration=declaration, artefacts=(*others, artefact))


def outcome(check, system):
    return check.run(system, system.of_kind("model")[0], desk(Opened(Victim(perceptron()))))


@pytest.fixture
def system(tmp_path):
    return declare_images(tmp_path, **QUICK)


@pytest.mark.parametrize("check", OF_GUARDS)
def test_it_is_due_when_a_gate_or_the_configuration_wants_it(check, system, tmp_path):
    guard = check.name.partition(".")[2]
    assert not check.selected(system)
    asked = Gate(rule=(Rule(id="it", about="model", type="assessment", check=check.name),))
    declaration = msgspec.structs.replace(system.declaration, gate={"release": asked})
    assert check.selected(msgspec.structs.replace(system, declaration=declaration))
    assert check.selected(with_configuration(system, tmp_path, f'[[guard]]\nuse = "{guard}"\n'))
    assert not check.selected(with_configuration(system, tmp_path, '[[guard]]\nuse = "schema"\n'))
    assert not check.selected(with_configuration(system, tmp_path, "guard = ["))


def test_what_only_measures_is_due_where_a_gate_wants_it(system, tmp_path):
    check = DetailCheck()
    asked = Gate(rule=(Rule(id="it", about="model", type="assessment", check=check.name),))
    declaration = msgspec.structs.replace(system.declaration, gate={"release": asked})
    assert check.selected(msgspec.structs.replace(system, declaration=declaration))
    assert not check.selected(with_configuration(system, tmp_path, '[[guard]]\nuse = "detail"\n'))


@pytest.mark.parametrize("check", CHECKS)
def test_it_rests_on_model_data_and_its_own_settings_alone(check, system, tmp_path):
    guard = check.name.partition(".")[2]
    model = system.of_kind("model")[0]

    def inputs(text):
        return check.inputs(with_configuration(system, tmp_path, text), model)

    first = inputs(f'[[guard]]\nuse = "{guard}"\n')
    assert {"model:digits", "dataset:train", "dataset:evaluation"} <= set(first)
    setting = "flag = 0.05" if guard == "outliers" else 'chain = ["clip"]'
    assert inputs(f'[[guard]]\nuse = "{guard}"\n{setting}\n') != first
    assert inputs(f'[role.visitor]\n[[guard]]\nuse = "{guard}"\n') == first
    assert inputs(f'[[guard]]\nuse = "{guard}"\nmodels = ["digits"]\nmode = "shadow"\n') == first
    assert inputs("guard = [") != first


def test_what_the_configuration_cannot_mean_is_refused(system, tmp_path):
    said = with_configuration(system, tmp_path, '[[guard]]\nuse = "outliers"\ndetector = "luck"\n')
    with pytest.raises(ArtefactError, match="guard outliers"):
        outcome(OutlierCheck(), said)
    said = with_configuration(system, tmp_path, '[[guard]]\nuse = "sanitise"\nchain = ["blur:3"]\n')
    with pytest.raises(InputError, match="no transform is called 'blur'"):
        outcome(SanitiseCheck(), said)
    (tmp_path / "gateway.toml").write_text('[[guard]]\nuse = "sanitise"\nchain = []\n')
    with pytest.raises(ArtefactError, match="has changed"):
        outcome(SanitiseCheck(), said)


@pytest.mark.parametrize("check", OF_MODELS)
def test_texts_are_nothing_for_it(check, system):
    datasets = tuple(msgspec.structs.replace(part, text="message") for part in system.declaration.dataset)
    said = msgspec.structs.replace(system, declaration=msgspec.structs.replace(system.declaration, dataset=datasets))
    assert check.subjects(said) == ()
    assert check.why_not(said).startswith(f"{check.name} ")
    assert check.why_not(said).endswith("on rows of numbers, and the declared data are texts.")


def test_equal_inputs_give_equal_reports_and_the_guard_can_read_them(system):
    one, two = outcome(OutlierCheck(), system), outcome(OutlierCheck(), system)
    assert one.report.data == two.report.data
    reference = unpacked(one.report.data)
    assert reference.features == 64
    assert reference.detectors == ("combined", "neighbours", "energy", "mahalanobis", "softmax")
    assert sum(reference.prior) == pytest.approx(1)


def test_records_about_people_are_not_in_the_report(tmp_path):
    system = declare_images(tmp_path, data={"personal_data": True}, **QUICK)
    reference = unpacked(outcome(OutlierCheck(), system).report.data)
    rows = np.load(tmp_path / "train.npz")["rows"].reshape(-1, 64)
    kept = {bytes(point) for point in reference.encoding.points(rows)}
    assert len(reference.prototypes) == 1000
    assert not any(bytes(prototype) in kept for prototype in reference.prototypes)


def test_a_detector_that_alarms_too_often_fails(system, tmp_path):
    """The evaluation half that it is measured on is of another kind than the half that it was calibrated on."""
    said = with_configuration(system, tmp_path, '[[guard]]\nuse = "outliers"\nflag = 0.01\n')
    rows = np.load(tmp_path / "evaluation.npz")
    check = OutlierCheck()
    order = stream(system.declaration.redteam.seed, check.name, "halves").permutation(len(rows["rows"]))
    spoilt = rows["rows"].copy()
    spoilt[np.array_split(order, 2)[1]] = 1 - spoilt[np.array_split(order, 2)[1]]
    np.savez(tmp_path / "evaluation.npz", rows=spoilt, digit=rows["digit"])
    artefacts = tuple(
        msgspec.structs.replace(item, digest=digest_bytes((tmp_path / "evaluation.npz").read_bytes()))
        if item.id == "dataset:evaluation"
        else item
        for item in said.artefacts
    )
    found = outcome(check, msgspec.structs.replace(said, artefacts=artefacts))
    assert found.predicate.result == "failed"
    assert found.predicate.metrics["false_positive_rate"].low > 0.9
    assert [finding.rule for finding in found.findings] == ["gateway/outliers"]


def test_too_few_records_are_refused(tmp_path):
    system = declare_images(tmp_path, **QUICK)
    rows = np.load(tmp_path / "evaluation.npz")
    np.savez(tmp_path / "evaluation.npz", rows=rows["rows"][:30], digit=rows["digit"][:30])
    artefacts = tuple(
        msgspec.structs.replace(item, digest=digest_bytes((tmp_path / "evaluation.npz").read_bytes()))
        if item.id == "dataset:evaluation"
        else item
        for item in system.artefacts
    )
    with pytest.raises(ArtefactError, match="too few"):
        outcome(OutlierCheck(), msgspec.structs.replace(system, artefacts=artefacts))


def test_every_configured_chain_is_measured_and_the_usual_one_is_stated(system, tmp_path):
    text = '[[guard]]\nuse = "sanitise"\nchain = ["jpeg:50"]\nroles = { clinic = ["clip"] }\n'
    found = outcome(SanitiseCheck(), with_configuration(system, tmp_path, text))
    report = json.loads(found.report.data)
    chains = [tuple(each["chain"]) for each in report["filters"]]
    assert chains[:2] == [("jpeg:50",), ("clip",)]
    assert {("bit-depth:4",), ("median:3",), ("average:3",), ("jpeg:75",)} <= set(chains)
    assert found.predicate.settings["chain"] == "jpeg:50"
    metrics = found.predicate.metrics
    for name in ("hopskipjump", "square"):
        for end in ("", "_unaware", "_aware"):
            assert 0 <= metrics[f"success_{name}{end}"].low <= metrics[f"success_{name}{end}"].high <= 1
        assert metrics[f"queries_{name}"].value <= 60
    clip = report["filters"][1]["numbers"]
    assert clip["accuracy_lost"][0] == 0  # every row lies within its range
    assert clip["lowered_square_unaware"][0] == 0


def test_no_chain_at_all_measures_the_standard_ones(system, tmp_path):
    text = '[[guard]]\nuse = "sanitise"\nchain = []\n'
    found = outcome(SanitiseCheck(), with_configuration(system, tmp_path, text))
    assert found.predicate.settings["chain"] == "nothing"
    assert found.predicate.metrics["accuracy_lost"].value == 0
