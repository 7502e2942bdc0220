"""Knowledge as data: what may be attacked, how, through which door, and what helps.

Each entry is one YAML file that an expert can review without reading code: ``principles/`` and
``controls/`` (what good practice asks, with a test and the evidence for each item),
``techniques/``, ``mitigations/``, ``access-points/``, ``profiles/``, and ``meta.yaml`` and
``atlas.yaml`` for the vocabularies. ``schema/`` holds a JSON Schema for each kind.
``python -m bartizan.catalogue.build`` checks them and writes ``catalogue.json``, which is what
``bartizan.catalogue.load.catalogue`` reads.

Techniques form an AND/OR graph over tokens. ``access-point.right`` is something the adversary
may do at a place in the life cycle, ``know.x`` something known, ``gain.x`` something won. A
technique needs one of several sets of tokens and yields others, so attacks chain
(``bartizan.catalogue.graph``). A mitigation *guards* tokens by taking them from positions that need
not hold them, *blocks* techniques whatever is held, *weakens* them, or *detects* them. Guarding and
blocking prevent; weakening must be measured; detecting is not preventing.
"""
