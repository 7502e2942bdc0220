"""Known vulnerabilities: components against OSV advisories from a local export, and what was said of them (VEX)."""
