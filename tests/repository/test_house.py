"""The house itself: who may import whom, what the wheel holds, which files are whose."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grouping import group

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("windtunnel", "workloads", "engines", "sim", "reports")

#: room → rooms it may import; the command line (`windtunnel/cli.py`, `windtunnel/commands`) may import all
ARROWS = {
    "windtunnel": (),
    "workloads": ("windtunnel",),
    "engines": ("windtunnel", "workloads"),
    "sim": ("windtunnel", "engines"),
    "reports": ("windtunnel",),
}

#: modules of a room that another may not import
HIDDEN = {"sim": ("windtunnel.engines.adapters", "windtunnel.engines.local")}

#: heavy library → the only files that import it
HEAVY = {
    "pyspark": ("engines/adapters/spark", "engines/serving/spark_stream.py"),
    "dask": ("engines/adapters/dask", "engines/serving/dask_tasks.py"),
    "distributed": ("engines/adapters/dask", "engines/serving/dask_tasks.py", "windtunnel/running/pool.py"),
    "daft": "engines/adapters/daft.py", "pyflink": ("engines/adapters/flink.py", "engines/adapters/flink_declared.py"),
    "ray": ("engines/adapters/ray", "engines/serving/ray_host.py", "windtunnel/running/pool.py"),
    "simpy": "sim/",
}  # fmt: skip


def sources() -> Iterator[Path]:
    """All Python files of the five rooms."""
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Absolute names that a file imports, with `from a import b` as a.b; those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and _is_typing(node) for n in ast.walk(node)}
    nodes = tree.body if top_only else list(ast.walk(tree))
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_typing(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room_of(path: Path) -> str:
    """The room of a file; the command line is a room of its own."""
    parts = path.relative_to(ROOT).parts
    return "cli" if parts[:2] in (("windtunnel", "commands"), ("windtunnel", "cli.py")) else parts[0]


def room_of_import(name: str) -> str | None:
    """The room that an import reaches."""
    parts = name.split(".")
    if parts[0] != "windtunnel":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS[1:] else "windtunnel"


def test_arrows_point_inwards() -> None:
    wrong = []
    for path in sources():
        room = room_of(path)
        for name in imports(path):
            target = room_of_import(name)
            if room == "cli" or target in (None, room) or target in ARROWS[room]:
                continue
            wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_simulated_world_knows_no_engine() -> None:
    for room, hidden in HIDDEN.items():
        for path in (ROOT / room).rglob("*.py"):
            assert not [n for n in imports(path) if n.startswith(hidden)], path


#: decisions about services, and the only modules that may use them; worlds carry out what `deployment` and `batches` say
DECISIONS = {
    "windtunnel.engines.models.pace": ("engines/models/",),
    "windtunnel.engines.models.routing": ("engines/models/", "sim/serving/site.py"),  # a site asks where there is room
    "windtunnel.engines.models.serving.Scaling": ("engines/models/",),
    "windtunnel.engines.models.serving.Autoscaler": ("engines/models/",),
    "windtunnel.engines.models.serving.rules_of": ("engines/models/",),
    "windtunnel.engines.models.streams.CHOICE": ("engines/models/", "sim/serving/cores.py"),  # which CPU a process wakes on
}  # fmt: skip


def test_worlds_of_services_decide_nothing() -> None:
    """No world imports a rule; of both, only who carries out holds a deployment, and only a replica gathers batches."""
    for path in sources():
        where = str(path.relative_to(ROOT))
        for name in imports(path):
            for rule, homes in DECISIONS.items():
                assert not (name == rule or name.startswith(rule + ".")) or where.startswith(homes), f"{where} imports {name}"
    holders = {
        str(p.relative_to(ROOT)) for p in sources() for n in imports(p) if n == "windtunnel.engines.models.batches.Gatherer"
    }
    assert holders == {"sim/serving/replicas.py", "engines/serving/replica.py"}


def test_heavy_libraries_are_imported_in_one_place() -> None:
    for path in sources():
        where = str(path.relative_to(ROOT))
        for name in imports(path):
            home = HEAVY.get(name.split(".")[0])
            assert home is None or where.startswith(home), f"{where} imports {name}"


LIBRARIES = {
    "duckdb": "duckdb", "polars": "polars", "dask": "dask", "spark": "pyspark", "daft": "daft", "flink": "pyflink", "ray": "ray",
    "flink_declared": "pyflink", "flink_kernels": "pyflink", "flink_sql": "pyflink", "ray_cluster": "ray", "ray_core": "ray",
    "ray_tasks": "ray", "spark_session": "pyspark",
}  # fmt: skip


def test_adapters_import_their_library_inside() -> None:
    for path in (ROOT / "engines" / "adapters").glob("*.py"):
        library = LIBRARIES.get(path.stem)
        if library is not None:
            assert not [n for n in imports(path, top_only=True) if n.split(".")[0] == library], path


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {_module(p): {m for n in imports(p, top_only=True) if (m := _target(n)) is not None} for p in sources()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            visit(target, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "windtunnel" else ("windtunnel", *parts))
    return name.removesuffix(".__init__")


def _target(name: str) -> str | None:
    """The module that an import reaches: a package's name stands for its ``__init__``."""
    known = {_module(p) for p in sources()}
    if name in known:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in known else None


