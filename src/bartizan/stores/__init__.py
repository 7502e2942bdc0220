"""Records, blobs, files and keys: the only place that knows a database or a filesystem."""
