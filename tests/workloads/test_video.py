"""The film workload's parts: films that are the same everywhere, a container that tells damage apart, frames in order."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("skimage", reason="needs windtunnel[inference]")

from windtunnel.errors import InputError
from windtunnel.registry import load_workload
from windtunnel.workloads.inference import clips, vision


def _film(number: int = 1) -> bytes:
    return clips.clip(7, number)


def test_rows_do_not_depend_on_files(data_root: Path) -> None:
    one, three = (
        pq.read_table(list(load_workload("video", scale=0.006, partitions=p).bind(data_root).table("clips").paths))
        for p in (1, 3)
    )
    assert one.equals(three)


def test_a_film_becomes_its_frames_in_order() -> None:
    batch = pa.RecordBatch.from_pydict({"id": [3, 5], "clip": pa.array([_film(3), _film(5)], pa.binary())})
    found = list(clips.frames(batch))
    assert len(found) == 2, "a batch a film: a task's output leaves it film by film"
    for number, film in zip((3, 5), found, strict=True):
        (count,) = struct.unpack_from("<I", _film(number), 8)
        assert film.column("id").to_pylist() == list(range(1000 * number, 1000 * number + count))
        assert film.column("status").to_pylist() == ["ok"] * count
        assert {len(p) for p in film.column("pixels").to_pylist()} == {vision.PIXEL_BYTES}
    first, last = (np.frombuffer(found[0].column("pixels")[i].as_py(), np.uint8).astype(int) for i in (0, -1))
    assert np.abs(first - last).mean() > 2, "the window moves"


def test_lengths_differ_twentyfold() -> None:
    counts = [struct.unpack_from("<I", film, 8)[0] for film in (_film(i) for i in range(40)) if len(film) > 100]
    assert min(counts) < 7
    assert max(counts) > 50


def test_damage_is_told_apart_and_stays_a_row() -> None:
    good = _film()
    huge = good[:8] + struct.pack("<I", 2**31) + good[12:]
    files = [b"", b"<html></html>", good[: len(good) // 2], good[:10], huge, good[:8] + struct.pack("<I", 0)]
    batch = pa.RecordBatch.from_pydict({"id": list(range(6)), "clip": pa.array(files, pa.binary())})
    rows = pa.Table.from_batches(list(clips.frames(batch)))
    assert rows["status"].to_pylist() == ["empty", "not an image", *["truncated"] * 4]
    assert rows["id"].to_pylist() == [1000 * i for i in range(6)]
    (nothing,) = clips.frames(batch.slice(0, 0))
    assert (nothing.num_rows, nothing.schema.names) == (0, ["id", "status", "pixels"])


def test_formats_without_binary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use format parquet or orc"):
        load_workload("video", format="json").bind(tmp_path)
