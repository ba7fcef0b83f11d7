"""What a client may send to the embedded host."""

from __future__ import annotations

from tests.hostile.frame import Situation
from tests.hostile.http import GOOD, sends

_HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_JSON = _HEAD + b"Content-Type: application/json\r\n"
#: what is sent, and the statuses of what comes back
REQUESTS: dict[str, tuple[bytes, str]] = {
    "no Host in HTTP/1.1": (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "400"),
    "two Hosts": (_HEAD + b"Host: i\r\nContent-Length: 0\r\n\r\n", "400"),
    "a Host that is none": (b"POST / HTTP/1.1\r\nHost: a/b c\r\nContent-Length: 0\r\n\r\n", "400"),
    "two different lengths": (_HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"),
    "a length and chunks": (_HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    "a negative length": (_HEAD + b"Content-Length: -1\r\n\r\n", "400"),
    "a length of twenty digits": (_HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", "(400|413)"),
    "a length above the limit": (_HEAD + b"Content-Length: 999999\r\n\r\n", "413"),
    "more chunks than the limit": (_CHUNKED + b"4000\r\n" + b"x" * 0x4000 + b"\r\n" + (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 4, "413"),
    "a chunk without a size": (_CHUNKED + b"\r\nabc\r\n", "400"),
    "a chunk of a size beyond any memory": (_CHUNKED + b"fffffffffffffffff\r\n", "400"),
    "an unknown transfer coding": (_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"),
    "an unknown expectation": (_HEAD + b"Expect: wonders\r\nContent-Length: 3\r\n\r\nabc", "417"),
    "HTTP/2.0": (b"POST / HTTP/2.0\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "505"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "(400|505)"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, "400"),
    "nothing": (b"", "closed"),
    "zeros": (b"\x00" * 5000, "400"),
    "a line without an end": (b"POST /" + b"a" * 200_000, "(400|431)"),
    "a field without an end": (_HEAD + b"X: " + b"a" * 200_000, "431"),
    "ten thousand fields": (_HEAD + b"X: y\r\n" * 20_000 + b"\r\n", "431"),
    "a trailer without an end": (_CHUNKED + b"0\r\nX: " + b"a" * 200_000, "431"),
    "a trailer that would be a header": (_CHUNKED + b"3\r\nabc\r\n0\r\nExpect: 100-continue\r\n\r\n", "200"),
    "a folded field": (_HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", "400"),
    "a space before a colon": (_HEAD + b"Content-Length : 3\r\n\r\nabc", "400"),
    "bare line feeds": (b"POST / HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", "(200|400)"),
    "a HEAD with a body that is no JSON": (_JSON.replace(b"POST", b"HEAD") + b"Content-Length: 1\r\n\r\n{", "400"),
    "NaN in JSON": (_JSON + b'Content-Length: 5\r\n\r\n[NaN]', "400"),
    "JSON in UTF-16": (_JSON + b"Content-Length: 6\r\n\r\n\xff\xfe[\x00]\x00", "400"),
    "brackets fifty thousand deep": (_JSON + b"Content-Length: 50000\r\n\r\n" + b"[" * 50_000, "400"),
    "a method that nobody has": (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
    "CONNECT": (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", "(400|404|405)"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "405"),
    "an upgrade": (_HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc", "200"),
    "a path out of the house": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n", "404"),
    "a thousand requests at once": (GOOD * 1000, "200( 200){999}"),
    "two requests, the second damaged": (GOOD + b"\x00\x01", "200"),
}  # fmt: skip
SLOW: dict[str, tuple[bytes, str]] = {
    "a head that never ends": (_HEAD, "408"),
    "a body that never ends": (_HEAD + b"Content-Length: 3\r\n\r\na", "408"),
    "a connection that says nothing": (b"", "closed"),
}

SITUATIONS = [
    Situation(
        area="http", name=name, does="a connection of its own", act=sends(data), exits=(0,), says=f"^{statuses}, then well$"
    )
    for name, (data, statuses) in REQUESTS.items()
] + [
    Situation(
        area="http",
        name=name,
        does="a connection that stays open",
        act=sends(data, end=False),
        exits=(0,),
        says=f"^{statuses}, then well$",
    )
    for name, (data, statuses) in SLOW.items()
]
