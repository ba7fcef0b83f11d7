"""Frames between the host and a replica: a fixed head, then bytes; and the header that asks a server where a request's time went.

The module owns the formats and knows no pipe.

A call is ``(number, items, length)`` and the body; the answer is ``(number, items, length)``, the two times and the body. Nothing
is pickled, and lengths are bounded by the host's limit on bodies.
"""

from __future__ import annotations

import struct

#: number of the call, requests in it, bytes that follow
HEAD = struct.Struct("<QIQ")
#: monotonic seconds at which the handler began and ended
TIMES = struct.Struct("<dd")
#: a request that has this header gets its visits back in it, as JSON: name, replica, queued, begun, ended (monotonic s), items
TRACE = "x-windtunnel-trace"
