"""The compiled core leaves what Python leaves, byte for byte, and is left aside when its sources are not what it was built from."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim import test_determinism, test_serving_determinism
from windtunnel import compiling, core
from windtunnel.engines.models.catalogue import ENTRIES

compiled = pytest.mark.skipif(core.reason() is not None, reason=f"no compiled core: {core.reason()}")
GATES = Path(__file__).resolve().parents[1] / "gates"
EVERY_MODEL = "".join(f'[[engines]]\nname = "{n}"\nlabel = "every {n}"\n' for n in ENTRIES)
DRAWN = test_determinism.SCENARIO.format(seed=7).replace('memory = "2GiB"', 'memory = "16GiB"')
DRAWN = DRAWN.replace("[cluster]", "[cluster]\nnetwork = { oversubscription = 2.0 }", 1)
#: what the others leave out: a small core of the network, data far away, spinning disks
FAR = """
schema = 1
name = "far"
[dataset]
rows = 60
row_bytes = "1MB"
partitions = 12
location = "remote"
remote = { bandwidth_per_node = "50MB/s", latency = "20ms" }
[cluster]
network = { oversubscription = 3.0 }
[[cluster.nodes]]
count = 12
cpus = 2
memory = "16GiB"
nic = "100Mbit/s"
disk = { kind = "hdd", drives = 2 }
[[operators]]
name = "map"
kind = "map"
cost = { per_row = "10ms" }
[[operators]]
name = "sort"
kind = "sort"
cost = { per_row = "10ms" }
"""
SCENARIOS = {
    "far": FAR + EVERY_MODEL,
    "batch": DRAWN + EVERY_MODEL,
    "faults": DRAWN
    + test_determinism.FAULTS.replace("node[", "worker[")
    + '[[engines]]\nname = "spark"\n[[engines]]\nname = "mapreduce"\n',
    "services": test_serving_determinism.TEXT + '[[engines]]\nname = "fastapi"\n',
    **{f"gate {name}": (GATES / f"{name}.toml").read_text() for name in ("etl", "inference", "serving")},
}


def left(folder: Path, text: str, kind: str) -> dict[str, bytes]:
    """All files that a simulation in a process of its own stores."""
    folder.mkdir()
    (folder / "job.toml").write_text(text)
    results = folder / "results"
    command = [sys.executable, "-m", "windtunnel.cli", "simulate", str(folder / "job.toml"), "--results", str(results), "--json"]
    done = subprocess.run(command, env={core.ASKED: kind, "PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
    assert done.returncode in (0, 5), done.stderr.decode()[-1000:]  # 5: an engine ran out of memory, say
    return {p.relative_to(results).as_posix(): p.read_bytes() for p in sorted(results.rglob("*")) if p.is_file()}


@compiled
@pytest.mark.parametrize("name", SCENARIOS)
def test_both_cores_leave_the_same_records(tmp_path: Path, name: str) -> None:
    ours, other = (left(tmp_path / kind, SCENARIOS[name], kind) for kind in ("python", "compiled"))
    runs = [n for n in other if n.startswith("runs/") and n.endswith(".json")]
    for run in runs:
        record = json.loads(other[run])
        assert record["environment"].pop("core") == "compiled", run
        expected = json.loads(ours[run])
        assert expected["environment"].pop("core") == "python", run
        assert record == expected
        other[run] = other[run].replace(b'"core":"compiled"', b'"core":"python"')
    assert runs and ours == other


@compiled
def test_it_is_what_runs_when_asked_for() -> None:
    code = "from windtunnel.sim import world; print(world.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env={core.ASKED: "compiled"}, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(core.SUFFIX)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The note of a core that was built from the sources as they are."""
    monkeypatch.setattr(core, "BUILT", tmp_path)
    note = tmp_path / core.NOTE
    note.write_text(json.dumps({"suffix": core.SUFFIX, "digests": core.digests()}))
    assert core.reason() is None
    return note


def test_a_changed_source_is_noticed(built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    note = json.loads(built.read_text())
    note["digests"]["sim/world/world.py"] = "of another time"
    built.write_text(json.dumps(note))
    monkeypatch.setenv(core.ASKED, "compiled")
    with pytest.raises(ImportError, match=r"sim/world/world\.py changed since it was built; `make fast` builds it anew"):
        core.choose()
    monkeypatch.setenv(core.ASKED, "")
    core.choose()
    assert capsys.readouterr().err.count("left aside: sim/world/world.py changed") == 1
    core.choose()  # children of this process, say
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda note: note["digests"].pop("sim/world/world.py"), r"sim/world/world\.py changed"),
        (lambda note: note["digests"].update({"sim/gone.py": ""}), "the list of its modules changed"),
        (lambda note: note.update(suffix=".cpython-39-of-another.so"), "another Python"),
    ],
)
def test_another_list_or_python_is_noticed(built: Path, change: object, why: str) -> None:
    note = json.loads(built.read_text())
    change(note)  # type: ignore[operator]
    built.write_text(json.dumps(note))
    assert why.replace("\\", "") in (core.reason() or "")


def test_a_wrong_wish_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(core.ASKED, "rust")
    with pytest.raises(ImportError, match="'rust' must be 'python' or 'compiled'"):
        core.choose()


@pytest.mark.parametrize(
    ("lacks", "words"),
    [("which", "needs a C compiler .* `apt-get install gcc`"), ("find_spec", "needs mypyc: `make fast` installs it")],
)
def test_without_its_tools_a_build_is_a_sentence(monkeypatch: pytest.MonkeyPatch, lacks: str, words: str) -> None:
    monkeypatch.setattr(compiling.shutil if lacks == "which" else compiling.importlib.util, lacks, lambda name: None)
    monkeypatch.setattr(compiling, "_compile", lambda *_: pytest.fail("it would compile"))
    with pytest.raises(SystemExit, match=words):
        compiling.build()


def test_whoever_derives_from_a_compiled_class_is_compiled_too() -> None:
    """Compiled classes cannot be derived from in Python."""
    listed = {core.ROOT / name for name in core.files()}
    owned = {name for path in listed for name, _ in classes(path)}
    for room in ("engines", "sim"):
        for path in sorted((core.ROOT / room).rglob("*.py")):
            derived = [name for name, bases in classes(path) if bases & owned]
            assert path in listed or not derived, f"{path}: {derived}; add it to windtunnel/core.py"


def classes(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Classes of a module with the names of their bases, but for protocols, which nobody need derive from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            bases = {b.id for b in node.bases if isinstance(b, ast.Name)}
            if "Protocol" not in bases:
                yield node.name, bases
