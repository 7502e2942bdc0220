"""What the pages about rules and reviews show can be used as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from bartizan.lifecycle.deploy.gateway.guard import Column, Material
from bartizan.lifecycle.deploy.gateway.guards.rules import RulesGuard, RulesSettings
from bartizan.lifecycle.deploy.gateway.guards.rules.report import Report
from bartizan.lifecycle.deploy.gateway.holds import HoldSettings
from bartizan.lifecycle.deploy.gateway.masking import Masker, MaskingSettings
from bartizan.lifecycle.deploy.gateway.review import ReviewSettings

PAGES = Path(__file__).parents[5] / "docs" / "gateway"
COLUMNS = ("mean_radius", "worst area", "worst_radius")
CLASSES = ("benign", "malignant")


def blocks(page):
    return [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)]


def test_the_page_about_rules_makes_a_guard():
    first, *rest = blocks("rules.md")
    (written,) = first["guard"]
    assert (written.pop("use"), written.pop("mode")) == ("rules", "shadow")
    for block in rest:
        written |= block.get("guard", block)
    report = Report(tree=(("", 0.0, 0, 0, "benign"),), uncertainty=0.2)
    material = Material(
        model="tumour",
        digest="0" * 64,
        classes=CLASSES,
        columns=tuple(Column(name=name) for name in COLUMNS),
        fitted=lambda _: msgspec.json.encode(report),
        state=None,
    )
    assert RulesGuard(msgspec.convert(written, RulesSettings), material).must_enforce
    assert {"rule", "tree", "fusion", "bound", "beyond", "impossible"} == written.keys(), "the page shows every setting"


@pytest.mark.parametrize("kind", [HoldSettings, ReviewSettings, MaskingSettings])
def test_the_page_about_reviews_can_be_used(kind):
    name = {HoldSettings: "holds", ReviewSettings: "review", MaskingSettings: "masking"}[kind]
    (written,) = [block[name] for block in blocks("review.md") if name in block]
    settings = msgspec.convert(written, kind)
    if kind is MaskingSettings:
        Masker(settings, b"k" * 32)
    shown = set(written) | {"default_class", "reviewers"}
    assert shown >= set(kind.__struct_fields__), "the page shows every setting"
