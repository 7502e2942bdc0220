"""Every rule that a scan can fire: a stable id, what it means, and what to do.

Ids never change their meaning and are never reused. One file per family of formats.
"""

from bartizan.lifecycle.develop.scan.rules import (
    archives,
    arrays,
    executables,
    files,
    graphs,
    keras,
    native,
    pickle,
    repositories,
    text,
    torch_script,
)
from bartizan.lifecycle.develop.scan.rules.rule import CONTROLS, Rule

RULES: dict[str, Rule] = {
    rule.id: rule
    for family in (
        pickle,
        arrays,
        archives,
        executables,
        files,
        graphs,
        keras,
        native,
        text,
        torch_script,
        repositories,
    )
    for rule in family.RULES
}
"""All rules by id."""

__all__ = ["CONTROLS", "RULES", "Rule"]
