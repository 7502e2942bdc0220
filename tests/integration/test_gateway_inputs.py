"""Guards on input, from the command that fits and measures them to what a caller is answered over HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import time
from functools import cache

import numpy as np
import onnxruntime
import pytest

from bartizan.cli.main import run
from bartizan.lifecycle.deploy.gateway.guards.sanitise.chains import KINDS, chain_of
from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame
from fixtures.gateways import configured, key_of, serving
from fixtures.project import bartizan

CONFIGURATION = """
[identity.keys]

[role.anonymous]
operations = ["infer", "metadata"]
detail = "rounded-scores"

[role.clinic]
operations = ["infer"]
detail = "rounded-scores"

[[guard]]
use = "schema"

[[guard]]
use = "sanitise"
chain = ["bit-depth:1"]
roles = { clinic = [] }

[[guard]]
use = "outliers"
coarsen = 0.0
"""
PATIENCE = 40
FITTED = """
[[gate.deploy.rule]]
id = "outliers"
about = "model"
type = "assessment"
check = "gateway.outliers"
where = [
  { field = "result", equals = "passed" },
  { field = "metrics.detected_noise.low", at_least = 0.9 },
]

[[gate.deploy.rule]]
id = "sanitisers"
about = "model"
type = "assessment"
check = "gateway.sanitise"
"""
CHECKS = ("scan", "gateway.outliers", "gateway.sanitise")
DETECTORS = {"combined", "neighbours", "energy", "mahalanobis", "softmax"}


def quicker(text):
    return text.replace("samples = 60", "samples = 40").replace("query_budget = 500", "query_budget = 150")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, digits_project):
    """The digits with all guards on input, fitted, measured and judged."""
    folder = tmp_path_factory.mktemp("inputs") / "digits"
    return configured(digits_project, folder, CONFIGURATION, also=FITTED, change=quicker, checks=CHECKS)


@pytest.fixture(scope="module")
def trusted(guarded):
    """A key in a role for which nothing is filtered."""
    return key_of(guarded, "clinic")


@pytest.fixture(scope="module")
def client(guarded, trusted):
    with serving(guarded) as asking:
        yield asking


def said_by(folder, *arguments):
    """What a command prints, run in this process: quicker than a new one."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = run(["-C", str(folder), *arguments])
    assert code == 0, output.getvalue()
    return output.getvalue()


@cache
def evidence(folder, what, model="digits"):
    """Statement of a check that holds, and the report behind it."""
    rows = json.loads(said_by(folder, "evidence", "list", f"model:{model}", "--json"))
    (row,) = [row for row in rows if row["what"] == what and row["standing"] == "holds"]
    said = json.loads(said_by(folder, "evidence", "show", row["envelope"]))["predicate"]
    report = json.loads(said_by(folder, "evidence", "show", row["envelope"], "--report"))
    return said, report.get("report", report)


def scores_of(answer):
    return np.array(next(one["data"] for one in answer["outputs"] if one["name"] == "scores"))


def bare(folder, row):
    """What the model itself answers."""
    session = onnxruntime.InferenceSession(folder / "model" / "digits.onnx")
    return session.run(None, {session.get_inputs()[0].name: np.asarray(row, np.float32)[None]})[1][0]


def rulings_on(folder, request, guard):
    """What a guard said about a request, as it is recorded a moment after the answer."""
    for _ in range(PATIENCE):
        said = bartizan(folder, "audit", "search", "--id", request, "--reason", "a test", "--json").stdout
        if found := json.loads(said)["found"]:
            return [ruling for ruling in found[0]["record"].get("rulings", ()) if ruling["guard"] == guard]
        time.sleep(0.5)
    raise AssertionError(request)


# -- what is measured at release


