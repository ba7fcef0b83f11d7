"""`windtunnel plan`: the search against measuring everything, odds worked out by hand, and the command as a person calls it."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.cli import main
from windtunnel.scenario.reading import from_document
from windtunnel.sim.capacity import odds, serving
from windtunnel.sim.capacity.estimate import Estimate, straight
from windtunnel.sim.capacity.question import Candidate, Question, Variant
from windtunnel.sim.capacity.replay import toml
from windtunnel.sim.capacity.search import best_first, explore, front, posts
from windtunnel.sim.capacity.serving import nodes_for
from windtunnel.sim.capacity.trial import Trial
from windtunnel.sim.judging.prediction import PER_DOUBLING, Law

JOB = """
schema = 1
name = "spin"
[objective]
deadline = "20s"
[cluster]
[[cluster.nodes]]
name = "node"
cpus = 4
memory = "16GiB"
[dataset]
rows = 400
row_bytes = "8B"
partitions = 400
[[operators]]
name = "work"
kind = "map"
batch_rows = 1
row_bytes_out = "8B"
cost = { per_batch = "1s" }
[[engines]]
name = "streaming"
[[engines]]
name = "bulk"
"""

SERVICE = """
schema = 1
name = "echo"
[objective]
p99 = "200ms"
[cluster]
[[cluster.nodes]]
name = "node"
cpus = 8
memory = "16GiB"
[arrivals]
kind = "poisson"
rate_per_s = 50
duration = "20s"
[[deployments]]
name = "model"
cost = { per_item = "20ms" }
[[engines]]
name = "ray-serve"
"""

bounded = st.lists(st.tuples(st.floats(1, 100), st.floats(1, 3)), min_size=1, max_size=60)


class Ask:
    """Calls the command on a scenario's text."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, text: str, *args: str) -> tuple[int, Any, str]:
        """(exit code, the JSON answer if there is one, what a person reads)."""
        file = self.folder / "job.toml"
        file.write_text(text)
        return self.run("plan", str(file), "--jobs", "1", *args)

    def run(self, *args: str) -> tuple[int, Any, str]:
        """Any command."""
        code = main(list(args))
        said = self._capsys.readouterr()
        answer = json.loads(said.out) if "--json" in args and said.out.startswith("{") else None
        return code, answer, said.out + said.err


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(tmp_path, capsys)


# -- the search is that of measuring everything -------------------------------------------------------------------------


@given(bounded, st.sampled_from([0.0, 0.02, 0.3]))
def test_the_best_is_within_the_tolerance_of_measuring_all(cases: list[tuple[float, float]], tolerance: float) -> None:
    values = [bound * factor for bound, factor in cases]
    best = best_first([(b, i) for i, (b, _) in enumerate(cases)], lambda ns: [values[n] for n in ns], tolerance=tolerance)
    assert min(values) <= best <= min(values) * (1 + tolerance) * (1 + 1e-9)


def test_a_bound_that_cannot_win_is_never_measured() -> None:
    asked: list[int] = []

    def measure(numbers: Any) -> list[float]:
        asked.extend(numbers)
        return [10.0 for _ in numbers]

    best_first([(1.0 + i, i) for i in range(40)], measure)
    assert asked == list(range(9))  # 1 to 9; a bound of 10 cannot be below 10


@given(bounded)
def test_what_the_front_leaves_out_is_beaten_by_a_measured_point(cases: list[tuple[float, float]]) -> None:
    points = {i: (c, 100.0 / c * f) for i, (c, f) in enumerate(cases)}
    measured: list[int] = []

    def measure(numbers: Any) -> list[float]:
        measured.extend(numbers)
        return [0.0] * len(numbers)

    edges = [(c, 100.0 / c, i) for i, (c, _) in enumerate(cases)]
    left = explore(edges, lambda: [points[n] for n in measured], measure, slack=0.05, most=1000)
    assert left == 0
    for number, (cost, seconds) in points.items():
        assert number in measured or any(points[m][0] <= cost * 1.05 and points[m][1] <= seconds * 1.05 for m in measured)


def test_the_front_holds_what_no_other_point_beats() -> None:
    assert front([(1.0, 9.0, 0), (2.0, 9.0, 1), (2.0, 5.0, 2), (3.0, 6.0, 3), (4.0, 1.0, 4)]) == [0, 2, 4]


def test_what_is_far_behind_at_a_first_look_is_not_simulated_further(ask: Ask) -> None:
    # Tasks of 5 ms: one scheduler that needs most of a millisecond for each cannot keep 32 CPUs busy.
    job = JOB.replace("400", "200_000").replace("cpus = 4", "cpus = 32").replace('"1s"', '"5ms"').replace('"20s"', '"200s"')
    job = job.replace('name = "bulk"', 'name = "dask"')
    code, answer, said = ask(job, "--given", "--json")
    assert code == 0, said
    best, (other,) = answer["recommended"], answer["next_best"]
    assert (best["engine"], other["engine"]) == ("streaming", "dask")
    assert (best["simulated_partitions"], other["simulated_partitions"]) == (4 * 96, 96)  # 3 waves on 32 CPUs, doubled and halved
    assert other["makespan_s"] * (1 - 0.15) > best["makespan_s"]


