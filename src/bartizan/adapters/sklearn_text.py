"""scikit-learn pipelines of texts as targets, in a process of their own. See ``targets.hosted`` for those of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.system import Artefact, System
from bartizan.targets.isolated import PROCESS, Isolated, Limits, hand_over
from bartizan.targets.protocol import Scores
from bartizan.targets.table import MAX_CLASSES

HOST = "bartizan.adapters.sklearn_text_host"
MOST_LETTERS = 1 << 24
"""Characters in one exchange."""
_NUMBER = 8


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says of its model."""

    values: Annotated[tuple[str, ...], msgspec.Meta(min_length=2, max_length=MAX_CLASSES)]
    scores: bool


class SklearnTexts:
    """Opens declared scikit-learn pipelines of texts. See ``TextTargets``."""

    def __init__(self, has_clean_scan: Callable[[Digest], bool], limits: Limits | None = None) -> None:
        self._has_clean_scan = has_clean_scan
        self._limits = limits or Limits()

    @contextmanager
    def open(self, system: System, model: Artefact) -> Iterator[SklearnText]:
        """See ``TextTargets.open``.

        Raises:
            WorkError: the model's digest has no clean scan.
            ArtefactError: the file is not what was scanned, or holds no classifier of texts.
            SandboxError: the process is not confined as required, died, hung or broke a limit.
        """
        if not self._has_clean_scan(model.digest):
            raise WorkError(
                f"{model.id} ({short(model.digest)}) has no clean scan and is not loaded",
                remedy="scan it first: bartizan assure runs the scan before everything else.",
            )
        if system.model_part(model.name).framework != "scikit-learn":
            raise WorkError(
                f"{model.id}: texts are given to models of scikit-learn only", remedy="play it from Python."
            )
        process = Isolated((*PROCESS, HOST), model.name, self._limits)
        try:
            yield SklearnText(process, model.name, _load(process, Path(model.path), model.digest))
        finally:
            process.close()


class SklearnText:
    """One pipeline in a process. See ``TextTarget`` and ``Clocked``."""

    def __init__(self, process: Isolated, name: str, facts: Facts) -> None:
        self._process, self._facts = process, facts
        self.name = f"model:{name}"
        self.classes = len(facts.values)
        self.class_values = facts.values
        """What the model itself calls its classes."""
        self.gives_scores = facts.scores

    def scores(self, texts: Sequence[str]) -> Scores:
        """See ``TextTarget.scores``."""
        parts = [self._ask(part) for part in _parts(texts)]
        return np.concatenate(parts) if parts else np.empty((0, self.classes))

    def clock(self) -> float:
        """See ``Clocked.clock``."""
        return self._process.cpu_seconds()

    def _ask(self, texts: list[str]) -> Scores:
        # Half a pair of surrogates is no text that anybody could send.
        packed = msgspec.msgpack.encode([text.encode("utf-8", "replace").decode() for text in texts])
        reply, body = self._process.exchange(
            {"do": "scores", "texts": len(texts)},
            [memoryview(packed)],
            length=len(packed),
            size=_NUMBER * self.classes * len(texts),
            seconds=self._process.limits.answer_seconds,
        )
        if reply.error:
            raise WorkError(f"{self.name} cannot answer: {reply.words}", remedy="see that the declared data fit it.")
        scores: Scores = np.frombuffer(body, dtype="<f8").reshape(-1, self.classes)
        if not np.isfinite(scores).all():
            self._process.condemn("answers with scores that are not finite")
        return scores


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in exchanges of bounded size."""
    part: list[str] = []
    letters = 0
    for text in texts:
        if part and letters + len(text) > MOST_LETTERS:
            yield part
            part, letters = [], 0
        part.append(text)
        letters += len(text)
    if part:
        yield part


def _load(process: Isolated, path: Path, digest: Digest) -> Facts:
    """Let the process load the file, once its bytes are known to be those that were scanned."""
    hand_over(process, path, digest)
    reply, _ = process.exchange({"do": "load"}, seconds=process.limits.start_seconds)
    if reply.error:
        raise ArtefactError(
            f"{path.name} is no model of texts that can be asked: {reply.words}",
            remedy="save a fitted pipeline that begins with a vectoriser, by joblib.dump.",
        )
    try:
        return msgspec.msgpack.decode(reply.facts, type=Facts)
    except msgspec.DecodeError as error:
        process.condemn(f"says impossible things of its model ({error})")
