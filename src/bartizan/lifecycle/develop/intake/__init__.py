"""Intake: what comes from others is quarantined, examined, questioned and decided upon before anything uses it."""
