"""The report as a person meets it: in a browser, by keyboard, on a phone, on paper."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe

from bartizan.assurance.render import to_html
from bartizan.core.evidence import Standing
from bartizan.core.system import Owner, Rule, Societal
from fixtures.hospital import hospital

pytestmark = pytest.mark.browser
LONG = "unbroken" * 40
WORDY = "A rather long sentence that goes on about one thing and another until nobody remembers how it began. " * 6


@dataclass
class Visit:
    """An open page, and what it did that it should not."""

    page: object
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def open_all(self, which: str = "details") -> None:
        self.page.evaluate(f"document.querySelectorAll({which!r}).forEach(part => {{ part.open = true }})")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The example's report, and one with long text everywhere, as files."""
    folder = tmp_path_factory.mktemp("report")
    wordy = crowded()
    for name, made in (("example", hospital()), ("crowded", wordy)):
        (folder / f"{name}.html").write_text(to_html(made.model()), encoding="utf-8")
    return folder


def crowded():
    """The example with as much on the first page as there can be."""
    made = hospital(
        purpose=WORDY,
        owner=Owner(role=WORDY[:120], contact=f"{LONG[:80]}@hospital.example"),
        impact=Societal(users=WORDY, organisation=WORDY, society=WORDY),
    )
    rules = tuple(
        Rule(id=f"rule-{index}", about="model", type="test-result", check=f"check.{LONG[:30]}", why=WORDY)
        for index in range(12)
    )
    made.gate = type(made.gate)(rule=rules)
    found = [
        {"rule": f"r/{index}", "severity": "critical", "title": WORDY, "where": f"{LONG}.csv", "remedy": WORDY}
        for index in range(30)
    ]
    for index in range(9):
        made.assess(
            f"redteam.evasion.{index}",
            "model:triage",
            {"findings": found},
            days=index,
            method=f"a {LONG}",
            family=("evasion", "poisoning", "privacy", "extraction")[index % 4],
            summary=WORDY,
        )
        made.decide("review", WORDY, role="security", signer="k-sec", days=index, ends_in=5 + index)
        made.put(None, days=index, standing=Standing.INVALID, reason=WORDY)
    made.evidence = [item for item in made.evidence if item.kind != "scope"]
    return made


@pytest.fixture
def visit(browser, pages):
    contexts = []

    def go(name="example", width=1280, scheme="light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        seen = Visit(context.new_page())
        seen.page.on("console", lambda message: seen.console.append(message.text))
        seen.page.on("pageerror", lambda error: seen.console.append(str(error)))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto((pages / f"{name}.html").as_uri())
        return seen

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_opens_without_a_complaint_and_asks_for_nothing(visit, width, scheme):
    seen = visit(width=width, scheme=scheme)
    seen.open_all()
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith("file:")] == []
    assert len(seen.requests) == 1


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_axe_finds_nothing_with_every_kind_of_part_open(visit, width, scheme):
    seen = visit(width=width, scheme=scheme)
    seen.open_all("details.data, #map details, #p-1\\.4, #p-4\\.1, #o-roke")
    found = Axe().run(seen.page)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 20


@pytest.mark.parametrize("name", ["example", "crowded"])
@pytest.mark.parametrize("width", [1280, 800, 400, 320])
def test_the_page_never_scrolls_sideways(visit, name, width):
    seen = visit(name, width=width)
    assert seen.overflow() == 0
    seen.open_all()
    assert seen.overflow() == 0


