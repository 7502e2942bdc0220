"""Record: run a command, and sign what it was made of and what it made (SLSA provenance v1).

Every declared input is digested before and after the command, and is watched by its time of change;
so what the statement names is what the command could read. In strict mode the kernel refuses the command
every other file. A declared artefact is used only while somebody's signature over its bytes stands.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

import bartizan
from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, InputError, TrustError, WorkError
from bartizan.core.evidence import Evidence
from bartizan.core.predicates import BuildDefinition, Builder, BuildMetadata, Descriptor, RunDetails
from bartizan.core.statement import Statement, make
from bartizan.stores.files import walk
from bartizan.stores.landlock import Confinement, system_paths
from bartizan.wiring import surroundings
from bartizan.wiring.declared import declared_paths
from bartizan.wiring.workspace import Workspace, utc_now

BUILD_TYPE = "urn:bartizan:build:command:v1"
"""Parameters: ``command``, ``parameters``, ``inputs``, ``outputs``, ``strict`` and, if so, ``readable``."""
ARTEFACTS = ("model:", "dataset:")
TAIL_BYTES = 64 * 1024
"""So much of what a command says last is searched for files that it was refused."""
POLL_SECONDS = 0.05

_REFUSED = re.compile(r"Permission denied: '([^'\n]{1,4096})'|([^\s:'\"]{1,4096}): Permission denied")
_SCP = re.compile(r"(?:[^@/:]+@)?([^/:@]+):(?!//)(.+)\Z")

Stamps = dict[str, tuple[int, ...]]
"""File name to what changes whenever the file is written."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A run as somebody asked for it."""

    command: tuple[str, ...]
    inputs: tuple[str, ...]
    """Ids of declared artefacts, or paths."""
    outputs: tuple[str, ...]
    parameters: dict[str, Any] = {}
    environment: str = ""
    """Name of the place it runs in: ``production-training``."""
    strict: bool = False
    readable: tuple[str, ...] = ()
    """In strict mode: more paths that may be read, undigested; they are named in the statement."""
    unsigned: bool = False
    """Take declared artefacts without a signature as well."""
    key: str = "service"
    folder: Path
    """Where the command runs, and paths start from."""
    output_to_errors: bool = False
    """Send the command's standard output to standard error."""


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output: what it is called in statements, and where it lies."""

    name: str
    path: Path


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An input as it was."""

    thing: Thing
    digest: Digest
    stamps: Stamps
    signed_by: tuple[str, ...] = ()
    signature: str = ""
    """Envelope of the signature that was relied on."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run."""

    exit_code: int
    envelope: Digest | None = None
    """None when the command failed: then nothing is recorded."""
    outputs: dict[str, Digest] = {}
    inputs: dict[str, Digest] = {}
    refused: tuple[str, ...] = ()
    """Files that the command says it was refused."""


