"""Serving by hand: cases small enough to be worked out on paper, through the whole simulated engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sim.serving import latencies, replicas, scenario, serve
from windtunnel.cli import main
from windtunnel.engines.models.serving import HOST
from windtunnel.errors import InputError, RunFailed, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine

UNIFORM = 'kind = "uniform"\nrate_per_s = {rate}\nduration = "{seconds}s"'


def one(cost: str, more: str = "") -> str:
    """A deployment with one replica."""
    return f'[[deployments]]\nname = "one"\ncost = {{ {cost} }}\n{more}'


def shown(recorder: Recorder) -> list[float]:
    """Latencies in milliseconds."""
    return [round(1000 * t, 6) for t in latencies(recorder)]


# -- queues -------------------------------------------------------------------------------------------------------------


def test_regular_requests_to_a_regular_server_never_wait() -> None:
    run = serve(scenario(UNIFORM.format(rate=10, seconds=10), one('per_call = "50ms"'), cpus=1))
    assert set(shown(run)) == {50.0}
    assert run.counters["throughput_per_s"] == 10.0
    assert run.counters["busy_cpu_s"] == pytest.approx(5.0)
    assert run.counters["latency_p99_s"] == pytest.approx(0.05)


def test_a_server_twice_too_slow_answers_half_of_what_is_offered() -> None:
    """Request n is sent at n × 50 ms and answered at (n + 1) × 100 ms; latency counts from the intended time."""
    run = serve(scenario(UNIFORM.format(rate=20, seconds=10), one('per_call = "100ms"')))
    assert run.counters["throughput_per_s"] == pytest.approx(10.0)
    assert run.counters["virtual_makespan_s"] == pytest.approx(20.0)
    assert shown(run) == pytest.approx([100 + 50 * n for n in range(200)])


def test_a_deployment_queue_holds_what_replicas_may_not_take() -> None:
    """Two replicas, one call each: four requests at once are answered in two rounds."""
    text = scenario(
        'kind = "closed"\nconcurrency = 4\nduration = "50ms"', one('per_call = "100ms"', "replicas = 2\nmax_ongoing = 1")
    )
    assert shown(serve(text)) == [100, 100, 200, 200]


def test_a_full_queue_refuses() -> None:
    text = scenario(UNIFORM.format(rate=100, seconds=1), one('per_call = "1s"', "max_ongoing = 1"))
    run = serve(text, max_queued_requests=2)
    assert (run.counters["requests_ok"], run.counters["requests_rejected"]) == (3, 97)
    assert shown(run) == [1000, 1990, 2980]


def test_a_request_that_waits_too_long_is_timed_out_and_never_executed() -> None:
    """420 ms each, 500 ms of patience: those sent at 0, 100 and 400 ms begin in time, and only the first ends in time. From its end on
    what an answer takes is known, and nobody who would wait for one is let in."""
    text = scenario(UNIFORM.format(rate=10, seconds=1), one('per_call = "420ms"', "max_ongoing = 1"))
    run = serve(text, request_timeout="500ms")
    assert (run.counters["requests_ok"], run.counters["requests_timed_out"]) == (1, 4)
    assert run.counters["requests_rejected"] == 5
    assert shown(run) == [420]
    assert run.counters["busy_cpu_s"] == pytest.approx(3 * 0.42)


def test_under_overload_what_is_let_in_keeps_its_deadline() -> None:
    text = scenario('kind = "poisson"\nrate_per_s = 600\nduration = "30s"', one('per_call = "5ms", cv = 1'))
    run = serve(text, request_timeout="1s", law="gamma")
    assert run.counters["requests_timed_out"] == 0
    assert run.counters["requests_rejected"] > 10_000
    assert run.counters["throughput_per_s"] == pytest.approx(200, rel=0.05), "and it is busy all the time"


def test_the_embedded_host_does_the_same_in_both_worlds() -> None:
    pytest.importorskip("httptools")
    for name, value in HOST.items():
        for engine in ("serving", "sim:serving"):
            assert next(o.default for o in load_engine(engine).options if o.name == name) == value


@pytest.mark.parametrize(("choice", "expected"), [("round_robin", [100, 100, 200, 200]), ("least_loaded", [100, 100, 200, 200])])
def test_replicas_are_chosen_evenly(choice: str, expected: list[float]) -> None:
    text = scenario('kind = "closed"\nconcurrency = 4\nduration = "50ms"', one('per_call = "100ms"', "replicas = 2"))
    assert shown(serve(text, choice=choice)) == expected


def test_shared_time_makes_equal_requests_end_together() -> None:
    text = scenario('kind = "closed"\nconcurrency = 4\nduration = "50ms"', one('per_call = "100ms"'))
    assert shown(serve(text)) == [100, 200, 300, 400]
    assert shown(serve(text, discipline="sharing")) == [400] * 4


@pytest.mark.parametrize("discipline", ["fifo", "sharing"])
def test_processes_share_the_processors_of_their_node(discipline: str) -> None:
    """Two busy replicas on one CPU run at half speed, slice by slice: one ends 0.6 ms before the other. On two CPUs at full speed."""
    closed = 'kind = "closed"\nconcurrency = 2\nduration = "50ms"'
    half = one('per_call = "100ms"', "replicas = 2\nresources = { cpus = 0.5 }")
    options = {"choice": "round_robin", "discipline": discipline}
    assert shown(serve(scenario(closed, half, cpus=1), **options)) == [199.4, 200]
    assert shown(serve(scenario(closed, half, cpus=2), **options)) == [100, 100]


# -- batches ------------------------------------------------------------------------------------------------------------


def test_a_full_batch_goes_at_once() -> None:
    """Four requests 10 ms apart fill a batch at 30 ms; it takes 10 + 4 × 1 ms."""
    batch = one('per_call = "10ms", per_item = "1ms"', 'batch = { max_size = 4, wait = "1s" }')
    run = serve(scenario(UNIFORM.format(rate=100, seconds=0.08), batch))
    assert shown(run) == [44, 34, 24, 14] * 2
    assert run.counters["busy_cpu_s"] == pytest.approx(2 * 0.014)


def test_a_batch_waits_for_more_only_so_long() -> None:
    """Requests at 0, 10, 20, 30 ms; 15 ms after the first of a batch it goes with the two that are there: 12 ms."""
    batch = one('per_call = "10ms", per_item = "1ms"', 'batch = { max_size = 4, wait = "15ms" }')
    assert shown(serve(scenario(UNIFORM.format(rate=100, seconds=0.04), batch))) == [27, 17, 27, 17]


def test_a_batch_grows_while_the_one_before_is_executed() -> None:
    """The first request goes alone at 0 ms and takes 100 ms; the nine that came meanwhile go as eight and one."""
    batch = one('per_call = "100ms"', 'batch = { max_size = 8, wait = "0s" }')
    run = serve(scenario(UNIFORM.format(rate=100, seconds=0.1), batch))
    assert sorted(shown(run)) == sorted([100.0, *(200.0 - 10 * n for n in range(1, 9)), 300.0 - 90])


# -- composition --------------------------------------------------------------------------------------------------------

GRAPH = """
[[deployments]]
name = "ingress"
cost = { per_call = "1ms" }
calls = [["left", ["right", "right"]], "last"]
[[deployments]]
name = "left"
cost = { per_call = "10ms" }
[[deployments]]
name = "right"
cost = { per_call = "30ms" }
[[deployments]]
name = "last"
cost = { per_call = "5ms" }
"""


def test_branches_run_side_by_side_and_lists_in_order() -> None:
    """1 + max(10, 30 + 30) + 5 ms: a list inside a list of branches is in order again."""
    run = serve(scenario(UNIFORM.format(rate=5, seconds=1), GRAPH))
    assert set(shown(run)) == {66.0}
    spans = [s for s in run.spans if s[0] == "compute" and s[2] == 0]
    assert [(s[1], round(s[5], 6)) for s in spans] == [
        ("ingress", 0.0), ("left", 0.001), ("right", 0.001), ("right", 0.031), ("last", 0.061),
    ]  # fmt: skip


def test_a_refused_branch_refuses_the_request_and_frees_its_caller() -> None:
    """The second request finds ``right`` full; its ingress takes the third all the same."""
    text = scenario(UNIFORM.format(rate=100, seconds=0.03), GRAPH.replace('"30ms" }', '"30ms" }\nmax_ongoing = 1'))
    run = serve(text, max_queued_requests=0)
    assert run.counters["requests_ok"] == 1
    assert run.counters["requests_rejected"] == 2


def test_calls_between_nodes_cross_the_network() -> None:
    """20 KB at 10 MB/s and 2 × 1 ms of latency, once: the client stands beside the cluster."""
    cluster = 'schema = 1\nname = "two"\n[cluster]\nnetwork = { latency = "1ms" }\n' + "".join(
        f'[[cluster.nodes]]\nname = "{name}"\ncpus = 1\nmemory = "1GiB"\nnic = "10MB/s"\n' for name in ("a", "b")
    )
    text = f"""{cluster}
