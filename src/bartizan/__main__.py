"""``python -m bartizan``."""

from bartizan.cli.main import main

main()
