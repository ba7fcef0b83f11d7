"""Frames between the host and a replica: a fixed head, then bytes; and the header that asks a server where a request's time went.

The module owns the formats and knows no socket.

A call is a `HEAD`, then (of more than one request) the length of each body as u32, then the bodies. A head with no requests in it
withdraws the call of that number. An answer is an `ANSWER`, then the lengths in the same way, then the bodies. Where the count of bytes
has the bit `SHARED`, a `PLACE` follows instead, which says where in shared memory they lie. Nothing is pickled, and lengths are bounded
by the host's limit on bodies.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: number of the call, requests in it, bytes that follow, monotonic seconds after which nobody waits for it
HEAD = struct.Struct("<QIQd")
#: number, requests, bytes that follow, monotonic seconds at which the handler began and ended, kind
ANSWER = struct.Struct("<QIQddB")
#: position and count of bytes in shared memory
PLACE = struct.Struct("<QQ")
SHARED = 1 << 63
BYTES_AFTER = SHARED - 1
LAST, PART, SKIPPED, FAILED = range(4)
#: a request that has this header gets its visits back in it, as JSON: name, replica, queued, begun, ended (monotonic s), items
TRACE = "x-windtunnel-trace"
SERVICE = "windtunnel.Serving"  # of gRPC


def join(bodies: Sequence[bytes]) -> list[bytes]:
    """Bodies as they follow a head, in parts."""
    return [*bodies] if len(bodies) == 1 else [struct.pack(f"<{len(bodies)}I", *map(len, bodies)), *bodies]


def split(data: bytes, items: int) -> list[bytes]:
    """Inverse of `join`."""
    if items == 1:
        return [data]
    lengths, at, found = struct.unpack_from(f"<{items}I", data), 4 * items, []
    for length in lengths:
        found.append(data[at : at + length])
        at += length
    return found
