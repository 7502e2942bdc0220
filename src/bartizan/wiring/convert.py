"""Convert: scan, load confined, write in a format without code, compare, scan again, state.

Nothing is written before everything agrees. The source is loaded from the very bytes that were scanned.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from datetime import datetime
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

import bartizan
from bartizan.adapters.convert import Converting, opened
from bartizan.core import envelope, predicates
from bartizan.core.digest import Digest, digest_bytes, short
from bartizan.core.errors import ArtefactError, InputError, TrustError
from bartizan.core.ports import Signer
from bartizan.lifecycle.develop import convert as rules
from bartizan.lifecycle.develop.convert import TENSOR_FORMATS, Agreement, Conversion, Format
from bartizan.lifecycle.develop.scan.scanner import scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.verdict import Report
from bartizan.targets.isolated import Confinement, Limits, required_layers
from bartizan.wiring.workspace import Workspace

BASE_MEMORY = 4 << 30
COPIES = 6
"""The file, what is loaded of it, and the result, with a copy of each while it is made."""
MAX_SAMPLE_BYTES = 64 * 1024 * 1024
LIBRARIES: dict[Format, tuple[str, ...]] = {
    "safetensors": ("numpy", "joblib", "torch"),
    "npz": ("numpy", "joblib", "torch"),
    "skops": ("scikit-learn", "skops"),
    "onnx": ("scikit-learn", "skl2onnx", "onnxruntime"),
}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A conversion as somebody asked for it."""

    source: Path
    target: Path
    to: Format
    part: str = ""
    accept: str = ""
    reason: str = ""
    samples: Path | None = None
    statement: Path
    key: str = ""
    """Name of the key that signs; empty for none."""
    overwrite: bool = False


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    refused: str = ""
    """Why nothing was written; empty when it was."""
    source: Digest | None = None
    result: Digest | None = None
    agreement: Agreement | None = None
    confinement: Confinement | None = None
    statement: str = ""
    """Where it lies."""
    envelope: Digest | None = None
    """In the ledger, when there is one and the statement was signed."""


class _Made(msgspec.Struct, frozen=True):
    data: bytes
    agreement: Agreement
    result_scan: Report
    confinement: Confinement
    refused: str = ""


def convert(workspace: Workspace, wanted: Wanted) -> Converted:
    """Convert, and leave a statement that links both digests with how far they agree.

    Raises:
        InputError: a file is in the way, or what was asked for contradicts itself.
        ArtefactError: the source cannot be read, or cannot be written in that format.
        SandboxError: the process is not confined as required, died, hung or broke a limit.
        TrustError: the key may not sign provenance.
    """
    _check(wanted)
    signer = _signer(workspace, wanted.key)
    began = workspace.clock()
    report = scan_path(wanted.source)
    if report.digest is None or (refused := rules.refusal(report, wanted.accept)):
        return Converted(refused=f"the source is not loaded: {refused if report.digest else '; '.join(report.reasons)}")
    limits = Limits(
        memory_bytes=BASE_MEMORY + COPIES * report.size,
        require=required_layers(workspace.settings.values["confinement"]),
    )
    made = _make(wanted, report.digest, limits)
    if made.refused:
        return Converted(refused=made.refused, source=report.digest, agreement=made.agreement)
    result = digest_bytes(made.data)
    done = _conversion(wanted, report, made, result, (began, workspace.clock()))
    body, sealed = _sealed(workspace, done, signer)
    _write(wanted.target, made.data)
    _write(wanted.statement, body)
    return Converted(
        source=report.digest,
        result=result,
        agreement=made.agreement,
        confinement=made.confinement,
        statement=str(wanted.statement),
        envelope=sealed,
    )


def _check(wanted: Wanted) -> None:
    rules.check_acceptance(wanted.accept, wanted.reason)
    if wanted.samples and wanted.to in TENSOR_FORMATS:
        raise InputError("tensors are compared byte by byte, without samples", remedy="leave --samples out.")
    for path in (wanted.target, wanted.statement):
        if path.is_dir() or (path.exists() and not wanted.overwrite):
            raise InputError(f"{path} exists already", remedy="name another file, or give --overwrite.")
    if len({os.path.realpath(path) for path in (wanted.source, wanted.target, wanted.statement)}) != 3:  # noqa: PLR2004
        raise InputError("source, target and statement have to be three files", remedy="name others.")


def _make(wanted: Wanted, digest: Digest, limits: Limits) -> _Made:
    """The result and how far it agrees with the source. The result is scanned before anything reads it."""
    with opened(wanted.source, digest, limits) as converting:
        loaded = converting.load(wanted.part)
        _check_kind(wanted, loaded.kind)
        data = converting.write(wanted.to)
        scan = scan_bytes(data, wanted.target.name)
        if refused := rules.refusal(scan, wanted.accept):
            nothing = Agreement(compared="tensors", agrees=False, count=0)
            return _Made(data, nothing, scan, converting.confinement, f"the result is not clean: {refused}")
        if loaded.kind == "tensors":
            tensors, shared = converting.tensors()
            agreement = rules.compare_tensors(tensors, rules.read_tensors(data, wanted.to), shared)
        else:
            agreement = _ask_both(wanted, converting, loaded.features, data, limits)
    return _Made(data, agreement, scan, converting.confinement, "" if agreement.agrees else agreement.words)


