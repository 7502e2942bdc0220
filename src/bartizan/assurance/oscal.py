"""Writes the evidence of a report as OSCAL assessment results, so that other control sets can point at it.

Every statement is an observation whose UUID is made of its digest, and so the same in every export; every
control of the catalogue is a finding that names its observations. With a mapping, controls of other sets
(ISO/IEC 27001, NIST SP 800-53 ...) become findings over the same observations.

``satisfied`` says that evidence of the kind that the control asks for is there, stands, and does not
speak against the system. It is no grade: the NCSC principles are not a checklist.

Source: NIST, OSCAL 1.1.3, assessment results model (JSON).
"""

from __future__ import annotations

import re
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

import bartizan
from bartizan.assurance.model import ControlLine, EvidenceLine, ReportModel
from bartizan.core.digest import canonical_json
from bartizan.core.errors import InputError

OSCAL_VERSION = "1.1.3"
NAMESPACE = "urn:bartizan:oscal"
MAX_MAPPING_BYTES = 1 << 20
MOST_MAPPED = 10_000
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, NAMESPACE)
_NOT_IN_TOKEN = re.compile(r"[^A-Za-z0-9._-]")
_TOKEN_START = re.compile(r"[A-Za-z_]")


class Mapped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[map]]``: a control of another set that rests on the evidence of ours."""

    control: str
    """Id in the other set, such as ``A.8.28``."""
    rests_on: tuple[str, ...]
    """Ids of catalogue controls, such as ``2.2-i``."""
    title: str = ""


class ControlSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping file: one other control set."""

    set: str
    """Its name and edition, such as ``ISO/IEC 27001:2022``."""
    map: tuple[Mapped, ...]


def read_mapping(text: bytes, known: Iterable[str]) -> ControlSet:
    """Read a mapping that a person wrote as TOML.

    Raises:
        InputError: it is no such TOML, or names a control that the catalogue has not.
    """
    if len(text) > MAX_MAPPING_BYTES:
        raise InputError(f"the mapping has {len(text)} bytes; at most {MAX_MAPPING_BYTES} are read")
    try:
        mapping = msgspec.convert(tomllib.loads(text.decode()), ControlSet)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InputError(
            f"this is no mapping: {error}",
            remedy='write set = "NAME" and [[map]] tables with control = "ID" and rests_on = ["2.2-i"].',
        ) from error
    ours = frozenset(known)
    for entry in mapping.map[:MOST_MAPPED]:
        for control in entry.rests_on:
            if control not in ours:
                raise InputError(f"{entry.control} rests on {control!r}, which the catalogue has not", remedy=_SEARCH)
    return mapping


_SEARCH = "find controls with `bartizan catalogue search WORDS`."


def to_oscal(model: ReportModel, mappings: Sequence[ControlSet] = ()) -> str:
    """The report's evidence as one OSCAL document; equal reports give equal text."""
    controls = _controls(model)
    seed = f"{model.system.name} {model.system.declaration_digest} {model.made}"
    plan = _id("plan", seed)
    document = {
        "assessment-results": {
            "uuid": _id("document", seed),
            "metadata": _metadata(model),
            "import-ap": {"href": f"#{plan}"},
            "results": [_result(model, controls, seed), *(_other(model, controls, each, seed) for each in mappings)],
            "back-matter": {"resources": [_declaration(model, plan)]},
        }
    }
    return msgspec.json.format(canonical_json(document), indent=2).decode() + "\n"


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_SPACE, f"{kind} {name}"))


def _controls(model: ReportModel) -> dict[str, ControlLine]:
    """Every control once, in the order of the report."""
    lines = (line for chapter in (*model.principles, *model.sources) for line in chapter.controls)
    return {line.id: line for line in lines}


def _metadata(model: ReportModel) -> dict[str, Any]:
    return {
        "title": f"Evidence for the system {model.system.name}",
        "last-modified": _time(model.made),
        "version": model.system.declaration_digest[:12],
        "oscal-version": OSCAL_VERSION,
        "props": [
            _prop("made-by", f"Bartizan {bartizan.__version__}"),
            _prop("declaration-sha256", model.system.declaration_digest),
        ],
    }


def _time(shown: str) -> str:
    """A time of the report as RFC 3339."""
    text = shown.removesuffix(" UTC").replace(" ", "T")
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _prop(name: str, value: str) -> dict[str, str]:
    return {"name": name, "ns": NAMESPACE, "value": _line(value) or "-"}


def _line(text: str) -> str:
    """A value without line ends and outer blanks, as OSCAL's strings must be."""
    return " ".join(text.split())


def token(text: str) -> str:
    """An id as OSCAL has them: it begins with a letter and holds no slashes or blanks."""
    plain = _NOT_IN_TOKEN.sub("-", text)
    return plain if _TOKEN_START.match(plain) else f"c-{plain}"


