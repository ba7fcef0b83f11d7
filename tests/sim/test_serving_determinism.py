"""Serving draws arrivals, choices and durations: the same seed gives the same bytes in other processes, another one does not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.sim.serving import scenario

TEXT = scenario(
    'kind = "gamma"\nrate_per_s = 300\ncv = 2.0\nduration = "20s"',
    """
[[deployments]]
name = "front"
replicas = 3
max_ongoing = 5
cost = { per_call = "2ms", cv = 0.5 }
calls = [["left", "right"]]
[[deployments]]
name = "left"
replicas = { min = 1, max = 6, target_ongoing = 1, upscale_delay = "1s" }
startup = "500ms"
batch = { max_size = 4, wait = "5ms" }
cost = { per_call = "4ms", per_item = "1ms", cv = 1.0 }
[[deployments]]
name = "right"
replicas = 2
cost = { per_call = "3ms", cv = 1.0 }
""",
    more='[[engines]]\nname = "ray-serve"\n[[faults]]\nat = "5s"\nkind = "worker_killed"\ntarget = "node[0]"\n',
)


def stored(folder: Path, seed: int, hash_seed: str) -> dict[str, str]:
    """Hashes of everything that a simulation in a process of its own stores."""
    folder.mkdir()
    file = folder.parent / f"serve-{seed}.toml"
    file.write_text(TEXT.replace("schema = 1", f"schema = 1\nseed = {seed}"))
    command = [sys.executable, "-m", "windtunnel.cli", "simulate", str(file), "--results", str(folder), "--json"]
    done = subprocess.run(command, env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    first = stored(tmp_path / "a", 7, "1")
    assert first == stored(tmp_path / "b", 7, "2718")
    other = stored(tmp_path / "c", 8, "1")
    assert not set(first.values()) & {v for name, v in other.items() if not name.startswith("experiments")}
