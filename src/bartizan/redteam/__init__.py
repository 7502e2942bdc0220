"""The red team: attacks differ only in ``search``; the engine asks, counts and measures."""
