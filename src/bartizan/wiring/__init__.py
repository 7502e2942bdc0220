"""Settings in, objects out. Adapters and stores are named as strings, so that ``--help`` loads none."""
