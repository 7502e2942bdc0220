"""The gateway: a door in front of the model. It opens for what was signed, scanned and judged, and for nothing else."""
