"""Cleaning of inputs before the model sees them: a standard set of transforms, in chains by kind and source."""
