"""Pictures: what they show, that they are described, that colour is never alone."""

from __future__ import annotations

import re
from importlib import resources
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.attackmap import attackmap, by_stage, heat
from bartizan.assurance.figures.axes import Axis, linear, logarithmic
from bartizan.assurance.figures.curves import figure
from bartizan.assurance.figures.dataflow import dataflow
from bartizan.assurance.figures.routes import courses, layout, zones
from bartizan.assurance.model import ComponentBox, Curves, FlowArrow, Point, Series
from fixtures.hospital import hospital


def arrow(number, source, target, *, crosses=True):
    return FlowArrow(number=number, source=source, target=target, carries="data", crosses=crosses)


CROSSROADS = (
    tuple(
        ComponentBox(name=f"{zone}{row}", kind="service", zone=zone)
        for zone, rows in zip("abcd", (3, 2, 3, 2), strict=True)
        for row in range(rows)
    ),
    (
        arrow(1, "a0", "c0"),
        arrow(2, "c0", "a0"),
        arrow(3, "c1", "b0"),
        arrow(4, "b0", "c1"),
        arrow(5, "a1", "d0"),
        arrow(6, "d0", "d1", crosses=False),
        arrow(7, "d1", "d0", crosses=False),
        arrow(8, "c2", "b1"),
        arrow(9, "b1", "d1"),
    ),
)
"""Flows that pass other zones, run back and forth, and stay inside the last zone."""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report():
    return hospital().model()


def parse(markup):
    return ET.fromstring(str(markup))


def with_class(root, name):
    return [node for node in root.iter() if name in node.get("class", "").split()]


def test_every_picture_is_well_formed_and_announced_by_title_and_description(report):
    pictures = [figure(curves) for curves in report.curves]
    pictures += [attackmap(report.attack_map), dataflow(report.system.components, report.system.flows)]
    for picture in map(parse, pictures):
        assert picture.get("role") == "img"
        ids = picture.get("aria-labelledby").split()
        texts = {node.get("id"): node.text for node in picture.iter() if node.tag in {f"{SVG}title", f"{SVG}desc"}}
        assert all(texts[name] for name in ids)


def test_ids_differ_between_the_pictures_of_a_page(report):
    pictures = [figure(curves) for curves in report.curves] + [attackmap(report.attack_map)]
    ids = [node.get("id") for picture in map(parse, pictures) for node in picture.iter() if node.get("id")]
    assert len(ids) == len(set(ids))


