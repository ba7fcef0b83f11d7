"""The reading cascade's parts: pages whose text is known, boxes around it, an oracle that sees a wrong letter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")
if importlib.util.find_spec("rapidocr_onnxruntime") is None:  # its own code needs OpenCV: it is never imported
    pytest.skip("needs pip install --no-deps rapidocr-onnxruntime==1.4.4", allow_module_level=True)

from windtunnel.errors import WrongResult
from windtunnel.registry import load_workload
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.inference import pages, reading
from windtunnel.workloads.inference.readers import share_right

ROWS = 30
Answer = tuple[BoundWorkload, pa.Table]


@pytest.fixture(scope="module")
def answered(data_root: Path) -> Answer:
    """The workload and its output by hand: pages in fours, lines in sixteens."""
    bound = load_workload("cascade", scale=ROWS / 5_000, partitions=2).bind(data_root)
    table = pq.read_table(list(bound.table("pages").paths)).combine_chunks()
    shown, detect, recognise = reading.decode(table.to_batches()[0]), reading.Detector(), reading.Recogniser()
    found = pa.Table.from_batches([detect(shown.slice(i, 4)) for i in range(0, ROWS, 4)]).combine_chunks()
    lines = reading.crop(found.to_batches()[0])
    return bound, pa.Table.from_batches([recognise(lines.slice(i, 16)) for i in range(0, lines.num_rows, 16)])


def test_the_oracle_accepts_batches_and_any_order(answered: Answer) -> None:
    bound, output = answered
    bound.verify(output.take(pa.array(np.random.default_rng(1).permutation(output.num_rows))))
    assert output.num_rows > ROWS, "pages hold more than one line"


def test_what_is_printed_was_read(answered: Answer) -> None:
    _, output = answered
    assert share_right(7, output) > 0.98
    assert share_right(8, output) < 0.7, "another seed prints other lines"


def test_the_oracle_sees_what_is_wrong(answered: Answer) -> None:
    bound, output = answered
    text = output["text"].to_pylist()
    row = next(i for i, t in enumerate(text) if t)
    wrong = {
        "lines, the reference": output.slice(1),
        "has text": _replaced(output, "text", [*text[:row], text[row] + "x", *text[row + 1 :]]),
        "has score": _replaced(output, "score", [0.9 * s for s in output["score"].to_pylist()]),
        "has status": _replaced(output, "status", ["ok"] * output.num_rows),
        "has columns": output.drop_columns(["score"]),
    }
    for message, table in wrong.items():
        with pytest.raises(WrongResult, match=message):
            bound.verify(table)


def _replaced(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


def test_lines_are_the_connected_parts_of_a_map() -> None:
    found = np.zeros((pages.HEIGHT, pages.WIDTH), np.float32)
    found[100:110, 50:150] = 0.9
    found[20:30, 200:300] = 0.9
    found[150:160, 10:60] = 0.35  # above the threshold of a pixel, below that of a line
    found[5:7, 5:50] = 0.9  # too low for letters
    grown = round(10 * 100 * 1.6 / (2 * 110))
    assert reading.lines_in(found).tolist() == [
        [200 - grown, 20 - grown, 300 + grown, 30 + grown], [50 - grown, 100 - grown, 150 + grown, 110 + grown],
    ]  # fmt: skip
    assert reading.lines_in(np.zeros_like(found)).shape == (0, 4)


def test_pages_that_show_nothing_stay_rows() -> None:
    from io import BytesIO

    from PIL import Image

    blank = BytesIO()
    Image.new("L", (pages.WIDTH, pages.HEIGHT), 250).save(blank, "PNG")
    good = pages.page(7, 1)
    files = [blank.getvalue(), b"", b"%PDF-1.7", good[: len(good) // 3], good]
    batch = pa.RecordBatch.from_pydict({"id": list(range(5)), "png": pa.array(files, pa.binary())})
    lines = reading.crop(reading.Detector()(reading.decode(batch)))
    first = lines.slice(0, 4)
    assert first.column("line").to_pylist() == [-1] * 4
    assert first.column("status").to_pylist() == ["no text found", "empty", "not an image", "truncated"]
    assert reading.Recogniser()(first).column("text").to_pylist() == [""] * 4
    assert reading.crop(reading.Detector()(reading.decode(batch.slice(0, 0)))).num_rows == 0


def test_repeats_are_one_letter_and_blanks_stand_between() -> None:
    reader = reading.Recogniser.__new__(reading.Recogniser)
    reader._characters = ("", "a", "b", " ")
    text, score = reader._said(np.array([0, 1, 1, 0, 1, 2, 2, 0, 3]), np.array([1, 0.8, 0.1, 1, 0.6, 0.4, 0.1, 1, 0.2]))
    assert text == "aab"
    assert score == pytest.approx((0.8 + 0.6 + 0.4 + 0.2) / 4)
