"""Update packages: packed and signed by one party, verified and activated by another.

A package is a folder: ``content/`` with the files, ``update.json`` with product, version and expiry, and
``update.sig``, an OpenSSF Model Signing bundle over both. It is verified in this order, after the rules of
TUF (https://theupdateframework.github.io/specification/latest/, sections 1.5.2 and 5.3):

1. The signature is of a key that the trust document lets sign artefacts, and that was not withdrawn.
2. Every file is as it was signed; nothing is missing, added or changed.
3. It is an update of this product.
4. It has not expired, so nobody can hold back newer ones without being noticed (freeze).
5. Its version is not lower than any that was activated here (rollback), as the ledger proves; the same
   version again must be the same package.

Activation writes a verdict either way, and only after all five a deployment statement; then the pointer,
a symbolic link, is replaced in one step.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

import bartizan
from bartizan.core import envelope as dsse
from bartizan.core import evidence, predicates
from bartizan.core.digest import Digest, ManifestEntry, canonical_json, digest_bytes, digest_json, manifest_root
from bartizan.core.durations import deadline
from bartizan.core.errors import ArtefactError, EvidenceError, InputError, StoreError, TrustError
from bartizan.core.ports import Entry
from bartizan.core.statement import Statement, decode, make
from bartizan.core.view import View, entry_leaf, moment
from bartizan.lifecycle.develop.sign import MAX_BUNDLE_BYTES, compare, open_bundle, sign_manifest
from bartizan.stores.files import walk
from bartizan.wiring.declared import declared_paths
from bartizan.wiring.workspace import TOLERANCE, Workspace

CONTENT, LABEL, SIGNATURE = "content", "update.json", "update.sig"
MAX_LABEL_BYTES = 1024 * 1024
MAX_VERSION = 2**53 - 1
VERSIONS, CURRENT = "versions", "current"
POLICY = "urn:bartizan:policy:update:v1"
RULES = ("signature", "files", "product", "freshness", "rollback")
PASSED, FAILED = "met", "unmet"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_AGAIN = "ask whoever packed it for a sound package; this one is not used."


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One model, configuration or prompt inside a package."""

    name: str
    path: str
    """Below the package."""
    digest: Digest


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``update.json``: what the package is. The signature covers it."""

    format: int = 1
    product: str
    version: int
    packed_at: predicates.Instant
    expires: predicates.Instant
    contents: tuple[Content, ...]
    notes: str = ""
    """What changes for users."""


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a verification."""

    package: Digest
    """Root digest of the signed manifest, or of the files when nothing sound is signed."""
    rules: dict[str, str]
    """Rule to ``met`` or ``unmet``; a rule that was not reached is unmet."""
    problem: str = ""
    label: Label | None = None
    signers: tuple[str, ...] = ()
    signature: Digest | None = None
    """Envelope of the signature."""
    last_version: int | None = None
    """Highest version that was activated here before."""
    note: str = ""
    """Checkpoint of the ledger that it was examined against."""
    at: datetime
    body: bytes = b""
    """The signature's envelope."""

    @property
    def passed(self) -> bool:
        """Whether it may be activated."""
        return not self.problem


