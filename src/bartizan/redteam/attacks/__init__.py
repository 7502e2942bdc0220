"""Attacks, a folder for each family and a file for each attack; none knows another."""