def _check_kind(wanted: Wanted, kind: str) -> None:
    """Tensors go into formats for tensors, estimators into formats for estimators."""
    if kind == "module" or (kind == "tensors") != (wanted.to in TENSOR_FORMATS):
        raise ArtefactError(
            f"{wanted.source.name} holds {'tensors' if kind == 'tensors' else f'an {kind}'}, "
            f"which {wanted.to} is not written from",
            remedy="tensors become safetensors or npz, scikit-learn estimators become skops or onnx.",
        )


def _ask_both(wanted: Wanted, source: Converting, features: int, data: bytes, limits: Limits) -> Agreement:
    """The same samples for the source and for what a second process loaded of the result."""
    samples, name = _samples(wanted, features)
    single = wanted.to == "onnx"
    said = source.answers(samples, single=single)
    with tempfile.TemporaryDirectory(prefix="bartizan-convert-") as folder:
        path = Path(folder) / f"result.{wanted.to}"
        path.write_bytes(data)
        with opened(path, digest_bytes(data), limits) as result:
            result.load_result(wanted.to)
            again = result.answers(samples, single=single)
    return rules.compare_answers(said, again, len(samples), wanted.to, name)


def _samples(wanted: Wanted, features: int) -> tuple[NDArray[np.float64], str]:
    if wanted.samples is None:
        return rules.generated_samples(features), "generated"
    try:
        with wanted.samples.open("rb") as file:
            data = file.read(MAX_SAMPLE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{wanted.samples} cannot be read: {error.strerror}", remedy="give a file.") from error
    if len(data) > MAX_SAMPLE_BYTES:
        raise InputError(f"{wanted.samples} is larger than {MAX_SAMPLE_BYTES} bytes", remedy="give fewer samples.")
    return rules.read_samples(data, wanted.samples.name, features), f"sha256:{digest_bytes(data)}"


# ---- statement


def _conversion(
    wanted: Wanted, report: Report, made: _Made, result: Digest, times: tuple[datetime, datetime]
) -> Conversion:
    held = dict.fromkeys(made.confinement.in_force, "in force") | made.confinement.missing
    return Conversion(
        source_name=wanted.source.name,
        source_digest=Digest(report.digest or ""),
        result_name=wanted.target.name,
        result_digest=result,
        to=wanted.to,
        part=wanted.part,
        accept=wanted.accept,
        reason=wanted.reason,
        agreement=made.agreement,
        source_scan=digest_bytes(report.to_json()),
        result_scan=digest_bytes(made.result_scan.to_json()),
        confinement=held,
        versions=_versions(wanted.to),
        began=times[0],
        ended=times[1],
        by=bartizan.__version__,
    )


def _versions(to: Format) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES[to]:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _signer(workspace: Workspace, key: str) -> Signer | None:
    """The key, when one is named and, in a project, may sign provenance."""
    if not key:
        return None
    signer = workspace.signer(key)
    if workspace.declaration.is_file():
        with workspace.view() as view:
            reason = view.trust.why_not(signer.keyid, predicates.PROVENANCE, workspace.now(view))
        if reason:
            raise TrustError(f"the key {key!r} may not sign provenance: {reason}", remedy="see `bartizan trust show`.")
    return signer


def _sealed(workspace: Workspace, done: Conversion, signer: Signer | None) -> tuple[bytes, Digest | None]:
    """The statement as it is written beside the result: signed where there is a key.

    In a project it enters the ledger too, and with it how far both agree, as an assessment.
    """
    said = rules.statement_of(done)
    if signer is None:
        return said.encode(), None
    body = envelope.seal_statement(said, [signer])
    if not workspace.declaration.is_file():
        return body, None
    workspace.append([body, *_measured(workspace, done, signer)])
    return body, envelope.parse(body).digest


def _measured(workspace: Workspace, done: Conversion, signer: Signer) -> list[bytes]:
    """The assessment, when the key may sign any."""
    with workspace.view() as view:
        reason = view.trust.why_not(signer.keyid, predicates.ASSESSMENT, workspace.now(view))
    return [] if reason else [envelope.seal_statement(rules.assessment_of(done), [signer])]


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    try:
        with tempfile.TemporaryDirectory(prefix=".bartizan-", dir=path.parent) as folder:
            new = Path(folder) / "new"
            new.write_bytes(data)
            new.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy="give a folder of yours.") from error


def summary(done: Converted) -> list[str]:
    """What is said to a person."""
    lines = []
    if done.result and done.source:
        lines.append(f"{short(done.source)} became {short(done.result)}")
    if done.agreement and not done.refused:
        lines.append(done.agreement.words)
    if done.confinement:
        lines.append(f"confined by: {done.confinement.words}")
    return lines
