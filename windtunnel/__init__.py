"""windtunnel: compare distributed execution models on identical workloads, for real and simulated."""

__version__ = "0.1.0"
