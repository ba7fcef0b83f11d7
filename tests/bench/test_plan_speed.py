"""The planner's speed: a thousand candidates for the images job at a hundred million images, and what searching them all would find.

`python -m tests.bench.test_plan_speed SECONDS` goes on after the plan: it simulates every candidate whose lower bound is below the
plan's cost, cheapest bound first, for so many seconds. No other can be cheaper.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from windtunnel.commands.plan import answered, plan, question_of
from windtunnel.sim.capacity.bench import Bench, bench
from windtunnel.sim.capacity.planner import Planner, Search

TYPES = (
    "g6.xlarge", "g6.2xlarge", "g6.4xlarge", "g6.8xlarge", "g2-standard-8", "g5.xlarge", "g5.2xlarge", "g5.4xlarge", "g5.12xlarge",
    "g5.48xlarge",
)  # fmt: skip
WORK = (str(Path(__file__).parent / "images_100m.toml"), "--gpu-speed", "A10G=1.1", *(a for t in TYPES for a in ("--type", t)))


def test_a_thousand_clusters_for_a_hundred_million_images(benchmark: Any) -> None:
    """Ten types, twenty numbers of nodes, five engines, on two cores."""
    result = benchmark.pedantic(answered, args=(*WORK, "--jobs", "2"), rounds=1, iterations=1)
    benchmark.extra_info["plan"] = {k: result["recommended"][k] for k in ("engine", "shape", "cost_usd", "makespan_s")}
    assert result["candidates"]["asked"] == 1_000


def exhaustive(planner: Planner, place: Bench, search: Search, until_s: float) -> None:
    """Simulate what might be cheaper than the plan, and say what was found."""
    assert search.recommended is not None
    cost, candidates = search.recommended.cost_usd, planner.question.candidates
    below = sorted((v, n) for n, s in planner.bound_s.items() if (v := planner.value(candidates[n], s)) < cost)
    best, done = cost, 0
    while done < len(below) and time.monotonic() < until_s:
        part = [n for _, n in below[done : done + 8]]
        best = min([best, *planner.closely(part)])
        done += len(part)
    print(f"{done} of {len(below)} candidates with a bound below {cost:.2f} simulated: the cheapest costs {best:.2f}")


def main(seconds: float) -> None:
    """The plan, its time, and then the search of all."""
    begin = time.monotonic()
    given = plan.make_context("plan", [*WORK]).params
    with bench(2, lambda *_: None) as place:
        planner = Planner(question_of(given), place)
        search = planner.run()
        print(f"plan in {time.monotonic() - begin:.1f} s: {search.recommended}; {search.simulated} simulated")
        exhaustive(planner, place, search, begin + seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))