def test_every_module_says_what_it_owns() -> None:
    for path in sources():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


#: functions that may be long, with the reason
LONG = {"sim/world/wave.py:run": "one loop on local variables that runs for every task: a call a task would halve its speed"}


def test_files_and_functions_stay_readable() -> None:
    for path in sources():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 460, f"{path} has grown: split it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if f"{path.relative_to(ROOT).as_posix()}:{node.name}" in LONG:
                    continue
                assert (node.end_lineno or 0) - node.lineno <= 70, f"{path}: {node.name} is too long"


def test_results_are_never_unpickled() -> None:
    for path in sources():
        if "pickle" in {n.split(".")[0] for n in imports(path)}:
            weights = path.parent.name == "inference" and path.name == "weights.py"  # of a pinned hash, through three names
            measured = path.parent.name == "calibration" and path.name == "host.py"  # times pickle on rows it has just made
            assert path.parent.name == "local" or weights or measured, f"{path}: only a worker's own pipe carries pickles"


def test_every_room_is_typed() -> None:
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file(), room


@pytest.mark.slow
def test_the_wheel_holds_what_git_holds(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {p if p.startswith("windtunnel/") else f"windtunnel/{p}" for p in listed.stdout.split()}
    assert names == expected


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = (
        "import sys; from windtunnel.cli import main; main(['--help']); "
        "print([m for m in ('pyarrow', 'duckdb', 'polars', 'simpy', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout[-200:]


def test_a_simulation_starts_without_heavy_libraries(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'schema = 1\nname = "ten"\n[cluster]\n[[cluster.nodes]]\ncpus = 2\nmemory = "1GiB"\n[dataset]\nrows = 10\n'
        'row_bytes = "8B"\npartitions = 10\n[[operators]]\nname = "work"\nkind = "map"\ncost = { per_batch = "1s" }\n'
        '[[engines]]\nname = "bulk"\n'
    )
    code = (
        f"import sys; from windtunnel.cli import main; main(['simulate', {str(file)!r}, '--results', {str(tmp_path / 'r')!r}]); "
        "print([m for m in ('pandas', 'scipy', 'duckdb', 'polars', 'jinja2', 'pyarrow.dataset') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout[-200:]


@pytest.mark.parametrize(
    ("nodeid", "together"),
    [
        ("tests/conformance/test_etl.py::test_a[ray-tpch_q3]", "tests/conformance/test_etl.py:ray"),
        ("tests/conformance/test_etl.py::test_a[ray-core-tpch_q3]", "tests/conformance/test_etl.py:ray-core"),
        ("tests/conformance/test_etl.py::test_a_second_run[ray-core]", "tests/conformance/test_etl.py:ray-core"),
        ("tests/conformance/test_simulated.py::test_b[tpch_q1-ray]", "tests/conformance/test_simulated.py"),
        ("tests/front/test_cli.py::test_c", "tests/front/test_cli.py"),
    ],
)
def test_tests_that_share_an_engine_run_in_one_process(nodeid: str, together: str) -> None:
    assert group(nodeid) == together
