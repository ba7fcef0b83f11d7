"""Serving for real: the embedded host, a FastAPI baseline, and the load generator that asks both."""
