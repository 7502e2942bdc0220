"""Imported first by the process that workers are forked from; each of them takes it back (``workers``)."""

from bartizan.targets.no_tables import hide_tables

hide_tables()
