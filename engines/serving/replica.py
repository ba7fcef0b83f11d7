"""A replica: a process that answers one call after another, read from standard input and answered on standard output.

The end of its input is its order to stop, so it never outlives its host. It knows no HTTP, queue or other replica.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import BinaryIO

from windtunnel.engines.serving.wire import HEAD, TIMES
from windtunnel.engines.serving.work import Work

from windtunnel.serving import CallCost


def serve(source: BinaryIO, target: BinaryIO, work: Work) -> None:
    """Answer until the input ends; the answer's body is the call's."""
    while len(head := source.read(HEAD.size)) == HEAD.size:
        number, items, length = HEAD.unpack(head)
        body = source.read(length)
        begun = time.monotonic()
        work(items)
        target.write(HEAD.pack(number, items, length) + TIMES.pack(begun, time.monotonic()))
        target.write(body)
        target.flush()


def main() -> None:
    """Entry point: one line of JSON with cost, kind of work and random stream; then frames."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle: it drains
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # what a handler prints is no answer
    told = json.loads(source.readline())
    work = Work(CallCost(**told["cost"]), told["work"], *told["stream"])
    time.sleep(told["startup_s"])
    target.write(HEAD.pack(0, 0, 0) + TIMES.pack(0.0, 0.0))  # ready
    target.flush()
    serve(source, target, work)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