[arrivals]
{UNIFORM.format(rate=10, seconds=1)}
request_bytes = "10KB"
response_bytes = "10KB"
[[deployments]]
name = "front"
cost = {{ per_call = "1ms" }}
calls = ["back"]
[[deployments]]
name = "back"
cost = {{ per_call = "1ms" }}
[[engines]]
name = "serving"
"""
    run = serve(text)
    assert set(shown(run)) == {6.0}
    assert run.counters["bytes_network"] == 10 * 20_000


# -- what the engine costs ----------------------------------------------------------------------------------------------


def test_overheads_stand_where_they_belong() -> None:
    """Client, proxy, ingress, echo: three hops of 1 ms, the proxy's 2 ms, and twice 0.5 ms in replicas."""
    text = scenario(UNIFORM.format(rate=10, seconds=1), GRAPH.replace('[["left", ["right", "right"]], "last"]', '["last"]'))
    costs = {"proxy_s": 2e-3, "replica_s": 0.5e-3, "hop_s": 1e-3, "call_s": 0.25e-3, "http_s": 0.125e-3}
    assert set(shown(serve(text, overheads=costs))) == {6 + 3 + 2 + 2 * 0.5 + 0.25 + 0.125}


def test_contention_slows_a_process_that_holds_many() -> None:
    """k = 0.1 and ten requests held: twice the CPU each, so that the throughput halves."""
    text = scenario('kind = "closed"\nconcurrency = {n}\nduration = "20s"', one('per_call = "0s"'))
    costs = {"replica_s": 10e-3, "contention": 0.1}
    alone, ten = (serve(text.replace("{n}", n), overheads=costs).counters["throughput_per_s"] for n in ("1", "10"))
    assert alone == pytest.approx(100 / 1.1, rel=0.01)
    assert ten == pytest.approx(100 / 2.0, rel=0.01)


