"""A model on a device: ONNX Runtime on the CPU or on CUDA, or an emulated device that takes published time and real answers.

``device`` is what `windtunnel.engines.placement` writes into a kernel's parameters: ``cpu``, ``cuda:N``, ``cuda@FOLDER`` (claimed
among several) or ``emulated:KIND@FOLDER``. Kernels that ask for no device run on the CPU.

What an emulated device is: its kernel lasts as long as `windtunnel.spec.devices` says, copies over the host link added, during which
the host's CPU is free and the device takes nobody else's call. Its answers are real ones: they were computed by the same model on
the CPU before any timing (`Answers`), and are found by a hash of each row's whole input. A row that was not foreseen is computed on
the CPU at once and counted. So an output is verified like any other, and a wrong input cannot get a right answer. Where finding the
answers takes longer than the kernel should, the difference is counted as ``emulated_late_s``.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.errors import RunFailed
from windtunnel.spec.devices import Emulated, emulated, is_emulated
from windtunnel.workloads.inference.claims import Claim
from windtunnel.workloads.inference.weights import Array, need

Feeds = Mapping[str, Array]
Run = Callable[[Feeds], list[Array]]
_ANSWERS = "answers-{}.arrow"
_TIMER_SLACK_S = 0.0003


class Session:
    """A loaded model. ``run(feeds)`` gives the named outputs, one row each for a row of every feed."""

    def __init__(
        self,
        name: str,
        graph: Callable[[], bytes],
        outputs: Sequence[str],
        *,
        device: str = "cpu",
        gmacs: float = 0.0,
        threads: int = 1,
        input_bytes: Callable[[Feeds, int], bytes] | None = None,
    ) -> None:
        """``gmacs``: multiply-adds of a row in 1e9. ``input_bytes``: what row i of the feeds is without its padding."""
        need("a model", ("onnxruntime",))
        self._run: Run
        if is_emulated(device):
            self._run = _EmulatedDevice(name, graph, outputs, device, gmacs, threads, input_bytes or _row_bytes)
        elif device.startswith("record@"):
            self._run = _Recording(name, graph, outputs, Path(device.partition("@")[2]), threads, input_bytes or _row_bytes)
        else:
            self._run = runtime(graph(), outputs, device, threads)

    def run(self, feeds: Feeds) -> list[Array]:
        """One call of the model."""
        return self._run(feeds)


def runtime(graph: bytes, outputs: Sequence[str], device: str = "cpu", threads: int = 1) -> Run:
    """ONNX Runtime on the CPU, or on a CUDA device. Raises RunFailed, saying what is there, where it has no CUDA."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    providers: list[Any] = ["CPUExecutionProvider"]
    claim: Claim | None = None
    if device != "cpu":
        if "CUDAExecutionProvider" not in (there := onnxruntime.get_available_providers()):
            raise RunFailed(f"device {device.partition('@')[0]} needs ONNX Runtime with CUDA (pip install onnxruntime-gpu) and a GPU; "
                            f"this one has {', '.join(there)}")  # fmt: skip
        kind, _, folder = device.partition("@")
        number = int(kind.partition(":")[2] or 0)
        if folder and "CUDA_VISIBLE_DEVICES" not in os.environ:  # else the engine has chosen
            claim = Claim(Path(folder), len(graph), "a model")
            number += claim.number
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
    session = onnxruntime.InferenceSession(graph, options, providers=providers)
    if device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RunFailed(f"ONNX Runtime could not use {device.partition('@')[0]}: it fell back to {session.get_providers()[0]}")

    def run(feeds: Feeds) -> list[Array]:
        begun = time.perf_counter()
        found: list[Array] = session.run(list(outputs), dict(feeds))
        if claim is not None:
            claim.add(device_busy_s=time.perf_counter() - begun, device_calls=1)
        return found

    return run


def _row_bytes(feeds: Feeds, row: int) -> bytes:
    return b"".join(values[row].tobytes() for values in feeds.values())


def _rows(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _keys(feeds: Feeds, input_bytes: Callable[[Feeds, int], bytes]) -> Array:
    """16 bytes of SHA-256 a row, as two numbers."""
    digests = b"".join(hashlib.sha256(input_bytes(feeds, row)).digest()[:16] for row in range(_rows(feeds)))
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


# -- answers ----------------------------------------------------------------------------------------------------------


class Answers:
    """Outputs of a model by the hash of their input: written once beside the data, mapped by every process that needs them."""

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        self._keys = table["low"].to_numpy(), table["high"].to_numpy()
        self._outputs = [_matrix(table[name]) for name in table.column_names[2:]]

    def find(self, keys: Array) -> tuple[Array, list[Array]]:
        """(which rows are known, their outputs)."""
        low, high = self._keys
        if not len(low):
            return np.zeros(len(keys), dtype=bool), []
        at = np.minimum(np.searchsorted(low, keys[:, 0]), len(low) - 1)
        known = (low[at] == keys[:, 0]) & (high[at] == keys[:, 1])
        return known, [values[at[known]] for values in self._outputs]


def _matrix(column: pa.ChunkedArray) -> Array:
    """Fixed-size lists as [rows, size], without a copy."""
    (chunk,) = column.chunks
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=True).reshape(len(chunk), -1))


