"""Cards: what a model or dataset is, who answers for it, what it is for and how it ends.

One set of facts, computed from the declaration and the artefacts, is signed as a ``card`` statement,
read by gates, and rendered for people. ``fields`` says of each fact what it is used for.
"""

from bartizan.lifecycle.develop.cards.checks import DatasetCard, ModelCard, require_complete
from bartizan.lifecycle.develop.cards.export import croissant, hugging_face_card
from bartizan.lifecycle.develop.cards.fields import FIELDS, Field
from bartizan.lifecycle.develop.cards.inventory import Asset, inventory, inventory_csv
from bartizan.lifecycle.develop.cards.public import public_view, verifies
from bartizan.lifecycle.develop.cards.render import render_html, render_json, render_markdown
from bartizan.lifecycle.develop.cards.search import Difference, compare, search

__all__ = [
    "FIELDS",
    "Asset",
    "DatasetCard",
    "Difference",
    "Field",
    "ModelCard",
    "compare",
    "croissant",
    "hugging_face_card",
    "inventory",
    "inventory_csv",
    "public_view",
    "render_html",
    "render_json",
    "render_markdown",
    "require_complete",
    "search",
    "verifies",
]
