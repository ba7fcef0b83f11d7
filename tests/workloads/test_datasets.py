"""Data sets: the same rows whatever the files, made once, published whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tests.workloads import plan_interpreter
from windtunnel.errors import InputError
from windtunnel.registry import load_workload
from windtunnel.spec.workload import DatasetSpec, Format, TableData
from windtunnel.workloads import datasets, synthetic
from windtunnel.workloads.storage import cut, even_sizes, materialise

SPEC = DatasetSpec(name="flights", generator="windtunnel.workloads.datasets:flights", rows=1000, partitions=3)
GENERATORS = ("flights", "logs", "events", "records", "clicks")


def _rows(name: str, folder: Path, **changes: object) -> pa.Table:
    spec = replace(SPEC, **{"name": name, "skew": 1.0, **changes})
    (table,) = getattr(datasets, name)(spec, folder)
    assert len(table.paths) == spec.partitions
    assert table.rows == spec.rows
    assert table.bytes == sum(Path(p).stat().st_size for p in table.paths)
    return plan_interpreter.read(table)


@pytest.mark.parametrize("name", GENERATORS)
def test_rows_depend_on_the_seed_not_on_files_or_format(name: str, tmp_path: Path) -> None:
    base = _rows(name, tmp_path / "base")
    assert base.num_rows == 1000
    assert _rows(name, tmp_path / "again") == base
    assert _rows(name, tmp_path / "files", partitions=7) == base
    for format in ("csv", "json", "orc"):
        assert _rows(name, tmp_path / format, format=format) == base
    assert _rows(name, tmp_path / "seed", seed=8) != base


def test_rows_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (datasets, synthetic):
        monkeypatch.setattr(module, "CHUNK_ROWS", 300)
    table = _rows("records", tmp_path / "records")
    assert table["id"].to_pylist() == list(range(1000))
    assert len(set(table["key"].to_pylist())) == 1000


def test_even_sizes() -> None:
    assert even_sizes(10, 4) == (3, 3, 2, 2)
    assert even_sizes(2, 4) == (1, 1)


def test_cut_crosses_chunk_borders() -> None:
    chunks = iter([pa.table({"x": [1, 2, 3]}), pa.table({"x": [4, 5]})])
    assert [[x for t in part for x in t["x"].to_pylist()] for part in cut(chunks, (2, 2, 1))] == [[1, 2], [3, 4], [5]]


def test_a_finished_data_set_is_not_built_again(tmp_path: Path) -> None:
    first = datasets.flights(SPEC, tmp_path / "data")
    before = [Path(p).stat().st_mtime_ns for p in first[0].paths]
    assert datasets.flights(SPEC, tmp_path / "data") == first
    assert [Path(p).stat().st_mtime_ns for p in first[0].paths] == before


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> tuple[TableData, ...]:
        (folder / "half").write_text("x")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        materialise(SPEC, tmp_path / "data", build)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "half").write_text("x")
    with pytest.raises(InputError, match="holds no finished data set; remove it"):
        datasets.flights(SPEC, tmp_path / "data")


def test_events_have_a_hot_key(tmp_path: Path) -> None:
    keys = Counter(_rows("events", tmp_path / "events", rows=20_000, skew=1.2)["key"].to_pylist())
    assert keys.most_common(1)[0][1] > 20_000 * 0.15
    flat = Counter(_rows("events", tmp_path / "flat", rows=20_000, skew=0.0)["key"].to_pylist())
    assert flat.most_common(1)[0][1] < 40


def test_clicks_are_in_order_of_time_and_users_span_files(tmp_path: Path) -> None:
    table = _rows("clicks", tmp_path / "clicks", rows=3000)
    times = table["ts_ms"].to_pylist()
    assert times == sorted(times)
    users = table["user_id"].to_pylist()
    assert set(users[:1000]) & set(users[2000:])


@pytest.mark.parametrize("format", ["parquet", "csv", "orc"])
def test_tpch_tables_have_plain_types(format: Format, data_root: Path) -> None:
    bound = load_workload("tpch_q6", scale=0.002, partitions=2, format=format).bind(data_root)
    assert [(t.name, len(t.paths)) for t in bound.tables] == [
        ("lineitem", 2), ("orders", 2), ("customer", 2), ("supplier", 1), ("nation", 1), ("region", 1),
    ]  # fmt: skip
    schema = dict(bound.table("lineitem").schema)
    assert (schema["l_linenumber"], schema["l_quantity"], schema["l_shipdate"]) == ("int64", "double", "date32[day]")
    assert plan_interpreter.read(bound.table("orders")).num_rows == 3000
    assert bound.table("nation").rows == 25


def test_tpch_in_json_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="JSON lines have no date type; use format parquet, csv or orc"):
        load_workload("tpch_q6", format="json").bind(tmp_path)


def test_row_groups_of_wide_rows_are_small(tmp_path: Path) -> None:
    """100 rows of 1 MiB: six groups of sixteen and a rest; narrow rows stay in one."""
    import pyarrow.parquet as pq

    from windtunnel.workloads.storage import write_table

    wide = pa.table({"photo": pa.array([bytes(2**20)] * 100, pa.binary())})
    narrow = pa.table({"number": range(100_000)})
    for name, table, groups in (("wide", wide, 7), ("narrow", narrow, 1)):
        made = write_table(tmp_path, name, "parquet", table.schema, [[table]])
        assert pq.ParquetFile(tmp_path / made.paths[0]).metadata.num_row_groups == groups
