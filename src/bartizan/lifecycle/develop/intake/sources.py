"""Where something comes from, told by its layout, and a copy of it that can be trusted to stay as it is.

Five layouts are known: a file, a folder, a Hugging Face cache folder, an MLflow run or model, and an
OCI image layout. A copy has no links, no executable files and no names that lead out of it; what a
layout names by digest is compared with that digest on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

import msgspec
import yaml

from bartizan.core.errors import ArtefactError

Layout = Literal["file", "folder", "hugging-face", "mlflow", "oci"]
MOST_FILES = 100_000
MOST_BYTES = 1 << 40
MOST_UNPACKED = 64 << 30
DEEPEST = 32
LARGEST_DOCUMENT = 4 << 20
CHUNK = 1 << 20
READ_ONLY = 0o400
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_PAIR = 2
_TITLE = "org.opencontainers.image.title"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a source is and says of itself."""

    layout: Layout
    facts: dict[str, str]
    """``repository``, ``revision``, ``run`` ...: as the layout says, believed by nobody yet."""


def identify(source: Path) -> Origin:
    """Tell the layout of a source.

    Raises:
        ArtefactError: there is nothing that can be taken in.
    """
    if source.is_symlink() and not _snapshot_of(source):
        raise ArtefactError(f"{source} is a symbolic link", remedy="give the file or folder that it points to.")
    if source.is_file():
        return Origin(layout="file", facts={"name": source.name})
    if not source.is_dir():
        raise ArtefactError(f"there is no file or folder at {source}", remedy="check the path.")
    if (source / "oci-layout").is_file():
        return Origin(layout="oci", facts=_oci_facts(source))
    snapshot = _snapshot_of(source)
    if snapshot is not None:
        return Origin(layout="hugging-face", facts=_hub_facts(snapshot))
    if (source / "MLmodel").is_file() or (source / "meta.yaml").is_file():
        return Origin(layout="mlflow", facts=_mlflow_facts(source))
    return Origin(layout="folder", facts={"name": source.resolve().name})


def plain(source: Path) -> Origin:
    """A file or folder as what it is, whatever layout it looks like: for copies of copies."""
    return Origin(layout="folder" if source.is_dir() else "file", facts={"name": source.name})


def copy(source: Path, origin: Origin, target: Path) -> None:
    """Copy a source into the new folder ``target``.

    Raises:
        ArtefactError: it holds links, devices or names that lead out, is too large, or is not what
            its layout says by digest.
    """
    target.mkdir(parents=True)
    if origin.layout == "file":
        _copy_file(source, target / _safe(source.name))
    elif origin.layout == "hugging-face":
        _copy_snapshot(source, target)
    elif origin.layout == "oci":
        _copy_image(source, target)
    else:
        _copy_folder(source, target)
    if not any(target.iterdir()):
        raise ArtefactError(f"{source} holds no files", remedy="give the folder that holds the artefact.")


def _safe(name: str) -> str:
    """A relative path that stays where it is put.

    Raises:
        ArtefactError: it does not.
    """
    path = PurePosixPath(name)
    odd = any(letter < " " or letter == "\\" for letter in name)
    if not name or odd or path.is_absolute() or ".." in path.parts or len(path.parts) > DEEPEST:
        raise ArtefactError(
            f"{name[:80]!r} is no name that can be taken in", remedy="ask the producer for a sound copy."
        )
    return name


