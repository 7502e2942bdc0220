"""HTML, Markdown and JSON: complete, the same every time, harmless, and without a grade."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt

from bartizan.assurance.model import ReportModel
from bartizan.assurance.render import brief, code, plain, to_html, to_json, to_markdown
from bartizan.assurance.sarif import to_sarif
from bartizan.catalogue.load import catalogue
from bartizan.core.evidence import Standing
from bartizan.core.system import Component, Flow, Owner
from fixtures.hospital import Hospital, hospital
from fixtures.hospital_attacks import part, sample, versions

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202egpj.exe\x00\x1b[31m`|[x](javascript:1) {{7*7}}"
)
MARKDOWN_TAGS = {
    *("h1", "h2", "h3", "p", "ul", "ol", "li", "strong", "em", "code"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
FORMS = {"html": to_html, "markdown": to_markdown, "json": to_json, "sarif": to_sarif}


@pytest.fixture(scope="module")
def report():
    return hospital().model()


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.hidden = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden += tag == "style"

    def handle_endtag(self, tag):
        self.hidden -= tag == "style"

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("form", FORMS)
def test_the_same_evidence_gives_the_same_bytes(form):
    first, second = hospital(), hospital()
    second.evidence.reverse()
    assert FORMS[form](first.model()) == FORMS[form](second.model())


@pytest.mark.control("INTRO-1")
def test_there_is_no_score_but_evidence_age_and_gaps_for_each_principle(report):
    for text in (Page(to_html(report)).text, to_markdown(report), to_json(report)):
        assert not re.search(r"\d\s?%|per ?cent", text)
        assert not re.search(r"\b(scor|rating|ranked|matur|complian|complete)", _ours(text, report))
        assert not re.search(r"\b\d+ (of|out of) \d+ (items|controls|principles)\b", text)
    for field in _fields(json.loads(to_json(report))):
        assert not re.search(r"score|grade|rating|total|percent|level", field)
    html = to_html(report)
    for chapter in report.principles:
        part = html[html.index(f'id="p-{chapter.id}"') :]
        part = Page(part[: part.index("</details>")]).text
        for line in chapter.controls:
            assert line.item in part
            assert all(f"{report.line(link.digest).age} old" in part for link in line.holds[:4])
            assert all(gap.what in part for gap in line.gaps)


def _ours(text, report):
    """The report without the words of the catalogue and of the declared system."""
    foreign = [control.item for control in catalogue().controls.values()]
    foreign += [entry.name for entry in (*catalogue().techniques.values(), *catalogue().mitigations.values())]
    foreign += [point.asset for point in catalogue().access_points.values()]
    foreign += [line.says for line in report.evidence] + [flow.carries for flow in report.system.flows]
    foreign += [control.evidence for control in catalogue().controls.values()]
    foreign += ["rounded-scores", "guided by scores", "user with scores", '"scores"']
    for words in sorted(foreign, key=len, reverse=True):
        text = text.replace(words, "").replace(plain(words), "")
    return text


def _fields(value):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _fields(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _fields(entry)


def test_the_page_needs_nothing_but_itself(report):
    page = Page(to_html(report))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(attributes["href"].startswith("#") for attributes in page.all("a"))
    assert not re.search(r"@import|url\((?!#)", to_html(report))
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_every_link_leads_somewhere_and_no_id_is_given_twice():
    made = hospital()
    found = {"rule": "r", "severity": "low", "title": "t", "where": "w", "controls": ["2.1-g", "of-a-plug-in"]}
    made.assess("x", "model:triage", {"findings": [found]}, days=1, method="m", family="dataset", summary="s")
    page = Page(to_html(made.model()))
    assert "of-a-plug-in" in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for attributes in page.all("a")} <= set(ids)


def test_headings_go_down_one_level_at_a_time(report):
    levels = [int(tag[1]) for tag, _ in Page(to_html(report)).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_every_table_has_a_caption_and_scoped_headers(report):
    page = Page(to_html(report))
    assert len(page.all("table")) == len(page.all("caption")) > 25
    assert all(attributes.get("scope") in {"col", "row"} for attributes in page.all("th"))


def test_everything_of_the_model_is_on_the_page(report):
    text = Page(to_html(report)).text
    for artefact in report.system.artefacts:
        assert artefact.digest in text
    for line in report.evidence:
        assert line.digest[:12] in text
        assert line.says in text
    for rule in report.gate.rules:
        assert rule.reason in text
        assert rule.remedy in text
    for technique in catalogue().techniques.values():
        assert technique.name in text
    for line in report.findings:
        assert line.finding.title in text
        assert line.finding.remedy in text


def test_the_markdown_form_says_the_same(report):
    text = to_markdown(report)
    for line in report.evidence:
        assert line.digest[:12] in text
    for control in catalogue().controls:
        assert f"**{control}**" in text
    for line in report.findings:
        assert plain(line.finding.title) in text


def test_the_json_form_reads_back_as_the_same_report(report):
    assert msgspec.json.decode(to_json(report), type=ReportModel) == report


def test_no_absolute_path_of_the_machine_is_shown(report):
    for render in FORMS.values():
        assert "/srv/triage" not in render(report)
    assert {artefact.path for artefact in report.system.artefacts} == {
        "bartizan.toml",
        "models/triage.joblib",
        "data/aspirates-train.csv",
        "data/aspirates-holdout.csv",
    }


def hostile():
    """The example with hostile text wherever text comes from outside."""
    long = "y" * 100_000
    made = hospital(
        purpose=HOSTILE,
        description=long,
        owner=Owner(role=HOSTILE, contact=HOSTILE),
        people={HOSTILE: HOSTILE},
        component=(
            Component(name=HOSTILE, kind="service", zone=HOSTILE),
            Component(name=long, kind="service", zone="z"),
        ),
        flow=(Flow(source=HOSTILE, target=long, carries=HOSTILE),),
    )
    made.names = dict.fromkeys(made.names, HOSTILE)
    made.decide("review", HOSTILE, role=HOSTILE, signer="k-sec", days=1, ends_in=1, concerns=(HOSTILE, "1.3-a"))
    found = {
        "rule": HOSTILE,
        "severity": "critical",
        "title": HOSTILE,
        "where": f"{HOSTILE}/{long}:3",
        "remedy": HOSTILE,
    }
    points = [{"x": 0, "value": 1}, {"x": 1, "value": 0}]
    made.assess(
        "redteam.evasion.square",
        "model:triage",
        {
            "findings": [found, found],
            "curves": {"robust_accuracy_by_change": {HOSTILE: points, "b": points}},
            "samples": [sample(1, HOSTILE, long, 0.1, {HOSTILE: 0.1, long: 0.2})],
            "classes": [part(HOSTILE, 9, 9, 0.5, 0.1), part(long, 9, 9, 0.5, 0.1)],
            "segments": [part(HOSTILE, 9, 9, 0.5, 0.4)],
            "pictures": {
                "shape": [1, 1, 2],
                "value_range": [0, 1],
                "items": [
                    {
                        "sample": 0,
                        "label": HOSTILE,
                        "answer_clean": HOSTILE,
                        "answer_attacked": long,
                        "clean": [0, 1],
                        "attacked": [1, 1],
                    }
                ],
            },
        },
        days=0.5,
        method=HOSTILE,
        family="evasion",
        summary=HOSTILE,
        techniques=(HOSTILE,),
    )
    made.put(None, days=1, standing=Standing.INVALID, reason=HOSTILE)
    made.versions = (versions(HOSTILE),)
    return made


def test_hostile_names_stay_text_in_html():
    html = to_html(hostile().model())
    page = Page(html)
    assert not page.all("script")
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "\\u202egpj.exe\\u0000\\u001b[31m" in page.text
    assert "{{7*7}}" in page.text


@pytest.mark.parametrize("form", FORMS)
def test_invisible_characters_reach_no_form(form):
    text = FORMS[form](hostile().model())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text)


def test_a_very_long_name_does_not_make_a_very_long_report():
    assert len(to_html(hostile().model())) < len(to_html(hospital().model())) + 60_000


def test_hostile_names_stay_text_in_markdown():
    page = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(hostile().model())))
    assert {tag for tag, _ in page.tags} <= MARKDOWN_TAGS
    assert "<script>alert(1)</script>" in page.text
    assert page.text.count(HOSTILE[:8]) > 20
    assert "{{7*7}}" in page.text


@pytest.mark.parametrize(("text", "shown"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```")])
def test_code_spans_hold_whatever_backticks_there_are(text, shown):
    assert code(text) == shown


def test_long_text_on_the_first_page_is_cut_at_a_word():
    assert brief("one two three four", 12) == "one two …"
    assert brief("short", 12) == "short"


def test_an_empty_report_says_what_is_not_there():
    made = Hospital()
    text = Page(to_html(made.model())).text
    for sentence in (
        "No gate has been evaluated for this system.",
        "No red-team measurement counts today, so nothing is known.",
        "No person has decided anything that counts today.",
        "No attack map counts today.",
        "No check that counts today reports a finding. That says what was looked for and not found",
        "No privacy attack has been run",
        "There is none.",
    ):
        assert sentence in text
    assert to_markdown(made.model())
    assert json.loads(to_json(made.model()))["gate"] is None


def test_a_system_without_components_has_no_data_flow_and_says_so():
    text = Page(to_html(hospital(component=(), flow=()).model())).text
    assert "The declaration names no components" in text


def test_a_passed_gate_is_said_to_have_passed():
    made = hospital()
    made.gate = type(made.gate)(rule=made.gate.rule[:1])
    text = Page(to_html(made.model())).text
    assert "Gate passed" in text
    assert "What stands in the way" not in text


def test_templates_speak_of_nothing_that_is_not_in_the_model():
    """StrictUndefined makes a template with a misspelt name fail; every template is rendered above."""
    folder = Path(sys.modules["bartizan.assurance.render"].__file__).parent / "templates"
    included = "".join(path.read_text("utf-8") for path in folder.glob("*.j2"))
    for path in folder.glob("*.html.j2"):
        assert path.name == "report.html.j2" or f'"{path.name}"' in included
