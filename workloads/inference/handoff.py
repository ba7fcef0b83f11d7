"""ETL that feeds inference: which photographs are on offer is a matter of tables, what they show is a matter of a model.

One plan, which one engine can run whole, or the engine `pair` in two legs with a hand-over between them, through storage or memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from windtunnel.spec.expr import col
from windtunnel.spec.plan import Aggregate, Filter, Join, Measure, Operator, Scan
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, Format, TableData, Workload
from windtunnel.workloads.inference import vision
from windtunnel.workloads.inference.build import dataset, mapped, model, scan, sink, workload
from windtunnel.workloads.inference.images import BATCH_ROWS, ROWS_AT_SCALE_1
from windtunnel.workloads.inference.oracle import check_classified, rows_of
from windtunnel.workloads.inference.photos import checked, write_photos
from windtunnel.workloads.inference.vision import CLASSIFIED, DECODED, GMACS
from windtunnel.workloads.storage import cut, even_sizes, materialise, write_table

LISTINGS = 5  # of a photograph, on average
LEAST = 3  # listings in stock of what is worth classifying
_SCHEMA = pa.schema([("photo", pa.int64()), ("stock", pa.int64()), ("price", pa.float64())])


def handoff(
    *, scale: float = 0.1, partitions: int = 8, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0, gmacs: float = GMACS,
) -> Workload:  # fmt: skip
    """Find the photographs with enough listings in stock, then classify them; label, score and embedding of each into Parquet files."""
    operators = (
        Operator(
            name="listings", kind="scan", kernel=Scan(table="listings", columns=("photo", "stock", "price"), predicate=col("stock") > 0)
        ),
        Operator(
            name="offers", kind="aggregate", inputs=("listings",),
            kernel=Aggregate(
                keys=("photo",), measures=(Measure(name="offers", function="count"), Measure(name="least", function="min", column="price"))
            ),
        ),
        Operator(name="wanted", kind="filter", kernel=Filter(predicate=col("offers") >= LEAST), inputs=("offers",)),
        scan("photos", "id", "jpeg"),
        Operator(
            name="join", kind="join", inputs=("scan", "wanted"),
            kernel=Join(left_keys=("id",), right_keys=("photo",), broadcast=True),
        ),
        mapped("decode", "vision:decode", DECODED, "join", batch_rows),
        model("classify", "vision:Classifier", CLASSIFIED, "decode", batch_rows, gpus, gmacs),
        sink("classify"),
    )  # fmt: skip
    return workload(
        "handoff", operators, dataset("offers", "handoff:offers", ROWS_AT_SCALE_1, scale, partitions, seed, format),
        "handoff:check", 1e-4,
        "pick photographs by their listings, 5 each of 10,000 a scale unit, and classify them: ETL, then inference",
    )  # fmt: skip


def offers(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """The photographs of `images`, and listings of them: any number each, some without stock."""

    checked(spec)

    def build(scratch: Path) -> tuple[TableData, ...]:
        photographs = write_photos(spec, scratch)
        rows = LISTINGS * (spec.rows or 0)
        parts = cut(iter([_listings(spec.seed, spec.rows or 0, rows)]), even_sizes(rows, spec.partitions))
        return photographs, write_table(scratch, "listings", spec.format, _SCHEMA, parts)

    return materialise(spec, folder, build)


def _listings(seed: int, photographs: int, rows: int) -> pa.Table:
    draw = np.random.default_rng([seed, 1])
    columns = [draw.integers(photographs, size=rows), draw.integers(3, size=rows), np.round(draw.gamma(2.0, 20.0, rows), 2)]
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=_SCHEMA)


# -- the judge --------------------------------------------------------------------------------------------------------


def check(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult unless just the wanted photographs are there, each classified as when it is processed alone."""
    check_classified(bound, output, "listed photograph", _reference)


def wanted(bound: BoundWorkload) -> set[int]:
    """Ids of photographs with enough listings in stock."""
    counted = Counter(row.column("photo")[0].as_py() for row in rows_of(bound, "listings") if row.column("stock")[0].as_py() > 0)
    return {number for number, count in counted.items() if count >= LEAST}


def _reference(bound: BoundWorkload) -> pa.Table:
    classify, ids = vision.Classifier(), wanted(bound)
    rows: Iterator[pa.RecordBatch] = (row for row in rows_of(bound, "photos") if row.column("id")[0].as_py() in ids)
    return pa.Table.from_batches([classify(vision.decode(row)) for row in rows]).select(["id", "status", "embedding"])
