"""A first ``bartizan.toml`` for a folder: what can be seen is filled in, what must be known is asked for.

A few questions make a start. Everything else that only a person can know becomes a line that says
``FILL IN``; reading the declaration then names these lines, so nothing is passed off as known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.design.declaration_problems import nearest, one_of
from bartizan.lifecycle.design.declaration_shape import FILL_IN, FORMATS
from bartizan.lifecycle.design.survey import FoundTable, Split, Survey, survey

TEMPLATE = "bartizan.toml.j2"
REACHES = ("public", "partners", "internal", "offline")
SPLITS: tuple[Split, ...] = ("train", "validation", "holdout", "reference")
YES, NO = "yes", "no"
PROFILES = {
    "public": "public-api-classifier",
    "partners": "public-api-classifier",
    "internal": "internal-batch-scoring",
    "offline": "internal-batch-scoring",
}
"""Catalogue profile that comes nearest to who can reach the service."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Something that only a person can say."""

    key: str
    """Under which ``render`` takes the answer."""
    text: str
    default: str = ""
    """Taken when nothing is answered; empty leaves a line to fill in."""
    choices: tuple[str, ...] = ()
    format: str = "words"
    """Form of the answer, from ``declaration_shape.FORMATS``."""


LATER: tuple[Question, ...] = (
    Question(key="ml", text="address of who builds the model", format="address"),
    Question(key="security", text="address of who reviews security", format="address"),
    Question(key="domain", text="address of who knows the field the model works in", format="address"),
    Question(key="limits", text="what the model was not tried on, and where it is known to be weak"),
    Question(key="data_limits", text="whom or what the data do not represent, and what was left out of them"),
    Question(key="host", text="who publishes or hosts the data"),
    Question(key="contributors", text="who contributed the records"),
    Question(key="sources", text="from how many independent sources the records come, as a number", format="count"),
    Question(key="collected", text="how and when the data were collected"),
    Question(key="jurisdiction", text="whose law applies, such as UK or EU"),
    Question(key="lawful_basis", text="the law and article, or the consent, on which the personal data are held"),
    Question(key="confidentiality", text="what happens when inputs or answers become known"),
    Question(key="integrity", text="what happens when answers are wrong"),
    Question(key="availability", text="what happens when there are no answers"),
    Question(key="users", text="what a failure does to the people it is about"),
    Question(key="organisation", text="what a failure does to the organisation"),
    Question(key="society", text="what a failure does beyond that"),
    Question(key="failure_plan", text="what is done, by whom and how fast, when the model fails"),
    Question(key="monitoring", text="what counts as suspicious, and who looks how often"),
    Question(key="accuracy", text="least acceptable accuracy, from 0 to 1", format="share"),
)
"""Questions for later: ``render`` takes their answers too, but nobody is kept waiting for them."""


def questions(found: Survey) -> list[Question]:
    """The few questions to ask first. Where nothing is answered, the worst case is declared."""
    return [
        Question(key="name", text="Name of the system", default=_slug(found.folder) or "system", format="name"),
        Question(key="purpose", text="What is it for, in one sentence?"),
        Question(key="owner", text="Address of the role that answers for its risks", format="address"),
        Question(key="reach", text="Who can reach it?", default="public", choices=REACHES),
        Question(key="personal", text="Do the data concern people?", default=YES, choices=(YES, NO)),
    ]


def render(found: Survey, answers: Mapping[str, str]) -> str:
    """A commented declaration of what was found and answered; what is unknown is marked ``FILL IN``.

    Raises:
        InputError: an answer is to no question, or not of the form that the question asks for.
    """
    asked = {question.key: question for question in (*questions(found), *LATER)}
    for key in answers:
        if key not in asked:
            raise InputError(f"no question {key[:80]!r}", remedy=f"answer {one_of(asked, 30)}. {nearest(key, asked)}")
    values = {key: _value(question, answers.get(key, "").strip()) for key, question in asked.items()}
    personal = values.pop("personal") == YES
    datasets = _datasets(found)
    return _template().render(
        **values,
        personal=personal,
        profile=PROFILES[values["reach"]],
        models=_models(found, datasets),
        datasets=datasets,
        images=any(part["shape"] for part in datasets),
        max_change=f"{FILL_IN}: largest change of a pixel that nobody would notice, a number in units of value_range",
    )


