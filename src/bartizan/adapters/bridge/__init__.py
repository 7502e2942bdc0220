"""What runs beside an attacker of others, in an interpreter of theirs: ``guest`` and what it knows of each tool."""
