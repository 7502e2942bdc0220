"""Everything that Bartizan raises on purpose.

::

    BartizanError
    ├── InputError                 something that was handed over cannot be used
    │   ├── DeclarationError       bartizan.toml has faults (all of them, with lines)
    │   ├── ArtefactError          a model, dataset or folder cannot be read or digested
    │   └── KeyFileError           a key cannot be read, decrypted or used
    ├── EvidenceError              something in the evidence is not what it claims to be
    │   ├── StatementError         not an in-toto statement, or a predicate breaks its schema
    │   ├── EnvelopeError          not a DSSE envelope, or no trusted signature on it
    │   ├── TrustError             the trust document does not allow it
    │   │   └── TrustRollbackError an older trust document was offered
    │   └── LedgerError            the ledger contradicts itself or what was seen before
    │       ├── TamperedError      one entry is provably altered; it is named
    │       └── LedgerMovedError   somebody else appended meanwhile; look again and try again
    ├── StoreError                 a database or blob store cannot do its work
    └── WorkError                  a check, attack or engine could not finish
        ├── BudgetError            a query budget is spent
        └── SandboxError           an isolated process broke a limit or died

Every message names what was wrong with what; ``remedy`` says what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bartizan.core.finding import Fault


class BartizanError(Exception):
    """Base of all errors that a caller can act on."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  Next: {self.remedy}" if self.remedy else self.message


class InputError(BartizanError):
    """Something that was handed over cannot be used."""


class DeclarationError(InputError):
    """``bartizan.toml`` has faults; ``faults`` lists every one, in line order."""

    def __init__(self, path: str, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = "\n".join(f"  {path}:{fault}" for fault in self.faults)
        super().__init__(f"{path} has {count}:\n{lines}", remedy="mend the lines above and run the command again.")


class ArtefactError(InputError):
    """A model, dataset or folder cannot be read or digested."""


class KeyFileError(InputError):
    """A key cannot be read, decrypted or used."""


class EvidenceError(BartizanError):
    """Something in the evidence is not what it claims to be."""


class StatementError(EvidenceError):
    """Bytes are no in-toto statement, or a predicate breaks its schema."""


class EnvelopeError(EvidenceError):
    """Bytes are no DSSE envelope, or no signature on it can be relied on."""


class TrustError(EvidenceError):
    """The trust document does not allow what was attempted."""


class TrustRollbackError(TrustError):
    """A trust document older than the one already seen was offered."""


class LedgerError(EvidenceError):
    """The ledger contradicts itself, its checkpoint, or what was seen before."""


class TamperedError(LedgerError):
    """One ledger entry is provably altered, missing or out of order."""

    def __init__(self, message: str, *, seq: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.seq = seq


class LedgerMovedError(LedgerError):
    """Somebody else appended since the ledger was looked at; look again and try again."""


class StoreError(BartizanError):
    """A database or blob store cannot do its work."""


class WorkError(BartizanError):
    """A check, attack or engine could not finish."""


class BudgetError(WorkError):
    """A query budget is spent."""


class SandboxError(WorkError):
    """An isolated process broke a limit or died."""
