"""Batch inference: data made of real photographs, models with real weights, kernels that every engine runs."""
