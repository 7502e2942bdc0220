"""Files as such, whatever their format."""

from bartizan.lifecycle.develop.scan.rules.rule import (
    EVASION,
    MEDIUM,
    REBUILD,
    STRUCTURE,
    SUSPICIOUS,
    UNKNOWN,
    rule,
)

RULES = (
    rule(
        "file/unaccounted-bytes",
        SUSPICIOUS,
        MEDIUM,
        "Bytes belong to no part of the file",
        "Its own loader ignores them; another reader, or a first stage, may not.",
        remedy=REBUILD,
        cwe=STRUCTURE,
        techniques=EVASION,
    ),
    rule(
        "file/misnamed",
        SUSPICIOUS,
        MEDIUM,
        "The name promises a harmless format and the content is another",
        "People and tools that go by the name treat it as safe.",
        remedy="rename it by its content, and ask where it came from.",
        cwe=("CWE-646",),
        techniques=EVASION,
    ),
    rule(
        "file/not-examined",
        UNKNOWN,
        MEDIUM,
        "This content was not examined",
        "What loading it would do is not known.",
        remedy="remove it, convert it to a format that can be examined, or accept it by a signed exception.",
        cwe=(),
        techniques=("T29",),
    ),
    rule(
        "file/unforeseen",
        SUSPICIOUS,
        MEDIUM,
        "The content is broken in a way that no rule foresaw",
        "What loading it would do is not known; files that are well made do not do this.",
        remedy=f"{REBUILD} If you made it yourself, report it: the scanner should have said what is wrong.",
        cwe=("CWE-20",),
        techniques=EVASION,
    ),
    rule(
        "file/limit",
        UNKNOWN,
        MEDIUM,
        "A limit of the scan was reached",
        "The rest was not examined.",
        remedy="raise the limit if the file is meant to be that large.",
        cwe=(),
        techniques=("T29",),
    ),
)
