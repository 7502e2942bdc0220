"""The main job on the real example, through the command line."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest

from bartizan.wiring.assure import gate_of, judge, situation
from bartizan.wiring.workspace import Workspace, utc_now
from fixtures.project import bartizan, spawned


@pytest.fixture
def first(assured_once):
    """Exit code and output of the first run."""
    code, _, output = (assured_once / "assure.txt").read_text().partition("\n")
    return int(code), output


@pytest.mark.control("ROKE-2")
def test_the_first_run_does_everything_and_decides(first, assured_once):
    code, output = first
    assert code in {0, 1}, output
    assert "could not do" not in output
    assert "FAILED" not in output.split("gate release")[0]
    for name in ("index.html", "report.md", "report.json", "findings.sarif"):
        assert (assured_once / "bartizan-report" / name).stat().st_size > 1000


def test_the_gate_refuses_without_people_and_says_what_to_do(first):
    code, output = first
    assert code == 1
    assert "NOT MET" in output
    assert "bartizan decide approval --about model:tumour --role risk-owner" in output


def test_a_second_run_does_nothing_again(project):
    done = bartizan(project, "assure")
    assert "nothing changed; nothing was run" in done.stderr
    assert done.returncode == 1


def test_touching_one_byte_of_a_dataset_reruns_exactly_what_rests_on_it(project, ask_in):
    holdout = project / "data" / "holdout.csv"
    text = holdout.read_text()
    digit = re.search(r"\d(?=,)", text[text.index("\n") :])
    place = text.index("\n") + digit.start()
    holdout.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    code, output, _ = ask_in(project, "evidence", "due", "--json")
    assert code == 1
    due = {(item["check"], item["about"]) for item in json.loads(output)}
    rests_on_it = {
        # the quality of either split says what leaks into the other, and cards quote it
        *((check, f"dataset:{name}") for check in ("data.quality", "cards.data") for name in ("train", "holdout")),
        ("cards.model", "model:tumour"),
        ("bom", "system:tumour-triage"),
        *((check, "model:tumour") for check in ATTACKS),
    }
    assert due == rests_on_it
    done = bartizan(project, "assure", "--json")
    answer = json.loads(done.stdout)
    assert {(item["check"], item["about"]) for item in answer["ran"]} == rests_on_it
    assert answer["failures"] == {}


ATTACKS = (
    "redteam.evasion.hopskipjump",
    "redteam.evasion.square",
    "redteam.poisoning.labelflip",
    "redteam.privacy.membership",
    "redteam.extraction.active",
)


@pytest.mark.control("1.1-k")
def test_one_command_runs_the_suite_and_exits_non_zero_on_a_broken_threshold(project):
    declaration = project / "bartizan.toml"
    declaration.write_text(declaration.read_text().replace("[gate.release]", _IMPOSSIBLE + "[gate.release]", 1))
    done = spawned(project, "assure", "--gate", "impossible", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert not answer["passed"]
    [rule] = answer["rules"]
    assert rule["state"] == "unmet"
    assert "it must be at least 1" in rule["reason"]


_IMPOSSIBLE = """
[gate.impossible]
valid_for = "30d"
[[gate.impossible.rule]]
id = "perfect"
about = "model"
type = "assessment"
check = "redteam.evasion.hopskipjump"
where = [{ field = "metrics.robust_accuracy.low", at_least = 1.0 }]