def _copy_file(source: Path, target: Path, expected: Any = None) -> int:
    """Copy one regular file, not executable; ``expected`` is a digest object and the hexadecimal it must give."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ArtefactError(f"{source} cannot be read: {error.strerror}", remedy="check its rights.") from error
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ArtefactError(f"{source} is no regular file", remedy="links, devices and pipes are not taken in.")
        try:
            return _write(stream, target, expected)
        except OSError as error:
            raise ArtefactError(
                f"{target.name[:80]!r} cannot be written: {error.strerror}",
                remedy="two parts may have the same name; is there space, and may you write?",
            ) from error


def _write(stream: Any, target: Path, expected: Any = None) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with target.open("xb") as out:
        while part := stream.read(CHUNK):
            size += len(part)
            out.write(part)
            if expected:
                expected[0].update(part)
        out.flush()
        os.fsync(out.fileno())
    target.chmod(READ_ONLY)
    if expected and expected[0].hexdigest() != expected[1]:
        raise ArtefactError(
            f"{target.name} is not what its name by digest says: {expected[1][:12]} is named and "
            f"{expected[0].hexdigest()[:12]} was found",
            remedy="fetch the source again.",
        )
    return size


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """All entries below a folder that are no folders, by relative name."""
    todo = [(folder, "", 0)]
    count = 0
    while todo:
        here, prefix, depth = todo.pop()
        if depth > DEEPEST:
            raise ArtefactError(f"{here} lies more than {DEEPEST} folders deep")
        for entry in sorted(os.scandir(here), key=lambda each: each.name):
            count += 1
            if count > MOST_FILES:
                raise ArtefactError(f"{folder} holds more than {MOST_FILES} files")
            if entry.is_dir(follow_symlinks=False):
                todo.append((Path(entry.path), f"{prefix}{entry.name}/", depth + 1))
            else:
                yield prefix + entry.name, Path(entry.path)


def _copy_folder(source: Path, target: Path) -> None:
    left = MOST_BYTES
    for name, path in _walk(source):
        left -= _copy_file(path, target / _safe(name))
        if left < 0:
            raise ArtefactError(f"{source} holds more than {MOST_BYTES} bytes")


# ---- Hugging Face cache: models--ORG--NAME/{refs,blobs,snapshots/REVISION}


def _snapshot_of(source: Path) -> Path | None:
    """The snapshot folder that a source is or leads to; None when it is no such cache."""
    if source.parent.name == "snapshots" and (source.parent.parent / "blobs").is_dir():
        return source
    snapshots = source / "snapshots"
    if not (source / "blobs").is_dir() or not snapshots.is_dir():
        return None
    main = source / "refs" / "main"
    revisions = sorted(each.name for each in snapshots.iterdir() if each.is_dir())
    wanted = main.read_text(errors="replace").strip() if main.is_file() and main.stat().st_size < CHUNK else ""
    if wanted in revisions:
        return snapshots / wanted
    if len(revisions) == 1:
        return snapshots / revisions[0]
    raise ArtefactError(f"{source} holds {len(revisions)} revisions", remedy="give one folder below snapshots/.")


def _hub_facts(snapshot: Path) -> dict[str, str]:
    kind, _, name = snapshot.parent.parent.name.partition("--")
    return {"repository": name.replace("--", "/"), "repository-kind": kind, "revision": snapshot.name}


def _copy_snapshot(source: Path, target: Path) -> None:
    """Every entry is a link into ``blobs``, whose files are named by their SHA-256 or git digest."""
    snapshot = _snapshot_of(source) or source
    blobs = (snapshot.parent.parent / "blobs").resolve()
    for name, path in _walk(snapshot):
        real = path.resolve()
        if real.parent != blobs or not real.is_file():
            raise ArtefactError(f"{name} does not lead into the cache's own blobs", remedy="fetch the snapshot again.")
        _copy_file(real, target / _safe(name), _named_digest(real))


def _named_digest(blob: Path) -> tuple[Any, str] | None:
    if _SHA256.match(blob.name):
        return hashlib.sha256(), blob.name
    if _SHA1.match(blob.name):
        state = hashlib.sha1(usedforsecurity=False)
        state.update(b"blob %d\0" % blob.stat().st_size)
        return state, blob.name
    raise ArtefactError(f"blob {blob.name[:80]!r} is not named by a digest", remedy="fetch the snapshot again.")


# ---- MLflow


def _mlflow_facts(source: Path) -> dict[str, str]:
    name = "MLmodel" if (source / "MLmodel").is_file() else "meta.yaml"
    try:
        with (source / name).open("rb") as stream:
            plain = dict(_top_level(stream.read(LARGEST_DOCUMENT).decode()))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ArtefactError(f"{name} of {source} cannot be read: {str(error)[:200]}") from error
    wanted = ("run_id", "model_uuid", "mlflow_version", "utc_time_created", "experiment_id", "user_id", "status")
    return {key.replace("_", "-"): plain[key][:200] for key in wanted if key in plain}


def _top_level(text: str) -> Iterator[tuple[str, str]]:
    """Keys and plain values of the outermost mapping; builds nothing, so aliases cost nothing.

    Raises:
        ValueError: it is nested too deep, or too long.
    """
    depth, waiting = 0, list[str]()
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CBaseLoader)):
        if depth > DEEPEST or count > MOST_FILES:
            raise ValueError(f"it is nested more than {DEEPEST} deep, or has more than {MOST_FILES} values")
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth == 1 and isinstance(event, yaml.NodeEvent):
            waiting.append(event.value if isinstance(event, yaml.ScalarEvent) else "")
        if len(waiting) == _PAIR:
            if all(waiting):
                yield waiting[0], waiting[1]
            waiting.clear()
        depth += isinstance(event, yaml.CollectionStartEvent)


# ---- OCI image layout


def _oci_facts(source: Path) -> dict[str, str]:
    manifest, digest = _manifest(source)
    facts = {"manifest": digest, "artifact-type": str(manifest.get("artifactType", ""))[:200]}
    notes = manifest.get("annotations")
    for key, value in notes.items() if isinstance(notes, dict) else ():
        facts[str(key)[:100]] = str(value)[:200]
    return {key: value for key, value in facts.items() if value}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            document = json.loads(stream.read(LARGEST_DOCUMENT))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path.name} of the image layout cannot be read: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise ArtefactError(f"{path.name} of the image layout is no object")
    return document


def _blob(source: Path, descriptor: Any) -> tuple[Path, str]:
    """The file of a descriptor, and its SHA-256 as named."""
    digest = str(descriptor.get("digest", "")) if isinstance(descriptor, dict) else ""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not _SHA256.match(value):
        raise ArtefactError(f"{digest[:80]!r} is no SHA-256 digest of an image layout")
    return source / "blobs" / "sha256" / value, value


def _manifest(source: Path) -> tuple[Mapping[str, Any], str]:
    manifests = _json(source / "index.json").get("manifests")
    if not isinstance(manifests, list) or len(manifests) != 1:
        raise ArtefactError(
            f"the image layout {source} does not hold exactly one manifest", remedy="export a single artefact."
        )
    path, digest = _blob(source, manifests[0])
    if not path.is_file() or path.stat().st_size > LARGEST_DOCUMENT or _sha256(path) != digest:
        raise ArtefactError(f"the manifest {digest[:12]} of the image layout is missing or altered")
    return _json(path), digest


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy_image(source: Path, target: Path) -> None:
    layers = _manifest(source)[0].get("layers")
    if not isinstance(layers, list) or not layers:
        raise ArtefactError(f"the manifest of {source} lists no layers")
    for layer in layers:
        path, digest = _blob(source, layer)
        kind = str(layer.get("mediaType", ""))
        if "tar" in kind.rpartition(".")[2] or kind.endswith("tar+gzip"):
            if not path.is_file() or _sha256(path) != digest:
                raise ArtefactError(f"layer {digest[:12]} of the image layout is missing or altered")
            _unpack(path, target)
            continue
        notes = layer.get("annotations")
        title = str(notes.get(_TITLE, "")) if isinstance(notes, dict) else ""
        _copy_file(path, target / _safe(title or digest), (hashlib.sha256(), digest))


def _unpack(path: Path, target: Path) -> None:
    """Regular files of a tar; anything else in it is refused."""
    left, count = MOST_UNPACKED, 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                count += 1
                if member.isdir():
                    continue
                if not member.isreg() or count > MOST_FILES:
                    raise ArtefactError(f"{member.name[:80]!r} in layer {path.name[:12]} is no regular file")
                left -= member.size
                if left < 0 or member.size < 0:
                    raise ArtefactError(f"layer {path.name[:12]} unpacks to more than {MOST_UNPACKED} bytes")
                stream: BinaryIO | None = archive.extractfile(member)  # type: ignore[assignment]  # a reader of bytes
                if stream is not None:
                    _write(stream, target / _safe(member.name.removeprefix("./")))
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise ArtefactError(f"layer {path.name[:12]} is no sound tar: {error}") from error
    except OSError as error:
        raise ArtefactError(f"layer {path.name[:12]} cannot be unpacked: {error}") from error


def discard(folder: Path) -> None:
    """Remove a copy, read-only files and all."""
    shutil.rmtree(folder, ignore_errors=True)
