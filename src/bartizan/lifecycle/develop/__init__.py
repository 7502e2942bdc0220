"""Develop: scan, sign, describe and check what the system is made of."""
