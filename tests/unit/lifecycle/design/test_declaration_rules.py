"""Every semantic rule sees its fault, on its line, and says what would be right."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import DeclarationError
from bartizan.lifecycle.design import declaration_rules as rules
from bartizan.lifecycle.design import gate_rules
from bartizan.lifecycle.design.declaration import read_declaration
from bartizan.lifecycle.design.declaration_shape import DESTRUCTION, destruction_method
from bartizan.lifecycle.design.vocabulary import Vocabulary

SMALL = (Path(__file__).parents[3] / "assets" / "declaration" / "small.toml").read_text(encoding="utf-8")
VOCABULARY = Vocabulary.of(catalogue(), checks=("scan", "redteam.evasion.apgd", "redteam.evasion.hopskipjump"))
TRAIN = SMALL.split("[[dataset]]")[1]


def read(text, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC)):
    return read_declaration(text.encode(), "bartizan.toml", VOCABULARY, clock=clock)


def changed(*edits):
    text = SMALL
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


CASES = [
    (rules.names_are_unique, [('name = "holdout"', 'name = "train"')], "dataset[1].name", "another part"),
    (rules.names_are_unique, [('name = "holdout"', 'name = "Fruit"')], "dataset[1].name", "another part"),
    (rules.names_are_unique, [('name = "camera"', 'name = "sorter"')], "component[1].name", "another part"),
    (
        rules.names_are_unique,
        [("[exposure]", '[[document]]\nname = "train"\npath = "p.txt"\nkind = "prompt"\n[exposure]')],
        "document[0].name",
        "another part",
    ),
    (
        rules.documents_are_not_named_as_checks,
        [("[exposure]", '[[document]]\nname = "scan"\npath = "p.txt"\nkind = "prompt"\n[exposure]')],
        "document[0].name",
        "the name of a check",
    ),
    (
        rules.paths_do_not_overlap,
        [("[exposure]", '[[document]]\nname = "p"\npath = "data/train.csv"\nkind = "prompt"\n[exposure]')],
        "document[0].path",
        "the same files",
    ),
    (rules.paths_do_not_overlap, [("data/holdout.csv", "data/train.csv")], "dataset[1].path", "the same files"),
    (rules.paths_do_not_overlap, [("data/holdout.csv", "data")], "dataset[1].path", "the same files"),
    (
        rules.models_are_judged_on_other_data,
        [('trained_on = "train"', 'trained_on = "trian"')],
        "model[0].trained_on",
        "did you mean 'train'",
    ),
    (
        rules.models_are_judged_on_other_data,
        [('evaluated_on = "holdout"', 'evaluated_on = "train"')],
        "model[0].evaluated_on",
        "new cases",
    ),
    (
        rules.models_are_judged_on_other_data,
        [('split = "holdout"', 'split = "train"')],
        "model[0].evaluated_on",
        "holdout | validation",
    ),
    (
        rules.labelling_instructions_are_declared,
        [('split = "train"', 'split = "train"\nlabelling_instructions = "how-to-label"')],
        "dataset[0].labelling_instructions",
        "no document of kind instructions",
    ),
    (
        rules.classes_make_sense,
        [('positive = "ripe"', 'positive = "Ripe"')],
        "model[0].positive",
        "did you mean 'ripe'",
    ),
    (
        rules.personal_data_has_a_basis,
        [('lawful_basis = "consent of the pickers"\n', "")],
        "dataset[0].lawful_basis",
        "without a lawful basis",
    ),
    (rules.personal_data_has_a_basis, [('jurisdiction = "UK"', 'jurisdiction = " "')], "jurisdiction", "whose law"),
    (
        rules.destruction_suits_sensitivity,
        [
            ('sensitivity = "confidential"', 'sensitivity = "restricted"'),
            ('destruction = "crypto-shred: by the ML team"\nuses', 'destruction = "overwrite"\nuses'),
        ],
        "dataset[0].destruction",
        "crypto-shred | purge | destroy",
    ),
    (
        rules.destruction_suits_sensitivity,
        [('destruction = "crypto-shred: by the ML team"\nlifespan', 'destruction = "delete"\nlifespan')],
        "model[0].destruction",
        "leaves too much",
    ),
    (rules.terms_are_not_over, [("2031-12-31", "2026-11-20")], "dataset[1].retention", "ended on 2026-11-20"),
    (rules.terms_are_not_over, [('lifespan = "1y"', "lifespan = 2020-01-01")], "model[0].lifespan", "ended on"),
    (rules.models_end_in_time, [('lifespan = "1y"', 'lifespan = "25m"')], "model[0].lifespan", "outlasts"),
    (rules.models_end_in_time, [('retention = "2y"', 'retention = "6y"')], "model[0].retention", "at most 5y"),
    (rules.uses_are_allowed, [('uses = ["sort fruit"]', 'uses = ["sort fruits"]')], "model[0].uses[0]", "'sort fruit'"),
    (rules.uses_are_allowed, [('uses = ["sort fruit"]', 'uses = ["rate pickers"]')], "model[0].uses[0]", "prohibits"),
    (
        rules.uses_are_allowed,
        [('prohibited_uses = ["rate pickers"]', 'prohibited_uses = ["Research"]')],
        "dataset[0].prohibited_uses[0]",
        "both allowed and prohibited",
    ),
    (rules.columns_make_sense, [('integer = ["weight"]', 'integer = ["ripe"]')], "dataset[0].integer", "label column"),
    (rules.columns_make_sense, [('group = "picker"', 'group = "ripe"')], "dataset[0].group", "label column"),
    (rules.columns_make_sense, [("[0, 500]", "[500, 0]")], "dataset[0].ranges.weight", "empty"),
    (
        rules.components_exist,
        [('"serving-input", "s', '"serving-inputs", "s')],
        "component[0].access_points[0]",
        "did you mean 'serving-input'",
    ),
    (rules.components_exist, [('asset = "fruit"', 'asset = "model:fruit"')], "component[0].asset", "fruit"),
    (rules.components_exist, [('source = "camera"', 'source = "kamera"')], "flow[0].source", "did you mean 'camera'"),
    (rules.components_exist, [('source = "camera"', 'source = "sorter"')], "flow[0].target", "to itself"),
    (rules.exposure_is_known, [("internal-batch", "internal-bach")], "exposure.profile", "'internal-batch-scoring'"),
    (
        rules.exposure_is_known,
        [('profile = "internal-batch-scoring"\n', ""), ("positions = {", "consider = ['user'] #")],
        "exposure.profile",
        "never so",
    ),
    (rules.exposure_is_known, [("{ user = ", "{ users = ")], "exposure.positions.users", "did you mean 'user'"),
    (
        rules.exposure_is_known,
        [("serving-input.query", "serving-input.ask")],
        "exposure.positions.user[0]",
        "serving-input.query | serving-input.tamper",
    ),
    (rules.exposure_is_known, [("know.task", "task")], "exposure.positions.outsider[0]", "no right"),
    (
        rules.exposure_is_known,
        [('output = "label"', 'output = "label"\nconsider = ["intruder"]')],
        "exposure.consider[0]",
        "no position",
    ),
    (rules.mitigations_exist, [('"M04", "M16"', '"M04", "M99"')], "mitigations[1]", "no mitigation"),
    (rules.mitigations_exist, [("M04 = 3", "M999 = 3")], "mitigation_cost.M999", "no mitigation"),
    (
        rules.expectations_can_be_measured,
        [('"recall.ripe"', '"recall.rip"')],
        'expected.metrics."recall.rip"',
        "did you mean 'recall.ripe'",
    ),
    (
        rules.attacks_exist,
        [("samples = 20", 'attacks = ["evasion.hopskip"]')],
        "redteam.attacks[0]",
        "evasion.hopskipjump",
    ),
    (
        rules.shares_are_distinct,
        [("samples = 20", "poison_rates = [0.1, 0.101]")],
        "redteam.poison_rates[0]",
        "percent",
    ),
    (gate_rules.rule_ids_are_unique, [('id = "evasion"', 'id = "scan"')], "gate.release.rule[1].id", "another rule"),
    (
        gate_rules.rules_are_about_something,
        [('about = "model:fruit"', 'about = "model:fruits"')],
        "gate.release.rule[1].about",
        "did you mean 'model:fruit'",
    ),
    (
        gate_rules.types_and_kinds_are_known,
        [('type = "test-result"', 'type = "test-results"')],
        "gate.release.rule[0].type",
        "did you mean 'test-result'",
    ),
    (
        gate_rules.types_and_kinds_are_known,
        [('kind = "approval"', 'kind = "aproval"')],
        "gate.release.rule[2].kind",
        "did you mean 'approval'",
    ),
    (
        gate_rules.types_and_kinds_are_known,
        [('check = "scan"', 'check = "scan"\nkind = "approval"')],
        "gate.release.rule[0].kind",
        "have no kind",
    ),
    (
        gate_rules.checks_are_installed,
        [('check = "scan"', 'check = "skan"')],
        "gate.release.rule[0].check",
        "did you mean 'scan'",
    ),
    (
        gate_rules.checks_are_installed,
        [('kind = "approval"', 'check = "scan"')],
        "gate.release.rule[2].check",
        "by a person",
    ),
    (
        gate_rules.controls_exist,
        [('check = "scan"', 'check = "scan"\ncontrols = ["9.9-z"]')],
        "gate.release.rule[0].controls[0]",
        "no control",
    ),
    (
        gate_rules.roles_are_held,
        [('role = "risk-owner"\nsigners', 'role = "riskowner"\nsigners')],
        "gate.release.rule[2].role",
        "did you mean 'risk-owner'",
    ),
    (
        gate_rules.conditions_are_bounds,
        [("at_least = 0.3", "at_least = 0.3, at_most = 0.5")],
        "gate.release.rule[1].where[0]",
        "at_least and at_most",
    ),
    (gate_rules.conditions_are_bounds, [(", at_least = 0.3", "")], "gate.release.rule[1].where[0]", "not none"),
    (
        gate_rules.conditions_are_bounds,
        [('field = "result"', 'field = "reslt"')],
        "gate.release.rule[0].where[0].field",
        "did you mean 'result'",
    ),
    (
        gate_rules.conditions_are_bounds,
        [("robust_accuracy.low", "robust_accuracy")],
        "gate.release.rule[1].where[0].field",
        "metrics.NAME.low",
    ),
    (
        gate_rules.claims_by_gradients_are_tried_otherwise,
        [('check = "redteam.evasion.hopskipjump"', 'check = "redteam.evasion.apgd"')],
        "gate.release.rule[1].check",
        "follows gradients, and says nothing of a model that masks them",
    ),
    (
        gate_rules.special_learning_is_decided,
        [('output = "label"', 'output = "label"\ncontinual_learning = true')],
        "exposure.continual_learning",
        'kind = "scope"',
    ),
    (
        gate_rules.special_learning_is_decided,
        [('output = "label"', 'output = "label"\nreinforcement_learning = true')],
        "exposure.reinforcement_learning",
        'kind = "scope"',
    ),
]


@pytest.mark.parametrize(("rule", "edits", "path", "says"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_rule_sees_its_fault(rule, edits, path, says):
    text = changed(*edits)
    with pytest.raises(DeclarationError) as caught:
        read(text)
    found = {fault.path: fault for fault in caught.value.faults}
    assert path in found, caught.value
    assert says in str(found[path])
    assert found[path].allowed
    key = path.rsplit(".", 1)[-1].split("[")[0].strip('"')
    line = text.splitlines()[found[path].line - 1]
    assert key in line or line.startswith("[")  # a key that is absent is told on the line of its table


def test_every_rule_has_a_case():
    assert {rule for rule, *_ in CASES} == {*rules.RULES, *gate_rules.GATE_RULES}


def test_only_the_rule_that_is_broken_complains():
    with pytest.raises(DeclarationError) as caught:
        read(changed(('positive = "ripe"', 'positive = "green"')))
    assert len(caught.value.faults) == 1


@pytest.mark.control("2.3-m")
@pytest.mark.parametrize("sensitivity", rules.SENSITIVITY)
@pytest.mark.parametrize("method", DESTRUCTION)
def test_destruction_must_suit_the_sensitivity(sensitivity, method):
    reach = DESTRUCTION[method]
    fits = rules.SENSITIVITY.index(reach) >= rules.SENSITIVITY.index(sensitivity)
    text = changed(
        ('sensitivity = "internal"', f'sensitivity = "{sensitivity}"'),
        ('destruction = "overwrite: by the ML team"', f'destruction = "{method}: by the ML team"'),
    )
    if fits:
        assert read(text).dataset[1].sensitivity == sensitivity
        return
    with pytest.raises(DeclarationError, match=r"dataset\[1\]\.destruction"):
        read(text)


@pytest.mark.control("2.3-m")
def test_destruction_must_be_said():
    with pytest.raises(DeclarationError, match=r"dataset\[1\]\.destruction: is missing"):
        read(changed(('destruction = "overwrite: by the ML team"\n', "")))


@pytest.mark.parametrize(
    ("text", "method"),
    [("delete", "delete"), (" crypto-shred: x", "crypto-shred"), ("purge, then", "purge"), ("deleted", ""), ("", "")],
)
def test_the_method_of_destruction_is_the_first_word(text, method):
    assert destruction_method(text) == method


def test_terms_that_are_over_can_be_read_in_order_to_retire():
    text = changed(("2031-12-31", "2020-01-01"))
    assert read(text, clock=None).dataset[1].retention == "2020-01-01"


def test_a_term_holds_through_its_last_day():
    text = changed(("2031-12-31", "2026-11-21"))
    read(text, clock=lambda: datetime(2026, 11, 21, 23, 59, tzinfo=UTC))
    with pytest.raises(DeclarationError, match="ended on"):
        read(text, clock=lambda: datetime(2026, 11, 22, tzinfo=UTC))


def test_without_a_list_of_installed_checks_names_are_taken_as_they_come():
    text = changed(('check = "scan"', 'check = "acme.scan"'), ("samples = 20", 'attacks = ["acme"]'))
    read_declaration(text.encode(), "x", Vocabulary.of(catalogue()), clock=None)


def test_a_foreign_predicate_type_may_be_asked_for():
    text = changed(('type = "test-result"', 'type = "https://example.org/review/v1"'))
    assert read(text).gate["release"].rule[0].type.endswith("review/v1")


def test_insensitive_data_may_end_before_the_model():
    edits = [('sensitivity = "confidential"\npersonal_data = true', 'sensitivity = "public"\npersonal_data = false')]
    assert read(changed(*edits, ('retention = "5y"', 'retention = "1y"'))).dataset[0].retention == "1y"
