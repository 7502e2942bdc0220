"""Worst cases, classes, segments and images, read out of other people's JSON."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.assurance.cases import MOST_PAIRS, MOST_SIDE, MOST_WORST, parts, pictures, worst_cases
from bartizan.assurance.figures.pictures import BRIGHTER, DARKER, NOTHING, scale, triples
from bartizan.assurance.figures.png import SIGNATURE, png
from fixtures.hospital_attacks import cases, part, sample

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["shape", "value_range", "items", "clean", "attacked", "sample", "record", "change", "class"]
            )
            | st.text(max_size=4),
            children,
            max_size=6,
        )
    ),
    max_leaves=14,
)


def pair(clean, attacked, **more):
    return {"sample": 0, "label": "a", "answer_clean": "a", "answer_attacked": "b", **more} | {
        "clean": clean,
        "attacked": attacked,
    }


def drawn(shape, *pairs, reach=(0, 1)):
    return pictures({"pictures": {"shape": shape, "value_range": list(reach), "items": list(pairs)}})


def decoded(image):
    """Width, height, and the bytes of each line of a PNG without filters."""
    assert image.startswith(SIGNATURE)
    at, chunks = len(SIGNATURE), {}
    while at < len(image):
        (size,) = struct.unpack(">I", image[at : at + 4])
        kind, body = image[at + 4 : at + 8], image[at + 8 : at + 8 + size]
        assert struct.unpack(">I", image[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    line = width * {0: 1, 2: 3}[colour] + 1
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == line * height
    assert set(raw[::line]) == {0}
    return width, height, [raw[y * line + 1 : (y + 1) * line] for y in range(height)]


# ---- worst cases and parts


def test_the_worst_cases_are_the_right_answers_that_fell_to_the_smallest_change():
    found = worst_cases(cases())
    assert [(case.record, case.true, case.answered, case.change) for case in found] == [
        (3, "benign", "malignant", 0.1),
        (7, "malignant", "benign", 0.4),
    ]
    assert found[1].moved == (("mean_area", -0.4), ("worst_texture", 0.2))


def test_a_sample_that_was_wrong_before_is_no_case():
    wrong = sample(1, "a", "b", 0.1, {}) | {"answer": "b"}
    assert worst_cases({"samples": [wrong]}) == ()


def test_few_cases_are_shown():
    assert len(worst_cases({"samples": [sample(place, "a", "b", 0.1, {}) for place in range(50)]})) == MOST_WORST


def test_parts_that_are_not_whole_are_left_out():
    good = part("a", 9, 8, 0.5, 0.1)
    assert [line.name for line in parts([good, good | {"samples": -1}, good | {"low": None}, "no", {}])] == ["a"]
    assert parts({"a": 1}) == ()


# ---- images


def test_an_image_is_read_flat_or_nested_and_spread_over_the_range():
    flat = drawn([1, 2, 2], pair([-1, 0, 1, 3], [1, 1, 1, 1]), reach=(-1, 1))
    nested = drawn([1, 2, 2], pair([[[-1, 0], [1, 3]]], [[1, 1], [1, 1]]), reach=(-1, 1))
    assert flat.pairs[0].clean == nested.pairs[0].clean == (0, 128, 255, 255)
    assert flat.shape == (1, 2, 2)


@pytest.mark.parametrize(
    "said",
    [
        {"shape": [2, 2, 2], "items": [pair([0] * 8, [0] * 8)]},  # no image has two colours
        {"shape": [1, 2], "items": [pair([0, 0], [0, 0])]},
        {"shape": [1, 2, 2], "items": [pair([0] * 5, [0] * 4)]},
        {"shape": [1, 2, 2], "items": [pair([0, 0, 0, "0"], [0] * 4)]},
        {"shape": [1, 1, 10**9], "items": [pair([0], [0])]},
        {"shape": [1, 1, 1], "value_range": [1, 0], "items": [pair([0], [0])]},
        {"shape": [1, 1, 1], "value_range": [0, 10**400], "items": [pair([0], [0])]},
        {"shape": [1, 1, 1], "items": []},
        "no",
    ],
)
def test_what_is_no_image_is_not_drawn(said):
    assert pictures({"pictures": said}) is None


def test_large_images_are_thinned_and_few_are_shown():
    side = 2 * MOST_SIDE + 1
    one = pair([0.5] * side * side, [0.6] * side * side)
    found = drawn([1, side, side], *[one] * (MOST_PAIRS + 3))
    assert found.thinned == 3
    assert found.shape == (1, 43, 43)
    assert len(found.pairs[0].clean) == 43 * 43
    assert len(found.pairs) == MOST_PAIRS


@settings(max_examples=60)
@given(JSON)
def test_any_json_is_survived(report):
    for reader in (worst_cases, pictures):
        reader({"samples": report, "pictures": report})
    parts(report)
    pictures({"pictures": {"shape": [1, 1, 1], "value_range": [0, 1], "items": report}})


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.randoms())
def test_a_png_holds_the_pixels_it_was_made_of(width, height, channels, random):
    pixels = [[tuple(random.randrange(256) for _ in range(channels)) for _ in range(width)] for _ in range(height)]
    assert decoded(png(pixels)) == (width, height, [bytes(sum(row, ())) for row in pixels])


def test_the_difference_tells_by_colour_which_way_a_pixel_went_and_by_strength_how_far():
    found = drawn([1, 1, 4], pair([0.5, 0.5, 0.5, 0.5], [0.5, 0.9, 0.1, 0.7]), pair([0.5] * 4, [0.5] * 4))
    assert scale(found) == pytest.approx(0.4 * 255, abs=1)
    (_, panels), (_, still) = triples(found)
    assert [panel.kind for panel in panels] == ["clean", "attacked", "difference"]
    (line,) = decoded(_image(panels[2]))[2]
    colours = [tuple(line[place : place + 3]) for place in range(0, 12, 3)]
    assert colours[:3] == [NOTHING, BRIGHTER, DARKER]
    assert all(min(a, b) < c < max(a, b) for a, b, c in zip(NOTHING, BRIGHTER, colours[3], strict=True))
    assert decoded(_image(still[2]))[2] == [bytes(NOTHING * 4)]  # one scale for all
    assert 'alt="difference: 3 of 4 pixels changed, by at most 0.4 of the range"' in str(panels[2].image)


def test_of_several_colours_the_one_that_changed_most_counts():
    found = drawn([3, 1, 1], pair([0.5, 0.5, 0.5], [0.6, 0.1, 0.5]))
    assert scale(found) == pytest.approx(0.4 * 255, abs=1)


def _image(panel):
    return base64.b64decode(str(panel.image).split("base64,")[1].split('"')[0])
