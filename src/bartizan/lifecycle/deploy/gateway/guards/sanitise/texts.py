"""Transforms for texts: what readers do not see goes, and letters are what they look like.

Unicode Standard Annex 15 (normal forms), Technical Standard 39 (confusables); the attack is that of Boucher et al.:
Bad Characters, IEEE S&P 2022.
"""

from __future__ import annotations

import re
import unicodedata

from bartizan.redteam.homoglyphs import LOOKALIKES

SPACES = frozenset("\t\n\r ")
UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
"""Categories of characters that have no shape: controls, formats (also those that turn the direction), unassigned."""
_LATIN = {lookalike: letter for letter, lookalikes in LOOKALIKES.items() for lookalike in lookalikes}
_FOLD = str.maketrans(_LATIN)
_WORD = re.compile(r"\w+")


def normalised(text: str) -> str:
    """The text as it is read: compatibility forms made plain, unseen characters gone, look-alikes folded.

    A letter of another script is folded to the Latin one that it looks like only in a word that has Latin letters
    too, so that words of other scripts stay what they are.
    """
    if text.isascii() and text.isprintable():
        return text
    seen = "".join(letter for letter in text if letter in SPACES or unicodedata.category(letter) not in UNSEEN)
    return _WORD.sub(_folded, unicodedata.normalize("NFKC", seen))


def _folded(word: re.Match[str]) -> str:
    text = word.group()
    if text.isascii() or not any(letter.isascii() and letter.isalpha() for letter in text):
        return text
    return text.translate(_FOLD)


__all__ = ["normalised"]