@pytest.mark.control("2.4-i")
def test_the_detector_is_fitted_and_evaluated_at_release(guarded, client):
    said, report = evidence(guarded, "gateway.outliers")
    assert said["result"] == "passed"
    assert {"reference", "comparison", "criteria"} <= set(report)
    assert said["budget"]["calibrated_on"] >= 299
    assert said["budget"]["measured_on"] >= 299
    explained = said_by(guarded, "gate", "explain", "deploy")
    assert "metrics.detected_noise.low" in explained  # the release rests on it
    status, fields, _ = client.infer(np.tile([0.0, 16.0], 32))  # and what was fitted is what answers
    assert status == 200
    (ruling,) = rulings_on(guarded, fields["bartizan-request"], "outliers")
    assert ruling["action"] in {"flag", "hold", "coarsen"}
    assert ruling["reason"]


def outlier_rates_are_reported(said):
    """False alarms and what is detected of each kind of outlier, with intervals."""
    rates = said["metrics"]
    alarms = rates["false_positive_rate"]
    assert alarms["low"] <= said["settings"]["stated_false_positive_rate"] == 0.01
    assert alarms["n"] >= 299
    for kind in ("turned", "inverted", "shuffled", "noise"):
        assert rates[f"detected_{kind}"]["low"] > 0.95
    assert rates["detected_mosaic"]["low"] < rates["detected_mosaic"]["value"] < rates["detected_mosaic"]["high"]
    assert f"{alarms['value']:.1%}" in said["summary"]


def attack_rates_are_reported(said, report):
    """What is detected of the rows and of the queries of each attack, with intervals."""
    for attack in ("hopskipjump", "square", "hopskipjump_queries", "square_queries", "copycat_queries", "jitter"):
        rate = said["metrics"][f"detected_{attack}"]
        assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
        assert report["sets"][attack]["kind"] == "attack"
        assert report["sets"][attack]["rows"] >= 20


@pytest.mark.control("4.2-f")
def test_the_rates_of_the_detector_are_reported_with_intervals(guarded):
    outlier_rates_are_reported(evidence(guarded, "gateway.outliers")[0])


@pytest.mark.control("4.2-i")
def test_several_detectors_are_compared_on_the_user_s_data(guarded):
    said, report = evidence(guarded, "gateway.outliers")
    assert set(report["comparison"]) == DETECTORS
    for found in report["comparison"].values():
        assert {"turned", "inverted", "shuffled", "mosaic", "noise", "hopskipjump"} <= set(found["sets"])
        for one in found["sets"].values():
            assert 0 <= one["auroc"][1] <= one["auroc"][0] <= one["auroc"][2] <= 1
    worst = {name: said["metrics"][f"worst_auroc_{name}"]["value"] for name in DETECTORS}
    assert worst["combined"] > 0.9
    assert worst["energy"] < 0.3  # alone it takes a picture that stands on its side for the clearest of all
    assert worst["softmax"] < 0.5
    assert said["settings"]["temperature"] > 0


@pytest.mark.control("GL-4.5")
def test_rates_on_outliers_and_on_attacks_are_in_one_signed_statement(guarded):
    said, report = evidence(guarded, "gateway.outliers")
    outlier_rates_are_reported(said)
    attack_rates_are_reported(said, report)


@pytest.mark.control("4.2-k")
def test_the_share_of_attacks_that_is_detected_is_reported(guarded):
    said, report = evidence(guarded, "gateway.outliers")
    attack_rates_are_reported(said, report)
    assert said["metrics"]["detected_copycat_queries"]["low"] > 0.9  # made-up rows are seen
    for attack in ("hopskipjump", "square"):  # small changes are not, and the statement says so
        unnoticed = said["metrics"][f"success_{attack}_unnoticed"]
        assert unnoticed["low"] <= said["metrics"][f"success_{attack}"]["high"]
        assert unnoticed["value"] > 0


