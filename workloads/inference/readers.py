"""Judge of the reading cascade: the lines of every page once, read as when the page is processed alone, and read right.

The text must be the reference's, letter by letter; scores agree within the oracle's ``rtol``. What is printed on the pages is known:
most of it must have been read, or models and kernels would only agree with themselves.
"""

from __future__ import annotations

import difflib

import numpy as np
import pyarrow as pa

from windtunnel.errors import WrongResult
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.inference import pages, reading
from windtunnel.workloads.inference.oracle import rows_of
from windtunnel.workloads.oracles import cached

LEAST_RIGHT = 0.95  # of the characters of pages that could be decoded
_ORDER = [("id", "ascending"), ("line", "ascending")]


def check_cascade(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult naming the first line that differs."""
    assert bound.workload.oracle is not None
    names = [name for name, _ in reading.READ]
    if set(output.column_names) != set(names):
        raise WrongResult(f"the output has columns {', '.join(output.column_names)}, not {', '.join(names)}")
    expected = cached(bound, "reference", "pages one by one, version 1", lambda: _reference(bound), of_data=True).sort_by(_ORDER)
    output = output.sort_by(_ORDER)
    if output.num_rows != expected.num_rows:
        raise WrongResult(f"the output has {output.num_rows} lines, the reference {expected.num_rows}")
    for name in ("id", "line", "status", "text"):
        _same(output, expected, name, np.asarray(output[name]) == np.asarray(expected[name]))
    near = np.isclose(np.asarray(output["score"]), np.asarray(expected["score"]), rtol=bound.workload.oracle.rtol)
    _same(output, expected, "score", near)
    right = share_right(bound.workload.dataset.seed, output)
    if right < LEAST_RIGHT:
        raise WrongResult(f"{right:.0%} of what is printed was read, not {LEAST_RIGHT:.0%}")


def _same(output: pa.Table, expected: pa.Table, name: str, equal: np.ndarray) -> None:
    wrong = np.flatnonzero(~equal)
    if len(wrong):
        row = int(wrong[0])
        where = f"line {output['line'][row]} of page {output['id'][row]}"
        raise WrongResult(
            f"{where} has {name} {output[name][row].as_py()!r}, the reference {expected[name][row].as_py()!r}; "
            f"so have {len(wrong) - 1} more of {len(equal)}"
        )


def share_right(seed: int, output: pa.Table) -> float:
    """Share of the printed characters, blanks aside, that were read in their order on pages that could be decoded."""
    said: dict[int, str] = {}
    lines = (output[name].to_pylist() for name in ("id", "status", "text"))
    for number, status, text in zip(*lines, strict=True):
        if status in (reading.OK, reading.BLANK):
            said[number] = said.get(number, "") + text.replace(" ", "")
    right = total = 0
    for number, text in said.items():
        printed = "".join(pages.lines_of(seed, number)).replace(" ", "")
        blocks = difflib.SequenceMatcher(None, printed, text, autojunk=False).get_matching_blocks()
        right, total = right + sum(b.size for b in blocks), total + len(printed)
    return right / total if total else 1.0


def _reference(bound: BoundWorkload) -> pa.Table:
    detect, recognise = reading.Detector(), reading.Recogniser()
    read = []
    for row in rows_of(bound, "pages"):
        lines = reading.crop(detect(reading.decode(row)))
        read += [recognise(lines.slice(i, 1)) for i in range(lines.num_rows)]
    return pa.Table.from_batches(read)
