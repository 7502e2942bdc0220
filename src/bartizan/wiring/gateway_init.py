"""The configuration that a gateway begins with: closed but for keys, labels only, everything watched."""

from __future__ import annotations

from pathlib import Path

from bartizan.core.errors import InputError
from bartizan.wiring.workspace import Workspace

FILE = "gateway.toml"
TEMPLATE = """# The gateway's configuration. Whoever is not granted something here is denied it.
# It is signed and judged like the model: after a change run `bartizan register` and `bartizan assure`.

# Callers show API keys: `bartizan gateway key add --role user`.
[identity.keys]

# Labels, nothing else; within the budgets below.
[role.user]
budgets = ["day", "month"]
rate = "60/min"

# How the gateway and its models stand, for whoever watches over it; no inputs, no answers.
[role.watcher]
operations = ["status", "metrics"]

# Acts of administration need a second factor: `bartizan gateway key otp`.
[role.operator]
operations = ["status", "metrics", "admin.*"]

# What may be disclosed to one caller, whatever their rate. `bartizan gateway budget derive` proposes numbers that are
# measured on your model: how many answers buy a copy of it.
[budget.day]
unit = "labels"
limit = 2000
window = "1d"

[budget.month]
unit = "labels"
limit = 10000
window = "30d"

# Callers whose requests are flagged wait longer and longer.
[slowing]

# What is no input of the model never reaches it.
[[guard]]
use = "schema"

# Attacks in progress are recognised, across accounts, and answered with less.
[[guard]]
use = "sequence"
{outliers}
[audit]
witness = ["{witness}"]
"""
OUTLIERS = """
# Inputs unlike everything that the model has learned. Fitted by `bartizan assure --only gateway.outliers`.
[[guard]]
use = "outliers"
"""
DECLARED = """
[[document]]
name = "gateway"
path = "gateway.toml"
kind = "configuration"

# Whether the gateway's configuration defends against what is common.
[gate.gateway]
valid_for = "90d"

[[gate.gateway.rule]]
id = "configuration"
about = "document:gateway"
type = "test-result"
check = "gateway.configuration"
where = [{ field = "result", one_of = ["PASSED", "WARNED"] }]
why = "An open configuration gives away what every other control protects."
controls = ["3.1-G4"]
"""


def begin(workspace: Workspace, *, witness: str = ".bartizan/audit-witness.txt") -> Path:
    """Write the configuration, and declare it with a gate of its own.

    Raises:
        InputError: there is a configuration, or a declared document of its name, already.
    """
    path = workspace.folder / FILE
    system = workspace.system()
    if path.exists() or any(part.name == "gateway" for part in system.declaration.document):
        raise InputError(f"there is a configuration already ({FILE})", remedy="change it, or take it away first.")
    texts = {part.name for part in system.declaration.dataset if getattr(part, "text", "")}
    numbers = not texts & {part.trained_on for part in system.declaration.model}
    path.write_text(TEMPLATE.format(outliers=OUTLIERS if numbers else "", witness=witness), encoding="utf-8")
    with workspace.declaration.open("a", encoding="utf-8") as stream:
        stream.write(DECLARED)
    return path


__all__ = ["DECLARED", "TEMPLATE", "begin"]
