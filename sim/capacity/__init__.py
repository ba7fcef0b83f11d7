"""Capacity planning: which engine on which cluster meets an objective at least cost, and how sure that is."""
