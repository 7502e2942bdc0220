"""Files of numbers: numpy and safetensors."""

from bartizan.lifecycle.develop.scan.rules.rule import (
    EVASION,
    MALFORMED,
    MEDIUM,
    REBUILD,
    STRUCTURE,
    SUSPICIOUS,
    rule,
)

RULES = (
    rule(
        "numpy/object-array",
        SUSPICIOUS,
        MEDIUM,
        "An array file holds objects instead of numbers",
        "Loading it needs allow_pickle=True and then loads a pickle.",
        remedy="save the data with a numeric or text type, or as a table.",
    ),
    rule(
        "numpy/malformed",
        MALFORMED,
        MEDIUM,
        "The header of an array file is not numpy's",
        "numpy refuses it or reads other data than shown here.",
        remedy=REBUILD,
        cwe=STRUCTURE,
    ),
    rule(
        "numpy/size",
        MALFORMED,
        MEDIUM,
        "An array file is shorter than its header says",
        "Loading it fails, or reserves more memory than there is data.",
        remedy=REBUILD,
        cwe=("CWE-130",),
    ),
    rule(
        "safetensors/malformed",
        MALFORMED,
        MEDIUM,
        "The header of a safetensors file breaks the format",
        "Readers refuse it or disagree about what it holds.",
        remedy=REBUILD,
        cwe=STRUCTURE,
    ),
    rule(
        "safetensors/duplicate-key",
        MALFORMED,
        MEDIUM,
        "A tensor is declared twice",
        "Readers differ in which of the two they take.",
        remedy=REBUILD,
        cwe=STRUCTURE,
        techniques=EVASION,
    ),
    rule(
        "safetensors/offsets",
        MALFORMED,
        MEDIUM,
        "Tensors overlap, leave gaps or do not have the size of their shape",
        "Readers refuse it or read other data than was meant; hidden data fits into gaps.",
        remedy=REBUILD,
        cwe=("CWE-130",),
        techniques=EVASION,
    ),
)