def _declaration(model: ReportModel, plan: str) -> dict[str, Any]:
    """What was to be assessed: the declaration takes the place of an assessment plan."""
    return {
        "uuid": plan,
        "title": "bartizan.toml: the declared system with its gates",
        "rlinks": [
            {"href": "bartizan.toml", "hashes": [{"algorithm": "SHA-256", "value": model.system.declaration_digest}]}
        ],
    }


def _result(model: ReportModel, controls: Mapping[str, ControlLine], seed: str) -> dict[str, Any]:
    """Our own catalogue over all the evidence."""
    inside = [line for line in controls.values() if not line.scoped_out]
    outside = [line for line in controls.values() if line.scoped_out]
    selection: dict[str, Any] = {"include-controls": [{"control-id": token(line.id)} for line in inside]}
    if outside:
        selection["exclude-controls"] = [{"control-id": token(line.id)} for line in outside]
    return {
        "uuid": _id("result", seed),
        "title": "Principles for the security of machine learning",
        "description": "Signed statements about the system, and the controls that they bear on.",
        "start": _time(model.made),
        "reviewed-controls": {"control-selections": [selection]},
        **_some("observations", [_observation(line, model) for line in model.evidence]),
        "findings": [_finding(line, model, seed) for line in inside],
    }


def _some(name: str, values: list[Any]) -> dict[str, Any]:
    """OSCAL has no empty lists."""
    return {name: values} if values else {}


def _observation(line: EvidenceLine, model: ReportModel) -> dict[str, Any]:
    says = line.says or line.title
    return {
        "uuid": _id("statement", line.digest),
        "title": _line(line.title) or line.type,
        "description": says,
        "props": [
            _prop("envelope-sha256", line.digest),
            _prop("predicate-type", line.type),
            _prop("standing", line.standing.value),
            *([_prop("outcome", line.outcome)] if line.outcome else []),
            *([_prop("check", line.check)] if line.check else []),
            *(_prop("signer", signer) for signer in line.signers),
            *(_prop("about", name) for name in line.about),
        ],
        "methods": ["TEST" if line.check else "EXAMINE"],
        "relevant-evidence": [
            {
                "href": f"urn:sha256:{line.digest}",
                "description": f"Entry {line.seq} of the ledger of {model.system.name}.",
            }
        ],
        "collected": _time(line.received),
        **({"remarks": line.reason} if line.reason else {}),
    }


def _finding(line: ControlLine, model: ReportModel, seed: str) -> dict[str, Any]:
    links = list(dict.fromkeys(link.digest for link in (*line.holds, *line.ended)))
    gaps = "; ".join(gap.what for gap in line.gaps)
    return {
        "uuid": _id("finding", f"{seed} {line.id}"),
        "title": _line(f"{line.id}: {line.item}"),
        "description": f"Asks for: {line.asks_for}",
        "target": _target(line.id, is_satisfied=_is_satisfied(line, model), gaps=gaps),
        **_some("related-observations", [{"observation-uuid": _id("statement", digest)} for digest in links]),
    }


def _target(control: str, *, is_satisfied: bool, gaps: str) -> dict[str, Any]:
    status: dict[str, Any] = {"state": "satisfied" if is_satisfied else "not-satisfied"}
    if not is_satisfied:
        status |= {"reason": "other", "remarks": gaps or "No evidence that stands is there."}
    return {"type": "objective-id", "target-id": token(control), "status": status}


def _is_satisfied(line: ControlLine, model: ReportModel) -> bool:
    """Whether all that is asked for is there, and none of it speaks against the system."""
    said = [model.line(link.digest) for link in line.holds]
    return bool(said) and not line.gaps and not any(each is None or each.against for each in said)


def _other(model: ReportModel, controls: Mapping[str, ControlLine], mapping: ControlSet, seed: str) -> dict[str, Any]:
    """Another control set over the same observations."""
    mark = f"{seed} {mapping.set}"
    return {
        "uuid": _id("result", mark),
        "title": _line(mapping.set),
        "description": f"Controls of {mapping.set}, resting on the same statements by a mapping.",
        "start": _time(model.made),
        "reviewed-controls": {
            "control-selections": [{"include-controls": [{"control-id": token(each.control)} for each in mapping.map]}]
        },
        "findings": list(_mapped(model, controls, mapping, mark)),
    }


def _mapped(
    model: ReportModel, controls: Mapping[str, ControlLine], mapping: ControlSet, mark: str
) -> Iterator[dict[str, Any]]:
    for each in mapping.map:
        lines = [controls[name] for name in each.rests_on]
        digests = dict.fromkeys(link.digest for line in lines for link in (*line.holds, *line.ended))
        missing = [line.id for line in lines if not _is_satisfied(line, model)]
        yield {
            "uuid": _id("finding", f"{mark} {each.control}"),
            "title": _line(f"{each.control}: {each.title}" if each.title else each.control),
            "description": f"Rests on {', '.join(each.rests_on)}.",
            "target": _target(
                each.control,
                is_satisfied=bool(lines) and not missing,
                gaps=f"Evidence is missing for {', '.join(missing)}." if missing else "",
            ),
            **_some("related-observations", [{"observation-uuid": _id("statement", digest)} for digest in digests]),
        }