def _value(question: Question, answer: str) -> Any:
    """The answer in the form it has in the file: its default, or a marked line, when there is none."""
    text = answer or question.default
    if not text:
        return f"{FILL_IN}: {question.text}"
    if question.choices and text not in question.choices:
        raise _unfit(question, text, one_of(question.choices))
    if question.format == "count":
        if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
            raise _unfit(question, text, "a whole number from 1")
        return int(text)
    if question.format == "share":
        if not re.fullmatch(r"0?\.[0-9]{1,9}|0|1(\.0*)?", text):
            raise _unfit(question, text, "a number from 0 to 1")
        return float(text)
    form = FORMATS[question.format]
    if not form.fits(text) or not _is_unicode(text):
        raise _unfit(question, text, form.allowed)
    return text


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; halves of surrogate pairs cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _unfit(question: Question, answer: str, allowed: str) -> InputError:
    return InputError(f"{question.key}: {answer[:80]!r} is no answer to {question.text!r}", remedy=f"give {allowed}.")


def _datasets(found: Survey) -> list[dict[str, Any]]:
    """One table for training and one for evaluation at least; those that were not found are to be filled in."""
    named = [table for table in found.tables if table.split]
    nameless = [table for table in found.tables if not table.split]
    chosen: list[tuple[FoundTable | None, Split]] = [(table, table.split) for table in named]
    wanted: list[Split] = ["train", "holdout"]
    for split in wanted:
        if not _of_split(chosen, split):
            chosen.append((nameless.pop(0), split) if nameless and split == "train" else (None, split))
    chosen.sort(key=lambda pair: SPLITS.index(pair[1]))
    names = _distinct([_slug(_stem(table.path)) if table else split for table, split in chosen])
    return [_dataset(name, table, split) for name, (table, split) in zip(names, chosen, strict=True)]


def _of_split(chosen: Sequence[tuple[FoundTable | None, Split]], split: str) -> bool:
    judging = ("holdout", "validation")
    return any(known == split or {known, split} <= set(judging) for _, known in chosen)


def _dataset(name: str, table: FoundTable | None, split: str) -> dict[str, Any]:
    what = "the model was trained on" if split == "train" else "that were kept apart before training"
    path = table.path if table else f"{FILL_IN}: path of the data {what}, CSV or npz"
    target = table.target if table else ""
    return {
        "name": name,
        "path": path,
        "split": split,
        "target": target or f"{FILL_IN}: name of the label column",
        "integer": list(table.integer) if table else [],
        "shape": list(table.shape) if table else [],
        "value_range": f"{FILL_IN}: least and largest value of a pixel, [0, 1] or [0, 255], without quotes",
        "classes": list(table.classes) if table else [],
    }


def _models(found: Survey, datasets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every model that was found, or one to be filled in."""
    train = next(part for part in datasets if part["split"] == "train")
    judge = next(part for part in datasets if part["split"] in {"holdout", "validation"})
    classes = train["classes"] or judge["classes"]
    unknown = [f"{FILL_IN}: name of the first class", f"{FILL_IN}: name of the second class"]
    paths = [model.path for model in found.models] or [f"{FILL_IN}: path of the model file"]
    frameworks = [model.framework for model in found.models] or ["scikit-learn"]
    taken = [part["name"] for part in datasets]
    names = _distinct([*taken, *(_slug(_stem(path)) if found.models else "model" for path in paths)])[len(taken) :]
    return [
        {
            "name": name,
            "path": path,
            "framework": framework,
            "trained_on": train["name"],
            "evaluated_on": judge["name"],
            "classes": classes or unknown,
            "example": classes[-1] if classes else "positive",
        }
        for name, path, framework in zip(names, paths, frameworks, strict=True)
    ]


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _slug(text: str) -> str:
    """A name that a declaration accepts, or empty."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:48]


def _distinct(names: Sequence[str]) -> list[str]:
    """The same names, with numbers behind those that come again."""
    given: list[str] = []
    for name in names:
        base, count, fresh = name or "unnamed", 1, name or "unnamed"
        while fresh in given:
            count += 1
            fresh = f"{base}-{count}"
        given.append(fresh)
    return given


@cache
def _template() -> jinja2.Template:
    text = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    # The result is TOML, not HTML; every value passes through ``_toml``.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - TOML
    environment.filters["toml"] = _toml
    return environment.from_string(text)


def _toml(value: Any) -> str:
    """A text, number or list as TOML: JSON strings are TOML strings, but for the DEL character."""
    if isinstance(value, list):
        return f"[{', '.join(_toml(inner) for inner in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


__all__ = ["LATER", "Question", "Survey", "questions", "render", "survey"]
