"""The picture of ``output_detail.py``: one row for each detail, one panel for each aim and for the user's loss."""

from __future__ import annotations

from html import escape

LEFT, PANEL, GAP, ROW, HEAD, FOOT = 170, 128, 16, 17, 40, 26
INK, ADVERSARY, USER, FAINT = "#222222", "#a33b20", "#1f4e79", "#cccccc"
CHANCE = {"membership": 0.5, "membership without training": 0.5}
LOSS = "user: log loss"


def picture(numbers):
    """All models below each other, as SVG."""
    parts, top = [], 0
    width = 0
    for name, each in numbers.items():
        drawn, size = block(name, each["gains"], each["uses"], top)
        parts.append(drawn)
        top, width = top + size[1], max(width, size[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="10" '
        f'role="img"><title>What each detail of output gives an adversary, and costs a user</title>'
        f'<rect width="{width}" height="{top}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def block(name, found, uses, top):
    """One model: its name, the details down the left side, and the panels."""
    aims = list(dict.fromkeys(record["aim"] for record in found))
    details = [use["detail"] for use in uses]
    parts = [text(8, top + 16, name, weight="bold", size=13)]
    parts += [text(LEFT - 8, y_of(top, place) + 3, detail, anchor="end") for place, detail in enumerate(details)]
    panels = [(aim, ADVERSARY, of_aim(found, aim), CHANCE.get(aim, 0.0)) for aim in aims]
    panels.append((LOSS, USER, {use["detail"]: use["log_loss"] for use in uses}, 0.0))
    parts += [panel(LEFT + place * (PANEL + GAP), top, details, each) for place, each in enumerate(panels)]
    return "".join(parts), (LEFT + len(panels) * (PANEL + GAP) + 8, HEAD + len(details) * ROW + FOOT)


def of_aim(found, aim):
    return {
        record["detail"]: [record["value"], record["low"], record["high"]] for record in found if record["aim"] == aim
    }


def panel(left, top, details, panel_of):
    """A dot with its interval for each detail; the scale runs from nothing to the most."""
    title, colour, values, start = panel_of
    most = max([high for _, _, high in values.values()] + [start + 0.05])
    least = min([low for _, low, _ in values.values()] + [start])

    def x(value):
        return left + PANEL * (value - least) / (most - least)

    bottom = y_of(top, len(details) - 1) + 8
    parts = [text(left + PANEL / 2, top + 30, title, anchor="middle")]
    parts.append(line(x(start), top + HEAD - 4, x(start), bottom, FAINT))
    parts += [text(x(value), bottom + 11, f"{value:.2g}", anchor="middle", size=8) for value in {start, most}]
    for place, detail in enumerate(details):
        if detail in values:
            value, low, high = values[detail]
            y = y_of(top, place)
            parts.append(line(x(low), y, x(high), y, colour))
            parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="3" fill="{colour}"/>')
    return "".join(parts)


def y_of(top, place):
    return top + HEAD + place * ROW + ROW // 2


def line(x1, y1, x2, y2, colour):
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="{colour}" stroke-width="1.2"/>'


def text(x, y, words, *, anchor="start", weight="normal", size=10):
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{INK}">{escape(words)}</text>'
    )
