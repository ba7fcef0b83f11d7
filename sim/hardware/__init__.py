"""Parts of a simulated machine; each knows SimPy and its own physics, none knows tasks or models."""
