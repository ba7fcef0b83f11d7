"""One file a foreign engine."""
