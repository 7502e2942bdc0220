"""Detectors of poisoned training records, and how well they find them.

A detector is given records, labels and, where it needs them, what a model says of them. It answers a
score for each record, higher for more suspicious ones, and flags some. No detector finds every
poison; ``docs/redteam/poisoning.md`` says which finds what.
"""
