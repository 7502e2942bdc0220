"""TorchScript and exported programs: the code inside torch archives."""

from bartizan.lifecycle.develop.scan.rules.rule import (
    CRITICAL,
    DANGEROUS,
    EVASION,
    HIGH,
    MALFORMED,
    MEDIUM,
    SUSPICIOUS,
    rule,
)

RULES = (
    rule(
        "torch/script-files",
        DANGEROUS,
        HIGH,
        "TorchScript code opens files",
        "Running the model reads or overwrites files with the rights of whoever runs it.",
        cwe=("CWE-73",),
    ),
    rule(
        "torch/script-operator",
        SUSPICIOUS,
        HIGH,
        "TorchScript code calls operators that are not torch's own",
        "What they do is in a native library, or the name is only put together while the code is compiled.",
        cwe=("CWE-829",),
    ),
    rule(
        "torch/script-source",
        MALFORMED,
        MEDIUM,
        "A file of TorchScript source is none",
        "torch refuses it; as a Python file it would be run by whoever imports it.",
        cwe=("CWE-436",),
        techniques=EVASION,
    ),
    rule(
        "torch/script-class",
        SUSPICIOUS,
        HIGH,
        "A TorchScript class has no source in the archive",
        "torch.jit.load refuses the file; torch.load would import a module of that name.",
    ),
    rule(
        "torch/export-expression",
        DANGEROUS,
        CRITICAL,
        "A size in an exported program is code",
        "torch.export.load hands it to sympy, which evaluates it as Python.",
        cwe=("CWE-95",),
    ),
)
