"""Records that a run did not write: damaged, or made by somebody who means no good."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile import templates
from tests.hostile.acts import inside
from tests.hostile.frame import Scene, Situation


def run_files(folder: Path) -> list[Path]:
    """The JSON files of a results folder."""
    return sorted((folder / "runs").glob("*.json"))


def bytes_of(data: bytes, which: int = 0) -> Callable[[Scene], None]:
    """A folder ``new`` whose record number ``which`` is these bytes, beside a good one ``base``."""

    def scene(scene: Scene) -> None:
        scene.copy(templates.simulated, "base")
        run_files(scene.copy(templates.simulated, "new"))[which].write_bytes(data)

    return scene


def changed(change: Callable[[dict[str, Any]], object], *, every: bool = False) -> Callable[[Scene], None]:
    """A folder ``new`` one of whose records, or every one, was changed; JSON as Python writes it, with NaN."""

    def scene(scene: Scene) -> None:
        scene.copy(templates.simulated, "base")
        files = run_files(scene.copy(templates.simulated, "new"))
        for path in files if every else files[:1]:
            document = json.loads(path.read_text(encoding="utf-8"))
            change(document)
            path.write_text(json.dumps(document), encoding="utf-8")

    return scene


NOT_JSON = {
    "an empty file": b"",
    "a list": b"[]",
    "half of a record": b'{"cell": "99574fe1',
    "a hundred thousand brackets": b"[" * 100_000,
    "bytes that are no UTF-8": b"\xff\xfe\x00",
    "a null": b"null",
}

SITUATIONS = [
    Situation(
        area="records", name=f"a record is {what}", does="compare", scene=bytes_of(data), act=inside("compare", "base", "new"),
        exits=(2, 5), says=r"runs/\S+\.json",
    )
    for what, data in NOT_JSON.items() if what not in ("a hundred thousand brackets", "bytes that are no UTF-8")
]  # fmt: skip
