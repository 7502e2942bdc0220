"""The place where models are made and kept: what can be seen of it from inside, judged against a baseline."""