def test_fastapi_calls_deployments_inside_its_worker() -> None:
    """1 + 10 + 30 + 30 + 5 ms in one process, one after another, and the second request waits for all of it."""
    text = scenario('kind = "closed"\nconcurrency = 2\nduration = "1ms"', GRAPH)
    none = {"http_s": 0.0, "hop_s": 0.0, "contention": 0.0}
    assert shown(serve(text, "fastapi", overheads=none)) == [76, 152]


def test_the_host_makes_the_calls_between_deployments() -> None:
    """The proxy reads for 1 ms, sends the call of echo for 3 ms and answers for 1 ms; the ingress is free meanwhile."""
    text = scenario(
        'kind = "closed"\nconcurrency = 1\nduration = "1ms"', GRAPH.replace('[["left", ["right", "right"]], "last"]', '["last"]')
    )
    none = {"replica_s": 0.0, "hop_s": 0.0, "cv": 0.0}
    assert shown(serve(text, proxy="host", overheads={**none, "proxy_s": 2e-3, "call_s": 3e-3})) == [1 + 1 + 3 + 5 + 1]


def test_constants_of_a_machine_come_from_a_file(tmp_path: Path) -> None:
    from windtunnel.sim.serving.constants import save_constants

    file = tmp_path / "machine.json"
    save_constants(file, {"fastapi:none": {"http_s": 0.02}}, {"machine": "test"})
    text = scenario(UNIFORM.format(rate=1, seconds=3), one('per_call = "10ms"'))
    assert shown(serve(text, "fastapi", calibration=str(file))) == [30] * 3
    assert shown(serve(text, "serving", calibration=str(file))) == [10] * 3
    file.write_text('{"serving": {"fastapi:none": {"http": 1}}}')
    with pytest.raises(InputError, match="no constants of serving engines"):
        serve(text, "fastapi", calibration=str(file))


