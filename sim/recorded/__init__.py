"""Recorded jobs in the simulated cluster: replayed as they were, and told for other clusters, engines and settings."""
