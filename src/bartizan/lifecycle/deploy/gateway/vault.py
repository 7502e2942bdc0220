"""The vault: cases with their content sealed, as they go into the store and come out of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec

from bartizan.core.digest import digest_bytes
from bartizan.lifecycle.deploy.gateway.cases import (
    Case,
    CaseStore,
    Content,
    Kept,
    Queue,
    Room,
    content_of,
    packed,
    unpacked,
)
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.sealing import Sealer

MOST_REASONS, LONGEST_REASON = 16, 500


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model that is served."""

    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    """Names; empty for images."""

    def named(self, answer: Answer | None) -> str:
        """The class that was answered, where there is just one answer and the model has such a class."""
        if answer is None or len(answer.labels) != 1:
            return ""
        label = answer.labels.item(0)
        return self.classes[label] if 0 <= label < len(self.classes) else ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Into which queue something is to go, and on which terms."""

    queue: Queue
    opened: int
    """Milliseconds since the epoch."""
    due: int
    room: Room
    most: int
    """Rows that are kept."""


class Vault:
    """Keeps and gives out. Blocks."""

    def __init__(self, store: CaseStore, sealer: Sealer, models: Mapping[str, Known]) -> None:
        self.store, self.models, self._sealer = store, models, sealer

    def keep(self, wanted: Wanted, asked: Asked, answer: Answer | None, reasons: tuple[str, ...]) -> Kept | None:
        """Seal what was asked and answered, and keep it as a case. See ``CaseStore.add``."""
        known, case_id = self.models[asked.model], secrets.token_hex(16)
        content = content_of(asked, answer, known.columns, known.classes, wanted.most)
        sealed = self._sealer.seal(packed(content), _about(case_id))
        case = Case(
            id=case_id,
            queue=wanted.queue,
            request=asked.id,
            caller=asked.caller.id,
            role=asked.caller.role,
            model=asked.model,
            model_digest=asked.digest,
            label=known.named(answer),
            rows=len(asked.rows),
            reasons=tuple(reason[:LONGEST_REASON] for reason in reasons[:MOST_REASONS]),
            opened=wanted.opened,
            due=wanted.due,
            content=digest_bytes(sealed),
        )
        # The same rows in another queue, of another caller, or for another model, are another case.
        about = f"{wanted.queue}|{asked.caller.id}|{asked.model}|{asked.digest}".encode()
        return self.store.add(case, sealed, self._sealer.fingerprint(about, asked.rows.tobytes()), wanted.room)

    def content(self, kept: Kept) -> Content | None:
        """What is kept; None once it was erased, or when it is not what the case was opened with.

        Raises:
            StoreError: it was sealed with another key.
        """
        if kept.content is None or digest_bytes(kept.content) != kept.case.content:
            return None
        return unpacked(self._sealer.open(kept.content, _about(kept.case.id)))


def _about(case_id: str) -> str:
    return f"case {case_id}"


__all__ = ["Known", "Vault", "Wanted"]