# -- odds ---------------------------------------------------------------------------------------------------------------


def test_parts_of_the_error_add_as_squares_and_half_of_the_runs_are_below_the_estimate() -> None:
    law = Law(mean=0.0, sd=0.3, cells=100_000, cpus=8, median=0.2)  # so many cells that Student's t is the normal law
    spread = odds.Spread(law=law, seeds=0.0, size=0.4, distance=0.0)
    assert spread.sigma == pytest.approx(0.5, abs=1e-4)
    assert spread.within(100.0, 100.0) == pytest.approx(0.5)
    assert spread.within(100.0, 100.0 * math.exp(0.5)) == pytest.approx(0.8413, abs=1e-4)
    low, high = spread.interval(100.0)
    assert spread.within(100.0, high) - spread.within(100.0, low) == pytest.approx(0.9)


def test_distance_widens_the_interval_with_each_doubling_beyond_what_was_compared() -> None:
    law = Law(mean=0.0, sd=0.05, cells=9, cpus=16, median=0.05)
    assert odds.spread(law, 8).distance == 0.0
    assert odds.spread(law, 64).distance == pytest.approx(2 * PER_DOUBLING)


def test_a_line_goes_through_both_sizes_and_a_full_disk_is_no_time() -> None:
    common: dict[str, Any] = {"status": "ok", "disk_bytes": 1000.0, "store_bytes": 1000.0, "used": {"CPUs": 0.5}}
    small = Trial(makespan_s=20.0, partitions=10, peak_disk_bytes=10, **common)
    estimate = straight(small, Trial(makespan_s=30.0, partitions=20, peak_disk_bytes=10, **common), 100)
    assert estimate.seconds == pytest.approx(110.0)
    full = straight(small, Trial(makespan_s=30.0, partitions=20, peak_disk_bytes=200, **common), 100)
    assert full.status == "out_of_memory"


# -- the command --------------------------------------------------------------------------------------------------------


def test_the_plan_is_the_cheapest_of_all_that_meet_the_deadline(ask: Ask) -> None:
    code, answer, output = ask(JOB, "--type", "m6i.2xlarge", "--type", "m6i.4xlarge", "--count", "1-4", "--tolerance",
                                "0", "--json")  # fmt: skip
    assert code == 0, output
    chosen = answer["recommended"]
    assert chosen["chance"] >= 0.9 and chosen["makespan_s"] >= chosen["lower_bound_s"]
    costs = []
    for kind in ("m6i.2xlarge", "m6i.4xlarge"):
        for count in range(1, 5):
            for engine in ("streaming", "bulk"):
                one = ask(JOB, "--type", kind, "--count", str(count), "-e", engine, "--json")[1]
                if one is not None and one["recommended"] is not None:
                    costs.append(one["recommended"]["cost_usd"])
    assert costs and chosen["cost_usd"] == pytest.approx(min(costs))


def test_other_numbers_of_nodes_are_left_out_where_some_tell_enough(ask: Ask) -> None:
    """What they might save is within the tolerance, and a little more where they come closer to their bound."""
    asked = [JOB, "--deadline", "1h", "--type", "m6i.2xlarge", "--type", "m6i.4xlarge", "--count", "1-16", "--json"]
    found, exact = (ask(*asked, "--tolerance", tolerance)[1] for tolerance in ("0.02", "0"))
    assert found["recommended"]["cost_usd"] <= 1.05 * exact["recommended"]["cost_usd"]
    assert found["candidates"]["simulated"] < 0.7 * exact["candidates"]["simulated"]


def test_posts_begin_at_the_smallest_and_stand_far_apart() -> None:
    shapes = [(variant, count) for variant in (0, 1) for count in (1, 2, 3, 4, 8, 12, 16, 24)]
    candidates = [
        Candidate(number=i, variant=v, type="t", count=c, cpus=c, gpus=0, price_per_hour=1.0) for i, (v, c) in enumerate(shapes)
    ]
    chosen = posts((n for n in range(len(shapes)) if shapes[n] != (1, 1)), candidates)  # the smallest of one cannot do it
    assert [shapes[n] for n in chosen] == [(0, 1), (0, 4), (0, 16), (1, 2), (1, 8)]
    assert [shapes[n] for n in posts(range(len(shapes)), candidates, 2)] == [(0, 1), (0, 4), (1, 1), (1, 4)]


def test_a_job_that_is_too_large_says_what_comes_closest(ask: Ask) -> None:
    code, answer, output = ask(JOB, "--type", "m6i.2xlarge", "--count", "1", "--json")
    assert code == 5
    assert answer["recommended"] is None and answer["closest"]["makespan_s"] > 50
    assert "no candidate keeps a deadline of 20 s" in output


