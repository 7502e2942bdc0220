"""The checks of the red team, as named by the entry points.

Where an attack has a variant for targets that answer labels only, it comes second and is run where
the first does not apply.
"""

from __future__ import annotations

from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.extraction.active import ActiveExtraction, ActiveExtractionFromLabels
from bartizan.redteam.attacks.poisoning.labelflip import LabelFlip
from bartizan.redteam.attacks.privacy.membership import Membership, MembershipFromLabels
from bartizan.redteam.check import AttackCheck
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.extraction import Extraction
from bartizan.redteam.poisoning import Poisoning
from bartizan.redteam.privacy import Privacy

CONTROLS = ("1.4-e", "A-MLSG-ATTACKS")
EVASION_CONTROLS = ("1.1-b", "A-MLSG-004-C001", *CONTROLS)


class HopSkipJumpCheck(AttackCheck):
    """``redteam.evasion.hopskipjump``."""

    def __init__(self) -> None:
        super().__init__(Evasion(), HopSkipJump(), controls=EVASION_CONTROLS)


class SquareCheck(AttackCheck):
    """``redteam.evasion.square``."""

    def __init__(self) -> None:
        super().__init__(Evasion(), Square(), controls=EVASION_CONTROLS)


class LabelFlipCheck(AttackCheck):
    """``redteam.poisoning.labelflip``."""

    def __init__(self) -> None:
        super().__init__(Poisoning(), LabelFlip(), controls=CONTROLS)


class MembershipCheck(AttackCheck):
    """``redteam.privacy.membership``."""

    def __init__(self) -> None:
        super().__init__(Privacy(), Membership(), MembershipFromLabels(), controls=CONTROLS)


class ExtractionCheck(AttackCheck):
    """``redteam.extraction.active``."""

    def __init__(self) -> None:
        super().__init__(Extraction(), ActiveExtraction(), ActiveExtractionFromLabels(), controls=CONTROLS)