@pytest.mark.control("3.2-h")
def test_what_an_attack_costs_is_measured_with_and_without_preprocessing(guarded):
    said, _ = evidence(guarded, "gateway.sanitise")
    metrics = said["metrics"]
    for attack in ("hopskipjump", "square"):
        for number in (f"queries_{attack}", f"queries_{attack}_aware"):
            assert 1 <= metrics[number]["low"] <= metrics[number]["value"] <= metrics[number]["high"] <= 150
            assert metrics[number]["unit"] == "queries"
        assert f"success_{attack}_aware" in metrics
    assert said["settings"]["chain"] == "bit-depth:1"
    assert said["threat"]["position"] == "user"


@pytest.mark.control("4.2-a")
def test_each_filter_is_evaluated(guarded, table):
    """Their own tests are in tests/unit/.../guards/test_sanitise_guard.py, against other people's code."""
    kinds = set()
    for folder, model, expected in (
        (guarded, "digits", {"bit-depth:1", "bit-depth:4", "median:3", "average:3", "jpeg:75", "jpeg:30"}),
        (table, "tumour", {"clip", "quantise:2", "quantise:16", "quantise:64"}),
    ):
        _, report = evidence(folder, "gateway.sanitise", model)
        measured = {" > ".join(one["chain"]): one["numbers"] for one in report["filters"]}
        assert expected <= set(measured)
        kinds |= {name.partition(":")[0] for one in report["filters"] for name in one["chain"]}
        for numbers in measured.values():
            for name in ("accuracy_with", "accuracy_lost", "success_square_aware", "lowered_square_unaware"):
                value, low, high = numbers[name]
                assert low <= value <= high
    assert kinds == set(KINDS), "every filter that can be configured"


@pytest.mark.control("4.2-e")
def test_jpeg_median_and_bit_depth_lower_the_success_of_attacks_by_a_measured_amount(guarded):
    said, _ = evidence(guarded, "gateway.sanitise")
    for transform in ("jpeg_75", "median_3", "bit_depth_4"):
        lowered = said["metrics"][f"lowered_square_unaware_by_{transform}"]
        assert lowered["low"] > 0.1, transform
        assert f"lowered_square_aware_by_{transform}" in said["metrics"]  # and against one who knows of it


@pytest.mark.control("A-MLSG-004-D005")
def test_inputs_are_protected_against_adversarial_examples_by_what_was_measured(guarded):
    """Both kinds of protection are evaluated against attacks, and the gate relies on the evaluation."""
    shown = {what: evidence(guarded, what)[0]["metrics"] for what in ("gateway.sanitise", "gateway.outliers")}
    assert any(name.startswith("success_") and name.endswith("_aware") for name in shown["gateway.sanitise"])
    assert any(name.startswith("detected_square") for name in shown["gateway.outliers"])
    explained = said_by(guarded, "gate", "explain", "deploy")
    assert "outliers" in explained
    assert "sanitisers" in explained


@pytest.fixture(scope="module")
def table(tmp_path_factory, tumour_project):
    """The tumours: a table, one column of which has a declared range."""
    change = _with_ranges('ranges = { "mean_radius" = [0.0, 40.0] }\n')
    folder = tmp_path_factory.mktemp("inputs") / "tumour"
    text = CONFIGURATION.replace("bit-depth:1", "quantise:2")
    checks = ("scan", "cards.model", "gateway.outliers", "gateway.sanitise")
    return configured(tumour_project, folder, text, change=change, checks=checks)


@pytest.fixture(scope="module")
def trusted_by_table(table):
    return key_of(table, "clinic")


@pytest.fixture(scope="module")
def table_client(table, trusted_by_table):
    with serving(table) as asking:
        yield asking


def criteria(table):
    """What is expected of each column, and rows of training data in the order of the columns."""
    columns = {each["name"]: each for each in evidence(table, "gateway.outliers", "tumour")[1]["criteria"]["columns"]}
    header, *lines = (table / "data" / "train.csv").read_text().splitlines()
    rows = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    return columns, rows[:, [header.split(",").index(name) for name in columns]]


