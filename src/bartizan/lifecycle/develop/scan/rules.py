"""Every rule that a scan can fire: a stable id, what it means, and what to do.

Ids never change their meaning and are never reused.
"""

from __future__ import annotations

import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.scan.verdict import Verdict

CONTROLS = ("2.1-n", "2.4-d")

_DESERIALISATION = ("CWE-502",)
_RESOURCES = ("CWE-400", "CWE-770")
_STRUCTURE = ("CWE-436",)
_EXECUTION = ("AML.T0011.000", "AML.T0018.002", "T29")
_EVASION = ("AML.T0076", "T29")

_DO_NOT_LOAD = (
    "do not load this file; ask its producer for one in a format that holds numbers only, such as safetensors."
)
_REBUILD = "fetch the file again and compare its digest with the producer's; save it anew if you made it."
_REVIEW = "load it only if you trust the code that it names; otherwise convert it in an isolated process."


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule."""

    id: str
    title: str
    severity: Severity
    verdict: Verdict
    explanation: str
    """What would happen if the file were loaded."""
    remedy: str
    cwe: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()

    def finding(self, where: str, detail: str) -> Finding:
        """The finding that this rule fired at a place."""
        return Finding(
            rule=self.id,
            severity=self.severity,
            title=self.title,
            where=where,
            detail=f"{detail}. {self.explanation}",
            remedy=self.remedy,
            cwe=self.cwe,
            techniques=self.techniques,
            controls=CONTROLS,
        )


def _rule(
    rule_id: str,
    verdict: Verdict,
    severity: Severity,
    title: str,
    explanation: str,
    *,
    remedy: str = _DO_NOT_LOAD,
    cwe: tuple[str, ...] = _DESERIALISATION,
    techniques: tuple[str, ...] = _EXECUTION,
) -> Rule:
    return Rule(
        id=rule_id,
        title=title,
        severity=severity,
        verdict=verdict,
        explanation=explanation,
        remedy=remedy,
        cwe=cwe,
        techniques=techniques,
    )


_CRITICAL, _HIGH, _MEDIUM, _LOW = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW
_DANGEROUS, _SUSPICIOUS, _MALFORMED, _UNKNOWN = (
    Verdict.DANGEROUS,
    Verdict.SUSPICIOUS,
    Verdict.MALFORMED,
    Verdict.UNKNOWN,
)

_ALL = (
    # what a pickle would do
    _rule(
        "pickle/dangerous-callable",
        _DANGEROUS,
        _CRITICAL,
        "The pickle reaches code that is known to be dangerous",
        "Loading it would carry this out with the rights of whoever loads it.",
    ),
    _rule(
        "pickle/unlisted-callable",
        _DANGEROUS,
        _HIGH,
        "The pickle calls a function that no framework calls",
        "Loading it would import the module and call the function; what that does is not known.",
        remedy=_REVIEW,
    ),
    _rule(
        "pickle/unlisted-class",
        _SUSPICIOUS,
        _MEDIUM,
        "The pickle constructs objects of a class that is not listed",
        "Loading it would import the module, which runs its code, and may run methods of the class.",
        remedy=_REVIEW,
    ),
    _rule(
        "pickle/unlisted-name",
        _SUSPICIOUS,
        _MEDIUM,
        "The pickle imports something that is not listed",
        "Loading it would import the module, which runs its code.",
        remedy=_REVIEW,
    ),
    _rule(
        "pickle/dotted-walk",
        _DANGEROUS,
        _CRITICAL,
        "The pickle walks through attributes to something that is not listed",
        "A dotted name leads from a harmless module to whatever that module has imported.",
    ),
    _rule(
        "pickle/computed-name",
        _DANGEROUS,
        _CRITICAL,
        "The pickle computes the name of what it imports",
        "Which code is reached can only be known by running the pickle; frameworks never do this.",
        techniques=_EXECUTION + _EVASION[:1],
    ),
    _rule(
        "pickle/computed-callable",
        _DANGEROUS,
        _CRITICAL,
        "The pickle calls what another call returned",
        "Chains of calls reach any function from harmless beginnings; frameworks do not write them.",
        techniques=_EXECUTION + _EVASION[:1],
    ),
    _rule(
        "pickle/extension-code",
        _DANGEROUS,
        _HIGH,
        "The pickle imports by extension code",
        "The number stands for whatever the loading program registered, which cannot be seen here.",
    ),
    _rule(
        "pickle/refused-argument",
        _DANGEROUS,
        _HIGH,
        "A listed function is called with arguments that no framework gives it",
        "With such arguments the function reaches other code or exhausts the machine.",
    ),
    _rule(
        "pickle/refused-use",
        _DANGEROUS,
        _HIGH,
        "A listed name is used in a way that no framework uses it",
        "What this runs has not been reviewed.",
        remedy=_REVIEW,
    ),
    _rule(
        "pickle/refused-state",
        _DANGEROUS,
        _HIGH,
        "An object is given a state that no framework gives it",
        "Restoring the state would run code, replace methods or corrupt memory.",
    ),
    _rule(
        "pickle/persistent-id",
        _SUSPICIOUS,
        _MEDIUM,
        "The pickle refers to objects outside itself",
        "Plain pickle refuses it; a program that resolves such references decides what they mean.",
        remedy=_REVIEW,
    ),
    _rule(
        "pickle/memo-bomb",
        _DANGEROUS,
        _HIGH,
        "The pickle makes the unpickler allocate gigabytes",
        "The unpickler reserves room for every memo index up to this one; the process is killed for want of memory.",
        cwe=_RESOURCES,
        techniques=("AML.T0029", "T29"),
    ),
    _rule(
        "pickle/allocation",
        _DANGEROUS,
        _HIGH,
        "The pickle announces far more data than it holds",
        "Loading it reserves that much memory before the lack of data is noticed.",
        cwe=_RESOURCES,
        techniques=("AML.T0029", "T29"),
    ),
    _rule(
        "pickle/sharing",
        _SUSPICIOUS,
        _MEDIUM,
        "Shared containers multiply without end",
        "Hashing, comparing, copying or printing the object does not finish.",
        cwe=_RESOURCES,
        techniques=("AML.T0029", "T29"),
    ),
    _rule(
        "pickle/deep-nesting",
        _SUSPICIOUS,
        _MEDIUM,
        "Containers are nested too deeply to be handled",
        "Comparing, copying or printing the object exhausts the stack of the process.",
        cwe=_RESOURCES,
        techniques=("AML.T0029", "T29"),
    ),
    _rule(
        "pickle/memo-overwrite",
        _SUSPICIOUS,
        _LOW,
        "A memo entry is filled twice",
        "No pickler does this; it serves to show a scanner another object than the one that is used.",
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "pickle/lying-frame",
        _MALFORMED,
        _MEDIUM,
        "Frames of the pickle do not fit its content",
        "Unpicklers differ in what they read next.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "pickle/out-of-band",
        _MALFORMED,
        _LOW,
        "The pickle needs buffers that are not in the file",
        "It cannot be loaded from this file alone.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
    ),
    _rule(
        "pickle/malformed",
        _MALFORMED,
        _MEDIUM,
        "The pickle breaks off or breaks its own rules",
        "Loading it raises an error here; everything before this place is carried out first.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "joblib/irregular-array",
        _DANGEROUS,
        _HIGH,
        "An array is described as joblib never describes one",
        "Where the array ends cannot be told, so a loader may take other bytes for opcodes than those seen here.",
        techniques=_EXECUTION + _EVASION[:1],
    ),
    _rule(
        "joblib/companion-file",
        _SUSPICIOUS,
        _MEDIUM,
        "The pickle loads a second file",
        "Loading it opens the named file, pickles included.",
        remedy="save the model anew with joblib 0.10 or later, which needs no second file.",
        cwe=("CWE-73",),
    ),
    # numpy
    _rule(
        "numpy/object-array",
        _SUSPICIOUS,
        _MEDIUM,
        "An array file holds objects instead of numbers",
        "Loading it needs allow_pickle=True and then loads a pickle.",
        remedy="save the data with a numeric or text type, or as a table.",
    ),
    _rule(
        "numpy/malformed",
        _MALFORMED,
        _MEDIUM,
        "The header of an array file is not numpy's",
        "numpy refuses it or reads other data than shown here.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
    ),
    _rule(
        "numpy/size",
        _MALFORMED,
        _MEDIUM,
        "An array file is shorter than its header says",
        "Loading it fails, or reserves more memory than there is data.",
        remedy=_REBUILD,
        cwe=("CWE-130",),
    ),
    # safetensors
    _rule(
        "safetensors/malformed",
        _MALFORMED,
        _MEDIUM,
        "The header of a safetensors file breaks the format",
        "Readers refuse it or disagree about what it holds.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
    ),
    _rule(
        "safetensors/duplicate-key",
        _MALFORMED,
        _MEDIUM,
        "A tensor is declared twice",
        "Readers differ in which of the two they take.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "safetensors/offsets",
        _MALFORMED,
        _MEDIUM,
        "Tensors overlap, leave gaps or do not have the size of their shape",
        "Readers refuse it or read other data than was meant; hidden data fits into gaps.",
        remedy=_REBUILD,
        cwe=("CWE-130",),
        techniques=_EVASION,
    ),
    # archives and compressed files
    _rule(
        "zip/malformed",
        _MALFORMED,
        _MEDIUM,
        "The archive breaks the zip format",
        "Readers refuse it or disagree about what it holds.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
    ),
    _rule(
        "zip/header-mismatch",
        _MALFORMED,
        _HIGH,
        "Two descriptions of an archive member differ",
        "Readers that follow one see other content than readers that follow the other.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "zip/checksum",
        _MALFORMED,
        _MEDIUM,
        "The checksum of an archive member is wrong",
        "Careful readers refuse it; torch loads it all the same.",
        remedy=_REBUILD,
        cwe=("CWE-354",),
        techniques=_EVASION,
    ),
    _rule(
        "zip/duplicate-name",
        _SUSPICIOUS,
        _MEDIUM,
        "Two archive members have the same name",
        "Readers differ in which of the two they take.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "zip/traversal",
        _DANGEROUS,
        _HIGH,
        "An archive member is named so that unpacking leaves the folder",
        "Unpacking the archive writes outside the target folder.",
        cwe=("CWE-22",),
    ),
    _rule(
        "zip/link",
        _SUSPICIOUS,
        _MEDIUM,
        "An archive member is a symbolic link",
        "Unpacking the archive and writing through the link reaches other files.",
        cwe=("CWE-59",),
    ),
    _rule(
        "archive/bomb",
        _DANGEROUS,
        _HIGH,
        "Compressed content unpacks to far more than it should",
        "Loading it fills memory or disk.",
        cwe=("CWE-409",),
        techniques=("AML.T0029", "T29"),
    ),
    _rule(
        "archive/corrupt",
        _MALFORMED,
        _MEDIUM,
        "Compressed content cannot be unpacked",
        "Loading it fails; what was unpacked before this place was examined.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
    ),
    # torch
    _rule(
        "torch/storage",
        _MALFORMED,
        _MEDIUM,
        "Tensor storages do not fit what the pickle says about them",
        "Loading it fails or reads other data than was meant.",
        remedy=_REBUILD,
        cwe=("CWE-130",),
    ),
    # files as such
    _rule(
        "file/unaccounted-bytes",
        _SUSPICIOUS,
        _MEDIUM,
        "Bytes belong to no part of the file",
        "Its own loader ignores them; another reader, or a first stage, may not.",
        remedy=_REBUILD,
        cwe=_STRUCTURE,
        techniques=_EVASION,
    ),
    _rule(
        "file/misnamed",
        _SUSPICIOUS,
        _MEDIUM,
        "The name promises a harmless format and the content is another",
        "People and tools that go by the name treat it as safe.",
        remedy="rename it by its content, and ask where it came from.",
        cwe=("CWE-646",),
        techniques=_EVASION,
    ),
    _rule(
        "file/not-examined",
        _UNKNOWN,
        _MEDIUM,
        "This content was not examined",
        "What loading it would do is not known.",
        remedy="remove it, convert it to a format that can be examined, or accept it by a signed exception.",
        cwe=(),
        techniques=("T29",),
    ),
    _rule(
        "file/limit",
        _UNKNOWN,
        _MEDIUM,
        "A limit of the scan was reached",
        "The rest was not examined.",
        remedy="raise the limit if the file is meant to be that large.",
        cwe=(),
        techniques=("T29",),
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in _ALL}
"""All rules by id."""