class _Recording:
    """The real model on the CPU that keeps what it answered in memory until `save_answers`."""

    kept: dict[tuple[Path, str], dict[bytes, list[Array]]] = {}

    def __init__(
        self, name: str, graph: Callable[[], bytes], outputs: Sequence[str], folder: Path, threads: int,
        input_bytes: Callable[[Feeds, int], bytes],
    ) -> None:  # fmt: skip
        self._real, self._input_bytes = runtime(graph(), outputs, "cpu", threads), input_bytes
        self._answers = self.kept.setdefault((folder, name), {})

    def __call__(self, feeds: Feeds) -> list[Array]:
        found = self._real(feeds)
        for row, key in enumerate(_keys(feeds, self._input_bytes)):
            self._answers[key.tobytes()] = [np.asarray(values[row], np.float32).reshape(-1) for values in found]
        return found


def save_answers(folder: Path) -> None:
    """Write what recording models of this process answered for ``folder``, each model's in a file of its own."""
    for place, name in [key for key in _Recording.kept if key[0] == folder]:
        answers = _Recording.kept.pop((place, name))
        keys = np.frombuffer(b"".join(answers), np.uint64).reshape(-1, 2)
        order = np.argsort(keys[:, 0], kind="stable")
        rows = list(answers.values())
        columns: dict[str, Any] = {"low": keys[order, 0], "high": keys[order, 1]}
        for number in range(len(rows[0]) if rows else 0):
            matrix = np.stack([rows[i][number] for i in order])
            columns[f"output{number}"] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
        path = answers_path(folder, name)
        table = pa.table(columns)
        with pa.OSFile(str(path.with_suffix(".tmp")), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        path.with_suffix(".tmp").replace(path)


def answers_path(folder: Path, name: str) -> Path:
    """Where the answers of model ``name`` lie."""
    return folder / _ANSWERS.format(name)


# -- the emulated device ----------------------------------------------------------------------------------------------


class _EmulatedDevice:
    """Takes the time of the published figures, and gives the answers."""

    def __init__(
        self, name: str, graph: Callable[[], bytes], outputs: Sequence[str], device: str, gmacs: float, threads: int,
        input_bytes: Callable[[Feeds, int], bytes],
    ) -> None:  # fmt: skip
        kind, _, place = device.partition("@")
        folder, _, data = place.partition("|")
        self._graph, self._outputs, self._threads, self._input_bytes = graph, outputs, threads, input_bytes
        self._figures: Emulated = emulated(kind)
        self._gmacs = gmacs
        self._real: Run | None = None
        path = answers_path(Path(data), name)
        self._answers = Answers(path) if data and path.exists() else None
        size = len(graph())
        self._claim = Claim(Path(folder), size, f"model {name}")
        weakref.finalize(self, self._claim.release)
        _sleep_until(time.perf_counter() + size / self._figures.pcie_bytes_per_s)

    def __call__(self, feeds: Feeds) -> list[Array]:
        copied = sum(values.nbytes for values in feeds.values())
        with self._claim.turn():
            begun = time.perf_counter()
            found, unknown = self._answer(feeds)
            copied += sum(values.nbytes for values in found)
            lasts = self._figures.seconds(_rows(feeds), self._gmacs) + copied / self._figures.pcie_bytes_per_s
            late = time.perf_counter() - begun - lasts
            _sleep_until(begun + lasts)
        self._claim.add(
            emulated_device_busy_s=lasts, emulated_device_calls=1, emulated_late_s=max(0.0, late), emulated_unforeseen=unknown
        )
        return found

    def _answer(self, feeds: Feeds) -> tuple[list[Array], int]:
        rows = _rows(feeds)
        if self._answers is None:
            return self._compute(feeds), rows
        known, found = self._answers.find(_keys(feeds, self._input_bytes))
        if known.all():
            return found, 0
        rest = self._compute({name: values[~known] for name, values in feeds.items()})
        answers = [np.empty((rows, *values.shape[1:]), np.float32) for values in rest]
        for place, values in enumerate(answers):
            values[~known] = rest[place]
            if known.any():
                values[known] = found[place].reshape(-1, *values.shape[1:])
        return answers, int((~known).sum())

    def _compute(self, feeds: Feeds) -> list[Array]:
        if self._real is None:
            self._real = runtime(self._graph(), self._outputs, "cpu", self._threads)
        return self._real(feeds)


def _sleep_until(instant: float) -> None:
    """Asleep, but for the last fraction of a millisecond, which sleeps overshoot."""
    left = instant - time.perf_counter()
    if left > _TIMER_SLACK_S:
        time.sleep(left - _TIMER_SLACK_S)
    while time.perf_counter() < instant:
        pass
