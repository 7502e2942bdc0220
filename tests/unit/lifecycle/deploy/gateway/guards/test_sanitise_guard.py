"""Transforms against their definitions and other people's code; chains by kind and source."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import median_filter, uniform_filter
from sklearn.datasets import load_sample_image

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Column
from bartizan.lifecycle.deploy.gateway.guards.sanitise.chains import KINDS, chain_of
from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame
from bartizan.lifecycle.deploy.gateway.guards.sanitise.guard import SanitiseGuard, SanitiseSettings
from bartizan.lifecycle.deploy.gateway.guards.sanitise.texts import normalised
from fixtures.guarding import asked, columns_of, material


def pictures(shape, low=0.0, high=1.0):
    size = int(np.prod(shape))
    return Frame(np.full(size, low), np.full(size, high), shape)


def table(low, high, **more):
    return Frame(np.array(low, float), np.array(high, float), **more)


# -- images


@pytest.mark.control("4.2-a")
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 13, 9), (3, 16, 24), (1, 1, 1)])
@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 300])
def test_median_and_average_are_those_of_scipy(shape, size, count):
    rows = np.random.default_rng(0).random((count, int(np.prod(shape)))).astype(np.float32)
    for name, other in (("median", median_filter), ("average", uniform_filter)):
        ours = chain_of([f"{name}:{size}"], pictures(shape))(rows).reshape(-1, *shape)
        for place in (0, count - 1):
            theirs = [other(plane, size, mode="nearest") for plane in rows[place].reshape(shape)]
            if name == "median" and size == 2:  # of an even number the upper one of the middle two, as there
                np.testing.assert_allclose(ours[place], theirs)
            else:
                np.testing.assert_allclose(ours[place], theirs, atol=1e-6)


@pytest.mark.control("4.2-a")
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_jpeg_leaves_what_a_real_codec_leaves(mode, quality):
    """Beside libjpeg, through Pillow: the same but for values that lie between two steps."""
    picture = Image.fromarray(load_sample_image("china.jpg")[180:281, 200:353]).convert(mode)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=quality, subsampling=0)
    values, theirs = (
        np.atleast_3d(np.asarray(each, dtype=float)).transpose(2, 0, 1) for each in (picture, Image.open(stored))
    )
    chain = chain_of([f"jpeg:{quality}"], pictures(values.shape, 0, 255))
    ours = chain(values.reshape(1, -1)).reshape(values.shape)
    off = np.abs(ours - theirs)
    assert off.mean() < (0.5 if mode == "L" else 0.9)
    assert off.mean() < 0.5 * np.abs(theirs - values).mean()
    assert np.abs(ours - values).mean() == pytest.approx(np.abs(theirs - values).mean(), rel=0.03)


@pytest.mark.control("4.2-a")
def test_bit_depth_keeps_so_many_values_evenly():
    rows = np.linspace(-1, 3, 64, dtype=np.float32)[None]
    squeezed = chain_of(["bit-depth:2"], pictures((1, 8, 8), -1, 3))(rows)
    np.testing.assert_allclose(np.unique(squeezed), [-1, 1 / 3, 5 / 3, 3], atol=1e-6)
    assert np.abs(squeezed - rows).max() <= 4 / 3 / 2 + 1e-6


@pytest.mark.control("4.2-a")
@pytest.mark.parametrize("name", ["clip", "bit-depth:3", "median:3", "average:3", "jpeg:75", "jpeg:10"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_transform_keeps_form_kind_range_and_what_it_was_given(name, dtype):
    shape = (3, 9, 10)
    rows = np.random.default_rng(1).uniform(-2, 5, (4, 270)).astype(dtype)
    before = rows.copy()
    made = chain_of(["clip", name], pictures(shape, -2, 5))(rows)
    np.testing.assert_array_equal(rows, before)
    assert made.shape == rows.shape
    assert made.dtype == rows.dtype
    assert made.min() >= -2 - 1e-5
    assert made.max() <= 5 + 1e-5
    together = [chain_of(["clip", name], pictures(shape, -2, 5))(row[None])[0] for row in rows]
    np.testing.assert_allclose(made, together, atol=1e-5)


@pytest.mark.control("4.2-a")
@pytest.mark.parametrize("name", ["median:3", "average:3", "jpeg:50"])
def test_a_plain_surface_stays_as_it_is(name):
    rows = np.full((1, 64), 128 / 255, np.float32)
    np.testing.assert_allclose(chain_of([name], pictures((1, 8, 8)))(rows), rows, atol=1e-3)


# -- tables


@pytest.mark.control("4.2-a")
def test_clipping_brings_values_back_to_their_own_range():
    chain = chain_of(["clip"], table([0, -np.inf], [1, 5]))
    np.testing.assert_array_equal(chain(np.array([[2.0, 9.0], [-1.0, -9.0]])), [[1, 5], [0, -9]])


@pytest.mark.control("4.2-a")
def test_quantising_leaves_categories_whole_numbers_and_what_has_no_range():
    frame = table(
        [0, 0, 0, -np.inf],
        [1, 100, 9, np.inf],
        whole=np.array([False, True, False, False]),
        names=np.array([False, False, True, False]),
    )
    rows = np.array([[0.3, 33.0, 7.0, 1.2345]])
    made = chain_of(["quantise:3"], frame)(rows)
    np.testing.assert_allclose(made, [[0.5, 50, 7, 1.2345]])
    fine = chain_of(["quantise:1000"], frame)(np.array([[0.3, 33.0, 7.0, 1.2345]]))
    assert fine[0, 1] == 33


@pytest.mark.control("4.2-a")
@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.integers(2, 65_536))
def test_quantising_twice_is_quantising_once(values, levels):
    frame = table([-1e6] * 4, [1e6] * 4)
    chain = chain_of([f"quantise:{levels}"], frame)
    once = chain(np.array([values]))
    np.testing.assert_allclose(chain(once), once, atol=1e-6)
    assert np.abs(once - values).max() <= 1e6 / (levels - 1) * (1 + 1e-9)


# -- texts


@pytest.mark.control("4.2-a")
@pytest.mark.parametrize(
    ("given_text", "read"),
    [
        ("plain words\n", "plain words\n"),
        ("fr\u200bee mo\u00adney", "free money"),
        ("p\u0430yp\u0430l and w\u0456n", "paypal and win"),
        ("\u202egnihton\u202c", "gnihton"),
        ("\uff46\uff55\uff4c\uff4c \ufb01ne \u2461", "full fine 2"),
        ("привет мир", "привет мир"),
        ("日本語 ελληνικά", "日本語 ελληνικά"),
        ("a\x00b\x1b[31m", "ab[31m"),
        ("e\u0301", "é"),
    ],
)
def test_a_text_is_what_is_read(given_text, read):
    assert normalised(given_text) == read


@pytest.mark.control("4.2-a")
@given(st.text())
def test_normalising_twice_is_normalising_once(text):
    once = normalised(text)
    assert normalised(once) == once


# -- chains


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["blur:3"], "no transform is called 'blur'"),
        (["clip:3"], "takes no number"),
        (["median"], "number from 2 to 7"),
        (["median:9"], "number from 2 to 7"),
        (["median:3.5"], "number from 2 to 7"),
        (["jpeg:0"], "number from 1 to 100"),
        (["jpeg:²"], "number from 1 to 100"),
        (["bit-depth:9999999"], "number from 1 to 8"),
        (["quantise:8"], "is for tables"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(names, match):
    with pytest.raises(InputError, match=match) as caught:
        chain_of(names, pictures((1, 8, 8)))
    assert caught.value.remedy


def test_images_alone_have_transforms_of_images():
    for name, kind in KINDS.items():
        if kind.images:
            with pytest.raises(InputError, match="is for images"):
                chain_of([f"{name}:{kind.least}"], table([0], [1]))
    with pytest.raises(InputError, match="needs ranges"):
        chain_of(["clip"], table([-np.inf], [np.inf]))


def image_guard(**settings):
    said = material(columns_of(64), shape=(1, 8, 8), value_range=(0.0, 16.0))
    return SanitiseGuard(msgspec.convert(settings, SanitiseSettings), said)


def caller(role):
    return Caller(id="key:x", role=role, method="key")


@pytest.mark.control("4.2-c")
def test_the_chain_follows_kind_of_rows_and_trust_in_the_source():
    assert image_guard().chain_for("", "user").names == ("clip", "jpeg:75")
    tabular = SanitiseGuard(SanitiseSettings(), material([Column(name="a", low=0.0, high=1.0), Column(name="b")]))
    assert tabular.chain_for("", "user").names == ("clip",)
    unbounded = SanitiseGuard(SanitiseSettings(), material(columns_of(2)))
    assert unbounded.chain_for("", "user").names == ()
    judge = image_guard(
        chain=["clip", "jpeg:50"], roles={"clinic": ["clip"]}, sources={"scanner": [], "*": ["bit-depth:5"]}
    )
    chosen = {
        ("", "user"): ("clip", "jpeg:50"),
        ("", "clinic"): ("clip",),
        ("scanner", "user"): (),
        ("other", "clinic"): ("bit-depth:5",),
    }
    for (source, role), names in chosen.items():
        assert judge.chain_for(source, role).names == names
    only_named = image_guard(sources={"scanner": []})
    assert only_named.chain_for("other", "user").names == ("clip", "jpeg:75")


def test_rows_go_on_as_the_chain_leaves_them():
    judge = image_guard(chain=["clip", "bit-depth:4"], roles={"clinic": []})
    row = np.full((1, 64), 7.3)
    verdict = judge.on_request(asked(row))
    np.testing.assert_allclose(verdict.rows, 7.46666, atol=1e-4)
    assert verdict.measures["moved"] == pytest.approx(0.16667 / 16, rel=1e-3)
    assert judge.on_request(asked(verdict.rows)) is None or np.allclose(
        judge.on_request(asked(verdict.rows)).rows, verdict.rows
    )
    assert judge.on_request(asked(np.zeros(64))) is None  # nothing changed
    assert judge.on_request(asked(row, caller=caller("clinic"))) is None
    assert judge.on_response(asked(row), None) is None


@pytest.mark.parametrize("said", [{"chain": ["x" * 50]}, {"chain": ["clip"] * 9}, {"filters": []}, {"roles": {"a": 1}}])
def test_settings_are_bounded(said):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(said, SanitiseSettings)


def test_images_without_a_range_of_values_stop_the_gateway():
    with pytest.raises(InputError, match="value_range"):
        SanitiseGuard(SanitiseSettings(), material(columns_of(64), shape=(1, 8, 8)))
