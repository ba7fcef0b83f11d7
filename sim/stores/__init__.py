"""The simulated world of systems that keep data: clients' protocols (`engines/models/commits.py`) against a store with latency."""
