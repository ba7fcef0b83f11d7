"""A PostgreSQL server for a run: made anew in a folder of the session, on loopback, as an unprivileged user, and gone with it.

Where we are root, the server runs as ``postgres`` or ``nobody``, since it refuses to be root; the folders above are made passable for that.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windtunnel.engines.stores.objects import free_port
from windtunnel.engines.stores.session import Serving
from windtunnel.errors import MissingEngine, RunFailed

WAY_OUT = "apt-get install postgresql, or put initdb and postgres of any version from 13 on the PATH"
READY_S = 120.0


def programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: Debian's newest, else that on the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("postgres")
    return Path(found).parent if found and (Path(found).parent / "initdb").exists() else None


def serve(folder: Path, options: Mapping[str, Any]) -> Serving:
    """Start it. Raises MissingEngine without the programs."""
    bin_ = programs()
    if bin_ is None:
        raise MissingEngine(f"postgresql needs PostgreSQL's server, not found here; run: {WAY_OUT}")
    user = _user()
    data, port = folder / "postgres", free_port()
    data.mkdir()
    if user is not None:
        _passable(folder)
        os.chown(data, user.pw_uid, user.pw_gid)
    who: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
    environment = {**os.environ, "LC_ALL": "C", "HOME": str(data)}
    command = [str(bin_ / "initdb"), "-D", str(data / "data"), "-A", "trust", "-U", "windtunnel", "-N", "-E", "UTF8"]
    made = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False, **who)
    if made.returncode:
        raise RunFailed(f"initdb failed: {(made.stderr.strip().splitlines() or ['no message'])[-1][:300]}")
    settings = {
        "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": _on(options["durable"]),
        "synchronous_commit": _on(options["durable"]), "full_page_writes": _on(options["durable"]), "max_connections": 60,
        "max_parallel_workers_per_gather": int(options["workers"]), "shared_buffers": "256MB", "autovacuum": "off",
    }  # fmt: skip
    told = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = (folder / "postgres.log").open("wb")
    server = subprocess.Popen(
        [str(bin_ / "postgres"), "-D", str(data / "data"), *told],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        **who,
    )

    def stop() -> None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
        server.kill()
        server.wait()
        log.close()

    try:
        _until_up(port, server, folder / "postgres.log")
    except BaseException:
        stop()
        raise
    return Serving(address={"port": port, "user": "windtunnel", "database": "postgres"}, stop=stop)


def _on(flag: object) -> str:
    return "on" if flag else "off"


def _user() -> pwd.struct_passwd | None:
    """Whom the server runs as, where that is not us."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RunFailed("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _passable(folder: Path) -> None:
    """Others may pass our own scratch folders on the way to the data, and read nothing in them."""
    for place in (folder, *folder.parents):
        if not place.name.startswith("wt-"):
            return
        place.chmod(0o711)


def _until_up(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, user="windtunnel", dbname="postgres", connect_timeout=2).close()
            return
        if server.poll() is not None:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RunFailed(f"PostgreSQL ended with code {server.returncode}: {(words or ['it said nothing'])[-1][:300]}")
        time.sleep(0.05)
    raise RunFailed(f"PostgreSQL was not up within {READY_S:g} s")