def test_no_picture_carries_a_colour_of_its_own(report):
    pictures = [figure(curves) for curves in report.curves]
    pictures += [attackmap(report.attack_map), dataflow(report.system.components, report.system.flows)]
    for picture in pictures:
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!\))|rgb\(|style=|fill=|stroke=", str(picture))


@pytest.mark.control("ROKE-3")
def test_access_points_are_sized_by_what_they_open_alone(report):
    root = parse(attackmap(report.attack_map))
    sizes = {}
    for group in root.iter(f"{SVG}g"):
        names = [node.text for node in group.findall(f"{SVG}text") if node.get("class") == "point-name"]
        discs = with_class(group, "disc")
        if names and discs:
            sizes[names[0]] = float(discs[0].get("r"))
    points = {point.id: point.opens for point in report.attack_map.points}
    assert sizes.keys() == points.keys()
    for one, other in zip(sorted(points, key=points.get), sorted(points, key=points.get)[1:], strict=False):
        assert sizes[one] <= sizes[other]
    most = max(points.values())
    assert most > 0
    for name, opens in points.items():
        if opens and sizes[name] > 4:
            assert sizes[name] ** 2 == pytest.approx(max(sizes.values()) ** 2 * opens / most, rel=0.02)


def test_one_square_stands_for_one_technique_before_and_after(report):
    root = parse(attackmap(report.attack_map))
    squares = len(with_class(root, "unit"))
    assert squares == sum(point.before + point.after for point in report.attack_map.points)
    assert sum(point.after for point in report.attack_map.points) < sum(
        point.before for point in report.attack_map.points
    )


def test_controls_are_drawn_where_they_cut(report):
    root = parse(attackmap(report.attack_map))
    cut = [point for point in report.attack_map.points if point.controls]
    assert len(with_class(root, "barrier")) == len(cut) > 0
    for point in cut:
        assert point.after < point.before


def test_stages_come_in_the_order_of_the_life_cycle(report):
    stages = [stage for stage, _ in by_stage(report.attack_map.points)]
    assert stages == ["design", "collect", "develop", "train", "build", "deploy", "operate", "retire"]


@given(st.integers(0, 99), st.integers(0, 99))
def test_heat_rises_with_the_count_and_nothing_is_cold_only_at_zero(count, more):
    most = count + more
    assert 0 <= heat(count, most) <= 5
    assert (heat(count, most) == 0) == (count == 0)
    assert heat(count, most) <= heat(most, most)


def test_curves_differ_in_mark_and_dash_and_not_in_colour_alone(report):
    root = parse(figure(next(curves for curves in report.curves if curves.kind == "poison")))
    marks = {name: {node.tag for node in with_class(root, name) if "dot" in node.get("class")} for name in ("s0", "s1")}
    assert marks["s0"] != marks["s1"]
    style = resources.files("bartizan.assurance.templates").joinpath("style.css").read_text("utf-8")
    dashes = re.findall(r"\.curve\.s\d \{ stroke: var\(--s\d\);(?: stroke-dasharray: ([\d. ]+);)? \}", style)
    assert len(dashes) == len(set(dashes)) == 6


def test_an_interval_is_drawn_as_a_band_only_when_every_point_has_one():
    def drawn(points):
        return parse(figure(Curves(kind="change", series=(Series(name="a", points=points),), sources=())))

    whole = (Point(x=0, y=1, low=0.9, high=1), Point(x=1, y=0.5, low=0.4, high=0.6))
    assert len(with_class(drawn(whole), "band")) == 1
    assert with_class(drawn((*whole, Point(x=2, y=0.1))), "band") == []


def test_the_membership_figure_has_logarithmic_axes_and_the_line_of_guessing(report):
    root = parse(figure(next(curves for curves in report.curves if curves.kind == "roc")))
    assert len(with_class(root, "diagonal")) == 1
    ticks = {node.text for node in with_class(root, "tick")}
    assert {"0.001", "0.01", "0.1", "1"} <= ticks


def test_no_queries_at_all_is_left_out_of_a_logarithmic_picture():
    points = tuple(Point(x=x, y=0.9) for x in (0, 10, 100))
    root = parse(figure(Curves(kind="queries", series=(Series(name="a", points=points),), sources=())))
    legend = 1
    assert len(with_class(root, "dot")) == 2 + legend


def test_a_flow_without_protection_that_crosses_zones_is_drawn_otherwise(report):
    root = parse(dataflow(report.system.components, report.system.flows))
    bare = [flow.number for flow in report.system.flows if flow.crosses and not flow.protected_by]
    assert bare == [7]
    assert len([node for node in with_class(root, "flow") if "bare" in node.get("class")]) == 1


def test_numbers_on_arrows_do_not_cover_one_another_or_a_box(report):
    for components, flows in ((report.system.components, report.system.flows), CROSSROADS):
        root = parse(dataflow(components, flows))
        discs = [(float(node.get("cx")), float(node.get("cy"))) for node in with_class(root, "flow-disc")]
        assert len(discs) == len(flows)
        for index, (x, y) in enumerate(discs):
            assert all((x - other) ** 2 + (y - up) ** 2 >= 20**2 for other, up in discs[index + 1 :])
            for box in with_class(root, "component"):
                left, top = float(box.get("x")), float(box.get("y"))
                assert not (left < x < left + 164 and top < y < top + 50)


def test_arrows_stay_inside_the_picture(report):
    for components, flows in ((report.system.components, report.system.flows), CROSSROADS):
        root = parse(dataflow(components, flows))
        width, height = map(float, root.get("viewBox").split()[2:])
        for course in courses(layout(zones(components, flows)), flows):
            assert all(0 < x < width and 0 < y < height for x, y in course.places())


def test_zones_stand_so_that_flows_are_short():
    components, flows = CROSSROADS
    order = list(zones(components, flows))
    assert abs(order.index("a") - order.index("c")) == 1
    assert abs(order.index("b") - order.index("c")) == 1


def test_an_arrow_that_passes_a_zone_runs_clear_of_its_boxes():
    components, flows = CROSSROADS
    boxes = layout(zones(components, flows))
    longest = max(courses(boxes, flows), key=lambda course: len(course.pieces))
    assert len(longest.pieces) == 3
    entry, _, _, leave = longest.pieces[1]
    assert entry[1] == leave[1]
    assert all(not box.y < entry[1] < box.y + 50 for box in boxes.values())


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=25))
def test_any_declared_flow_can_be_drawn(zone_count, ends):
    components = [ComponentBox(name=f"c{index}", kind="service", zone=f"z{index % zone_count}") for index in range(12)]
    flows = [
        arrow(number + 1, f"c{one}", f"c{other}", crosses=one != other) for number, (one, other) in enumerate(ends)
    ]
    root = parse(dataflow(components, flows))
    assert len(with_class(root, "component")) == 12
    assert len(with_class(root, "flow-number")) == len(flows)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_value_lies_inside_its_axis(values):
    for axis in (linear(values, 50, 450), logarithmic(values, 50, 450)):
        assert all(49.9 <= axis.at(value) <= 450.1 for value in values)
        assert all(axis.low <= tick * 1.000001 and tick <= axis.high * 1.000001 for tick in axis.ticks())
        assert 1 <= len(axis.ticks()) <= 20


def test_a_vertical_axis_turns_upwards():
    assert Axis(0, 1, 200, 10).at(1) == 10


def test_attributes_and_contents_are_escaped():
    markup = svg.picture('a"><script>', (10, 10), "<b>", "&", svg.text(1, 2, '"><script>alert(1)</script>'))
    assert "<script" not in markup
    assert parse(markup).find(f"{SVG}text").text == '"><script>alert(1)</script>'


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear_parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear_parts, strict=True))

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_graphics_have_enough_contrast_in_both_schemes(scheme):
    style = resources.files("bartizan.assurance.templates").joinpath("style.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    for name in ("ink", "soft", "accent", "bad", "warn", "good"):
        for ground in ("paper", "panel"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("s0", "s1", "s2", "s3", "s4", "s5", "heat-edge", "rule", "accent"):
        assert contrast(colours[name], colours["paper"]) >= 3, name
