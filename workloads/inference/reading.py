"""Kernels of the reading cascade: decode a page, find its lines, cut them out, read each. Two models of PP-OCRv4, as `rapidocr` ships.

The detector (DBNet: Liao et al., AAAI 2020) sees a whole page and gives a map of text; lines are its connected parts, grown by what
the training shrank them (`UNCLIP`). Lines are taken as upright boxes, which these pages have. The recogniser (SVTR-LCNet with CTC)
reads cut-out lines of `LINE` pixels. Weights: Apache-2.0, PyPI ``rapidocr-onnxruntime`` 1.4.4, read without the package's own code
and without OpenCV. A page that cannot be decoded, or shows nothing, stays one row with line -1.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pyarrow as pa

from windtunnel.workloads.inference.pages import HEIGHT, WIDTH
from windtunnel.workloads.inference.session import Session
from windtunnel.workloads.inference.weights import Array, need, packaged

PACKAGE = "rapidocr_onnxruntime"
DETECTOR = ("models/ch_PP-OCRv4_det_infer.onnx", "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9")
RECOGNISER = ("models/ch_PP-OCRv4_rec_infer.onnx", "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b")
SHOWN = (("id", "int64"), ("status", "string"), ("pixels", "binary"))
FOUND = (*SHOWN, ("boxes", "binary"))
CUT = (("id", "int64"), ("line", "int64"), ("status", "string"), ("pixels", "binary"))
READ = (("id", "int64"), ("line", "int64"), ("status", "string"), ("text", "string"), ("score", "double"))
OK, EMPTY, UNKNOWN, TRUNCATED, BLANK = "ok", "empty", "not an image", "truncated", "no text found"
LINE = (48, 320)  # pixels of a cut-out line, height and width
THRESHOLD, LEAST_SCORE, LEAST_SIDE, UNCLIP = 0.3, 0.5, 4, 1.6  # PP-OCRv4's own
#: counted over the graphs' convolutions and products with weights, a page of this size and a line
DETECTOR_GMACS, RECOGNISER_GMACS = 0.503, 0.702


def decode(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``png`` → ``status`` and grey ``pixels`` (`HEIGHT` × `WIDTH`; empty where the status is not ok)."""
    found = [_decoded(file) for file in batch.column("png").to_pylist()]
    columns = [
        batch.column("id"), pa.array([s for s, _ in found], pa.string()), pa.array([pixels for _, pixels in found], pa.binary()),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in SHOWN])


def _decoded(file: bytes) -> tuple[str, bytes]:
    from PIL import Image, UnidentifiedImageError

    if not file:
        return EMPTY, b""
    try:
        with Image.open(io.BytesIO(file), formats=("PNG",)) as image:
            grey = image.convert("L")
            return OK, (grey if grey.size == (WIDTH, HEIGHT) else grey.resize((WIDTH, HEIGHT))).tobytes()
    except UnidentifiedImageError:
        return UNKNOWN, b""
    except (OSError, SyntaxError, ValueError):
        return TRUNCATED, b""


def _feed(images: Array) -> dict[str, Array]:
    """Grey images as the models want them: three channels from -1 to 1."""
    scaled = images.astype(np.float32) / 127.5 - 1.0
    return {"x": np.ascontiguousarray(np.broadcast_to(scaled[:, None], (len(images), 3, *images.shape[1:])))}


# -- lines ------------------------------------------------------------------------------------------------------------


def detector() -> bytes:
    """The detector's graph: pixels → a map of text."""
    return packaged(PACKAGE, *DETECTOR).read_bytes()


class Detector:
    """Boxes of the lines of each page, from top to bottom."""

    def __init__(self, threads: int = 1, device: str = "cpu", gmacs: float = DETECTOR_GMACS) -> None:
        output = ("sigmoid_0.tmp_0",)
        self._session = Session("ppocr-detector", detector, output, device=device, gmacs=gmacs, threads=threads)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """``boxes`` are (left, top, right, bottom) as int32; pages that are not ok have none."""
        pixels, boxes = batch.column("pixels").to_pylist(), [b""] * batch.num_rows
        usable = [i for i, page in enumerate(pixels) if page]
        if usable:
            pages = np.stack([np.frombuffer(pixels[i], np.uint8).reshape(HEIGHT, WIDTH) for i in usable])
            (maps,) = self._session.run(_feed(pages))
            for i, found in zip(usable, maps.reshape(len(usable), HEIGHT, WIDTH), strict=True):
                boxes[i] = lines_in(found).tobytes()
        columns = [*batch.columns, pa.array(boxes, pa.binary())]
        return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in FOUND])


