"""in-toto Statement v1: something said about digests, in one canonical byte form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import HEX, Digest, canonical_json, parse_digest
from bartizan.core.errors import StatementError
from bartizan.core.system import Artefact

MAX_SUBJECTS = 1000
MAX_STATEMENT_BYTES = 16 * 1024 * 1024
"""Larger payloads are refused; long reports belong into blobs."""


class Subject(msgspec.Struct, frozen=True):
    """What a statement speaks about."""

    name: str
    digest: dict[str, str]

    @classmethod
    def of(cls, name: str, digest: Digest) -> Subject:
        """A subject named by SHA-256."""
        return cls(name=name, digest={"sha256": digest})


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """One statement. ``predicate`` is plain JSON; ``read()`` gives it as a struct."""

    type: str = predicates.STATEMENT_TYPE
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]

    def encode(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical_json(self)

    def read(self) -> Any:
        """The predicate as the struct of its type, or as it is when the type is unknown.

        Raises:
            StatementError: the predicate breaks the schema of its type.
        """
        known = predicates.KNOWN.get(self.predicate_type)
        if known is None:
            return self.predicate
        try:
            return msgspec.convert(self.predicate, known)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            raise StatementError(f"{predicates.short_name(self.predicate_type)} predicate: {error}") from error

    def about(self) -> tuple[Digest, ...]:
        """Every SHA-256 digest the statement speaks about.

        These are its subjects; for a model signature over one file also that file, because a
        single file is named by its own digest and not by the manifest's.
        """
        digests = [Digest(subject.digest["sha256"]) for subject in self.subject if "sha256" in subject.digest]
        if self.predicate_type == predicates.MODEL_SIGNATURE:
            resources = self.predicate.get("resources", ())
            if len(resources) == 1:
                digests.append(Digest(resources[0]["digest"]))
        return tuple(dict.fromkeys(digests))

    def inputs(self) -> dict[str, Digest]:
        """The digests that the statement rests on, by name. A statement without any cannot go stale."""
        return {name: digest for name, digest in _listed(self.predicate.get("inputs")) if name is not None}

    def rests_on(self) -> tuple[Digest, ...]:
        """Every digest that the statement builds upon: inputs, attestations, build dependencies."""
        build = self.predicate.get("buildDefinition")
        dependencies = build.get("resolvedDependencies") if isinstance(build, dict) else None
        lists = (self.predicate.get("inputs"), self.predicate.get("inputAttestations"), dependencies)
        return tuple(dict.fromkeys(digest for listed in lists for _, digest in _listed(listed)))

    @property
    def expires(self) -> datetime | None:
        """When the statement ends by its own words (decisions, verdicts)."""
        predicate = self.read()
        return getattr(predicate, "expires", None) or getattr(predicate, "valid_until", None)


def make(predicate_type: str, subjects: Mapping[str, Digest] | Artefact, predicate: Any) -> Statement:
    """Build a statement from a predicate struct (or plain dict), checking it against its type.

    Raises:
        StatementError: no subject, or the predicate is not of its type.
    """
    if isinstance(subjects, Artefact):
        subjects = {subjects.id: subjects.digest}
    if not subjects:
        raise StatementError("a statement needs at least one subject")
    plain = msgspec.to_builtins(predicate, str_keys=True)
    statement = Statement(
        subject=tuple(Subject.of(name, parse_digest(digest)) for name, digest in subjects.items()),
        predicate_type=predicate_type,
        predicate=plain,
    )
    statement.read()
    return statement


_DECODER = msgspec.json.Decoder(Statement)


def decode(payload: bytes) -> Statement:
    """Read the payload of an envelope.

    Raises:
        StatementError: it is no in-toto v1 statement, names no SHA-256 subject, or its predicate
            breaks the schema of a type that is known here.
    """
    if len(payload) > MAX_STATEMENT_BYTES:
        raise StatementError(f"statement of {len(payload)} bytes; at most {MAX_STATEMENT_BYTES} are read")
    try:
        statement = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StatementError(f"not an in-toto statement: {error}") from error
    if statement.type != predicates.STATEMENT_TYPE:
        raise StatementError(f"statement type {statement.type[:80]!r}; only {predicates.STATEMENT_TYPE} is read")
    if not statement.subject:
        raise StatementError("a statement needs at least one subject")
    if len(statement.subject) > MAX_SUBJECTS:
        raise StatementError(f"{len(statement.subject)} subjects; at most {MAX_SUBJECTS}: sign a manifest instead")
    statement.read()
    for digest in _about(statement):
        if parse_digest(digest) != digest:
            raise StatementError("a subject's sha256 digest must be bare hexadecimal")
    if statement.predicate_type in predicates.KNOWN:
        _check_inputs(statement)
    return statement


def _about(statement: Statement) -> tuple[str, ...]:
    """Subjects and, of a signature over one file, that file; StatementError when one has no digest."""
    if any("sha256" not in subject.digest for subject in statement.subject):
        raise StatementError("every subject needs a sha256 digest")
    try:
        return statement.about()
    except (KeyError, TypeError) as error:
        raise StatementError("malformed resource in a signature predicate") from error


def _check_inputs(statement: Statement) -> None:
    """In a type that is known, every input is named once and by SHA-256; otherwise it could never go stale."""
    listed = statement.predicate.get("inputs", ())
    if len(statement.inputs()) != len(listed):
        raise StatementError("an input has no name, no sha256 digest, or the name of another")


def _listed(listed: Any) -> Iterator[tuple[str | None, Digest]]:
    """(name, digest) of those entries of a list that are resource descriptors with a sound SHA-256 digest."""
    for entry in listed if isinstance(listed, list | tuple) else ():
        digest = entry.get("digest") if isinstance(entry, dict) else None
        text = digest.get("sha256") if isinstance(digest, dict) else None
        if isinstance(text, str) and HEX.match(text):
            name = entry.get("name")
            yield (name if isinstance(name, str) else None), Digest(text)


__all__ = ["MAX_STATEMENT_BYTES", "Statement", "Subject", "decode", "make"]
