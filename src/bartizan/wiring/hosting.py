"""Hosts for declared models: an ONNX file in this process, everything else in a confined one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bartizan.core.errors import ArtefactError, InputError, SandboxError, WorkError
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.lifecycle.deploy.gateway.hosting import QUICK_MICROSECONDS, Asking, Direct, Host, Together, is_row_wise
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings
from bartizan.redteam.family import Material as Declared
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target, Targets
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import Workspace, load

INLINE = frozenset({"onnx"})
"""Frameworks whose files are no code."""
CLOSE_SECONDS = 5.0
TRIALS = 20
"""Calls by which it is found out how quick a model is."""
PROBES, FEW_PROBES = 16, 4
"""Rows by which it is found out whether a model takes each by itself; few where each may take long."""


class Opened:
    """A model that was opened: as the pipeline asks it, and as explanations ask it, where they can."""

    def __init__(
        self, host: Host, target: Target | None, thread: ThreadPoolExecutor | None, asking: Asking | Host
    ) -> None:
        self.host, self.target, self.thread, self.asking = host, target, thread, asking


class Remote:
    """A model that runs on an upstream. See ``hosting.Host``."""

    scored = alive = True
    dtype = np.dtype("<f8")

    def __init__(self, upstream: Any, features: int, classes: int) -> None:
        self._upstream, self.features, self.classes = upstream, features, classes
        self._prepared: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def answer(self, rows: Numbers, *, scores: bool) -> Answer:
        """See ``Host.answer``. Raises UpstreamError."""
        del scores  # they come with the labels, where there are any
        if self._prepared is None:
            self._loop = asyncio.get_running_loop()
            self._prepared = self._loop.create_task(self._upstream.prepare())
        try:
            await asyncio.shield(self._prepared)
        except WorkError:
            self._prepared = None
            raise
        answer: Answer = await self._upstream.infer(rows)
        return answer

    def close(self) -> None:
        """See ``Host.close``."""
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._upstream.close(), self._loop).result(CLOSE_SECONDS)


def open_upstream(settings: UpstreamSettings, classes: tuple[str, ...], columns: tuple[str, ...]) -> Opened:
    """A declared model that runs elsewhere.

    Raises:
        InputError: the upstream cannot be used as it is configured, or what asks it is not installed.
    """
    try:
        module = "bartizan.adapters.upstream.inference"
        if settings.speaks == "mlflow":
            upstream = load(f"{module}:MlflowUpstream")(settings, classes, columns)
        else:
            upstream = load(f"{module}:InferenceUpstream")(settings, classes)
    except ImportError as error:
        raise InputError("upstreams need a library", remedy="pip install 'bartizan[serve]'.") from error
    host = Remote(upstream, len(columns), len(classes))
    return Opened(host, None, None, host)


def open_model(workspace: Workspace, system: System, model: Artefact, hosting: str, material: Declared) -> Opened:
    """Open a model that was admitted.

    Raises:
        InputError: it cannot be hosted as it is asked for.
        ArtefactError: the file is not what was admitted, or no classifier that fits the data.
        SandboxError: its process could not be had.
    """
    framework = system.model_part(model.name).framework
    if hosting == "inline" and framework not in INLINE:
        raise InputError(
            f"models of {framework} are not asked inline: loading such a file may run code",
            remedy="turn it into ONNX by `bartizan convert`, or leave hosting out.",
        )
    thread = ThreadPoolExecutor(1, thread_name_prefix=f"model-{model.name}")
    if hosting != "process" and framework in INLINE:
        asking: Asking = load("bartizan.adapters.onnx.inline:open_inline")(
            Path(model.path),
            model.digest,
            classes=len(system.model_part(model.name).classes),
            features=len(material.training.columns),
            shape=tuple(material.shape or ()),
        )
        row_wise = is_row_wise(asking, _rows(asking, material, PROBES))
        quick = _microseconds(asking, material) <= QUICK_MICROSECONDS
        host = Direct(asking, row_wise=row_wise) if quick else Together(asking, thread, row_wise=row_wise)
        return Opened(host, InlineTarget(asking, model), thread, asking)
    isolated = _Isolated(workspace, system, model)
    try:
        row_wise = is_row_wise(isolated, _rows(isolated, material, FEW_PROBES))
    except BaseException:
        isolated.close()
        raise
    return Opened(Together(isolated, thread, row_wise=row_wise), isolated.target, thread, isolated)


def _rows(asking: Asking, material: Declared, count: int) -> Numbers:
    """Rows of the training data, as the model takes them."""
    return np.ascontiguousarray(material.training.rows[:count], dtype=asking.dtype)


def _microseconds(asking: Asking, material: Declared) -> float:
    """What one row takes, by rows of the training data; the least of several."""
    row = _rows(asking, material, 1)
    best = float("inf")
    for _ in range(TRIALS):
        began = time.perf_counter()
        asking.ask(row, scores=True)
        best = min(best, time.perf_counter() - began)
    return best * 1e6


class _Isolated:
    """A model in a confined process. See ``hosting.Asking``."""

    def __init__(self, workspace: Workspace, system: System, model: Artefact) -> None:
        settings = workspace.settings
        services = CheckServices(settings.path("journals"), frozenset({model.digest}), settings.values["confinement"])
        self._stack = contextlib.ExitStack()
        target: Any = self._stack.enter_context(services(Targets).open(system, model))
        self.target: Target = target
        self.dtype: np.dtype[Any] = target.dtype
        self.features, self.classes = target.features, target.classes
        self.scored = Access.SCORES in target.offers

    def ask(self, rows: Numbers, *, scores: bool) -> Answer:
        """See ``Asking.ask``."""
        labels = self.target.labels(rows)  # type: ignore[arg-type]  # targets take float32 as well
        return Answer(labels, self.target.scores(rows) if scores and self.scored else None)  # type: ignore[arg-type]

    def alive(self) -> bool:
        """Whether the process runs."""
        return bool(getattr(self.target, "alive", True))

    def clock(self) -> float:
        """Seconds of processor time that the process has used; 0 where the platform does not say."""
        try:
            return float(self.target.clock())  # type: ignore[attr-defined]  # a target in a process has it
        except SandboxError:
            raise
        except WorkError:
            return 0.0

    def close(self) -> None:
        """End the process."""
        self._stack.close()


class InlineTarget:
    """A model of this process as explanations see it. See ``targets.protocol.Target``."""

    class_values: tuple[str, ...] = ()

    def __init__(self, asking: Asking, model: Artefact) -> None:
        self._asking, self.name = asking, model.id
        self.classes, self.features = asking.classes, asking.features
        more = {Access.SCORES} if asking.scored else set()
        self.offers = frozenset({Access.LABELS, *more})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self._asking.ask(rows.astype(self._asking.dtype), scores=False).labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        scores = self._asking.ask(rows.astype(self._asking.dtype), scores=True).scores
        if scores is None:
            raise WorkError(f"{self.name} answers labels only")
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        del rows, labels, seed
        raise WorkError(f"{self.name} is served, not trained")


def check_classes(opened: Opened, system: System, model: Artefact) -> None:
    """See that the model knows as many classes as are declared.

    Raises:
        ArtefactError: it does not.
    """
    declared = len(system.model_part(model.name).classes)
    if opened.asking.classes != declared:
        raise ArtefactError(
            f"{model.id} knows {opened.asking.classes} classes and is declared with {declared}",
            remedy="name in classes every class that the model knows.",
        )


__all__ = ["InlineTarget", "Opened", "Remote", "check_classes", "open_model", "open_upstream"]