def lines_in(found: Array) -> Array:
    """[lines, 4] boxes of the connected parts of a map of text."""
    from scipy import ndimage

    labels, _ = ndimage.label(found > THRESHOLD, structure=np.ones((3, 3)))
    boxes = []
    for number, part in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = part
        height, width = rows.stop - rows.start, columns.stop - columns.start
        inside = labels[part] == number
        if min(height, width) < LEAST_SIDE or found[part][inside].mean() < LEAST_SCORE:
            continue
        grown = round(height * width * UNCLIP / (2 * (height + width)))
        boxes.append((max(0, columns.start - grown), max(0, rows.start - grown),
                      min(WIDTH, columns.stop + grown), min(HEIGHT, rows.stop + grown)))  # fmt: skip
    return np.array(sorted(boxes, key=lambda b: (b[1] + b[3], b[0])), np.int32).reshape(-1, 4)


def crop(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A page → a row a line, its pixels scaled to the height of `LINE` and padded to its width."""
    rows: list[tuple[int, int, str, bytes]] = []
    columns = (batch.column(name).to_pylist() for name, _ in FOUND)
    for number, status, pixels, boxes in zip(*columns, strict=True):
        found = np.frombuffer(boxes, np.int32).reshape(-1, 4)
        if not len(found):
            rows.append((number, -1, BLANK if status == OK else status, b""))
            continue
        page = np.frombuffer(pixels, np.uint8).reshape(HEIGHT, WIDTH)
        rows += [(number, line, OK, _cut(page, box)) for line, box in enumerate(found)]
    values = list(zip(*rows, strict=True)) or [(), (), (), ()]
    kinds = (pa.int64(), pa.int64(), pa.string(), pa.binary())
    return pa.RecordBatch.from_arrays([pa.array(v, k) for v, k in zip(values, kinds, strict=True)], names=[n for n, _ in CUT])


def _cut(page: Array, box: Array) -> bytes:
    from PIL import Image

    left, top, right, bottom = (int(v) for v in box)
    height, most = LINE
    width = max(1, min(most, round((right - left) * height / (bottom - top))))
    line = Image.fromarray(page[top:bottom, left:right]).resize((width, height), Image.Resampling.BILINEAR)
    wide = np.full(LINE, 127, np.uint8)  # about zero for the model, as its padding was in training
    wide[:, :width] = np.asarray(line)
    return wide.tobytes()


# -- reading ----------------------------------------------------------------------------------------------------------


@cache
def _recogniser() -> tuple[bytes, tuple[str, ...]]:
    """The recogniser's graph with the best character of each step as its output, and what the numbers stand for."""
    need("the reading models", ("onnx", PACKAGE))
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(packaged(PACKAGE, *RECOGNISER).read_bytes())
    characters = next(entry.value for entry in model.metadata_props if entry.key == "character").splitlines()
    graph, last = model.graph, model.graph.output[0].name
    graph.node.append(helper.make_node("ArgMax", [last], ["best"], axis=2, keepdims=0))
    graph.node.append(helper.make_node("ReduceMax", [last], ["top"], axes=[2], keepdims=0))
    del graph.output[:]
    graph.output.extend([
        helper.make_tensor_value_info("best", TensorProto.INT64, ["n", "t"]),
        helper.make_tensor_value_info("top", TensorProto.FLOAT, ["n", "t"]),
    ])  # fmt: skip
    return model.SerializeToString(), ("", *characters, " ")


class Recogniser:
    """The text of cut-out lines."""

    def __init__(self, threads: int = 1, device: str = "cpu", gmacs: float = RECOGNISER_GMACS) -> None:
        graph, self._characters = _recogniser()
        self._session = Session("ppocr-recogniser", lambda: graph, ("best", "top"), device=device, gmacs=gmacs, threads=threads)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """``text`` and the mean probability of its characters; rows that are no line have none."""
        pixels = batch.column("pixels").to_pylist()
        usable = [i for i, line in enumerate(pixels) if line]
        text, score = [""] * batch.num_rows, np.zeros(batch.num_rows)
        if usable:
            lines = np.stack([np.frombuffer(pixels[i], np.uint8).reshape(LINE) for i in usable])
            best, top = self._session.run(_feed(lines))
            for i, steps, likely in zip(usable, best.astype(np.int64), top, strict=True):
                text[i], score[i] = self._said(steps, likely)
        columns = [batch.column("id"), batch.column("line"), batch.column("status"), pa.array(text, pa.string()), pa.array(score)]
        return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in READ])

    def _said(self, steps: Array, likely: Array) -> tuple[str, float]:
        """CTC: repeats are one character, 0 stands between them."""
        new = (steps != 0) & np.concatenate([[True], steps[1:] != steps[:-1]])
        return "".join(self._characters[s] for s in steps[new]).strip(), float(likely[new].mean()) if new.any() else 0.0
