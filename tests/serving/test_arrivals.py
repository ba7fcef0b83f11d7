"""Rates that swing with the day, and the traces that are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from windtunnel.engines.models.arrivals import arrival_times, token_lengths
from windtunnel.errors import InputError
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.serving import ArrivalSpec

HEAD = (
    'schema = 1\nname = "t"\n[[cluster.nodes]]\nname = "n"\ncount = 1\ncpus = 1\nmemory = "1GiB"\n[[engines]]\nname = "serving"\n'
)
ONE = '[[deployments]]\nname = "a"\ncost = { per_call = "1ms" }\n[arrivals]\n'


def test_a_diurnal_rate_is_lowest_at_the_start_and_highest_half_a_period_later() -> None:
    """1,000/s ± 80 % over two periods of 10 s: counts of quarters against the integral of the rate, within 5 standard deviations."""
    spec = ArrivalSpec(kind="diurnal", rate_per_s=1000, swing=0.8, period_s=10, duration_s=20)
    times = np.array(list(arrival_times(spec, 7)))
    assert (np.diff(times) >= 0).all() and times[-1] < 20
    for quarter in range(8):
        begin, end = quarter * 2.5, (quarter + 1) * 2.5
        expected = 1000 * (2.5 - 0.8 * 10 / (2 * np.pi) * (np.sin(2 * np.pi * end / 10) - np.sin(2 * np.pi * begin / 10)))
        assert abs(((times >= begin) & (times < end)).sum() - expected) < 5 * expected**0.5


def test_a_swing_above_one_is_refused() -> None:
    with pytest.raises(InputError, match="at most 1"):
        parse_scenario(HEAD + ONE + 'kind = "diurnal"\nrate_per_s = 1\nswing = 1.5\nduration = "1s"\n')


@pytest.mark.parametrize(("name", "count"), [("conv", 2867), ("code", 1482)])
def test_the_shipped_traces(name: str, count: int) -> None:
    lines = f'kind = "trace"\nfile = "windtunnel:azure_llm_2023_{name}"\ncolumn = "seconds"\n'
    lengths = 'tokens = { prompt_column = "ContextTokens", output_column = "GeneratedTokens" }\n'
    serving = parse_scenario(HEAD + ONE + lines + lengths).workload.serving
    assert serving is not None
    times = list(arrival_times(serving.arrivals, 0))
    assert len(times) == count == len(list(token_lengths(serving.arrivals, 0))) and times[0] == 0.0 and times[-1] < 600
    assert Path(serving.arrivals.file or "").with_name("LICENSE").read_text(encoding="utf-8").startswith("Attribution 4.0")


def test_a_trace_that_is_not_shipped_is_named() -> None:
    with pytest.raises(InputError, match="azure_llm_2023_conv"):
        parse_scenario(HEAD + ONE + 'kind = "trace"\nfile = "windtunnel:azure_llm_2023_con"\ncolumn = "seconds"\n')
