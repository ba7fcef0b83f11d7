"""Streaming of tokens by hand: continuous batching, memory for keys and values, first tokens and the ones after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim.serving import latencies, scenario, serve
from windtunnel.engines.models.tokens import Batcher
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.serving import TokenSpec

MODEL = """
[[deployments]]
name = "model"
max_ongoing = 1000
tokens = {{ iteration = "10ms", prefill = "1ms", decode = "2ms"{more} }}
"""
CLOSED = 'kind = "closed"\nconcurrency = {clients}\nduration = "{seconds}s"\ntokens = {{ prompt = {prompt}, output = {output} }}'


def streamed(clients: int, prompt: int, output: int, more: str = "", seconds: float = 0.001) -> Recorder:
    """Clients that ask at once."""
    arrivals = CLOSED.format(clients=clients, prompt=prompt, output=output, seconds=seconds)
    return serve(scenario(arrivals, MODEL.format(more=more)))


def values(run: Recorder, name: str) -> list[float]:
    """Samples in milliseconds."""
    return [round(1e3 * v, 6) for key, _, v in run.samples if key == name]


def test_one_request_alone() -> None:
    """10 + 20 × 1 ms for the prompt and its first token, then 10 + 2 ms for each of four more."""
    run = streamed(1, 20, 5)
    assert values(run, "ttft_s") == [30]
    assert values(run, "tpot_s") == [12]
    assert values(run, "latency_s") == [30 + 4 * 12]
    assert run.counters["tokens_out"] == 5


def test_two_requests_share_their_iterations() -> None:
    """The first begins alone; the other's prompt goes with its second token: 10 + 2 + 20 ms; then both: 10 + 2 × 2."""
    run = streamed(2, 20, 3)
    assert values(run, "ttft_s") == [30, 62]
    assert values(run, "latency_s") == [76, 62 + 14 + 12]


def test_a_long_prompt_is_computed_in_chunks_beside_running_sequences() -> None:
    """Eight tokens an iteration: 20 take 18, 18 and 14 ms."""
    assert values(streamed(1, 20, 1, ", batch_tokens = 8"), "ttft_s") == [18 + 18 + 14]


def test_no_more_than_so_many_at_once() -> None:
    """One at a time: each takes 30 + 12 ms."""
    assert values(streamed(3, 20, 2, ", max_batch = 1"), "latency_s") == [42, 84, 126]


def test_a_prompt_waits_for_memory() -> None:
    """Memory for 25 tokens: the second prompt of 20 begins when the first request has given its own back."""
    run = streamed(2, 20, 2, ', kv_memory = "25KB", kv_per_token = "1KB"')
    assert values(run, "ttft_s") == [30, 42 + 30]
    assert [round(1e3 * (s[6] - s[5]), 6) for s in run.spans if s[0] == "queue"] == [0, 42]


def test_what_never_fits_is_refused() -> None:
    arrivals = 'kind = "uniform"\nrate_per_s = 10\nduration = "0.2s"\ntokens = { prompt = 20, output = 2, cv = 2.0 }'
    run = serve(scenario(arrivals, MODEL.format(more=', kv_memory = "25KB", kv_per_token = "1KB"')))
    assert run.counters["requests_ok"] + run.counters["requests_rejected"] == 2


def test_the_youngest_gives_its_memory_back_and_is_computed_again() -> None:
    """Two prompts of two tokens and room for five: the second is taken back when the first needs a sixth, and ends after it."""
    batcher: Batcher[str] = Batcher(TokenSpec(kv_tokens=5, max_batch=8))
    batcher.add("old", 2, 3)
    batcher.add("young", 2, 3)
    order = []
    while step := batcher.plan():
        first, finished = batcher.done(step)
        order.append((first, finished, batcher.used))
    assert batcher.preempted == 1
    assert order == [(["old", "young"], [], 4), ([], [], 3), ([], ["old"], 0), ([], [], 3), ([], ["young"], 0)]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=12), st.integers(50, 120),
    st.integers(1, 40), st.integers(1, 6),
)  # fmt: skip
def test_every_token_is_made_once_and_memory_is_never_overdrawn(
    requests: list[tuple[int, int]], memory: int, budget: int, most: int
) -> None:
    batcher: Batcher[int] = Batcher(TokenSpec(kv_tokens=memory, batch_tokens=budget, max_batch=most))
    for number, (prompt, output) in enumerate(requests):
        batcher.add(number, prompt, output)
    first: list[int] = []
    finished: list[int] = []
    for _ in range(20_000):
        step = batcher.plan()
        if step is None:
            break
        assert len(step.decode) + sum(n for _, n in step.prefill) <= budget
        assert batcher.used == sum(s.held for s in batcher.running) <= memory
        assert len(batcher.running) <= most
        made, ended = batcher.done(step)
        first += made
        finished += ended
    assert sorted(first) == sorted(finished) == list(range(len(requests)))
    assert batcher.used == 0


def test_throughput_of_a_full_batch() -> None:
    """Eight clients for ever: an iteration of 10 + 8 × 2 ms makes eight tokens; prompts of one token cost as good as nothing."""
    model = MODEL.format(more=', max_batch = 8, kv_memory = "0B"').replace('prefill = "1ms"', 'prefill = "0ms"')
    run = serve(scenario(CLOSED.format(clients=8, prompt=1, output=200, seconds=30), model))
    assert run.counters["tokens_per_s"] == pytest.approx(8 / 0.026, rel=0.02)
    assert run.counters["tpot_p50_s"] == pytest.approx(0.026, rel=0.01)


def test_lengths_come_from_the_trace_in_the_order_of_its_times(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("t,in,out\n1.0,30,1\n0.0,10,2\n")
    arrivals = f'kind = "trace"\nfile = "{file}"\ncolumn = "t"\ntokens = {{ prompt_column = "in", output_column = "out" }}'
    run = serve(scenario(arrivals, MODEL.format(more="")))
    assert values(run, "ttft_s") == [20, 40]
    assert [round(1e3 * t, 6) for t in latencies(run)] == [20 + 12, 40]


def test_lengths_have_the_mean_that_was_asked_for() -> None:
    from windtunnel.engines.models.arrivals import token_lengths

    text = scenario(
        'kind = "uniform"\nrate_per_s = 1\nduration = "1s"\ntokens = { prompt = 500, output = 100, cv = 0.8 }',
        MODEL.format(more=""),
    )
    serving = parse_scenario(text).serving
    assert serving is not None
    drawn = token_lengths(serving.arrivals, 3)
    found = np.array([next(drawn) for _ in range(20_000)])
    assert found.mean(axis=0) == pytest.approx([500, 100], rel=0.03)
    assert found[:, 0].std() == pytest.approx(400, rel=0.05)


@pytest.mark.parametrize(
    ("arrivals", "more", "sentence"),
    [
        ("", "", "needs tokens"),
        ('tokens = { prompt = 1, output_column = "x" }', "", "column of a trace"),
        ("tokens = { prompt = 1, output = 1 }", ', kv_memory = "1GB"', "needs the other"),
    ],
)
def test_scenarios_that_make_no_sense(arrivals: str, more: str, sentence: str) -> None:
    once = 'kind = "uniform"\nrate_per_s = 1\nduration = "1s"\n'
    with pytest.raises(InputError, match=sentence):
        parse_scenario(scenario(once + arrivals, MODEL.format(more=more)))
