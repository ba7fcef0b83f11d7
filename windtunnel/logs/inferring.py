"""Who waited for whom, concluded from times where a log does not tell. What is concluded is never contradicted by the log.

Group B may have waited for group A where

* every task of B began after the last of A had ended: ``all``;
* task i of B always began after task i of A had ended, in the order of their starts: ``same``;
* the first share of B's tasks always began after that share of A's had ended (a tree, a cascade): ``listed``.

Otherwise B did not wait for A. Tasks that one worker ran one after the other satisfy nearly everything: with a single slot only ``same``
and ``listed`` are concluded, and ``all`` where the groups lie in different parts of the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from windtunnel.spec.jobgraph import Array, GroupInput

#: clocks of nodes differ by that much
TOLERANCE_S = 2e-3
#: groups looked at as inputs of one: those that began last before it
_LOOKED_AT = 32


def infer_inputs(table: Mapping[str, Array], parts: Sequence[int]) -> tuple[Array, list[list[GroupInput]]]:
    """Edges (child, parent) between rows, and the inputs of each group, with what follows from others left out."""
    count = len(parts)
    bounds = np.searchsorted(table["group"], np.arange(count + 1))
    starts = [table["start_s"][a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    ends = [np.sort(table["end_s"][a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    single = _serial(table)
    inputs: list[list[GroupInput]] = [[] for _ in range(count)]
    before: list[set[int]] = [set() for _ in range(count)]  # all that a group waits for, directly or not
    edges: list[Array] = []
    for child in range(count):
        for parent in range(child - 1, max(-1, child - 1 - _LOOKED_AT), -1):
            if parent in before[child]:
                continue
            mode = _mode(
                starts[child],
                table["end_s"][bounds[parent] : bounds[parent + 1]],
                ends[parent],
                single and parts[child] == parts[parent],
            )
            if mode is None:
                continue
            inputs[child].append(GroupInput(group=parent, mode=mode))  # type: ignore[arg-type]
            before[child] |= {parent} | before[parent]
            if mode == "listed":
                edges.append(_shares(bounds, table["end_s"], child, parent))
    return (np.concatenate(edges) if edges else np.empty((0, 2), dtype=np.int64)), inputs


def _serial(table: Mapping[str, Array]) -> bool:
    """Whether never two tasks ran at once."""
    order = np.argsort(table["start_s"], kind="stable")
    return bool((table["start_s"][order][1:] >= table["end_s"][order][:-1] - TOLERANCE_S).all())


def _mode(start: Array, end: Array, sorted_end: Array, serial: bool) -> str | None:
    """How tasks that began at ``start`` may have waited for those that ended at ``end`` (both in the order of their starts)."""
    begun = np.sort(start)
    if not serial and begun[0] >= sorted_end[-1] - TOLERANCE_S:
        return "all"
    if len(start) == len(end) and (start >= end - TOLERANCE_S).all():
        return "same"
    if len(begun) > 1 and len(sorted_end) > 1:
        need = np.ceil(np.arange(1, len(begun) + 1) * len(sorted_end) / len(begun)).astype(np.int64) - 1
        if (begun >= sorted_end[need] - TOLERANCE_S).all():
            return "listed"
    if len(begun) == 1 and begun[0] >= sorted_end[-1] - TOLERANCE_S:
        return "all"
    return None


def _shares(bounds: Array, end: Array, child: int, parent: int) -> Array:
    """Edges by shares: task k of the child waits for the k-th share of the parent's tasks, by their ends."""
    mine, theirs = int(bounds[child + 1] - bounds[child]), int(bounds[parent + 1] - bounds[parent])
    by_end = bounds[parent] + np.argsort(end[bounds[parent] : bounds[parent + 1]], kind="stable")
    if theirs >= mine:
        of = np.minimum(np.arange(theirs) * mine // theirs, mine - 1)
        return np.stack([bounds[child] + of, by_end], axis=1)
    of = np.minimum(np.arange(mine) * theirs // mine, theirs - 1)
    return np.stack([bounds[child] + np.arange(mine), by_end[of]], axis=1)
