"""Model choice: several model families on the same data under the same measurements, and which of them to take.

``candidate`` says what a family is; each file with a ``Column`` measures one thing; ``paired`` compares
candidates; ``recommend`` names the simplest adequate one; ``page`` draws what came of it.
"""