class _Ended(msgspec.Struct, frozen=True, kw_only=True):
    exit_code: int
    began: datetime
    ended: datetime
    refused: tuple[str, ...] = ()


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a run happens in."""

    interpreter: surroundings.Interpreter | None
    commit: surroundings.Commit | None
    program: Path


def record(workspace: Workspace, asked: Asked) -> Recorded:
    """Run the command; when it succeeds, sign and store the provenance of its outputs.

    Raises:
        InputError: an input or output is missing, unsigned, or changed during the run.
        TrustError: the key may not sign provenance; the command is not started.
        SandboxError: strict mode cannot be kept here; the command is not started.
    """
    if not asked.outputs:
        raise InputError("no output is named", remedy="name what the command makes: --outputs model:NAME or a path.")
    names = declared_paths(workspace.declaration)
    things = [_thing(workspace, asked, text, names) for text in asked.inputs]
    made = [_thing(workspace, asked, text, names) for text in asked.outputs]
    _distinct(made)
    signer = _allowed_signer(workspace, asked.key)
    inputs = _look(workspace, things, unsigned=asked.unsigned)
    before = {thing.name: _stamps(thing.path) for thing in made if thing.path.exists()}
    program = surroundings.find_program(asked.command[0], asked.folder)
    place = _Place(
        program=program,
        interpreter=surroundings.interpreter_of(program),
        commit=surroundings.commit_of(asked.folder),
    )
    neighbours = _neighbours(made) if asked.strict else {}
    ended = _run(asked, inputs, made, place)
    if ended.exit_code:
        return Recorded(exit_code=ended.exit_code, refused=ended.refused)
    _unchanged(workspace, inputs)
    _not_renamed(made, neighbours)
    outputs = {thing.name: _written(workspace, thing, before.get(thing.name)) for thing in made}
    said = _statement(asked, inputs, outputs, place, ended, keyid=signer.keyid)
    blobs = [Blob(place.interpreter.package_list())] if place.interpreter else []
    return Recorded(
        exit_code=0,
        envelope=workspace.publish(said, signer, blobs),
        outputs=outputs,
        inputs={seen.thing.name: seen.digest for seen in inputs},
        refused=ended.refused,
    )


# ---- what goes in and comes out


def _thing(workspace: Workspace, asked: Asked, text: str, names: Mapping[str, Path]) -> Thing:
    """A declared artefact by its id or by its path; any other path by itself."""
    if text.startswith(ARTEFACTS):
        if text not in names:
            raise InputError(f"no artefact is called {text!r}", remedy=f"declared: {', '.join(names) or 'none'}.")
        return Thing(name=text, path=names[text])
    path = asked.folder / text
    real = Path(os.path.realpath(path))
    declared = next((name for name, where in names.items() if Path(os.path.realpath(where)) == real), None)
    return Thing(name=declared or _shown_name(workspace.folder, asked.folder, real), path=path)


def _shown_name(project: Path, folder: Path, real: Path) -> str:
    """A path below the project or the working folder; of anything else the last part."""
    for start in (project, Path(os.path.realpath(folder))):
        if real.is_relative_to(start) and real != start:
            return real.relative_to(start).as_posix()
    return real.name or "."


def _distinct(things: Sequence[Thing]) -> None:
    names = [thing.name for thing in things]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two outputs are called {', '.join(twice)}", remedy="write them to differently named files.")


def _look(workspace: Workspace, things: Sequence[Thing], *, unsigned: bool) -> list[Seen]:
    """Digest every input, and find the signature that stands over each declared artefact."""
    unique = _once(things)
    found = []
    with workspace.view() as view:
        for thing in unique:
            stamps = _stamps(thing.path)
            digest = workspace.files.digest(thing.path)
            said = [
                item
                for item in workspace.evidence(view, [digest], {})
                if item.statement and item.statement.predicate_type == predicates.MODEL_SIGNATURE
            ]
            standing = [item for item in said if item.holds]
            if not standing and thing.name.startswith(ARTEFACTS) and not unsigned:
                raise _unsigned(thing, digest, said)
            signers = tuple(sorted({signer for item in standing for signer in item.signers}))
            signature = standing[-1].digest if standing else ""
            found.append(Seen(thing=thing, digest=digest, stamps=stamps, signed_by=signers, signature=signature))
    return found


def _once(things: Sequence[Thing]) -> list[Thing]:
    """Each thing once. Two of the same name would be one in the statement, and the other would not be named at all.

    Raises:
        InputError: different things have the same name.
    """
    found: dict[str, Thing] = {}
    for thing in things:
        known = found.setdefault(thing.name, thing)
        if os.path.realpath(known.path) != os.path.realpath(thing.path):
            raise InputError(
                f"two inputs are called {thing.name}: {known.path} and {thing.path}",
                remedy="give one of them another name, or put both into one folder and name that.",
            )
    return list(found.values())


def _unsigned(thing: Thing, digest: Digest, said: Sequence[Evidence]) -> InputError:
    why = f"; {said[-1].reason}" if said else ""
    return InputError(
        f"{thing.name} cannot be used: no signature over its present bytes ({short(digest)}) stands{why}",
        remedy=f"find out what changed it; `bartizan register {thing.name}` signs what is there now.",
    )


def _stamps(path: Path) -> Stamps:
    """Identity, size and times of every file. The time of change cannot be set back by whoever writes."""
    if not path.is_dir():
        return {".": _stamp(path)}
    return {name: _stamp(path / name) for name in walk(path)}


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.lstat()
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}", remedy="give an existing file or folder.") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unchanged(workspace: Workspace, inputs: Sequence[Seen]) -> None:
    """What was digested must have stood still, or the command may have read something else."""
    for seen in inputs:
        if workspace.files.digest(seen.thing.path) == seen.digest and _stamps(seen.thing.path) == seen.stamps:
            continue
        raise ArtefactError(
            f"{seen.thing.name} was written to while the command ran, so nothing is recorded",
            remedy="let the command write elsewhere, or name what it writes as an output only.",
        )


def _written(workspace: Workspace, thing: Thing, before: Stamps | None) -> Digest:
    """Digest of an output that the command really made."""
    if not thing.path.exists():
        raise ArtefactError(f"the command did not make {thing.name} ({thing.path})", remedy="name what it writes.")
    if before is not None and _stamps(thing.path) == before:
        raise ArtefactError(
            f"{thing.name} was there before, and the command did not write it", remedy="name only what it writes."
        )
    return workspace.files.digest(thing.path)


def _neighbours(made: Sequence[Thing]) -> dict[tuple[int, int], str]:
    """What lies beside the outputs, by device and inode. The kernel lets a file be renamed where it lies, unread."""
    found = {}
    for folder in {thing.path.parent for thing in made}:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found[status.st_dev, status.st_ino] = os.path.realpath(entry.path)
    return found


def _not_renamed(made: Sequence[Thing], neighbours: Mapping[tuple[int, int], str]) -> None:
    """An output must not be something that lay there before under another name: nobody declared that."""
    for thing in made:
        device, inode = _stamp(thing.path)[:2] if thing.path.exists() else (-1, -1)
        before = neighbours.get((device, inode))
        if before is not None and before != os.path.realpath(thing.path):
            raise ArtefactError(
                f"{thing.name} was not made by the command: it is {before}, renamed or linked",
                remedy="declare that file as an input, and let the command write its output.",
            )


def _allowed_signer(workspace: Workspace, key: str) -> Any:
    signer = workspace.signer(key)
    with workspace.view() as view:
        reason = view.trust.why_not(signer.keyid, predicates.PROVENANCE, workspace.now(view))
    if reason:
        raise TrustError(f"the key {key!r} may not sign provenance: {reason}", remedy="see `bartizan trust show`.")
    return signer


# ---- the run


def _run(asked: Asked, inputs: Sequence[Seen], made: Sequence[Thing], place: _Place) -> _Ended:
    """Run the command to its end, confined if asked."""
    began = utc_now()
    if not asked.strict:
        refused = list[str]()
        with _started(asked, place, {"PYTHONDONTWRITEBYTECODE": "1"}) as child:
            code = _as_shell(child.wait())
    else:
        _fresh_outputs(inputs, made)
        with tempfile.TemporaryDirectory(prefix="bartizan-record-") as own:
            code, refused = _run_confined(asked, inputs, made, place, Path(own))
    return _Ended(exit_code=code, began=began, ended=utc_now(), refused=tuple(refused))


def _fresh_outputs(inputs: Sequence[Seen], made: Sequence[Thing]) -> None:
    """What an output held before would be an input that nobody declared."""
    declared = {seen.thing.name for seen in inputs}
    for thing in made:
        used = thing.path.exists() and not (thing.path.is_dir() and not any(thing.path.iterdir()))
        if used and thing.name not in declared:
            raise InputError(
                f"{thing.name} exists already, so in strict mode it would be an undeclared input",
                remedy="remove it first, or name another output.",
            )


def _run_confined(
    asked: Asked, inputs: Sequence[Seen], made: Sequence[Thing], place: _Place, own: Path
) -> tuple[int, list[str]]:
    readable = [
        *system_paths(),
        *(place.interpreter.library_paths() if place.interpreter else ()),
        *(seen.thing.path for seen in inputs),
        *(asked.folder / text for text in asked.readable),
        *(thing.path for thing in made if thing.path.is_dir()),
        own,
    ]
    more = {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(own), "HOME": str(own)}
    with contextlib.closing(Confinement(readable)) as confinement, _started(asked, place, more, confinement) as child:
        tail = _pass_on(child)
        code = child.wait()
    return _as_shell(code), _refused_paths(tail, asked.folder, readable)


@contextlib.contextmanager
def _started(
    asked: Asked, place: _Place, more: Mapping[str, str], confinement: Confinement | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running. A confined one gets no standard input: that would be one more thing to read."""
    try:
        child = subprocess.Popen(  # noqa: S603 - the user's own command
            asked.command,
            executable=str(place.program),
            cwd=asked.folder,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL if confinement else None,
            stdout=2 if asked.output_to_errors else None,
            stderr=subprocess.PIPE if confinement else None,
            preexec_fn=confinement.entry() if confinement else None,  # noqa: PLW1509 - from the only thread
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        hint = " In strict mode the program itself must be declared too." if confinement else ""
        raise WorkError(f"{asked.command[0]} cannot be started: {error}", remedy=f"give a program.{hint}") from error
    with child:
        yield child


def _as_shell(code: int) -> int:
    """Exit code as a shell has it: 128 and the signal that ended the command."""
    return code if code >= 0 else 128 - code


def _pass_on(child: subprocess.Popen[bytes]) -> bytes:
    """Hand what a command says to our standard error until it ends; returns the last of it."""
    tail = bytearray()
    assert child.stderr is not None  # noqa: S101 - asked for when it was started
    source = child.stderr.fileno()
    while True:
        over = child.poll() is not None
        if select.select([source], [], [], 0 if over else POLL_SECONDS)[0]:
            data = os.read(source, TAIL_BYTES)
            if not data:
                return bytes(tail)
            with contextlib.suppress(OSError):
                os.write(2, data)
            tail += data
            del tail[:-TAIL_BYTES]
        elif over:
            return bytes(tail)  # something that it left running holds the other end


def _refused_paths(said: bytes, folder: Path, readable: Sequence[Path]) -> list[str]:
    """Files that lie outside of what may be read and that the command complained about."""
    allowed = [Path(os.path.realpath(path)) for path in readable]
    found = dict.fromkeys(one or other for one, other in _REFUSED.findall(said.decode(errors="replace")))
    return [
        text
        for text in found
        if not any(Path(os.path.realpath(folder / text)).is_relative_to(path) for path in allowed)
    ]


# ---- what is said about it


def _statement(
    asked: Asked, inputs: Sequence[Seen], outputs: Mapping[str, Digest], place: _Place, ended: _Ended, *, keyid: str
) -> Statement:
    definition = BuildDefinition(
        build_type=BUILD_TYPE,
        external_parameters=_external(asked, inputs, outputs),
        internal_parameters={"environment": _environment(asked, place)},
        resolved_dependencies=(*map(_dependency, inputs), *_surrounding(place)),
    )
    run = RunDetails(
        builder=Builder(id=f"urn:bartizan:record:{keyid}", version={"bartizan": bartizan.__version__}),
        metadata=BuildMetadata(
            invocation_id=f"urn:uuid:{uuid.uuid4()}", started_on=ended.began, finished_on=ended.ended
        ),
    )
    return make(predicates.PROVENANCE, dict(outputs), predicates.Provenance.of(definition, run))


def _external(asked: Asked, inputs: Sequence[Seen], outputs: Mapping[str, Digest]) -> dict[str, Any]:
    chosen = {
        "command": list(asked.command),
        "parameters": asked.parameters,
        "inputs": [seen.thing.name for seen in inputs],
        "outputs": list(outputs),
        "strict": asked.strict,
    }
    return {**chosen, "readable": list(asked.readable)} if asked.readable else chosen


def _environment(asked: Asked, place: _Place) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": asked.environment, "platform": surroundings.platform_facts()}
    if place.interpreter:
        facts["python"] = {"version": place.interpreter.version, "implementation": place.interpreter.implementation}
    return facts


def _dependency(seen: Seen) -> Descriptor:
    notes = {"signedBy": list(seen.signed_by), "signature": seen.signature} if seen.signature else None
    return Descriptor(name=seen.thing.name, digest={"sha256": seen.digest}, annotations=notes)


def _surrounding(place: _Place) -> Iterator[Descriptor]:
    """The code's commit and the installed packages."""
    if place.commit:
        yield Descriptor(
            name="source",
            uri=_git_uri(place.commit.remote),
            digest={"gitCommit": place.commit.revision},
            annotations={"dirty": place.commit.dirty},
        )
    if place.interpreter:
        listed = Blob(place.interpreter.package_list())
        yield Descriptor(name="packages", digest={"sha256": listed.digest}, media_type=listed.media_type)


def _git_uri(remote: str) -> str | None:
    """SPDX form of a remote, as SLSA shows it; ``host:path`` is how git writes ssh."""
    if "://" in remote:
        return f"git+{remote}"
    scp = _SCP.match(remote)
    return f"git+ssh://{scp[1]}/{scp[2]}" if scp else None


def read_parameters(given: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs, and JSON or TOML files with more of them; what comes later wins.

    Raises:
        InputError: neither a pair nor a readable file.
    """
    parameters: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        parameters |= {key: value} if equals else _parameter_file(Path(text))
    return parameters


def _parameter_file(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        kind = msgspec.toml if path.suffix == ".toml" else msgspec.json
        plain: dict[str, Any] = msgspec.to_builtins(kind.decode(data, type=dict[str, Any]))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} gives no parameters: {error}", remedy="write key=value, or a .json or .toml file."
        ) from error
    return plain
