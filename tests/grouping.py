"""Which tests run in one process: those of a file, of a file that opens engines those of one engine, of hostile situations an area's."""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

from windtunnel.registry import ENGINES

_OPENED = re.compile(r"\[(" + "|".join(sorted(map(re.escape, ENGINES), key=len, reverse=True)) + r")(?=[-\]])")
_AREA = re.compile(r"\[([a-z]+)-")


def group(nodeid: str) -> str:
    """The file of a test and the engine, or the area of hostile situations, that its parameters begin with."""
    file, _, test = nodeid.partition("::")
    engine = _AREA.search(test) if file.startswith("tests/hostile/") else _OPENED.search(test)
    return f"{file}:{engine[1]}" if engine else file


class Groups(LoadScopeScheduling):
    """A group goes to one process as a whole, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
