"""Programs among weights: native, bytecode and scripts."""

from bartizan.lifecycle.develop.scan.rules.rule import CRITICAL, DANGEROUS, HIGH, rule

_REMOVE = "remove it; weights need no program. Build native libraries from their sources instead."

RULES = (
    rule(
        "executable/native-code",
        DANGEROUS,
        CRITICAL,
        "A program or library for a processor",
        "Starting it, or loading it as a library or plug-in, runs its code.",
        remedy=_REMOVE,
        cwe=("CWE-829",),
    ),
    rule(
        "executable/bytecode",
        DANGEROUS,
        CRITICAL,
        "Compiled code for a virtual machine",
        "Importing or starting it runs its code, which nobody can review as text.",
        remedy=_REMOVE,
        cwe=("CWE-829",),
    ),
    rule(
        "executable/script",
        DANGEROUS,
        HIGH,
        "A script that the system starts by its first line",
        "Starting it runs its commands.",
        remedy=_REMOVE,
        cwe=("CWE-829",),
    ),
    rule(
        "executable/shortcut",
        DANGEROUS,
        HIGH,
        "A Windows shortcut",
        "Opening it, or in some versions looking at its folder, runs the command that it names.",
        remedy=_REMOVE,
        cwe=("CWE-829",),
    ),
)
