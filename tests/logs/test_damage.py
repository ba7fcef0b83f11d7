"""Damaged logs end in a sentence with line and event, or in what could be read; 2,000 of them, none in a traceback or a hang."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from tests.logs import writers
from windtunnel.cli import main
from windtunnel.errors import InputError, WindtunnelError
from windtunnel.logs.reading import read_graph, read_log
from windtunnel.logs.saved import load_graph, save_graph
from windtunnel.reports.recorded import describe_graph
from windtunnel.spec.jobgraph import JobGraph

SAMPLES = {
    "log": writers.spark_log(tasks=6), "stream.json": writers.dask_stream(), "timeline.json": writers.ray_timeline(),
    "stats.txt": writers.RAY_STATS.encode(), "w.json": writers.wfformat(), "job.json": writers.flink_job(), "otel.json": writers.otel(),
    "chrome.json": writers.chrome(), "requests.jsonl": writers.vllm(12),
}  # fmt: skip


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def test_a_log_that_ends_in_the_middle_of_a_line(tmp_path: Path) -> None:
    data = writers.spark_log(tasks=6)
    end = data.index(b"SparkListenerJobEnd")
    (tmp_path / "log").write_bytes(data[: end + 40])
    graph = read_graph(tmp_path / "log")
    assert graph.size == 12
    number = data[:end].count(b"\n") + 1
    assert f"log, line {number} (SparkListenerJobEnd): the log ends in the middle of it; it is left aside" in graph.notes
    assert any("1 job(s) did not end before the log does" in n for n in graph.notes)


def test_a_broken_line_in_the_middle_is_named_and_the_rest_read(tmp_path: Path) -> None:
    lines = lines_of(writers.spark_log(tasks=6))
    at = next(i for i, line in enumerate(lines) if b"TaskEnd" in line)
    lines[at] = lines[at].replace(b'"Stage ID":0', b'"Stage ID":"zero"')
    (tmp_path / "log").write_bytes(b"".join(lines))
    graph = read_graph(tmp_path / "log")
    assert graph.size == 11
    (note,) = [n for n in graph.notes if f"line {at + 1}" in n]
    assert "(SparkListenerTaskEnd)" in note and "Expected `int`, got `str`" in note and "Stage ID" in note


def test_many_broken_lines_are_counted(tmp_path: Path) -> None:
    lines = [
        line.replace(b'"Stage ID":', b'"Stage ID":x') if b"TaskStart" in line else line
        for line in lines_of(writers.spark_log(tasks=60))
    ]
    (tmp_path / "log").write_bytes(b"".join(lines))
    graph = read_graph(tmp_path / "log")
    assert graph.size == 120
    assert any("120 lines in all cannot be read" in n for n in graph.notes)
    assert len(graph.notes) < 25


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\n".join(x.encode() for x in writers.spark_lines(tasks=1) if "Task" not in x), "ended no task"),
        (b'{"Event":"SparkListenerLogStart"' + b"[" * 200_000, "no event of a Spark application.*line 1"),
        (writers.spark_log()[:-1].replace(b"Launch Time", b"Lunch Time"), r"ended no task.*Launch Time"),
        (b'[{"key": "a-1", "startstops": []}]', "holds no task that ended"),
        (b'{"schemaVersion": "1.5", "workflow": {"specification": {"tasks": []}}}', "holds no makespan"),
        (b'[{"ph": "X", "ts": 1, "dur": 1, "name": "a", "pid": {}}]', "is no Chrome trace: Expected"),
        (b'{"jid": "1", "vertices": []}', "holds no vertex that began"),
        (b'{"input_toks": 0, "output_toks": 0, "arrival_time": 1}', "holds no request"),
        (b"\x28\xb5\x2f\xfd" + b"\x00" * 50, "breaks off before anything could be read"),
        (b"ZV\x01" + b"x" * 50, "LZF.*unpack it first"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_in_a_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=sentence):
        read_log(tmp_path / "x")


def test_tasks_that_wait_for_each_other_in_a_circle(tmp_path: Path) -> None:
    tasks = json.loads(writers.dask_stream((1, 1)))
    tasks[0]["dependencies"] = [tasks[1]["key"]]
    (tmp_path / "s.json").write_text(json.dumps(tasks))
    with pytest.raises(InputError, match="wait for each other in a circle, 'step0' among them"):
        read_graph(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 99}, "schema 1; import the log again"),
        ({"groups": []}, "holds no task"),
        ({"edges": [[0, 99]]}, "an edge names a row that is not there"),
        ({"end_s": -1.0}, "its end must be a finite number"),
        ({"machines": []}, "holds no machine"),
        ({"colour": 1}, "unknown field `colour`"),
    ],
)
def test_a_saved_graph_is_checked(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    (tmp_path / "log").write_bytes(writers.spark_log())
    save_graph(read_graph(tmp_path / "log"), tmp_path / "g.json")
    plain = json.loads((tmp_path / "g.json").read_text()) | change
    (tmp_path / "g.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=sentence):
        load_graph(tmp_path / "g.json")


# -- fuzz -------------------------------------------------------------------------------------------------------------

#: what a number, a text or a structure is replaced by
EVIL = [b"0", b"-1", b"1e308", b"-9223372036854775808", b"99999999999999999999999", b"NaN", b"null", b"true", b'"\\ud800"', b"[]", b"{}",
        b"[[[[[[", b'"x"', b"0.5", b"1e-320", b"\xff\xfe", b""]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three damages of a log."""
    for _ in range(rng.randint(1, 3)):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + data[at + rng.randint(1, 200) :]
        elif kind == 3:
            lines = lines_of(data)
            rng.shuffle(lines)
            data = b"".join(lines)
        elif kind == 4:
            lines = lines_of(data)
            data = b"".join(line for line in lines for _ in range(rng.choice((0, 1, 1, 1, 2))))
        else:  # a value after a colon
            colon = data.find(b":", at)
            end = min((e for e in (data.find(b",", colon), data.find(b"}", colon)) if e > 0), default=-1)
            if 0 <= colon < end:
                data = data[: colon + 1] + rng.choice(EVIL) + data[end:]
    return data


def ending(path: Path, kept: Path) -> str | None:
    """Read, describe and keep a log; the sentence where that is refused."""
    try:
        log = read_log(path)
        if isinstance(log, JobGraph):
            describe_graph(log)
            save_graph(log, kept)
            load_graph(kept)
    except WindtunnelError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", SAMPLES)
def test_two_thousand_damaged_logs(tmp_path: Path, name: str) -> None:
    rng = random.Random(f"damage {name}")
    path, kept = tmp_path / name, tmp_path / "kept.graph.json"
    read = 0
    for number in range(2000 // len(SAMPLES) + 1):
        path.write_bytes(damaged(SAMPLES[name], rng))
        begun = time.monotonic()
        sentence = ending(path, kept)
        assert sentence is None or (len(sentence) > 20 and "\n" not in sentence), number
        read += sentence is None
        assert time.monotonic() - begun < 20, number
    assert read > 20  # damage is not always the end


def test_the_command_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    assert main(["import", str(tmp_path / "x"), "--out", str(tmp_path)]) == 2
    assert "is no log that is known here" in capsys.readouterr().err
    (tmp_path / "log").write_bytes(writers.spark_log())
    assert main(["import", str(tmp_path / "log"), "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["imported"][0]
    assert (told["tasks"], told["window_s"], told["idle_s"]) == (8, 5.0, 1.0)
    assert Path(told["file"]).is_file()
