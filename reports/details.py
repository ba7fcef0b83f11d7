"""Numbers that only some workloads have: how a training loop was fed, and what it took to hand data from one engine to another.

Pure functions of a record, by name; what a record does not tell is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from windtunnel.records.record import RunRecord
from windtunnel.records.training import training_numbers

#: counters that a pair of engines leaves
LEGS = ("first_leg_s", "handover_s", "second_plan_s", "second_leg_s", "first_start_s", "second_start_s", "handover_bytes")


def fed(record: RunRecord) -> dict[str, float]:
    """What a training loop went through."""
    return {name: value for name, value in (training_numbers(record) or {}).items() if value is not None}


def legs(record: RunRecord) -> dict[str, float]:
    """The legs of a pair of engines and what lay between them."""
    return {name: record.counters[name] for name in LEGS if name in record.counters}


_KINDS: Mapping[str, Callable[[RunRecord], dict[str, float]]] = {"fed": fed, "legs": legs}


def details(records: Sequence[RunRecord]) -> dict[str, dict[str, float]]:
    """Medians over good runs by kind and name; kinds that these records do not have are left out."""
    found: dict[str, dict[str, float]] = {}
    for kind, of in _KINDS.items():
        each = [numbers for record in records if (numbers := of(record))]
        if each:
            found[kind] = {n: float(np.median([e[n] for e in each if n in e])) for n in dict.fromkeys(n for e in each for n in e)}
    return found
