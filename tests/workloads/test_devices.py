"""Devices: published figures as they were published, claims and turns between processes, answers that are real."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from windtunnel.errors import InputError, OutOfMemory, RunFailed
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.devices import KINDS, REFERENCE_GMACS, device_spec, emulated, parse_devices, told
from windtunnel.workloads.inference import session as sessions
from windtunnel.workloads.inference.claims import Claim, open_devices, take_totals
from windtunnel.workloads.inference.session import Session, save_answers

# -- figures ----------------------------------------------------------------------------------------------------------


def test_a_call_of_one_row_and_a_large_batch_take_what_was_published() -> None:
    a100 = KINDS["A100"]
    assert a100.seconds(1) == pytest.approx(0.469708e-3)
    assert 10**6 / a100.seconds(10**6) == pytest.approx(39152.4, rel=0.02)
    assert a100.seconds(0) == 0.0


def test_newer_kinds_are_faster_and_every_figure_has_its_source() -> None:
    times = [KINDS[k].seconds(64) for k in ("T4", "L4", "A10G", "A100", "H100")]
    assert times[0] == max(times)
    assert times[3:] == sorted(times)[1::-1]
    assert all("MLPerf Inference v" in kind.source for kind in KINDS.values())


def test_a_heavier_model_takes_its_share_of_longer_for_each_row() -> None:
    t4 = KINDS["T4"]
    assert t4.seconds(10, 2 * REFERENCE_GMACS) - t4.fixed_s == pytest.approx(2 * (t4.seconds(10) - t4.fixed_s))


def test_devices_are_written_as_people_write_them() -> None:
    assert parse_devices("emulated:A10G").count == 1
    four = parse_devices("4 x emulated:T4")
    assert (four.kind, four.count, four.memory_bytes) == ("emulated:T4", 4, 16 * 2**30)
    assert parse_devices("cuda:1").kind == "cuda:1"
    for text, message in (
        ("emulated:A10", "did you mean 'A10G'"), ("0 x slot", "N from 1 to 1024"), ("cuda:x", "Known: cuda, cuda:0"), ("gpu", "none of"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            parse_devices(text)


def test_a_scenario_takes_the_figures_of_an_emulated_kind() -> None:
    text = """
    schema = 1
    name = "emulated"
    workload = "images"
    scale = 0.01
    parameters = { gpus = 1, gmacs = 167.0 }
    [[cluster.nodes]]
    cpus = 2
    memory = "8GiB"
    gpus = { kind = "emulated:L4", count = 1 }
    [[engines]]
    name = "streaming"
    """
    scenario = parse_scenario(text)
    assert scenario.cluster.nodes[0].gpus == device_spec("emulated:L4")
    assert scenario.workload.pipeline["classify"].resources.gpus == 1
    with pytest.raises(InputError, match="did you mean 'gpus'"):
        parse_scenario(text.replace("gpus = 1,", "gpu = 1,"))
    with pytest.raises(InputError, match="no published figures of device 'L40'"):
        parse_scenario(text.replace("emulated:L4", "emulated:L40"))


# -- claims -----------------------------------------------------------------------------------------------------------


def test_claims_spread_over_devices_and_count_their_memory(tmp_path: Path) -> None:
    open_devices(tmp_path, "emulated:T4", 2, 100)
    first, second = Claim(tmp_path, 60, "a"), Claim(tmp_path, 30, "b")
    assert {first.number, second.number} == {0, 1}
    third = Claim(tmp_path, 50, "c")
    assert third.number == second.number, "the other is full"
    with pytest.raises(OutOfMemory, match=r"d needs 70 B of device memory, and of the 100 B of a emulated:T4 60 B are taken"):
        Claim(tmp_path, 70, "d")
    first.release()
    first.release()
    assert Claim(tmp_path, 70, "d").number == first.number


def test_a_killed_holder_leaves_its_device(tmp_path: Path) -> None:
    open_devices(tmp_path, "emulated:T4", 1, 100)
    process = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(tmp_path,))
    process.start()
    process.join(30)
    assert Claim(tmp_path, 90, "the next").number == 0


def _claim_and_die(folder: Path) -> None:
    Claim(folder, 80, "the first")
    os.kill(os.getpid(), 9)


# -- sessions ---------------------------------------------------------------------------------------------------------


def _graph() -> bytes:
    """y = 2 x, z = sum of x."""
    onnx = pytest.importorskip("onnx", reason="needs windtunnel[inference]")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("ReduceSum", ["x", "axes"], ["z"], keepdims=1)]
    graph = helper.make_graph(
        nodes, "double", [helper.make_tensor_value_info("x", kind, ["n", 3])],
        [helper.make_tensor_value_info(name, kind, ["n", None]) for name in ("y", "z")],
        [helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])],
    )  # fmt: skip
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString())


def _model(device: str, **more: Any) -> Session:
    pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")
    return Session("double", _graph, ("y", "z"), device=device, **more)


def _feeds(*rows: float) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    return {"x": np.array([[r, r + 1, r + 2] for r in rows], np.float32)}


@pytest.fixture
def emulation(tmp_path: Path) -> str:
    """An emulated T4 with answers for rows 0 to 9."""
    data, books = tmp_path / "answers", tmp_path / "books"
    data.mkdir()
    recording = _model(f"record@{data}")
    for row in range(10):
        recording.run(_feeds(row))
    save_answers(data)
    open_devices(books, "emulated:T4", 1, 2**30)
    return f"emulated:T4@{books}|{data}"


def test_an_emulated_device_gives_real_answers_in_published_time(emulation: str, tmp_path: Path) -> None:
    model = _model(emulation, gmacs=410.0)  # a hundred ResNet-50s
    start = time.perf_counter()
    busy = time.process_time()
    y, z = model.run(_feeds(7, 2, 9))
    seconds, burnt = time.perf_counter() - start, time.process_time() - busy
    np.testing.assert_array_equal(y, [[14, 16, 18], [4, 6, 8], [18, 20, 22]])
    np.testing.assert_array_equal(z, [[24], [9], [30]])
    lasts = emulated("emulated:T4").seconds(3, 410.0)
    assert lasts == pytest.approx(3 * 100 / 6035.57, rel=0.05)
    assert seconds >= lasts
    assert burnt < 0.5 * lasts, "the host's CPU is free meanwhile"
    totals = take_totals(tmp_path / "books")
    assert totals["emulated_device_busy_s"] == pytest.approx(lasts, rel=0.01)
    assert totals["emulated_unforeseen"] == 0
    assert take_totals(tmp_path / "books") == {}


def test_what_was_not_foreseen_is_computed_and_counted(emulation: str, tmp_path: Path) -> None:
    y, z = _model(emulation, gmacs=0.001).run(_feeds(3, 100, 5, 101))
    np.testing.assert_array_equal(y[:, 0], [6, 200, 10, 202])
    np.testing.assert_array_equal(z[:, 0], [12, 303, 18, 306])
    assert take_totals(tmp_path / "books")["emulated_unforeseen"] == 2


def test_without_answers_all_is_computed(tmp_path: Path) -> None:
    open_devices(tmp_path, "emulated:H100", 1, 2**30)
    y, _ = _model(f"emulated:H100@{tmp_path}").run(_feeds(1))
    np.testing.assert_array_equal(y, [[2, 4, 6]])
    assert take_totals(tmp_path)["emulated_unforeseen"] == 1


def test_two_processes_on_one_device_take_turns(tmp_path: Path) -> None:
    open_devices(tmp_path, "emulated:T4", 1, 0)
    first, second = Claim(tmp_path, 1, "a"), Claim(tmp_path, 1, "b")
    with first.turn():
        import fcntl

        with (tmp_path / "turn-0").open("w") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with second.turn():
        pass


def test_a_model_that_does_not_fit_says_so(tmp_path: Path) -> None:
    open_devices(tmp_path, "emulated:T4", 1, 10)
    with pytest.raises(OutOfMemory, match="model double needs"):
        _model(f"emulated:T4@{tmp_path}")


def test_cuda_runs_or_says_what_is_missing() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(RunFailed, match=r"cuda:0 needs ONNX Runtime with CUDA .* this one has .*CPUExecutionProvider"):
            _model("cuda:0")
        pytest.skip("ONNX Runtime has no CUDA here: the error was tested, the device was not")
    y, _ = _model("cuda:0").run(_feeds(4))
    np.testing.assert_allclose(y, [[8, 10, 12]])


def test_recorded_models_of_other_folders_are_kept(tmp_path: Path) -> None:
    _model(f"record@{tmp_path}").run(_feeds(1))
    save_answers(tmp_path / "other")
    assert any(folder == tmp_path for folder, _ in sessions._Recording.kept)
    save_answers(tmp_path)
    assert not any(folder == tmp_path for folder, _ in sessions._Recording.kept)


def test_titles_of_emulated_runs_say_so() -> None:
    nodes = {"nodes": [{"gpus": {"kind": "emulated:T4", "count": 2}}, {"gpus": {"kind": "slot", "count": 1}}]}
    asking = {"pipeline": {"operators": [{"resources": {"gpus": 0.5}}]}}
    assert told(nodes, asking) == " on emulated:T4"
    assert told(nodes, {"pipeline": {"operators": [{"resources": {"gpus": 0}}]}}) == ""
    assert told({"nodes": [{"gpus": {"kind": "cuda:0"}}]}, asking) == ""
    assert told({}, {}) == ""
