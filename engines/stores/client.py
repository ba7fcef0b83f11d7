"""A client's process: ``python -m windtunnel.engines.stores.client`` reads what it is on one line, and journals each operation.

It connects, warms up on a space of its own, says ``ready``, and begins at the moment it is told. A line goes to the journal before each
operation and one after it, so that an operation in whose middle the client is killed is known to have begun. The process ends when its
standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from windtunnel.engines.foreign.codec import decode
from windtunnel.engines.stores.api import Conflict, Place
from windtunnel.errors import Unsupported
from windtunnel.spec.clients import ClientsSpec, Role
from windtunnel.spec.strict import one_line
from windtunnel.spec.workload import BoundWorkload, resolve
from windtunnel.workloads.data.history import Call, Script

WARM = 2  # operations of each kind before the first that counts
FIRST_S = 0.05  # an operation's usual duration before one was seen


class Client:
    """One client with its connection, script and journal."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._bound: BoundWorkload = decode(told["workload"])
        spec = self._bound.workload.clients
        assert spec is not None
        self._spec: ClientsSpec = spec
        self._role: Role = spec.roles[told["role"]]
        self._number, self._client = int(told["from"]), int(told["client"])
        self._seed = int(told["seed"])
        self._die = {int(number): float(share) for number, share in told["die"]}
        self._script: Script = resolve(spec.script)(self._bound)
        self._system = resolve(told["system"])
        store = (
            {**told["place"]["store"], "key": f"client{told['client']}"} if told["place"]["store"] else {}
        )  # who asked, in the log
        self._place = Place(**{**told["place"], "folder": Path(told["place"]["folder"]), "store": store})
        self._options = told["options"]
        self._journal = os.open(told["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._durations: list[float] = list(told["durations"])
        self.stopped = threading.Event()

    def warm_up(self) -> None:
        """The operations of the role on tables of this client alone: libraries load and pages are touched."""
        if not self._place.name:
            return
        place = Place(
            folder=self._place.folder,
            name=f"warm_{self._client}_{self._number}",
            store=self._place.store,
            server=self._place.server,
        )
        with contextlib.closing(self._system(place, self._options)) as system:
            system.create(self._script.initial(warm=True))
            for number in range(WARM):
                for kind, _ in self._role.kinds:
                    self._do(system, self._script.call(kind, self._client, number))

    def run(self, start_s: float) -> None:
        """Operations from ``start_s`` (monotonic) on, until the role's number of them or until stopped."""
        with contextlib.closing(self._system(self._place, self._options)) as system:
            time.sleep(max(0.0, start_s - time.monotonic()))
            while not self.stopped.is_set() and not (self._role.operations and self._number >= self._role.operations):
                self._operation(system, self._number, start_s)
                self._number += 1
                if self._role.pause_s:
                    self.stopped.wait(self._role.pause_s)

    def _operation(self, system: Any, number: int, start_s: float) -> None:
        dice = random.Random(f"{self._seed}:{self._client}:{number}")
        kind = self._role.kind(number, dice.random())
        call = self._script.call(kind, self._client, number)
        begun = time.monotonic()
        self._write({"b": number, "kind": kind, "t": begun - start_s, "rows": call.rows})
        if number in self._die:
            self._die_in(self._die[number] * (statistics.median(self._durations) if self._durations else FIRST_S))
        attempts, outcome, reason, answer = self._attempts(system, call, dice)
        ended = time.monotonic()
        self._durations.append(ended - begun)
        seen = self._script.seen(call, answer) if outcome == "ok" else None
        self._write({"e": number, "t": ended - start_s, "o": outcome, "a": attempts, "w": reason, "s": seen})

    def _attempts(self, system: Any, call: Call, dice: random.Random) -> tuple[int, str, str, Any]:
        """(attempts, outcome, reason, answer), with the waits of the spec between attempts."""
        retries = self._spec.retries
        for attempt in range(retries.most + 1):
            try:
                return attempt + 1, "ok", "", self._do(system, call)
            except Conflict as error:
                reason = one_line(str(error))[:300]
            except Exception as error:  # whatever a library raises: the operation may have happened or not
                return attempt + 1, "failed", one_line(f"{type(error).__name__}: {error}")[:300], None
            if attempt < retries.most:
                time.sleep(retries.wait_s(attempt, dice.random()))
        return retries.most + 1, "refused", reason, None

    def _do(self, system: Any, call: Call) -> Any:
        return getattr(system, call.kind)(**call.arguments)

    def _die_in(self, seconds: float) -> None:
        """Be killed, as by the system, unless the process has ended before."""

        def end() -> None:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=end, daemon=True).start()

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._journal, (json.dumps(line) + "\n").encode())


def main() -> int:
    """Entry point."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        client = Client(json.loads(sys.stdin.readline()))
        try:
            client.warm_up()
        except Unsupported as error:
            answers.write(json.dumps({"unsupported": str(error)}) + "\n")
            return 0
        answers.write(json.dumps({"ready": True}) + "\n")
        answers.flush()
        line = sys.stdin.readline()
        if not line:
            return 0
        start_s = float(json.loads(line)["start_s"])
        threading.Thread(target=_listen, args=(client,), daemon=True).start()
        client.run(start_s)
    return 0


def _listen(client: Client) -> None:
    """A line on standard input stops the client; its end means that nobody is there any more."""
    if not sys.stdin.readline():
        os.kill(os.getpid(), signal.SIGKILL)
    client.stopped.set()


if __name__ == "__main__":
    sys.exit(main())
