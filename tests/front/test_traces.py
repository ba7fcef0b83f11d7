"""Traces of strangers: every form is read the same, what is wrong is one sentence before anything runs, and no file is quoted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windtunnel.engines.models.arrivals import token_lengths, trace_times
from windtunnel.errors import InputError
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec import traces
from windtunnel.spec.serving import ArrivalSpec, TokenLengths

SECRET = "hunter2-passphrase"


def trace(folder: Path, text: str, name: str = "trace.csv") -> Path:
    """A file of that name."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


FORMS = {
    "seconds": ("csv", "t\n0\n1.5\n4\n"),
    "dates": ("csv", "t\n2023-11-16 18:15:46\n2023-11-16 18:15:47.5\n2023-11-16 18:15:50\n"),
    "seven digits": ("csv", "t\n2023-11-16 18:15:46.0000000\n2023-11-16 18:15:47.5000000\n2023-11-16 18:15:50.0000000\n"),
    "a zone": ("csv", "t\n2023-11-16T18:15:46+02:00\n2023-11-16T16:15:47.5Z\n2023-11-16T18:15:50+02:00\n"),
    "unix time": ("csv", "t\n1700158546\n1700158547.5\n1700158550\n"),
    "milliseconds": ("csv", "t\n1700158546000\n1700158547500\n1700158550000\n"),
    "microseconds": ("csv", "t\n1700158546000000\n1700158547500000\n1700158550000000\n"),
    "nanoseconds": ("csv", "t\n1700158546000000000\n1700158547500000000\n1700158550000000000\n"),
    "json lines": ("jsonl", '{"t": 0, "x": 1}\n{"t": 1.5}\n{"t": 4}\n'),
    "dates in json": ("ndjson", '{"t": "2023-11-16T18:15:46Z"}\n{"t": "2023-11-16T18:15:47.5Z"}\n{"t": "2023-11-16T18:15:50Z"}\n'),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_time_is_read(form: str, tmp_path: Path) -> None:
    ending, text = FORMS[form]
    assert traces.times(trace(tmp_path, text, f"trace.{ending}"), "t") == pytest.approx([0.0, 1.5, 4.0], abs=1e-6)


def test_days_and_parquet(tmp_path: Path) -> None:
    assert traces.times(trace(tmp_path, "t\n2024-02-28\n2024-03-01\n"), "t") == [0.0, 2 * 86400.0]
    for unit, second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        path = tmp_path / f"{unit}.parquet"
        column = pa.array([1_700_000_003 * second, 1_700_000_000 * second], pa.timestamp(unit))
        pyarrow.parquet.write_table(pa.table({"t": column}), path)
        assert traces.times(path, "t") == [3.0, 0.0]


def test_seconds_since_the_start_may_begin_late_and_be_many() -> None:
    """Only what would be three years is a date."""
    assert traces.EPOCHS[0][0] / 86400 / 365 > 3


def test_a_trace_that_does_not_start_at_0_keeps_its_times(tmp_path: Path) -> None:
    path = trace(tmp_path, "t\n12\n10\n99999999\n")
    assert traces.times(path, "t") == [12.0, 10.0, 99999999.0]
    assert trace_times(ArrivalSpec(kind="trace", file=str(path), column="t", duration_s=12.0)) == [10.0]


def test_unix_time_starts_at_the_earliest_wherever_it_stands(tmp_path: Path) -> None:
    path = trace(tmp_path, "t\n1700000010\n1700000000\n1700000030\n")
    assert traces.times(path, "t") == [10.0, 0.0, 30.0]
    assert trace_times(ArrivalSpec(kind="trace", file=str(path), column="t")) == [0.0, 10.0, 30.0]


def test_lengths_follow_the_order_of_their_times(tmp_path: Path) -> None:
    path = trace(tmp_path, "t,in,out\n5,10,1\n1,20,2\n3,30,3\n")
    spec = ArrivalSpec(
        kind="trace", file=str(path), column="t", duration_s=5.0, tokens=TokenLengths(prompt_column="in", output_column="out")
    )
    assert list(token_lengths(spec, 0)) == [(20, 2), (30, 3)]


WRONG = {
    "two columns of a name": ("csv", "t,t\n1,2\n", "2 columns named 't'"),
    "two keys of a name": ("jsonl", '{"t": 1, "t": 2}\n', "cannot be read"),
    "no such column": ("csv", f"{SECRET}\n1\n", "no column 't'"),
    "no times": ("csv", f"t\n{SECRET}\n", "row 1 is neither"),
    "the second is no time": ("csv", f"t\n2023-11-16T18:15:46Z\n{SECRET}\n", "row 2 is neither"),
    "zones and none": ("csv", "t\n2023-11-16T18:15:46Z\n2023-11-16T18:15:46\n", "without"),
    "empty": ("csv", "t,x\n1,1\n,2\n", "row 2 is empty"),
    "below 0": ("csv", "t\n0\n-1\n", "row 2 is below 0"),
    "no number": ("csv", "t\n1\nnan\n", "row 2"),
    "endless": ("csv", "t\n1\ninf\n", "row 2 is no finite number"),
    "true": ("csv", "t\ntrue\nfalse\n", "no numbers"),
    "objects": ("jsonl", '{"t": {"a": 1}}\n', "no numbers"),
    "no rows": ("csv", "t\n", "no rows"),
    "nothing": ("csv", "", "cannot be read"),
    "rows of many lengths": ("csv", f"t\n1\n2,{SECRET}\n", "cannot be read"),
    "no JSON": ("jsonl", f"{SECRET}\n", "cannot be read"),
    "deep": ("jsonl", '{"t": ' + "[" * 50_000, "cannot be read"),
    "no Parquet": ("parquet", SECRET, "cannot be read"),
    "an open quote": ("csv", f'"t\n{SECRET}', "cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_not_quoted(what: str, tmp_path: Path) -> None:
    ending, text, says = WRONG[what]
    path = trace(tmp_path, text, f"trace.{ending}")
    with pytest.raises(InputError, match=says) as error:
        traces.check(path, "t")
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("numbers", "says"), [("0\n3\n0", "holds 2 .* row 1"), ("3\n1.5\n2", "holds 1 .* row 2"), ("1\n-3\n1", "row 2 is below")]
)
def test_a_request_has_a_token_or_more(numbers: str, says: str, tmp_path: Path) -> None:
    """None is made up for it."""
    path = trace(tmp_path, "n\n" + numbers + "\n")
    with pytest.raises(InputError, match=says):
        traces.lengths(path, "n")
    assert traces.lengths(trace(tmp_path, "n\n1\n2\n"), "n") == [1.0, 2.0]


def test_a_column_that_is_named_twice_is_refused_only_where_it_is_asked_for(tmp_path: Path) -> None:
    assert traces.times(trace(tmp_path, "t,x,x\n1,2,3\n"), "t") == [1.0]


@pytest.mark.parametrize("place", ["/dev/zero", "/", "/no/such/file", "\0"])
def test_only_files_are_traces(place: str) -> None:
    with pytest.raises(InputError):
        traces.times(Path(place), "t")


HEAD = """
schema = 1
name = "trace"
[cluster]
[[cluster.nodes]]
cpus = 2
memory = "4GiB"
[[deployments]]
name = "a"
cost = { per_call = "1ms" }
[[engines]]
name = "serving"
[arrivals]
kind = "trace"
"""


def test_a_scenario_with_a_bad_trace_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """As every other mistake: before anything runs, and with the place in the scenario."""
    trace(tmp_path, "t,in,out\n0,1,0\n")
    file = str(tmp_path / "scenario.toml")
    parse_scenario(HEAD + 'file = "trace.csv"\ncolumn = "t"\n', file)
    for more in ('column = "u"', 'column = "t"\ntokens = { prompt_column = "in", output_column = "out" }'):
        with pytest.raises(InputError, match=r"scenario.toml: arrivals.file: .*trace.csv"):
            parse_scenario(HEAD + f'file = "trace.csv"\n{more}\n', file)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), ending=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_any_bytes_are_a_trace_or_one_sentence(data: bytes, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"any.{ending}"
    path.write_bytes(data)
    found = _read_or_one_sentence(traces.times, path)
    assert all(0 <= t < float("inf") for t in found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just({}), st.just([])
        ),
        max_size=4,
    )
)
def test_any_json_is_a_trace_or_one_sentence(values: list[object], tmp_path: Path) -> None:
    path = trace(tmp_path, "\n".join(json.dumps({"t": v}) for v in values), "any.jsonl")
    _read_or_one_sentence(traces.times, path)
    assert all(n >= 1 for n in _read_or_one_sentence(traces.lengths, path))


def _read_or_one_sentence(read: Callable[[Path, str], list[float]], path: Path) -> list[float]:
    said = ""
    try:
        return read(path, "t")
    except InputError as error:
        said = str(error)
    assert said and "\n" not in said
    return []