class Activated(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an activation."""

    examined: Examined
    verdict: Digest
    deployment: Digest | None = None
    pointer: str = ""


# ---- packing


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """A package as somebody asked for it."""

    product: str
    version: int
    expires: str
    """Duration or date."""
    contents: tuple[str, ...]
    """Ids of declared artefacts, or paths of files and folders."""
    notes: str = ""
    key: str = "service"
    folder: Path
    """Where paths start from."""


def pack(workspace: Workspace, asked: Packing, target: Path) -> Label:
    """Write a signed package into the new folder ``target``.

    Raises:
        InputError: the folder exists, or product, version, expiry or contents cannot be used.
    """
    now = workspace.clock()
    expires = deadline(asked.expires, now)
    _check_asked(asked, expires <= now)
    if target.exists():
        raise InputError(f"{target} exists already", remedy="name a new folder for the package.")
    signer = workspace.signer(asked.key)
    with _new_folder(target) as place:
        contents = tuple(_put(workspace, asked, text, place) for text in asked.contents)
        if len({content.path for content in contents}) != len(contents):
            raise InputError("two contents have the same name", remedy="rename one of them.")
        label = Label(
            product=asked.product,
            version=asked.version,
            packed_at=now,
            expires=expires,
            contents=contents,
            notes=asked.notes,
        )
        (place / LABEL).write_bytes(canonical_json(label))
        _, bundle = sign_manifest(asked.product, workspace.files.manifest(place), signer)
        (place / SIGNATURE).write_bytes(bundle)
    return label


def _check_asked(asked: Packing, over: bool) -> None:
    if not _NAME.match(asked.product):
        raise InputError(f"{asked.product!r} is no name of a product", remedy="use letters, digits, dots and dashes.")
    if not 0 <= asked.version <= MAX_VERSION:
        raise InputError(f"version {asked.version} is out of range", remedy="give a whole number from 0 on.")
    if over:
        raise InputError(f"{asked.expires} is over already", remedy="give a later end, such as 30d.")
    if not asked.contents:
        raise InputError("nothing to pack", remedy="name artefacts or paths.")


def _put(workspace: Workspace, asked: Packing, text: str, place: Path) -> Content:
    """Copy one file or folder into a package; the copy is what is digested."""
    source = declared_paths(workspace.declaration).get(text, asked.folder / text)
    inside = f"{CONTENT}/{source.name}"
    _copy(workspace, source, place / inside)
    return Content(
        name=text if ":" in text else source.name, path=inside, digest=workspace.files.digest(place / inside)
    )


def _copy(workspace: Workspace, source: Path, target: Path) -> None:
    """Copy files only; links and special files are refused when they are listed."""
    names = [entry.name for entry in workspace.files.manifest(source)]
    try:
        for name in names:
            inside = target if name == "." else target / name
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source if name == "." else source / name, inside, follow_symlinks=False)
    except OSError as error:
        raise StoreError(f"{source} cannot be copied: {error}", remedy="is there space, and may you write?") from error


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as own:
            place = Path(own) / "new"
            place.mkdir()
            yield place
            place.rename(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error}", remedy="is there space, and may you write?") from error


# ---- verifying


def verify(workspace: Workspace, package: Path, product: str, place: str) -> Examined:
    """Examine a package by all rules; records nothing. What is wrong with it is said in ``problem``.

    Raises:
        InputError: the package cannot be read at all.
    """
    manifest = _manifest(workspace, package)
    with workspace.view() as view:
        examined = Examined(
            package=manifest_root(manifest), rules=dict.fromkeys(RULES, FAILED), note=view.note, at=workspace.now(view)
        )
        examined = msgspec.structs.replace(examined, last_version=last_version(view, product, place))
        for step in (_check_signature, _check_files, _check_label, _check_rollback):
            try:
                examined = step(_Case(workspace, view, package, manifest, product, place), examined)
            except (EvidenceError, InputError) as error:
                return msgspec.structs.replace(examined, problem=error.message)
    return examined


class _Case:
    """What every rule looks at."""

    def __init__(  # noqa: PLR0917
        self, workspace: Workspace, view: View, package: Path, manifest: list[ManifestEntry], product: str, place: str
    ) -> None:
        self.workspace, self.view, self.package = workspace, view, package
        self.manifest, self.product, self.place = manifest, product, place


def package_digest(workspace: Workspace, package: Path) -> Digest:
    """What a package is called: the root digest of everything in it but its signature."""
    return manifest_root(_manifest(workspace, package))


def _manifest(workspace: Workspace, package: Path) -> list[ManifestEntry]:
    """Every file of a package but its signature."""
    if not package.is_dir():
        raise InputError(f"{package} is no folder", remedy="give the folder that `bartizan update pack` wrote.")
    manifest = [entry for entry in workspace.files.manifest(package) if entry.name != SIGNATURE]
    if not manifest:
        raise InputError(f"{package} holds nothing but a signature", remedy=_AGAIN)
    return manifest


def _met(examined: Examined, *rules: str, **changes: Any) -> Examined:
    return msgspec.structs.replace(examined, rules={**examined.rules, **dict.fromkeys(rules, PASSED)}, **changes)


def _check_signature(case: _Case, examined: Examined) -> Examined:
    """Weigh the signature as if the ledger received it now: trust, withdrawn keys and artefacts included."""
    body = open_bundle(_small(case.package / SIGNATURE, MAX_BUNDLE_BYTES))
    envelope = dsse.parse(body)
    received_ms = int(examined.at.timestamp() * 1000)
    entry = Entry(
        seq=case.view.checkpoint.size,
        digest=envelope.digest,
        body=body,
        predicate_type=predicates.MODEL_SIGNATURE,
        received_ms=received_ms,
        leaf_hash=entry_leaf(received_ms, envelope.digest),
    )
    weighed = evidence.weigh(entry, case.view.trust, evidence.withdrawals(case.view), moment(received_ms))
    said = weighed.statement
    if not weighed.holds or said is None:
        raise TrustError(f"its signature does not count: {weighed.reason}", remedy=_AGAIN)
    if said.predicate_type != predicates.MODEL_SIGNATURE:
        raise TrustError(f"a {predicates.short_name(said.predicate_type)} statement signs no files", remedy=_AGAIN)
    return _met(examined, "signature", signers=weighed.signers, signature=envelope.digest, body=body)


def _check_files(case: _Case, examined: Examined) -> Examined:
    said = decode(dsse.parse(examined.body).payload)
    differences = compare(said, case.manifest, ())
    if differences or [subject.digest["sha256"] for subject in said.subject] != [examined.package]:
        shown = ", ".join(f"{item.name} {item.what}" for item in differences[:5]) or "another root digest"
        raise ArtefactError(f"its files are not those that were signed: {shown}", remedy=_AGAIN)
    return _met(examined, "files")


def _check_label(case: _Case, examined: Examined) -> Examined:
    """Product and freshness, from the label that was just verified."""
    data = _small(case.package / LABEL, MAX_LABEL_BYTES)
    if ManifestEntry(LABEL, digest_bytes(data)) not in case.manifest:
        raise ArtefactError(f"{LABEL} changed while it was read", remedy="try again when nothing writes to it.")
    try:
        label = msgspec.json.decode(data, type=Label)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(f"{LABEL} cannot be read: {error}", remedy=_AGAIN) from error
    if (label.format, label.product) != (1, case.product) or not 0 <= label.version <= MAX_VERSION:
        raise ArtefactError(f"it is version {label.version} of {label.product!r}, not of {case.product!r}")
    _check_contents(case, label)
    examined = _met(examined, "product", label=label)
    if label.expires <= examined.at:
        raise ArtefactError(f"it expired at {label.expires:%Y-%m-%d %H:%M}; there should be a newer one")
    if label.packed_at > examined.at + TOLERANCE:
        raise ArtefactError(f"it was packed in the future, at {label.packed_at:%Y-%m-%d %H:%M}")
    return _met(examined, "freshness")


def _check_contents(case: _Case, label: Label) -> None:
    """What the label says of its contents becomes a statement of ours, so it must be what lies there."""
    names = [content.name for content in label.contents]
    if len(set(names)) != len(names) or any(name.partition(":")[0] == "update" for name in names):
        raise ArtefactError(f"{LABEL} names a content twice, or like the update itself")
    for content in label.contents:
        if _digest_inside(case.manifest, content.path) != content.digest:
            raise ArtefactError(f"{content.name[:80]} in {content.path[:80]} is not what {LABEL} says")


def _digest_inside(manifest: Sequence[ManifestEntry], path: str) -> Digest | None:
    """Digest of a file or folder of a package, from its manifest; None when there is none."""
    for entry in manifest:
        if entry.name == path:
            return entry.digest
    below = [
        ManifestEntry(entry.name.removeprefix(f"{path}/"), entry.digest)
        for entry in manifest
        if entry.name.startswith(f"{path}/")
    ]
    return manifest_root(below) if below else None


def _check_rollback(case: _Case, examined: Examined) -> Examined:
    assert examined.label is not None  # noqa: S101 - the rule before this has read it
    version, last = examined.label.version, examined.last_version
    if last is not None and version < last:
        raise ArtefactError(f"version {version} is older than version {last}, which was activated here")
    if version == last and examined.package not in _activated(case.view, case.product, case.place, last):
        raise ArtefactError(f"version {version} was activated here with other contents")
    return _met(examined, "rollback")


def pointer_digest(product: str, place: str) -> Digest:
    """What deployments of a product at a place are indexed under, so that none can be hidden."""
    return digest_json(["bartizan:update", product, place])


def last_version(view: View, product: str, place: str) -> int | None:
    """The highest version that was ever activated; withdrawing a deployment does not lower it."""
    return max((version for version, _ in _deployments(view, product, place)), default=None)


def _activated(view: View, product: str, place: str, version: int | None) -> set[str]:
    return {package for number, package in _deployments(view, product, place) if number == version}


def _deployments(view: View, product: str, place: str) -> Iterator[tuple[int, str]]:
    """(version, package) of every activation whose signer was trusted when the ledger received it, or is now."""
    for entry in view.about([pointer_digest(product, place)], {predicates.DEPLOYMENT}):
        envelope = dsse.parse(entry.body)
        at = moment(entry.received_ms)
        trusts = (view.trust, view.trust_before(entry.seq))
        if not any(dsse.verified_keyids(envelope, trust.keys_for(predicates.DEPLOYMENT, at)) for trust in trusts):
            continue
        details = decode(envelope.payload).predicate.get("details")
        version = details.get("version") if isinstance(details, dict) else None
        if isinstance(details, dict) and type(version) is int:
            yield version, str(details.get("package", ""))


def _small(path: Path, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"the package has no readable {path.name}: {error.strerror}", remedy=_AGAIN) from error
    if len(data) > limit:
        raise InputError(f"{path.name} is larger than {limit} bytes", remedy=_AGAIN)
    return data


# ---- activating


def activate(workspace: Workspace, package: Path, product: str, *, place: str, to: Path, key: str) -> Activated:
    """Verify a package, record the verdict, and only if it passes copy it to ``to`` and move the pointer there.

    Raises:
        TrustError: the key may not sign verdicts and deployments.
        LedgerMovedError: the ledger changed meanwhile; nothing was activated.
    """
    signer = workspace.signer(key)
    _may_activate(workspace, signer.keyid)
    examined = verify(workspace, package, product, place)
    verdict = dsse.seal_statement(_verdict(examined, product, place), [signer])
    if not examined.passed or examined.label is None:
        workspace.append([verdict], seen=examined.note)
        return Activated(examined=examined, verdict=digest_bytes(verdict))
    installed = _install(workspace, package, examined, to)
    deployment = dsse.seal_statement(_deployment(examined, product, place, digest_bytes(verdict)), [signer])
    # First the ledger, so that its memory of versions is never behind the pointer.
    workspace.append([examined.body, verdict, deployment], seen=examined.note)
    pointer = _point(to / CURRENT, installed)
    return Activated(
        examined=examined, verdict=digest_bytes(verdict), deployment=digest_bytes(deployment), pointer=str(pointer)
    )


def _may_activate(workspace: Workspace, keyid: str) -> None:
    with workspace.view() as view:
        for kind in (predicates.VERDICT, predicates.DEPLOYMENT):
            if reason := view.trust.why_not(keyid, kind, workspace.now(view)):
                raise TrustError(f"this key may not activate updates: {reason}", remedy="see `bartizan trust show`.")


def _install(workspace: Workspace, package: Path, examined: Examined, to: Path) -> Path:
    """A copy of the package whose files are again those that were signed."""
    target = to / VERSIONS / examined.package
    if not target.exists():
        with _new_folder(target) as place:
            for name in walk(package):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(package / name, place / name, follow_symlinks=False)
            _same_files(workspace, place, examined)
    _same_files(workspace, target, examined)
    return target


def _same_files(workspace: Workspace, place: Path, examined: Examined) -> None:
    if manifest_root(_manifest(workspace, place)) != examined.package:
        raise ArtefactError(f"{place} is not what was verified", remedy="remove it and activate again.")


def _point(pointer: Path, target: Path) -> Path:
    """Replace the symbolic link in one step."""
    new = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    try:
        new.unlink(missing_ok=True)
        new.symlink_to(Path(VERSIONS) / target.name)
        new.replace(pointer)
    except OSError as error:
        raise StoreError(f"{pointer} cannot be moved: {error}", remedy="give write access; activate again.") from error
    return pointer


def _subjects(examined: Examined) -> dict[str, Digest]:
    contents = {content.name: content.digest for content in examined.label.contents} if examined.label else {}
    return {"update": examined.package, **contents}


def _verdict(examined: Examined, product: str, place: str) -> Statement:
    signature = examined.signature
    return make(
        predicates.VERDICT,
        {"update": examined.package},
        predicates.Verdict(
            verifier=predicates.Verifier(id="urn:bartizan:update", version={"bartizan": bartizan.__version__}),
            time_verified=examined.at,
            resource_uri=f"urn:bartizan:update:{product}:{place}",
            policy=predicates.Policy(uri=POLICY, digest={"sha256": digest_json(list(RULES))}),
            input_attestations=(predicates.Resource(digest={"sha256": signature}),) if signature else (),
            verification_result="PASSED" if examined.passed else "FAILED",
            verified_levels=("BARTIZAN_UPDATE",) if examined.passed else (),
            gate="update",
            valid_until=examined.label.expires if examined.label and examined.passed else None,
            rules=examined.rules,
        ),
    )


def _deployment(examined: Examined, product: str, place: str, verdict: Digest) -> Statement:
    assert examined.label is not None  # noqa: S101 - only what was read is deployed
    return make(
        predicates.DEPLOYMENT,
        {**_subjects(examined), f"update:{product}:{place}": pointer_digest(product, place)},
        predicates.Deployment(
            action="activate",
            place=place,
            verdict=predicates.Resource(digest={"sha256": verdict}),
            details={
                "product": product,
                "version": examined.label.version,
                "package": examined.package,
                "previousVersion": examined.last_version,
            },
        ),
    )


def show_rules(examined: Examined) -> Sequence[tuple[str, str]]:
    """Each rule and how it came out, in order."""
    return [(rule, examined.rules[rule]) for rule in RULES]


__all__ = ["Activated", "Examined", "Label", "Packing", "activate", "last_version", "pack", "verify"]