def test_the_scheme_changes_the_paper(visit):
    papers = {
        scheme: visit(scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert papers == {"light": "rgb(253, 252, 249)", "dark": "rgb(20, 23, 27)"}


def test_the_first_key_press_offers_to_skip_to_the_report(visit):
    seen = visit()
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert seen.page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.id") == "report"


def test_every_part_is_reached_and_opened_by_keyboard_alone(visit):
    seen = visit()
    wanted = seen.page.evaluate("document.querySelectorAll('summary').length")
    reached = set()
    for _ in range(600):
        seen.page.keyboard.press("Tab")
        at = seen.page.evaluate("[...document.querySelectorAll('summary')].indexOf(document.activeElement)")
        if at >= 0:
            reached.add(at)
        if seen.page.evaluate("document.activeElement === document.body") and reached:
            break
    assert len(reached) == wanted
    seen.page.focus("#p-1\\.4 > summary")
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.getElementById('p-1.4').open")
    assert seen.page.is_visible("#c-1\\.4-a")


def test_what_has_the_focus_is_outlined(visit):
    seen = visit()
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Tab")
    width = seen.page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
    assert width >= 2


@pytest.mark.parametrize(("width", "drawn"), [(1280, True), (400, False)])
def test_the_map_is_a_picture_when_there_is_room_and_a_list_when_there_is_not(visit, width, drawn):
    page = visit(width=width).page
    assert page.is_visible("svg.attackmap") is drawn
    assert page.locator("#map .upright").is_visible() is not drawn
    points = 35
    shown = page.locator("svg.attackmap .point-name" if drawn else "#map .upright li")
    assert shown.count() == points


@pytest.mark.parametrize("width", [1280, 400])
def test_text_in_pictures_is_large_enough_to_read(visit, width):
    page = visit(width=width).page
    sizes = page.evaluate(
        """[...document.querySelectorAll('svg.figure')].filter(one => one.getClientRects().length).map(one => {
             const scale = one.getBoundingClientRect().width / one.viewBox.baseVal.width
             return Math.min(...[...one.querySelectorAll('text')].map(
               text => parseFloat(getComputedStyle(text).fontSize) * scale))
           })"""
    )
    assert len(sizes) >= 6
    assert min(sizes) >= 8.5


def test_labels_in_pictures_stay_inside_their_picture(visit):
    page = visit().page
    outside = page.evaluate(
        """[...document.querySelectorAll('svg.figure')].flatMap(one => {
             const frame = one.getBoundingClientRect()
             return [...one.querySelectorAll('text')].filter(text => {
               const box = text.getBoundingClientRect()
               return box.left < frame.left - 1 || box.right > frame.right + 1
                 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1
             }).map(text => text.textContent)
           })"""
    )
    assert outside == []


def printed_pages(pdf: bytes) -> int:
    """Number of pages of a PDF, compressed object streams included."""
    plain = pdf
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            plain += zlib.decompress(stream)
        except zlib.error:
            continue
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", plain))


def test_it_prints_with_every_principle_open(visit):
    seen = visit()
    seen.page.emulate_media(media="print")
    assert seen.page.evaluate("document.getElementById('p-5.2').open") is False
    assert seen.page.locator("#c-5\\.2-e").bounding_box()["height"] > 10
    pdf = seen.page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert printed_pages(pdf) > 15


def test_it_prints_dark_on_white_whatever_the_screen_shows(visit):
    seen = visit(scheme="dark")
    seen.page.emulate_media(media="print", color_scheme="dark")
    colours = seen.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert colours == ["rgb(255, 255, 255)", "rgb(28, 32, 37)"]


@pytest.mark.control("BLOG-3")
@pytest.mark.parametrize("name", ["example", "crowded"])
def test_the_view_for_the_risk_owner_fits_one_printed_page(visit, name):
    page = visit(name).page
    assert page.locator("header.front h2").inner_text() == "For the risk owner"
    parts = set(page.locator(".sheet h3").all_inner_texts())
    assert {"What stands in the way", "What an adversary achieved in tests", "Worst findings", "If it fails"} <= parts
    assert page.evaluate("getComputedStyle(document.querySelector('.front')).breakAfter") == "auto"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.front')).breakAfter") == "page"
    page.evaluate("document.querySelectorAll('nav, main, footer').forEach(part => part.remove())")
    assert printed_pages(page.pdf(prefer_css_page_size=True)) == 1