# -- replicas -----------------------------------------------------------------------------------------------------------


def test_the_autoscaler_waits_its_delay_and_the_replicas_their_start() -> None:
    """Ten ongoing for ever, two a replica: of 30 s they fill more than one replica's share from 6 s on; five wanted, decided after more
    than 300 loops of 0.1 s, ready 2 s later."""
    scaled = 'replicas = { min = 1, max = 8, target_ongoing = 2 }\nstartup = "2s"'
    run = serve(scenario('kind = "closed"\nconcurrency = 10\nduration = "60s"', one('per_call = "100ms"', scaled)))
    assert replicas(run, "one") == [(0.0, 1), *[(38.1, n) for n in (2, 3, 4, 5)]]


def test_from_zero_and_back() -> None:
    """A request at 1.05 s is seen at 1.1 s; its replica starts for 2 s. It is forgotten after 30 s, let go 5.1 s later."""
    scaled = 'replicas = { min = 0, max = 2, target_ongoing = 1, downscale_delay = "5s" }\nstartup = "2s"'
    steps = 'kind = "steps"\nsteps = [[1.0, 20.0], [1.1, 0.0]]\nduration = "60s"'
    run = serve(scenario(steps, one('per_call = "100ms"', scaled)))
    changes = replicas(run, "one")
    assert [n for _, n in changes] == [1, 0]
    assert 3.0 < changes[0][0] <= 3.2
    done = changes[0][0] + 0.1 * run.counters["requests_ok"]
    assert changes[1][0] == pytest.approx(done + 30 + 5.1, abs=0.11)
    assert min(latencies(run)) > 2.0


def test_replicas_need_room() -> None:
    with pytest.raises(InputError, match="room for 2"):
        serve(scenario(UNIFORM.format(rate=1, seconds=1), one('per_call = "1ms"', "replicas = 3"), cpus=2))


def test_a_dead_replica_fails_its_requests_unless_they_are_tried_again() -> None:
    fault = '[[faults]]\nat = "50ms"\nkind = "worker_killed"\ntarget = "node[0]"\n'
    text = scenario(
        'kind = "closed"\nconcurrency = 1\nduration = "60ms"', one('per_call = "100ms"', 'startup = "1s"'), more=fault
    )
    assert shown(serve(text, retries=1)) == [1150]
    run = serve(text)
    assert (run.counters["requests_failed"], run.counters["requests_ok"]) == (1, 1)


def test_a_lost_node_takes_its_replicas_elsewhere() -> None:
    fault = '[[faults]]\nat = "1s"\nkind = "node_lost"\ntarget = "node[0]"\nuntil = "5s"\n'
    text = scenario(UNIFORM.format(rate=10, seconds=10), one('per_call = "10ms"', 'startup = "1s"'), more=fault)
    run = serve(text)
    assert replicas(run, "one") == [(0.0, 1), (1.0, 0), (6.0, 1)]
    assert run.counters["requests_ok"] == 100
    run = serve(text.replace("memory =", "count = 2\nmemory ="), "ray-serve")
    assert replicas(run, "one") == [(0.0, 1), (1.0, 0), (2.0, 1)]


# -- the doors ----------------------------------------------------------------------------------------------------------


def test_a_trace_is_sent_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("t,x\n0.5,1\n0.0,2\n0.25,3\n")
    text = scenario('kind = "trace"\nfile = "times.csv"\ncolumn = "t"', one('per_call = "300ms"'))
    file = tmp_path / "trace.toml"
    file.write_text(text)
    from windtunnel.scenario.reading import load_scenario

    assert load_scenario(file).serving is not None
    run = serve(text.replace("times.csv", str(tmp_path / "times.csv")))
    assert shown(run) == [300, 350, 400]


