"""Frames between the host and a replica: a fixed head, then bytes; and the header that asks a server where a request's time went.

The module owns the formats and knows no socket.

A call is a `HEAD`, then its body. A head with no request in it withdraws the call of that number. An answer is an `ANSWER`, then its
body. Where the count of bytes has the bit `SHARED`, a `PLACE` follows instead, which says where in shared memory they lie. Nothing is
pickled, and lengths are bounded by the host's limit on bodies.
"""

from __future__ import annotations

import struct

#: number of the call, requests in it (1, or 0 to withdraw it), bytes that follow, monotonic seconds after which nobody waits for it
HEAD = struct.Struct("<QIQd")
#: number, requests that were executed together, bytes that follow, monotonic seconds at which the handler began and ended, kind
ANSWER = struct.Struct("<QIQddB")
#: position and count of bytes in shared memory
PLACE = struct.Struct("<QQ")
SHARED = 1 << 63
BYTES_AFTER = SHARED - 1
LAST, PART, SKIPPED, FAILED = range(4)
#: a request that has this header gets its visits back in it, as JSON: name, replica, queued, begun, ended (monotonic s), items
TRACE = "x-windtunnel-trace"
SERVICE = "windtunnel.Serving"  # of gRPC