"""


def test_every_number_of_the_red_team_has_an_interval_a_budget_and_a_seed(assured_once, ask_in):
    listed = json.loads(ask_in(assured_once, "evidence", "list", "model:tumour", "--json")[1])
    attacks = [row for row in listed if row["what"].startswith("redteam.")]
    assert {row["what"].split(".")[1] for row in attacks} == {"evasion", "poisoning", "privacy", "extraction"}
    for row in attacks:
        said = json.loads(ask_in(assured_once, "evidence", "show", row["envelope"])[1])["predicate"]
        assert isinstance(said["seed"], int)
        assert said["budget"]
        assert said["metrics"]
        for name, metric in said["metrics"].items():
            assert metric["low"] <= metric["value"] <= metric["high"], name
            assert metric["n"] >= 1


@pytest.mark.control("A-MLSG-004-C001")
def test_the_report_page_has_the_confusion_of_each_class_under_attack(assured_once, ask_in):
    """Rows are true classes, columns answers; the counts are those of the signed measurement."""
    rows = json.loads(ask_in(assured_once, "evidence", "list", "model:tumour", "--json")[1])
    (found,) = [row["envelope"] for row in rows if row["what"] == "redteam.evasion.hopskipjump"]
    metrics = json.loads(ask_in(assured_once, "evidence", "show", found)[1])["predicate"]["metrics"]
    page = (assured_once / "bartizan-report" / "index.html").read_text(encoding="utf-8")
    (attack,) = re.findall(rf'<[^>]+id="a-{found[:12]}".*?(?=id="a-|</section>)', page, re.DOTALL)
    clean, attacked = confusion(attack, "Clean"), confusion(attack, "Under attack")
    assert list(clean) == list(attacked) == ["benign", "malignant"]
    for name in attacked:
        assert sum(attacked[name]) == sum(clean[name]) > 0
    total = sum(map(sum, attacked.values()))
    assert total == metrics["robust_accuracy"]["n"]
    right = attacked["benign"][0] + attacked["malignant"][1]
    assert right / total == pytest.approx(metrics["robust_accuracy"]["value"], abs=1e-5)
    assert right < clean["benign"][0] + clean["malignant"][1]


def confusion(page, title):
    """True class to its counts, from the table that is called so."""
    start = page.index(f"<caption>{title}: true class (rows) against predicted class (columns), counts")
    body = page[start : page.index("</table>", start)]
    lines = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', body, re.DOTALL)
    return {name: [int(count) for count in re.findall(r">(\d+)</td>", cells)] for name, cells in lines}


def test_statements_name_no_place_on_this_machine(assured_once, ask_in):
    for row in json.loads(ask_in(assured_once, "evidence", "list", "--json")[1]):
        assert str(assured_once) not in ask_in(assured_once, "evidence", "show", row["envelope"])[1]


def test_the_ledger_of_a_whole_run_verifies(assured_once):
    done = bartizan(assured_once, "ledger", "verify", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reports"] >= 10


@pytest.mark.control("2.3-x")
def test_models_and_datasets_are_linked_many_to_many_and_a_change_lists_the_others(project, ask_in):
    back = json.loads(ask_in(project, "impact", "model:tumour", "--back", "--json")[1])
    assert {"dataset:train", "dataset:holdout"} <= {item["what"] for item in back}
    for dataset in ("dataset:train", "dataset:holdout"):
        forward = json.loads(ask_in(project, "impact", dataset, "--json")[1])
        reached = {item["what"] for item in forward}
        assert "model:tumour" in reached
        assert "assessment redteam.evasion.square" in reached
        assert "verdict release" in reached


@pytest.mark.control("1.4-c")
def test_an_assessment_that_is_too_old_or_of_another_digest_does_not_count(project):
    space = Workspace(project)
    system = space.system()
    rule = next(rule for rule in system.declaration.gate["release"].rule if rule.check == "redteam.privacy.membership")
    assert rule.max_age
    assert _state(space, rule.id) == "met"
    late = Workspace(project, clock=lambda: utc_now() + timedelta(days=400))
    assert _state(late, rule.id) == "unmet"
    model = project / "model" / "tumour.joblib"
    model.write_bytes(model.read_bytes() + b"\0")
    assert _state(space, rule.id) == "unmet"
    space.close()
    late.close()


def _state(space, rule_id) -> str:
    system = space.system()
    result = judge(situation(space, system), "release", gate_of(system, "release"))
    return next(item.state for item in result.results if item.rule.id == rule_id)
