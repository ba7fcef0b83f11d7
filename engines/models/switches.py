"""Options that switch one mechanism off and that several models offer, and what a run says that ends for want of one."""

from __future__ import annotations

from windtunnel.engines.api import Option

NOT_RECOMPUTED = "what it had made was lost with a node, and lost blocks are not made again (recompute = false)"


def switch(name: str, doc: str) -> Option:
    """On unless it is switched off."""
    return Option(name=name, default=True, choices=(True, False), doc=doc)


LOCALITY = switch("locality", "whether tasks would rather run on the node of their first input")
RECOMPUTE = switch("recompute", "whether blocks that are lost with a node are made again, by lineage")
DOWNSTREAM_FIRST = switch("downstream_first", "whether the stage farthest downstream launches first; else the source does")
AHEAD = switch("ahead", "whether a task may be queued behind a worker's running one while many wait")
YIELDING = switch("yielding", "whether an actor without a device gives its CPUs back while it waits for a task")
PAGE_CACHE = switch("page_cache", "whether files go through the free memory of their node")
OVERLAP = switch("overlap", "whether a task works on what came while the rest is fetched")