@pytest.mark.control("3.2-G1")
def test_what_is_expected_derives_from_the_card_and_the_profile_of_the_data(table, table_client):
    said, report = evidence(table, "gateway.outliers", "tumour")
    columns, rows = criteria(table)
    card, _ = evidence(table, "cards.model", "tumour")
    assert card["facts"]["schema"]["ranges"]["mean_radius"] == [0.0, 40.0]
    assert (columns["mean_radius"]["low"], columns["mean_radius"]["high"]) == (0.0, 40.0)  # as declared, as on the card
    names = list(columns)
    seen = rows[:, names.index("mean_texture")]
    margin = 0.5 * (seen.max() - seen.min())  # no range is declared: what training data show, and a margin
    assert columns["mean_texture"]["high"] == pytest.approx(seen.max() + margin)
    assert columns["mean_texture"]["low"] == pytest.approx(max(seen.min() - margin, 0))
    assert report["criteria"]["steps"]["flag"] == {"decades": 2.0, "share_of_usual_rows": 0.01}
    assert said["result"] == "passed"
    assert table_client.infer(rows[0])[0] == 200  # what is stated there is what is enforced
    for name, value in (("mean_radius", 40.5), ("mean_texture", seen.max() + 1.01 * margin)):
        odd = rows[0].copy()
        odd[names.index(name)] = value
        assert table_client.infer(odd)[0] == 422


def _with_ranges(bound):
    """Declares it for the training data of the example."""

    def change(text):
        start = text.index('split = "train"')
        return text[:start] + bound + text[start:]

    return change


# -- what a caller is answered


@pytest.mark.control("4.2-G1")
def test_schema_size_type_and_range_are_enforced_before_the_model(client, guarded, digits_held_out):
    row = digits_held_out[0][0]
    assert client.infer(row)[0] == 200
    path = "/v2/models/digits/infer"

    def tensor(**said):
        whole = {"name": "features", "shape": [1, 64], "datatype": "FP64", "data": row.tolist()} | said
        return client.ask("POST", path, {"inputs": [whole]})

    refused = {
        "schema": tensor(shape=[1, 63], data=row.tolist()[:63]),
        "type": tensor(data=["a"] * 64),
        "datatype": tensor(datatype="BYTES"),
        "size": client.raw("POST", path, b"x" * (5 << 20), {"content-type": "application/json"}),
        "rows": client.infer(np.zeros((4097, 64))),
        "range": client.infer(np.where(np.arange(64) == 5, 16.5, row)),
        "below": client.infer(np.where(np.arange(64) == 7, -0.5, row)),
    }
    statuses = {name: answer[0] for name, answer in refused.items()}
    assert {name: 400 <= status < 500 for name, status in statuses.items()} == dict.fromkeys(statuses, True), statuses
    assert refused["range"][2] == refused["below"][2]  # which bound it was is for the record alone
    assert "16" not in json.dumps(refused["range"][2])
    records = recorded(guarded, "schema", 2)
    reasons = {ruling["reason"] for one in records for ruling in one["rulings"] if ruling["guard"] == "schema"}
    assert reasons == {"row 0, column 'p5' is above 16", "row 0, column 'p7' is below 0"}
    assert all(one["decision"] == "refused" and not one.get("source") for one in records)  # the model was not asked


def recorded(folder, guard, count):
    """Records of requests about which a guard said something; they are written a moment after the answer."""
    for _ in range(20):
        found = bartizan(folder, "audit", "search", "--guard", guard, "--reason", "a test", "--json").stdout
        records = [one["record"] for one in json.loads(found)["found"]]
        if len(records) >= count:
            return records
        time.sleep(0.5)
    raise AssertionError(records)


