"""What must be answered before something of others is used, and who the supplier is.

The three questions of A-MLSG-002-N001 (who hosts it, who contributed, how many independent sources),
licence and way of collection; and the supplier's record: expectations, posture, contact, the options
that were compared, access rights, and what exactly may come from there.
"""

from __future__ import annotations

import tomllib
from typing import Any, Literal

import msgspec

from bartizan.core.errors import InputError, KeyFileError
from bartizan.core.keys import keyid_of, load_public

Service = Literal["model", "dataset", "labelling", "library", "hosted-api"]
OPTIONS = ("in-house", "pre-trained", "hosted")
"""Ways to get a model, to be compared before one is chosen (principle 2.4, guideline 1.6)."""
MAX_BYTES = 1 << 20


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base: unknown keys are refused."""


class Answers(_Part, frozen=True, kw_only=True):
    """What is declared about something that comes in. Blank answers block it; nothing is guessed."""

    host: str = ""
    """Who publishes or hosts it."""
    contributors: str = ""
    """Who contributed to it."""
    independent_sources: int = 0
    """How many sources that do not depend on one another it was drawn from."""
    collected: str = ""
    """How and when it was collected or trained."""
    licence: str = ""
    url: str = ""
    reputation: str = ""
    """What is known of the source's standing, as declared by whoever asks."""
    trained_on: str = ""
    """Of a model: the data it was trained on, as far as the producer says."""

    def missing(self, kind: str) -> tuple[str, ...]:
        """Questions that are not answered."""
        texts = ("host", "contributors", "collected", "licence", *(("trained_on",) if kind == "model" else ()))
        blank = [name for name in texts if not getattr(self, name).strip()]
        return (*blank, *(("independent_sources",) if self.independent_sources < 1 else ()))


class Access(_Part, frozen=True, kw_only=True):
    """What a supplier may do with data of ours."""

    dataset: str
    rights: str


class Allowed(_Part, frozen=True, kw_only=True):
    """What exactly may come from a supplier: these bytes, and what these keys have signed."""

    digests: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Public keys, PEM."""


class Supplier(_Part, frozen=True, kw_only=True):
    """A supplier's record, the details of a decision of kind ``supplier``."""

    service: Service
    contact: str
    expectations: str
    """What they are held to: the standards for our own software."""
    posture: str
    """What is known of their security, and how."""
    options: dict[str, str] = {}
    """In-house, pre-trained and hosted, each with what speaks for and against it."""
    chosen: str = ""
    """Which option was taken."""
    access: tuple[Access, ...] = ()
    """Rights to data of ours."""
    allow: Allowed = Allowed()
    notes: str = ""

    def problems(self) -> list[str]:
        """What a record of this kind of service still lacks."""
        found = [name for name in ("contact", "expectations", "posture") if not getattr(self, name).strip()]
        problems = [f"{name} is blank" for name in found]
        if self.service in {"model", "hosted-api"}:
            problems += [f"option {name} is not compared" for name in OPTIONS if not self.options.get(name, "").strip()]
            if self.chosen not in OPTIONS:
                problems.append(f"chosen must be one of {', '.join(OPTIONS)}")
        if self.service == "labelling" and not any(
            each.dataset.strip() and each.rights.strip() for each in self.access
        ):
            problems.append("a labelling service sees data of ours: name dataset and rights under [[access]]")
        problems += [f"{digest[:20]!r} is no SHA-256" for digest in self.allow.digests if not _is_digest(digest)]
        return problems + [f"a key cannot be read: {reason}" for pem in self.allow.keys if (reason := _bad_key(pem))]


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 -- hexadecimal digits of SHA-256


def _bad_key(pem: str) -> str:
    try:
        keyid_of(load_public(pem))
    except KeyFileError as error:
        return error.message
    return ""


def read_answers(data: bytes) -> Answers:
    """Answers as a person wrote them in TOML.

    Raises:
        InputError: they cannot be read; the text says what is wrong.
    """
    answers: Answers = _read(data, Answers, "answers")
    return answers


def read_supplier(data: bytes) -> Supplier:
    """A supplier's record as a person wrote it in TOML.

    Raises:
        InputError: it cannot be read, or lacks something; the text says all that it lacks.
    """
    supplier: Supplier = _read(data, Supplier, "supplier record")
    if problems := supplier.problems():
        raise InputError(f"the supplier record is not complete: {'; '.join(problems)}", remedy="complete it.")
    return supplier


def _read(data: bytes, kind: type[Any], what: str) -> Any:
    if len(data) > MAX_BYTES:
        raise InputError(f"the {what} have {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        return msgspec.convert(tomllib.loads(data.decode()), kind)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise InputError(f"the {what} cannot be read: {error}", remedy=f"write TOML with {fields}.") from error