def test_the_plan_is_a_scenario_that_gives_the_same_time(ask: Ask) -> None:
    target = ask.folder / "plan.toml"
    code, answer, output = ask(
        JOB, "--type", "m6i.4xlarge", "--count", "2", "--confidence", "0.5", "--json", "--output", str(target)
    )
    assert code == 0, output
    code, simulated, output = ask.run("simulate", str(target), "--results", str(ask.folder / "results"), "--json")
    assert code == 0, output
    assert simulated["runs"][0]["makespan_s"] == pytest.approx(answer["recommended"]["makespan_s"], rel=0.01)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--type", "m6i.2xlrge"], "did you mean 'm6i.2xlarge'"),
        (["--count", "0"], "must be numbers of nodes"),
        (["--gpu-speed", "T4"], "KIND=FACTOR"),
        (["--deadline", "0s"], "--deadline must be above 0"),
        (["--scale", "2"], "belongs to a workload of the catalogue"),
    ],
)
def test_bad_questions_get_one_sentence(ask: Ask, args: list[str], sentence: str) -> None:
    code, _, output = ask(JOB, *args)
    assert code == 2 and sentence in output and "Traceback" not in output


def test_a_service_gets_the_cheapest_replicas_that_keep_its_latency(ask: Ask) -> None:
    code, answer, output = ask(SERVICE, "--type", "m6i.2xlarge", "--type", "m6i.4xlarge", "--count", "1-3", "--json")
    assert code == 0, output
    chosen = answer["recommended"]
    assert chosen["p99_s"] <= 0.2 and chosen["replicas"]["model"]["max"] >= 2  # 50 a second for 20 ms keep one busy all the time
    assert all(other["price_per_hour"] >= chosen["price_per_hour"] for other in answer["next_best"])


class Told:
    """A bench that knows the p99 of a service by its replicas."""

    def __init__(self, p99_s: dict[int, float]) -> None:
        self.p99_s = p99_s
        self.asked: list[int] = []

    def estimates(self, orders: list[Any]) -> list[Estimate]:
        """As simulated."""
        replicas = [order.document["deployments"][0]["replicas"] for order in orders]
        self.asked += replicas
        return [Estimate(status="ok", seconds=20.0, p99_s=self.p99_s[n]) for n in replicas]


def _search(p99_s: dict[int, float], prices: dict[int, float], **more: Any) -> tuple[serving.Search, list[serving.Service], Told]:
    """A search among services of one deployment, by their replicas; 0.2 s are asked for."""
    document = tomllib.loads(SERVICE)
    variant = Variant(
        label="ray-serve", engine="ray-serve", document=document, base_cpus=8, base_gpus=0, serving=True, drawn=False
    )
    objective = from_document(document).objective
    assert objective is not None
    question = Question(
        variants=(variant,), candidates=(), objective=objective, confidence=0.9, tolerance=0.02, gpu_speed={}, file="x", seed=7, **more
    )  # fmt: skip
    services = []
    for n, price in prices.items():
        candidate = Candidate(number=0, variant=0, type="t", count=1, cpus=8, gpus=0, price_per_hour=price)
        changed = {**document, "deployments": [{**document["deployments"][0], "replicas": n}]}
        services.append(serving.Service(candidate=candidate, replicas={"model": n}, document=changed))
    bench = Told(p99_s)
    return serving.Search(question, bench), services, bench  # type: ignore[arg-type]


def test_of_services_of_one_price_the_surest_is_the_plan() -> None:
    """Nodes are paid for whether they are filled or not."""
    p99 = {3: 0.054, 4: 0.040, 5: 0.030, 6: 0.030, 7: 0.0277, 8: 0.010}
    search, services, bench = _search(p99, {3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0, 7: 1.0, 8: 2.0})
    best, looked = search.cheapest(services, "t")
    assert best is not None
    assert search.measured[best][0].replicas == {"model": 7}
    assert looked == 5
    assert 8 not in bench.asked, "a higher price is not looked at"


def test_of_services_that_are_equally_good_the_one_with_fewer_replicas_is_the_plan() -> None:
    search, services, _ = _search({3: 0.0501, 5: 0.0500, 7: 0.0499}, {3: 1.0, 5: 1.0, 7: 1.0})
    best, _ = search.cheapest(services, "t")
    assert best is not None
    assert search.measured[best][0].replicas == {"model": 3}


def test_a_service_that_keeps_its_latency_too_seldom_is_passed_over() -> None:
    search, services, _ = _search({3: 0.5, 5: 0.199, 7: 0.05}, {3: 1.0, 5: 2.0, 7: 3.0})
    best, looked = search.cheapest(services, "t")
    assert best is not None
    assert search.measured[best][0].replicas == {"model": 7}
    assert looked == 3
    assert search.cheapest(services[:2], "t")[0] is None


def test_replicas_are_packed_into_nodes() -> None:
    scenario = from_document(tomllib.loads(SERVICE), "echo.toml")
    assert scenario.serving is not None
    node = scenario.cluster.nodes[0]
    assert nodes_for(scenario.serving, {"model": 8}, node) == 1
    assert nodes_for(scenario.serving, {"model": 9}, node) == 2


def test_a_scenario_survives_being_written_as_toml() -> None:
    for text in (JOB, SERVICE):
        document = tomllib.loads(text)
        assert tomllib.loads(toml(document)) == document
