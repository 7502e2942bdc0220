"""The red-team chapter: overview first, names of the taxonomies, commands, and no claim that a sample cannot carry."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pytest

from bartizan.assurance.claims import WIDEST, carried, claim, headline
from bartizan.assurance.figures.forest import drawable, forest
from bartizan.assurance.render import spent, to_html, to_markdown, worst_fallen
from bartizan.assurance.taxonomy import ATLAS, NIST, named
from bartizan.catalogue.load import catalogue
from bartizan.core.predicates import Metric
from fixtures.hospital import Hospital, hospital
from fixtures.hospital_attacks import metric, sample, versions

FEW = Metric(value=1.0, low=0.34, high=1.0, n=2, method="wilson")


@pytest.fixture(scope="module")
def report():
    return hospital().model()


def one(report=None, **said):
    made = Hospital()
    usual = {"method": "evasion.square", "family": "evasion", "summary": "All withstood."}
    made.assess("redteam.evasion.square", "model:triage", report or {}, days=1, **(usual | said))
    return made.model()


# ---- the number that stands for a measurement


def test_the_headline_is_the_most_telling_number():
    good = metric(0.5, 0.1, 60)
    assert headline({"clean_accuracy": good, "robust_accuracy": good}).name == "robust_accuracy"
    drops = {f"accuracy_drop_at_{share}_percent": good for share in (2, 10, "2_5")}
    assert headline(drops).name == "accuracy_drop_at_10_percent"
    assert headline({"tpr_at_1_percent_fpr": good, "auc": good}).name == "tpr_at_1_percent_fpr"
    assert headline({"b": good, "a": good}).name == "a"
    assert headline({}) is None


def test_a_share_whose_interval_covers_half_of_all_is_no_claim():
    assert not carried(FEW)
    assert not carried(Metric(value=0, low=0, high=1, n=0))
    assert carried(Metric(value=0.5, low=0.5 - WIDEST / 2, high=0.5 + WIDEST / 2, n=14))
    assert carried(Metric(value=1.6, low=0.4, high=2.8, n=8, unit="bit"))
    assert carried(Metric(value=0.1, low=-0.5, high=0.7, n=8))  # a difference: no share


def test_a_claim_that_two_samples_cannot_carry_is_refused():
    refused = claim("All withstood.", headline({"robust_accuracy": FEW}))
    assert refused == (
        "2 observations cannot carry a claim about robust accuracy: anything from 0.34 to 1 fits what was seen."
    )
    model = one(metrics={"robust_accuracy": FEW})
    assert model.red_team[0].claim == refused
    front, chapter = to_html(model).split('id="redteam"')
    assert refused in front
    assert "All withstood." not in front
    chapter = chapter.split('id="findings"')[0]
    assert "All withstood." not in chapter
    assert "<b>1</b>" not in chapter
    assert "0.34 to 1" in chapter
    told = to_markdown(model).split("## Red team")[1].split("## Findings")[0]
    assert "All withstood" not in told
    assert "| too few |" in told
    for text in (to_html(one(metrics={"robust_accuracy": metric(0.9, 0.1, 60)})),):
        assert "All withstood." in text.split('id="redteam"')[0]


def test_nothing_seen_is_nothing_claimed():
    empty = Metric(value=0, low=0, high=1, n=0)
    assert claim("fine", headline({"robust_accuracy": empty})) == (
        "0 observations cannot carry a claim about robust accuracy."
    )


# ---- taxonomies


def test_every_attack_has_names_in_atlas_and_in_nist_ai_100_2():
    known = catalogue()
    attacks = [entry.load() for entry in entry_points(group="bartizan.attacks")]
    assert len(attacks) > 40
    for attack in attacks:
        names = named((attack.technique, *attack.atlas), known)
        assert all(entry.name for entry in names), attack.name
        assert any(entry.taxonomy == NIST for entry in names), attack.name
        if any(entry.startswith("AML.") for entry in attack.atlas):
            assert any(entry.taxonomy == ATLAS for entry in names), attack.name


def test_ids_that_nobody_knows_are_shown_without_a_name():
    names = named(("T08", "AML.T9999", "NISTAML.022", "of-a-plug-in"), catalogue())
    assert [(entry.id, entry.name) for entry in names] == [
        ("T08", "Decision-based black-box evasion"),
        ("AML.T9999", ""),
        ("NISTAML.022", "Evasion"),
        ("of-a-plug-in", ""),
        ("NISTAML.025", "Black-box Evasion"),
    ]


# ---- the chapter


def test_the_overview_leads_to_each_attack_and_details_are_folded(report):
    html = to_html(report)
    overview = html.split('class="stack overview"')[1].split("</table>")[0]
    links = re.findall(r'href="#(a-[0-9a-f]{12})"', overview)
    assert len(links) == len(report.red_team) > 5
    for link in links:
        assert re.search(rf'<details class="chapter trial" id="{link}">', html)
    assert "0.49" in overview
    assert "0.38 to 0.6" in overview
    assert "NISTAML.025" in overview


def test_a_command_to_make_it_again_stands_beside_every_figure(report):
    html = to_html(report)
    figures = html.split("<figure")[1:]
    assert len(figures) >= len(report.curves) + 4  # data flow, attack map, images, versions
    for each in figures:
        assert re.search(r"again: <code>bartizan [^<]+</code>", each.split("</figure>")[0])


def test_the_command_names_the_check_that_was_run_and_not_the_variant():
    model = one(method="evasion.square-labels")
    assert model.red_team[0].again == "bartizan attack --only evasion.square --fresh"
    assert one(family="external").red_team[0].again == ""


def test_images_stand_side_by_side_with_words_for_those_who_do_not_see_them(report):
    html = to_html(report)
    images = re.findall(r"<img [^>]+>", html)
    assert len(images) == 9
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    assert html.count("data:image/png;base64,") == 9


def test_each_record_is_among_the_worst_once_with_its_smallest_change():
    made = Hospital()
    for place, change in enumerate((0.3, 0.1)):
        made.assess(
            f"redteam.evasion.{place}",
            "model:triage",
            {"samples": [sample(4, "a", "b", change, {}), sample(place + 7, "a", "b", 0.5, {})]},
            days=1,
            method=f"m{place}",
            family="evasion",
            summary="s",
        )
    found = [(line.method, case.record, case.change) for line, case in worst_fallen(made.model())]
    assert found[0] == ("m1", 4, 0.1)
    assert sorted(found[1:]) == [("m0", 7, 0.5), ("m1", 8, 0.5)]


def test_classes_and_segments_have_their_own_numbers_where_they_carry_any(report):
    html = to_html(report)
    table = html.split("By class: robust accuracy")[1].split("</table>")[0]
    assert "0.33" in table
    assert "too few" in table  # four benign samples
    assert "site = 2" in html


def test_a_budget_is_said_in_few_words():
    line = one(budget={"samples": 40.0, "queries_allowed_per_sample": 300.0, "queries_spent": 11701.0}).red_team[0]
    assert spent(line) == "40 samples, 300 queries each, 11,701 queries spent"
    assert spent(one(budget={"shadow_models": 32.0}).red_team[0]) == "shadow models 32"


def test_a_run_that_stopped_early_says_so_in_the_overview():
    model = one(settings={"stopped_after": 15, "samples_planned": 60})
    assert "stopped after 15 of 60 samples, when gates were decided" in to_html(model)


def test_an_axis_names_its_unit_only_where_all_curves_have_the_same():
    points = [{"x": 0, "value": 1}, {"x": 1, "value": 0}]
    curves = {"curves": {"robust_accuracy_by_change": points}}
    assert one(curves, settings={"unit": "pixels"}).curves[0].unit == "pixels"
    made = Hospital()
    for unit in ("pixels", "standard deviations"):
        made.assess(
            f"x.{unit}",
            "model:triage",
            curves,
            days=1,
            method="m",
            family="evasion",
            summary="s",
            settings={"unit": unit},
        )
    assert made.model().curves[0].unit == ""


def test_an_attack_by_gradients_has_no_curve_over_queries():
    points = [{"x": 10, "value": 0.5}, {"x": 100, "value": 0.4}]
    curves = {"curves": {"robust_accuracy_by_queries": points, "robust_accuracy_by_change": points}}
    assert {drawn.kind for drawn in one(curves).curves} == {"change", "queries"}
    assert {drawn.kind for drawn in one(curves, budget={"gradients_spent": 9.0}).curves} == {"change"}


# ---- versions


def test_versions_are_drawn_with_the_better_to_the_right_and_told_apart_by_shape():
    picture = str(forest(versions(), "v"))
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', picture)]
    assert len(drawable(versions())) == 3
    assert len(places) == 1  # only what is not shown to differ is a circle
    ends = [float(x) for x in re.findall(r'd="M([\d.]+) [\d.]+ L[\d.]+ [\d.]+" class="curve', picture)]
    zero = float(re.search(r'x1="([\d.]+)"[^>]*class="axis zero"', picture).group(1))
    assert ends[0] > zero  # robust accuracy rose
    assert ends[1] < zero  # so did the fidelity of copies, which is worse


def test_a_report_without_versions_has_no_such_chapter():
    assert 'id="versions"' not in to_html(one())
    assert "compared with an earlier version" not in to_markdown(one())


def test_both_forms_tell_what_changed_and_what_was_not_equal(report):
    for text in (to_html(report), to_markdown(report)):
        for said in ("no difference shown", "norm l2, now linf", "bartizan attack compare"):
            assert said in text
