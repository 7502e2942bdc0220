"""Writes a report as HTML, Markdown or JSON.

The HTML is one file that needs nothing else: no script, no font, no request. What comes from
outside is cleaned when the model is built and escaped again here.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

import jinja2
import msgspec
from markupsafe import Markup

from bartizan.assurance import text
from bartizan.assurance.claims import carried
from bartizan.assurance.figures.attackmap import attackmap, by_stage, hatching, heat
from bartizan.assurance.figures.curves import SHAPES, figure, x_label
from bartizan.assurance.figures.dataflow import dataflow
from bartizan.assurance.figures.forest import drawable, forest
from bartizan.assurance.figures.pictures import LEVELS, scale, triples
from bartizan.assurance.figures.routes import zones
from bartizan.assurance.front import front
from bartizan.assurance.model import AttackLine, Pictures, ReportModel, Series, WorstCase
from bartizan.core.digest import canonical_json, short
from bartizan.core.evidence import Standing

TABLE_ROWS = 40
"""Points of a curve in the table beneath its picture; longer curves are thinned, ends kept."""
MOST_FALLEN = 6
"""Worst cases in the overview, each record once."""
_SPENT = {
    "queries_spent": "queries spent",
    "gradients_spent": "gradients spent",
    "models_fitted": "models trained",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def to_html(model: ReportModel) -> str:
    """The report as one self-contained HTML page."""
    return _template("report.html.j2", html=True).render(_context(model))


def to_markdown(model: ReportModel) -> str:
    """The report as Markdown (CommonMark with tables)."""
    written = _template("report.md.j2", html=False).render(_context(model))
    return re.sub(r"\n{3,}", "\n\n", written).strip() + "\n"


def to_json(model: ReportModel) -> str:
    """The whole report as JSON, keys sorted, indented for people."""
    return msgspec.json.format(canonical_json(model), indent=2).decode() + "\n"


def brief(value: str, limit: int = 220) -> str:
    """``value`` cut at a word near ``limit`` characters."""
    return value if len(value) <= limit else value[:limit].rsplit(" ", 1)[0].rstrip(" ,;:") + " …"


def lower_first(value: str) -> str:
    """``value`` as part of a sentence: its first letter small, unless the first word is an abbreviation."""
    return value[:1].lower() + value[1:] if value[1:2].islower() else value


def sentence(value: str) -> str:
    """``value`` with a full stop, unless it ends like a sentence already."""
    return value if value.endswith((".", "!", "?", "…")) else f"{value}."


def plain(value: object) -> str:
    """``value`` with every character escaped that Markdown would read as markup."""
    return _MARKDOWN.sub(r"\\\1", str(value))


def code(value: str) -> str:
    """``value`` as a Markdown code span, whatever backticks it holds."""
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{value}{pad}{fence}"


def thinned(series: Series) -> Series:
    """A curve short enough for a table."""
    count = len(series.points)
    if count <= TABLE_ROWS:
        return series
    step = (count - 1) / (TABLE_ROWS - 1)
    return Series(name=series.name, points=tuple(series.points[round(index * step)] for index in range(TABLE_ROWS)))


def spent(attack: AttackLine) -> str:
    """What an attack may spend and spent, in few words: ``40 samples, 300 queries each, 11,701 queries spent``."""
    budget = dict(attack.budget)
    samples, each = int(budget.get("samples", 0)), budget.get("queries_allowed_per_sample")
    words = [text.counted(samples, "sample")] if samples > 1 else []
    words += [f"{text.number(each)} queries each"] if each and samples > 1 else []
    words += [f"{text.number(budget[name])} {_SPENT[name]}" for name in _SPENT if budget.get(name)]
    rest = [f"{text.words(name)} {text.number(value)}" for name, value in attack.budget[:3]]
    return ", ".join(words or rest)


def worst_fallen(model: ReportModel) -> list[tuple[AttackLine, WorstCase]]:
    """The records that fell to the smallest change under any attack that counts now, each once."""
    cases = [(line, case) for line in model.red_team if line.standing is Standing.HOLDS for case in line.worst]
    cases.sort(key=lambda pair: (pair[1].change, pair[1].queries or 0, pair[0].digest))
    once = {(line.about, case.record): (line, case) for line, case in reversed(cases)}
    return [pair for pair in cases if once[pair[0].about, pair[1].record] == pair][:MOST_FALLEN]


def strongest_with_pictures(model: ReportModel) -> AttackLine | None:
    """Of the measurements that count and hold images, the one whose images are shown first: the least robust."""
    held = [line for line in model.red_team if line.pictures and line.standing is Standing.HOLDS]
    return min(held, key=lambda line: (line.headline.metric.value if line.headline else 1.0, line.digest), default=None)


def brightest(pictures: Pictures) -> float:
    """The largest change of a pixel, as a share of the range."""
    return scale(pictures) / LEVELS


def _context(model: ReportModel) -> dict[str, object]:
    return {
        "model": model,
        "front": front(model),
        "lines": {line.digest: line for line in model.evidence},
        "style": Markup(_style()),  # noqa: S704 - our own file
        "shapes": SHAPES,
        "fallen": worst_fallen(model),
        "shown_pictures": strongest_with_pictures(model),
        "listed": {line.id for chapter in (*model.principles, *model.sources) for line in chapter.controls},
        "most": max((point.before for point in model.attack_map.points), default=0) if model.attack_map else 0,
    }


@functools.cache
def _style() -> str:
    return resources.files("bartizan.assurance.templates").joinpath("style.css").read_text("utf-8")


@functools.cache
def _template(name: str, *, html: bool) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bartizan.assurance"),
        autoescape=html,  # noqa: S701 - Markdown is escaped by the filter `plain`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "brief": brief,
        "brightest": brightest,
        "carried": carried,
        "code": code,
        "lower_first": lower_first,
        "plain": plain,
        "number": text.number,
        "words": text.words,
        "sentence": sentence,
        "short": short,
        "spent": spent,
        "thinned": thinned,
    }
    environment.globals |= {
        "attackmap": attackmap,
        "by_stage": by_stage,
        "counted": text.counted,
        "dataflow": dataflow,
        "differences": drawable,
        "figure": figure,
        "forest": forest,
        "hatching": hatching,
        "triples": triples,
        "x_label": x_label,
        "heat": heat,
        "zones": zones,
    }
    return environment.get_template(name)
