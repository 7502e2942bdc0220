"""Scans model files without loading them: what would happen if they were loaded, and what was not looked at.

``scan_path`` and ``scan_bytes`` return a ``Report``; ``check.ScanCheck`` turns it into evidence.
"""

from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.rules import RULES, Rule
from bartizan.lifecycle.develop.scan.scanner import scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict

__all__ = ["RULES", "Coverage", "Limits", "Report", "Rule", "Verdict", "scan_bytes", "scan_path"]
