"""uvicorn, bounded, quicker where a connection repeats itself, and telling of client certificates."""