@pytest.mark.control("4.2-j")
def test_the_confidence_that_is_returned_falls_with_distance(client, guarded, trusted, digits_held_out):
    rows, _ = digits_held_out
    seen = 0
    for row in rows[:12]:
        kept = []
        for way in np.linspace(0, 1, 9):
            moved = (1 - way) * row + way * (16 - row)  # further and further from any digit
            own, status_and_more = bare(guarded, moved), client.infer(moved, trusted)
            assert len(status_and_more[2]["outputs"]) == 2, (way, status_and_more, own)
            told = scores_of(status_and_more[2])
            assert status_and_more[0] == 200
            label = own.argmax()
            assert told.argmax() == label or told[label] == told.max()
            assert told[label] <= own[label] + 0.011
            kept.append((told[label] - 0.1) / max(own[label] - 0.1, 1e-6) if own[label] > 0.5 else np.nan)
        assert told.max() <= 0.13  # at the end nothing but what is true of any digit
        ratio = np.array([each for each in kept if not np.isnan(each)])
        seen += len(ratio) > 3 and ratio[0] > 0.9
        assert (np.diff(ratio) <= 0.06).all(), ratio
    assert seen >= 6


def _most_moved(rows, filtered, answers):
    """The row whose answer changes most when it is filtered, and what it becomes."""
    moved = [np.abs(answers(one) - answers(two)).max() for one, two in zip(rows, filtered, strict=True)]
    place = int(np.argmax(moved))
    return rows[place], filtered[place]


@pytest.mark.control("4.2-c")
def test_the_chain_follows_the_kind_of_rows_and_the_trust_in_their_source(guarded, client, trusted, digits_held_out):
    """Strangers' images lose all but one bit of each pixel; those of the clinic come through as they are."""
    rows = digits_held_out[0][:200]
    row, filtered = _most_moved(rows, 16.0 * np.rint(rows / 16), lambda one: bare(guarded, one))
    np.testing.assert_array_equal(scores_of(client.infer(row)[2]), scores_of(client.infer(filtered)[2]))
    assert (scores_of(client.infer(row, trusted)[2]) != scores_of(client.infer(filtered, trusted)[2])).any()


@pytest.mark.control("4.2-c")
def test_without_a_chain_the_kind_of_rows_chooses_one(tmp_path, digits_project, digits_held_out):
    """Images go on as JPEG leaves them; for tables, and for who signed them, see ``test_gateway_identity.py``."""
    folder = tmp_path / "digits"
    without = CONFIGURATION[: CONFIGURATION.rindex("[[guard]]")].replace('chain = ["bit-depth:1"]\n', "")
    configured(digits_project, folder, without)
    key = key_of(folder, "clinic")
    rows = digits_held_out[0][:200]
    filtered = chain_of(("clip", "jpeg:75"), Frame(np.zeros(64), np.full(64, 16.0), (1, 8, 8)))(rows)
    row, becomes = _most_moved(rows, filtered, lambda one: bare(folder, one))
    with serving(folder) as asking:
        told = [scores_of(asking.infer(*given, model="digits")[2]) for given in ((row,), (becomes, key), (row, key))]
    np.testing.assert_allclose(told[0], told[1], atol=0.011)
    assert np.abs(told[0] - told[2]).max() > 0.02


@pytest.mark.control("4.2-c")
def test_a_table_has_a_chain_for_tables(table, table_client, trusted_by_table):
    """Strangers' numbers lie at one end of their range or the other; those of the clinic where they were measured."""
    columns, rows = criteria(table)
    low, high = (np.array([each[end] for each in columns.values()]) for end in ("low", "high"))
    filtered = low + np.rint((rows - low) / (high - low)) * (high - low)
    told = [scores_of(table_client.infer(given, trusted_by_table)[2]) for given in (rows[:60], filtered[:60])]
    place = int(np.abs(told[0] - told[1]).reshape(60, -1).max(axis=1).argmax())
    assert np.abs(told[0] - told[1]).max() > 0.1
    mine, other = (scores_of(table_client.infer(given[place])[2]) for given in (rows, filtered))
    np.testing.assert_array_equal(mine, other)