def test_engines_that_answer_no_requests_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.toml"
    file.write_text(scenario(UNIFORM.format(rate=1, seconds=1), one('per_call = "1ms"')).replace('"serving"', '"spark"'))
    assert main(["simulate", str(file), "--results", str(tmp_path / "r")]) == 2
    assert "engines that serve: serving, ray-serve, fastapi" in capsys.readouterr().err


def test_the_document_has_what_scenarios_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.toml"
    engines = '[[engines]]\nname = "ray"\nlabel = "refusing"\noptions = { max_queued_requests = 0, request_timeout = "1us" }\n'
    file.write_text(scenario(UNIFORM.format(rate=10, seconds=2), one('per_call = "50ms"'), cpus=2, more=engines))
    assert main(["simulate", str(file), "--results", str(tmp_path / "r"), "--json"]) == 5
    good, bad = json.loads(capsys.readouterr().out)["runs"]
    assert good["latency_s"] == pytest.approx(dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), 0.05))
    assert (good["throughput_per_s"], good["utilization"]["cpu"]) == (10.0, pytest.approx(0.25))
    assert good["replicas"] == {"one": [[0.0, 1]]}
    assert good["requests"] == {"sent": 20, "ok": 20, "rejected": 0, "timed_out": 0, "failed": 0}
    assert (bad["status"], bad["latency_s"], bad["throughput_per_s"], bad["replicas"]) == ("failed", None, None, None)
    assert "none of 20 requests" in bad["reason"]
    assert main(["simulate", str(file), "--results", str(tmp_path / "t")]) == 5
    assert "one 1" in capsys.readouterr().out


def test_nothing_sent_is_a_failure_and_an_endless_loop_is_refused() -> None:
    text = scenario('kind = "closed"\nconcurrency = 1\nduration = "1s"', one('per_call = "0s"'))
    with pytest.raises(InputError, match="would never end"):
        serve(text)
    with pytest.raises(RunFailed, match="no request was sent"):
        serve(scenario('kind = "steps"\nsteps = [[5.0, 1.0]]\nduration = "1s"', one('per_call = "1s"')))


def test_operators_are_not_served() -> None:
    from tests.theory.test_pipelines import TWO_STAGES

    with pytest.raises(Unsupported, match="runs no operators"):
        serve(TWO_STAGES.format(cpus=2, cv=0.0, actor_cpus=1))


def test_a_batch_does_not_wait_for_calls_that_are_being_sent() -> None:
    """The replica is busy sending (5 ms) when the second batch falls due at 15 ms; it goes all the same, after that."""
    front = one('per_call = "1ms"', 'calls = ["two"]\nbatch = { max_size = 2, wait = "2ms" }')
    text = scenario(
        UNIFORM.format(rate=200, seconds=0.01), front + '\n[[deployments]]\nname = "two"\ncost = { per_call = "1ms" }'
    )
    assert shown(serve(text, overheads={"call_s": 5e-3})) == [2 + 1 + 5 + 1, 3 + 1 + 5 + 1]


def test_calibrate_measures_workloads_or_serving_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate"]) == 2
    assert main(["calibrate", "--serving", "-w", "tpch_q1"]) == 2
    assert capsys.readouterr().err.count("name one of the two") == 2


def test_a_calibration_of_kernels_is_no_obstacle_to_serving(tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    file.write_text('{"schema": 1, "operators": []}')
    assert shown(serve(scenario(UNIFORM.format(rate=1, seconds=1), one('per_call = "10ms"')), calibration=str(file))) == [10]


def test_a_fit_stays_near_where_its_search_begins() -> None:
    """Constants that no process has are not even simulated, however well they would fit."""
    import numpy as np

    from windtunnel.sim.serving.constants import FITTED, FURTHEST, Fit

    begin = np.log(list(FITTED["serving"].values()))
    fit = Fit(None, "serving", "host", [])
    assert fit._loss(begin + np.eye(len(begin))[0] * np.log(1.01 * FURTHEST)) > 1e3
