"""Kernels of the conformance suite; they import nothing, so that an engine's own interpreter can."""

from __future__ import annotations

from typing import Any


def explode(batch: Any, threshold: int = 0) -> Any:
    """A kernel with a mistake."""
    raise ValueError(f"no such carrier: {threshold}")
