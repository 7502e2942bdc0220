"""Masking: what identifies a person is found in whatever spelling, and nothing takes long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.masking import (
    CUT,
    MOST_CHARACTERS,
    Masker,
    MaskingSettings,
    sensitivity_of,
    view,
)
from fixtures.effort import within

KEY = b"k" * 32


@pytest.fixture(scope="module")
def masker():
    return Masker(MaskingSettings(), KEY)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("jane.doe+x@mail.example.co.uk", "mail"),
        ("j@[192.168.0.1]", "mail"),
        ("müller@bücher.example", "mail"),
        ("\uff4aane\uff20example.org", "mail"),
        ("ja\u200bne@exam\u00adple.org", "mail"),
        ("+44 20 7946 0018", "phone"),
        ("(212) 736-5000", "phone"),
        ("020 7946 0018", "phone"),
        ("+49-30-901820", "phone"),
        ("٠٢٠ ٧٩٤٦ ٠٠١٨", "phone"),
        ("GB82 WEST 1234 5698 7654 32", "account"),
        ("DE89370400440532013000", "account"),
        ("4111 1111 1111 1111", "card"),
        ("5555-5555-5555-4444", "card"),
        ("378282246310005", "card"),
        ("536-90-4399", "identifier"),
        ("943 476 5919", "identifier"),
        ("12345678Z", "identifier"),
        ("RSSMRA85T10A562S", "identifier"),
        ("85073003328", "identifier"),
        ("192.168.10.12", "machine"),
        ("2001:db8::ff00:42:8329", "machine"),
        ("::1", "machine"),
    ],
)
def test_what_identifies_a_person_is_masked_wherever_it_stands(masker, text, kind):
    for around in ("{}", "call {} today", "({}),", "a\n{}\tb", "x: {}; y"):
        masked = masker.text(around.format(text))
        assert masked.found == {kind: 1}, masked
        assert masked.text == around.format(f"[{kind}]")


@pytest.mark.parametrize(
    "text",
    [
        "0.5108156179933933, -0.12573022107, 1.411111111111111e-05",
        "0.1257 -0.1321 0.6404 0.1049 -0.5357 0.3616 1.3040 0.9471",
        "radius 17.99, texture 10.38, 0.1184",
        "room 12, floor 3, 2026-11-21 at 10:45",
        "version 1.2.3 of 2024",
        "4111 1111 1111 1112",
        "mean ± 3 % of 1,000,000",
        "a@b",
        "@everyone and user@",
        "256.300.1.1",
        "abc:def",
        "",
    ],
)
def test_what_identifies_nobody_stays(masker, text):
    assert masker.text(text).text == text


def test_several_are_masked_one_by_one(masker):
    masked = masker.text("a@b.de, +44 20 7946 0018 and 4111111111111111; again a@b.de")
    assert masked.text == "[mail], [phone] and [card]; again [mail]"
    assert masked.found == {"mail": 2, "phone": 1, "card": 1}


def test_digests_recognise_what_is_equal_and_give_nothing_away(masker):
    masked = masker.text("a@b.de wrote to c@d.de and a@b.de", "digest").text
    first, _, _, second, _, third = masked.replace(" wrote", " wrote").split()
    assert first == third != second
    assert Masker(MaskingSettings(), b"other" * 8).text("a@b.de", "digest").text != masker.text("a@b.de", "digest").text


def test_what_is_dropped_is_not_shown_and_what_is_kept_is(masker):
    assert masker.text("a@b.de", "drop").text == "[dropped]"
    assert masker.text("a@b.de", "keep").text == "a@b.de"


def test_bytes_are_masked_as_text(masker):
    assert masker.content(b'{"note": "a@b.de", "x": [1.5]}\xff') == '{"note": "[mail]", "x": [1.5]}\ufffd'.encode()


@pytest.mark.parametrize(
    "unit",
    [
        "1", "12 ", "020 7946 0018 ", "4111111111111111 ", "@", "a@", "a.", "a", "ab:", "1.", "GB82 ", "GB82", "+(",
        "(1)", "1a2b3c4d5 ", "\u0300\u0316", "\ufdfa", "a@a.", "[", "1-", "::", "a" * 70 + "@", "1." * 3 + "1 ",
    ],
)  # fmt: skip
def test_time_is_bounded_for_hostile_texts(masker, unit):
    """Twice the text takes at most about twice the time, and none takes long (CWE-1333)."""
    text = (unit * MOST_CHARACTERS)[:MOST_CHARACTERS]
    with within(2):
        masker.text(text)


def test_what_is_too_long_is_cut_and_said_to_be(masker):
    for text in ("x" * (MOST_CHARACTERS + 1), "\ufdfa" * MOST_CHARACTERS):
        masked = masker.text(text)
        assert masked.cut
        assert masked.text.endswith(CUT)
        assert len(masked.text) <= MOST_CHARACTERS + len(CUT)


@given(st.text(max_size=300))
def test_any_text_can_be_masked(text):
    masker = _shared()
    once = masker.text(text)
    assert masker.text(once.text).text == once.text, "what was masked has nothing left to mask"


def _shared(made=[]):  # noqa: B006 - one for all examples
    if not made:
        made.append(Masker(MaskingSettings(), KEY))
    return made[0]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"regions": ("Atlantis",)}, "no country"),
        ({"identifiers": ("xx.yy",)}, "not known"),
        ({"identifiers": ("os.path",)}, "not known"),
        ({"identifiers": ("us.ssn; import os",)}, "not known"),
    ],
)
def test_what_is_not_known_is_refused(settings, problem):
    with pytest.raises(InputError, match=problem):
        Masker(MaskingSettings(**settings), KEY)


class TestRows:
    def shown(self, treatment, *, columns=(), personal=True, row=(60.0, 1.7)):
        masker = Masker(MaskingSettings(columns=columns), KEY)
        return view(
            masker,
            ("age", "height"),
            row,
            {"age": (0.0, 100.0), "height": (1.0, 1.0)},
            treatment=treatment,
            personal=personal,
        )

    def test_every_column_of_personal_data_is_masked_unless_some_are_named(self):
        assert self.shown("mask") == {"age": "[third quarter]", "height": "[masked]"}
        assert self.shown("mask", columns=("age",)) == {"age": "[third quarter]", "height": "1.7"}

    def test_data_that_is_not_personal_is_shown_but_for_the_named_columns(self):
        assert self.shown("mask", personal=False) == {"age": "60", "height": "1.7"}
        assert self.shown("mask", personal=False, columns=("height",)) == {"age": "60", "height": "[masked]"}

    def test_each_treatment_does_what_it_says(self):
        assert self.shown("drop") == {"age": "[dropped]", "height": "[dropped]"}
        assert self.shown("keep") == {"age": "60", "height": "1.7"}
        digests = self.shown("digest")
        assert digests == self.shown("digest")
        assert digests["age"] != self.shown("digest", row=(61.0, 1.7))["age"]
        assert "60" not in digests["age"]

    @pytest.mark.parametrize(
        ("value", "shown"), [(0, "lowest"), (24.9, "lowest"), (25, "second"), (100, "highest"), (101, "out of range")]
    )
    def test_numbers_are_shown_as_a_quarter_of_their_range(self, value, shown):
        assert shown in self.shown("mask", row=(value, 1.7))["age"]


def test_the_worst_class_of_all_data_counts_and_the_unknown_is_the_worst():
    assert sensitivity_of([("public", False), ("restricted", True), ("internal", False)]) == ("restricted", True)
    assert sensitivity_of([("public", False)]) == ("public", False)
    assert sensitivity_of([]) == ("restricted", True)


def test_policy_is_strict_by_default():
    settings = MaskingSettings()
    chosen = [settings.treatment(sensitivity) for sensitivity in ("public", "internal", "confidential", "restricted")]
    assert chosen == ["mask", "mask", "digest", "drop"]
